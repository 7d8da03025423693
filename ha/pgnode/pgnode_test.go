package pgnode

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/cstproxy/cstproxy/ha/pglocal"
	"github.com/cstproxy/cstproxy/ha/topology"
)

func server(t *testing.T, n *pglocal.Node, user string) *Server {
	t.Helper()
	s, err := New(Config{Host: n.Host, Port: n.Port, User: user, Password: pglocal.DefaultPassword, Database: "postgres", SSLMode: "disable", Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func connect(t *testing.T, s *Server) *Conn {
	t.Helper()
	c, err := s.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

func observe(t *testing.T, c *Conn) Observation {
	t.Helper()
	o, err := c.Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func psql(t *testing.T, n *pglocal.Node, sql string) {
	t.Helper()
	if _, err := n.Psql(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func TestServersSayWhatTheyAre(t *testing.T) {
	pg := pglocal.ForTest(t, pglocal.Options{Standbys: 1})
	a, b := pg.Nodes()[0], pg.Nodes()[1]
	ca, cb := connect(t, server(t, a, "postgres")), connect(t, server(t, b, "postgres"))
	psql(t, a, "CREATE TABLE t AS SELECT 1 AS x")
	// The standby has the first segment on its own disk, from its making; what counts here is
	// what it receives.
	psql(t, a, "SELECT pg_switch_wal()")
	psql(t, a, "CREATE TABLE u AS SELECT 1 AS x")
	if err := pg.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	oa, ob := observe(t, ca), observe(t, cb)
	if oa.Role != topology.RolePrimary || oa.Timeline != 1 || !oa.History.Known() || oa.Insert == 0 || oa.Flush == 0 || oa.Write == 0 || oa.Replay != 0 ||
		oa.Version < 150000 || oa.Settings.WALWriterDelay != 200*time.Millisecond || oa.Settings.MaxConnections != 100 || oa.Settings.MaxLocks != 64 {
		t.Errorf("primary: %+v", oa)
	}
	if ob.Role != topology.RoleStandby || ob.Timeline != 1 || ob.SystemID != oa.SystemID || ob.SystemID == 0 || ob.Receiver != "streaming" || ob.Replay == 0 || ob.Receive == 0 || ob.Insert != 0 {
		t.Errorf("standby: %+v", ob)
	}
	p, err := ca.Position(t.Context())
	if err != nil || p.Insert < oa.Insert || p.Flush < oa.Flush || p.Timeline != 1 {
		t.Errorf("position: %+v, %v", p, err)
	}
	if _, err := cb.Position(t.Context()); err == nil {
		t.Error("a standby gave a primary's position")
	}
	r, err := cb.Replayed(t.Context())
	if err != nil || !r.Standby || r.Replay < ob.Replay || r.Received != 1 {
		t.Errorf("replayed: %+v, %v", r, err)
	}
	senders, err := ca.Replication(t.Context())
	if err != nil || len(senders) != 1 || senders[0].AppName != b.Name || senders[0].State != "streaming" || senders[0].ClientAddr != "127.0.0.1" || senders[0].SentDelay != 0 {
		t.Errorf("senders: %+v, %v", senders, err)
	}

	a.Kill()
	if err := b.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Before the first checkpoint the control file still shows the old timeline.
	ob = observe(t, cb)
	left, ok := ob.History.LeftAt(1)
	if ob.Role != topology.RolePrimary || ob.Timeline != 2 || !ob.History.Known() || !ok || left == 0 {
		t.Errorf("after the promotion: %+v", ob)
	}
}

func TestAMemberOfPgMonitorIsEnoughExceptForHistories(t *testing.T) {
	pg := pglocal.ForTest(t, pglocal.Options{Standbys: 1})
	a, b := pg.Nodes()[0], pg.Nodes()[1]
	psql(t, a, "CREATE ROLE watcher LOGIN PASSWORD 'pglocal'; GRANT pg_monitor TO watcher")
	if err := pg.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	cb := connect(t, server(t, b, "watcher"))
	if o := observe(t, cb); o.Receiver != "streaming" || o.Timeline != 1 || o.SystemID == 0 {
		t.Errorf("standby: %+v", o)
	}
	if senders, err := connect(t, server(t, a, "watcher")).Replication(t.Context()); err != nil || len(senders) != 1 || senders[0].State != "streaming" {
		t.Errorf("senders: %+v, %v", senders, err)
	}
	if err := b.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if o := observe(t, cb); o.Timeline != 2 || o.History.Known() || cb.Broken() {
			t.Errorf("after the promotion: %+v", o)
		}
	}
}

func TestADyingServerIsNoticedAtOnce(t *testing.T) {
	pg := pglocal.ForTest(t, pglocal.Options{})
	a := pg.Nodes()[0]
	s := server(t, a, "postgres")
	c := connect(t, s)
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := c.Await(short); err != nil || c.Broken() {
		t.Fatalf("waiting in peace ended with %v", err)
	}
	observe(t, c)
	ended := make(chan error, 1)
	go func() { ended <- c.Await(t.Context()) }()
	a.Kill()
	if err := <-ended; CauseOf(err) != Reset || !c.Broken() {
		t.Errorf("the kept connection ended with %v (%s)", err, CauseOf(err))
	}
	if err := s.Knock(t.Context()); CauseOf(err) != Refused {
		t.Errorf("knocking ended with %v (%s)", err, CauseOf(err))
	}
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Knock(t.Context()); err != nil {
		t.Error(err)
	}
	if err := server(t, a, "nobody").Knock(t.Context()); CauseOf(err) != Denied {
		t.Errorf("a stranger's knocking ended with %v (%s)", err, CauseOf(err))
	}
	c = connect(t, s)
	go func() { ended <- c.Await(t.Context()) }()
	psql(t, a, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cstproxy'")
	if err := <-ended; CauseOf(err) != Reset {
		t.Errorf("a terminated connection ended with %v (%s)", err, CauseOf(err))
	}
}

func TestEveryCallEndsByItself(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts, nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	s, err := New(Config{Host: "127.0.0.1", Port: ln.Addr().(*net.TCPAddr).Port, User: "u", Database: "d", SSLMode: "disable", Timeout: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	var f *Failure
	if err := s.Knock(t.Context()); !errors.As(err, &f) || f.Cause != Hung {
		t.Errorf("knocking at silence ended with %v (%s)", err, CauseOf(err))
	}
}
