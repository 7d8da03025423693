package ha

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/cstproxy/cstproxy/ha/pglocal"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// patience is how long anything may take before a test gives up.
const patience = time.Minute

// fixture is a real cluster with an agent that watches it.
type fixture struct {
	t     *testing.T
	pg    *pglocal.Cluster
	conf  Config
	board *topology.Board
	agent *Agent
	stop  func()
	beats string // in whose name heartbeats are written
	told  func(Order)
}

// newFixture starts PostgreSQL and writes its nodes into a configuration; run starts the agent.
func newFixture(t *testing.T, o pglocal.Options) *fixture {
	o.Auth = pglocal.Trust
	f := &fixture{t: t, pg: pglocal.ForTest(t, o), conf: DefaultConfig()}
	cluster := DefaultCluster()
	cluster.Name, cluster.SSLMode = "c1", "disable"
	for _, n := range f.pg.Nodes() {
		cluster.Nodes = append(cluster.Nodes, nodeConfig(n))
	}
	f.conf.Clusters = []ClusterConfig{cluster}
	f.conf.ProbeInterval = 100 * time.Millisecond
	f.conf.IdleRoundInterval = 200 * time.Millisecond
	f.conf.StateDir = t.TempDir()
	return f
}

func nodeConfig(n *pglocal.Node) NodeConfig {
	c := DefaultNode()
	c.ID, c.Host, c.Port, c.AppName = n.ID, n.Host, n.Port, n.Name
	return c
}

func (f *fixture) cluster() *ClusterConfig { return &f.conf.Clusters[0] }

// run starts an agent, or a new one in place of the last.
func (f *fixture) run() {
	f.t.Helper()
	if f.stop != nil {
		f.stop()
	}
	f.board = topology.NewBoard("c1")
	agent, err := New(f.conf, map[string]*topology.Board{"c1": f.board}, nil, zaptest.NewLogger(f.t))
	if err != nil {
		f.t.Fatal(err)
	}
	if f.beats != "" {
		f.must(agent.Beat("c1", f.beats))
	}
	agent.Passed(f.told)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- agent.Run(ctx) }()
	f.agent = agent
	stopped := false
	f.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			f.t.Errorf("the agent ended with %v", err)
		}
	}
	f.t.Cleanup(f.stop)
}

// await waits for a View that satisfies ok.
func (f *fixture) await(what string, ok func(*topology.View) bool) *topology.View {
	f.t.Helper()
	views := make(chan *topology.View, 1000)
	defer f.board.Watch(func(v *topology.View) { views <- v })()
	deadline := time.After(patience)
	for v := f.board.View(); ; {
		if ok(v) {
			return v
		}
		select {
		case v = <-views:
		case <-deadline:
			f.t.Fatalf("no View with %s; the last is %s", what, describe(f.board.View()))
		}
	}
}

// poll waits for what is not in a View.
func (f *fixture) poll(what string, ok func() bool) {
	f.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			f.t.Fatalf("%s did not come; the View is %s", what, describe(f.board.View()))
		}
	}
}

func describe(v *topology.View) string {
	var b strings.Builder
	fmt.Fprintf(&b, "epoch %d primary %d %s", v.Epoch, v.Primary, v.WhyNoPrimary)
	for i := range v.Nodes {
		n := &v.Nodes[i]
		fmt.Fprintf(&b, "; node %d %s %s %s", n.ID, n.Role, n.Health, n.Why)
	}
	return b.String()
}

func (f *fixture) settled() *topology.View {
	f.t.Helper()
	return f.await("all nodes healthy", func(v *topology.View) bool {
		for i := range v.Nodes {
			if v.Nodes[i].Health != topology.Healthy {
				return false
			}
		}
		return v.Primary == 1 && len(v.Nodes) > 0
	})
}

func has(id topology.NodeID, h topology.Health) func(*topology.View) bool {
	return func(v *topology.View) bool { n := v.Node(id); return n != nil && n.Health == h }
}

// start starts a server that was killed; on a busy machine its shared memory may outlive it a little.
func (f *fixture) start(n *pglocal.Node) {
	f.t.Helper()
	f.poll(n.Name+" started", func() bool {
		err := n.Start(f.t.Context())
		if err != nil && !strings.Contains(err.Error(), "shared memory") {
			f.t.Fatal(err)
		}
		return err == nil
	})
}

// psql runs SQL on a server and fails the test if that fails.
func (f *fixture) psql(n *pglocal.Node, sql string) string {
	f.t.Helper()
	out, err := n.Psql(f.t.Context(), sql)
	if err != nil {
		f.t.Fatal(err)
	}
	return out
}

func (f *fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func TestNodesThatDieLeaveAndReturnByThemselves(t *testing.T) {
	f := newFixture(t, pglocal.Options{Standbys: 2})
	f.run()
	v := f.settled()
	if v.Epoch != 1 || v.SystemID == 0 || v.Node(1).Role != topology.RolePrimary || v.Node(2).Role != topology.RoleStandby {
		t.Errorf("first View: %s", describe(v))
	}
	nodes := f.pg.Nodes()

	began := time.Now()
	nodes[1].Kill()
	f.await("node 2 down", has(2, topology.Down))
	t.Logf("a killed standby was out after %s", time.Since(began))
	f.start(nodes[1])
	f.settled()

	began = time.Now()
	nodes[0].Kill()
	v = f.await("no primary", func(v *topology.View) bool { return v.Primary == 0 })
	t.Logf("a killed primary was out after %s: %s", time.Since(began), v.WhyNoPrimary)
	if !v.Node(2).TakesReads() || !v.Node(3).TakesReads() {
		t.Errorf("standbys stopped reading with the primary: %s", describe(v))
	}
	f.start(nodes[0])
	if v = f.settled(); v.Epoch != 1 {
		t.Errorf("epoch %d after the same primary came back, want 1", v.Epoch)
	}

	began = time.Now()
	nodes[2].Hang()
	f.await("node 3 down", has(3, topology.Down))
	t.Logf("a hanging standby was out after %s", time.Since(began))
	nodes[2].Wake()
	f.settled()
}

func TestAHandMadePromotionOfADeadPrimarysStandbyBeginsANewEpoch(t *testing.T) {
	f := newFixture(t, pglocal.Options{Standbys: 2})
	f.run()
	f.settled()
	a, b, c := f.pg.Nodes()[0], f.pg.Nodes()[1], f.pg.Nodes()[2]
	old := f.board.View().Rounds.Stamp(1)
	f.must(f.pg.CatchUp(t.Context()))
	a.Kill()
	f.must(b.Promote(t.Context()))
	v := f.await("node 2 as primary", func(v *topology.View) bool { return v.Primary == 2 })
	if v.Epoch != 2 {
		t.Errorf("epoch %d after the promotion, want 2", v.Epoch)
	}
	f.must(c.Set(t.Context(), "primary_conninfo", fmt.Sprintf("host=%s port=%d user=postgres application_name=%s", b.Host, b.Port, c.Name)))
	f.poll("node 3's proof of a write of the epoch before", func() bool {
		v := f.board.View()
		v.Rounds.Want(time.Now())
		return v.Node(3).TakesReads() && v.Rounds.Satisfied(v.Node(3).Slot, old, v.Epoch)
	})

	f.start(a)
	v = f.await("the old primary foreign", has(1, topology.Foreign))
	if v.Primary != 2 || v.Epoch != 2 {
		t.Errorf("the old primary's return changed the primary: %s", describe(v))
	}
	f.poll("an alarm", func() bool { s, _ := f.agent.Snapshot("c1"); return s.Alarm != "" })

	// The same again with an agent that only knows what the file says.
	f.run()
	v = f.await("node 2 as primary after a restart", func(v *topology.View) bool { return v.Primary != 0 })
	if v.Primary != 2 || v.Epoch != 2 {
		t.Errorf("after a restart: %s", describe(v))
	}
}

func TestAHandMadePromotionNeverTakesTheWritesOfALivingPrimary(t *testing.T) {
	f := newFixture(t, pglocal.Options{Standbys: 2})
	f.conf.RivalGrace = 2 * time.Second
	f.run()
	f.settled()
	a, b := f.pg.Nodes()[0], f.pg.Nodes()[1]
	f.must(b.Promote(t.Context()))
	v := f.await("the promoted node foreign", has(2, topology.Foreign))
	if v.Primary != 1 || v.Epoch != 1 {
		t.Fatalf("the promotion changed the primary: %s", describe(v))
	}
	f.poll("the rival to be outlived", func() bool {
		c := f.agent.clusters["c1"]
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.verdict.known.outlived()) == 1
	})
	f.poll("the rival in the state file", func() bool { return f.agent.persist() == nil })

	f.run()
	v = f.await("a primary after a restart", func(v *topology.View) bool { return v.Primary != 0 })
	if v.Primary != 1 {
		t.Fatalf("after a restart the promoted node took the writes: %s", describe(v))
	}

	gone := time.Now()
	a.Kill()
	f.await("no primary", func(v *topology.View) bool { return v.Primary == 0 && strings.Contains(v.WhyNoPrimary, "promoted") })
	v = f.await("the promoted node as primary", func(v *topology.View) bool { return v.Primary == 2 })
	if waited := time.Since(gone); waited < f.conf.RivalGrace || v.Epoch != 2 {
		t.Errorf("the promoted node took over after %s in epoch %d, want at least %s and 2", waited, v.Epoch, f.conf.RivalGrace)
	}
}

func TestAStandbyThatLagsTakesNoReadsUntilItHasCaughtUp(t *testing.T) {
	f := newFixture(t, pglocal.Options{Standbys: 2})
	f.cluster().MaxLagBytes = 1 << 20
	f.run()
	f.settled()
	a, b := f.pg.Nodes()[0], f.pg.Nodes()[1]
	f.psql(b, "SELECT pg_wal_replay_pause()")
	f.psql(a, "CREATE TABLE t AS SELECT repeat('x', 100) FROM generate_series(1, 50000)")
	f.await("node 2 lagging and node 3 not", func(v *topology.View) bool {
		return v.Node(2).Health == topology.Lagging && !v.Node(2).TakesReads() && v.Node(3).TakesReads()
	})
	s, err := f.agent.Snapshot("c1")
	f.must(err)
	if n := s.Node(2); !n.LagKnown || n.LagBytes < 1<<20 {
		t.Errorf("lag of node 2: known %t, %d bytes", n.LagKnown, n.LagBytes)
	}
	f.psql(b, "SELECT pg_wal_replay_resume()")
	f.settled()

	f.cluster().MaxLag = time.Second
	f.cluster().MaxLagBytes = 1 << 40
	f.must(f.agent.Apply(f.conf))
	f.psql(b, "SELECT pg_wal_replay_pause()")
	f.psql(a, "INSERT INTO t VALUES ('y')")
	f.await("node 2 lagging in time", has(2, topology.Lagging))
	f.psql(b, "SELECT pg_wal_replay_resume()")
	f.settled()
}

func TestAServerOfAnotherSystemGetsNoQuery(t *testing.T) {
	f := newFixture(t, pglocal.Options{Standbys: 1})
	stranger, err := f.pg.AddForeign(t.Context())
	f.must(err)
	f.cluster().Nodes = append(f.cluster().Nodes, nodeConfig(stranger))
	f.run()
	v := f.await("two systems without a primary", func(v *topology.View) bool { return v.Primary == 0 && strings.Contains(v.WhyNoPrimary, "claim") })
	if v.Node(1).TakesReads() || v.Node(2).TakesReads() {
		t.Errorf("while nobody knows which system is meant: %s", describe(v))
	}
	f.cluster().Nodes = f.cluster().Nodes[:2]
	f.must(f.agent.Apply(f.conf))
	f.settled()
	f.cluster().Nodes = append(f.cluster().Nodes, nodeConfig(stranger))
	f.must(f.agent.Apply(f.conf))
	v = f.await("the stranger foreign", has(3, topology.Foreign))
	if v.Primary != 1 || v.Epoch != 1 {
		t.Errorf("a stranger changed the primary: %s", describe(v))
	}
}

func TestABusyServerIsNotADeadOne(t *testing.T) {
	f := newFixture(t, pglocal.Options{Standbys: 1})
	f.run()
	f.settled()
	b := f.pg.Nodes()[1]
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 110 {
		go func() {
			for ctx.Err() == nil {
				if _, err := b.Psql(ctx, "SELECT pg_sleep(5)"); err != nil {
					<-time.After(time.Millisecond)
				}
			}
		}()
	}
	f.poll("a refused login", func() bool {
		s, _ := f.agent.Snapshot("c1")
		return strings.Contains(s.Node(2).Failure, "too many clients")
	})
	if v := f.board.View(); !v.Node(2).TakesReads() {
		t.Errorf("a server without free connections left the reads: %s", describe(v))
	}
}

func quietAgent(t *testing.T, conf Config) *Agent {
	t.Helper()
	boards := map[string]*topology.Board{}
	for _, c := range conf.Clusters {
		boards[c.Name] = topology.NewBoard(c.Name)
	}
	a, err := New(conf, boards, nil, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestRunEndsWithAllItsGoroutines(t *testing.T) {
	f := newFixture(t, pglocal.Options{Standbys: 1})
	before := goleak.IgnoreCurrent()
	f.run()
	f.settled()
	f.pg.Nodes()[1].Hang() // one that keeps everybody waiting
	f.board.View().Rounds.Want(time.Now())
	began := time.Now()
	f.stop()
	if ended := time.Since(began); ended > patience/2 {
		t.Errorf("ending took %s", ended)
	}
	f.pg.Nodes()[1].Wake()
	goleak.VerifyNone(t, before)
}
