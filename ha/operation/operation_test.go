package operation

import (
	"context"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/pglocal"
	"github.com/cstproxy/cstproxy/ha/pgnode"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/remote"
	"github.com/cstproxy/cstproxy/ha/remote/sshlocal"
	"github.com/cstproxy/cstproxy/ha/topology"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patienceOfTests is how long a test waits for what must come; nothing passes by its passing.
const patienceOfTests = 2 * time.Minute

// stage is a cluster of real servers on a host with a real sshd, and an executor.
type stage struct {
	t    *testing.T
	pg   *pglocal.Cluster
	ssh  *sshlocal.Server
	host *remote.Host
	*Executor

	mu    sync.Mutex
	lines []string
}

// rewindable are settings under which pg_rewind works.
func rewindable() map[string]string {
	return map[string]string{"wal_log_hints": "on", "full_page_writes": "on", "wal_receiver_timeout": "2s", "wal_sender_timeout": "2s"}
}

func newStage(t *testing.T, o pglocal.Options) *stage {
	t.Helper()
	if o.Settings == nil {
		o.Settings = rewindable()
	}
	s := &stage{t: t, pg: pglocal.ForTest(t, o), ssh: sshlocal.ForTest(t)}
	c := remote.DefaultConfig()
	c.Host, c.Port, c.User, c.KeyFile, c.KnownHostsFile = s.ssh.Host, s.ssh.Port, s.ssh.User, s.ssh.KeyFile, s.ssh.KnownHosts
	c.Dir = filepath.Join(t.TempDir(), "ratchets")
	host, err := remote.New(c, zaptest.NewLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	s.host = host
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := host.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	if err := host.Install(s.within()); err != nil {
		t.Fatalf("%v\n%s", err, s.ssh.Log())
	}
	s.Executor = s.executor(func(*Node) {})
	return s
}

// executor is one for the stage's nodes, each changed by adapt.
func (s *stage) executor(adapt func(*Node)) *Executor {
	s.t.Helper()
	var nodes []Node
	for _, n := range s.pg.Nodes() {
		nodes = append(nodes, s.node(n.ID, n.Port, n.Dir))
	}
	for i := range nodes {
		adapt(&nodes[i])
	}
	return s.executorOf(nodes)
}

func (s *stage) node(id, port int, dir string) Node {
	s.t.Helper()
	q, err := pgnode.New(pgnode.Config{Host: "127.0.0.1", Port: port, User: "postgres", Password: pglocal.DefaultPassword,
		Database: "postgres", SSLMode: "disable", Timeout: 20 * time.Second})
	if err != nil {
		s.t.Fatal(err)
	}
	owner := "postgres"
	if os.Geteuid() != 0 {
		u, err := user.Current()
		if err != nil {
			s.t.Fatal(err)
		}
		owner = u.Username
	}
	return Node{
		Node: topology.Node{ID: topology.NodeID(id), Host: "127.0.0.1", Port: port, OSUser: owner, PGData: dir, AppName: "node" + string(rune('0'+id))},
		SQL:  q, Host: s.host, Login: s.ssh.User,
	}
}

func (s *stage) executorOf(nodes []Node) *Executor {
	s.t.Helper()
	login := pgnode.Conninfo{{Key: "user", Value: "postgres"}, {Key: "password", Value: pglocal.DefaultPassword}, {Key: "sslmode", Value: "disable"}}
	began := time.Now()
	e, err := New(Config{
		Fleet: "f", Cluster: "c", Nodes: nodes, Replication: login, Superuser: login,
		Now: func() time.Duration { return time.Since(began) },
		Progress: func(_ decide.Action, line string) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.lines = append(s.lines, line)
		},
	}, zaptest.NewLogger(s.t))
	if err != nil {
		s.t.Fatal(err)
	}
	return e
}

func (s *stage) within() context.Context {
	ctx, cancel := context.WithTimeout(s.t.Context(), patienceOfTests)
	s.t.Cleanup(cancel)
	return ctx
}

// said is what the scripts wrote so far.
func (s *stage) said() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.lines, "\n")
}

func action(v decide.Verb, n *pglocal.Node, epoch topology.Epoch, step record.Step) decide.Action {
	return decide.Action{Verb: v, Node: topology.NodeID(n.ID), Epoch: epoch, Step: step, Operation: record.OperationID(epoch), Timeout: patienceOfTests}
}

func from(a decide.Action, up *pglocal.Node) decide.Action {
	a.Upstream = topology.NodeID(up.ID)
	return a
}

func mode(a decide.Action, m string) decide.Action { a.Mode = m; return a }

// must does the actions one after the other, each of them twice: every verb may be repeated.
func (s *stage) must(actions ...decide.Action) (r Report) {
	s.t.Helper()
	for _, a := range actions {
		for range 2 {
			var result decide.Result
			if result, r = s.Do(s.t.Context(), a); result.Err != "" {
				s.t.Fatalf("%s of node %d: %s\n%s", a.Verb, a.Node, result.Err, s.said())
			}
		}
	}
	return r
}

// fails does an action that must fail with a text.
func (s *stage) fails(a decide.Action, why string) decide.Result {
	s.t.Helper()
	result, _ := s.Do(s.t.Context(), a)
	if !strings.Contains(result.Err, why) || result.Err == "" {
		s.t.Fatalf("%s of node %d: %q, want %q\n%s", a.Verb, a.Node, result.Err, why, s.said())
	}
	return result
}

func (s *stage) sql(n *pglocal.Node, sql string) string {
	s.t.Helper()
	got, err := n.Psql(s.t.Context(), sql)
	if err != nil {
		s.t.Fatal(err)
	}
	return got
}

// reads waits until a query on n answers want.
func (s *stage) reads(n *pglocal.Node, sql, want string) {
	s.t.Helper()
	ctx := s.within()
	for {
		got, err := n.Psql(ctx, sql)
		if err == nil && got == want {
			return
		}
		if ctx.Err() != nil {
			s.t.Fatalf("%s: %q, %v, want %q", sql, got, err, want)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func exists(t *testing.T, pattern string) bool {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return len(found) > 0
}
