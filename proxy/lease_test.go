package proxy

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/cstproxy/cstproxy/ha/topology"
)

func leasedWorld(t testing.TB) *world {
	w := newWorld(t, nil)
	w.leased = true
	w.publish(2, 1, 2, 3)
	return w
}

func TestALogTellsOfWhatIsHeldOncePerEpisode(t *testing.T) {
	w := leasedWorld(t)
	core, logs := observer.New(zapcore.InfoLevel)
	w.p.log = zap.New(core)
	insert := encode(t, `Query "insert into t values (1)"`, false)
	answered := w.login()
	answered.send(insert)
	w.lease.Suspend()
	w.servers[0].link.in = encode(t, `Complete "INSERT 0 1" | Ready I`, true)
	w.settle()
	for range 5 {
		w.login().send(insert)
	}
	w.advance(3 * time.Second)
	w.lease.Renew(w.now.Add(time.Hour).UnixNano())
	w.advance(time.Second)
	all := logs.AllUntimed()
	if len(all) != 2 || all[0].Message != "requests for the primary are held" || all[1].Message != "nothing is held any more" {
		t.Fatalf("the log: %v", all)
	}
	if end := all[1].ContextMap(); end["most_requests"] != int64(5) || end["most_answers"] != int64(1) || end["lasted"] != 3025*time.Millisecond {
		t.Errorf("the episode's end: %v", end)
	}
	if w.p.watching {
		t.Error("the timer runs on with nothing to look at")
	}
}

func TestTheLeaseThatIsLeftIsShown(t *testing.T) {
	w := leasedWorld(t)
	for _, left := range []time.Duration{1500 * time.Millisecond, time.Millisecond, 0, time.Minute} {
		w.lease.Suspend()
		if left > 0 {
			w.lease.Renew(w.now.Add(left).UnixNano())
		}
		if got := w.p.Primaries(); len(got) != 1 || got[0] != (PrimaryUse{Cluster: "main", Leased: true, Remaining: left}) {
			t.Errorf("%s: shown as %v", left, got)
		}
	}
	w.leased = false
	w.publish(3, 1, 2, 3)
	w.login().send(encode(t, `Query "begin"`, false))
	if got := w.p.Primaries(); got[0] != (PrimaryUse{Cluster: "main", OpenWrites: 1}) {
		t.Errorf("without a lease: shown as %v", got)
	}
}

// Without a lease the clock of leases is not read at all; under one it is read once per answer, and for
// questions at most once per batch of events.
func TestTheClockOfLeasesIsReadOncePerAnswer(t *testing.T) {
	for _, test := range []struct {
		name  string
		world *world
		most  int
	}{{"no lease", newWorld(t, nil), 0}, {"a lease", leasedWorld(t), 1}} {
		w := test.world
		c := w.login()
		turn := func() {
			c.send(encode(t, `Query "insert into t values (1)"`, false))
			srv := w.servers[len(w.servers)-1]
			srv.link.in = encode(t, `Complete "INSERT 0 1" | Ready I`, true)
			w.settle()
		}
		turn()
		w.clockReads = 0
		turn()
		if w.clockReads > test.most {
			t.Errorf("%s: %d reads of the clock", test.name, w.clockReads)
		}
	}
}

// approach publishes the present View again, frozen, with an heir.
func (w *world) approach(heir topology.NodeID) {
	v := *w.board.View()
	v.Frozen, v.Heir = "a switchover is under way", heir
	w.board.Publish(&v)
	w.c.viewChanged(&v)
	w.settle()
}

// to are the connections to a node that are open.
func (w *world) to(node topology.NodeID) (open []*fakeServer) {
	for _, srv := range w.servers {
		if srv.node == node && !srv.link.dead && srv.link.gone == nil {
			open = append(open, srv)
		}
	}
	return open
}

func TestConnectionsToAnHeirAreMadeWhileWritesWait(t *testing.T) {
	w := leasedWorld(t)
	insert := encode(t, `Query "insert into t values (1)"`, false)
	early, late := w.login(), w.login()
	w.freeze("a switchover is under way")
	early.send(insert)
	w.approach(2)
	if got := len(w.to(2)); got != 1 {
		t.Fatalf("one request waits, and there are %d connections to the heir", got)
	}
	late.send(insert)
	w.advance(watchStep)
	made := w.to(2)
	if len(made) != 2 {
		t.Fatalf("two requests wait, and there are %d connections to the heir", len(made))
	}
	for _, srv := range made {
		if len(srv.link.out) > 0 {
			t.Fatalf("sent to the heir before it is the primary: %q", srv.link.out)
		}
	}
	w.publish(3, 2, 1, 3)
	w.settle()
	for _, srv := range made {
		if !bytes.Equal(srv.link.out, insert) {
			t.Errorf("sent to the new primary: %q", srv.link.out)
		}
	}
	if got := len(w.to(2)); got != 2 {
		t.Errorf("%d connections to the new primary", got)
	}
}

func TestConnectionsToAnHeirStayWithinTheNodesBound(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.MaxServerConnections = 2 })
	w.leased = true
	w.publish(2, 1, 2, 3)
	w.freeze("a switchover is under way")
	for range 5 {
		w.login().send(encode(t, `Query "insert into t values (1)"`, false))
	}
	w.approach(2)
	w.advance(4 * watchStep)
	dialled := 0
	for _, srv := range w.servers {
		if srv.node == 2 {
			dialled++
		}
	}
	if dialled != 2 || len(w.to(2)) != 2 {
		t.Errorf("%d logins, and %d connections of 2", dialled, len(w.to(2)))
	}
}

// An heir that answers as a primary before this member has read that it is one is no stranger yet. When
// nothing comes of it, it is.
func TestConnectionsToAnHeirOutliveItsPromotionAlone(t *testing.T) {
	w := leasedWorld(t)
	c := w.login()
	w.freeze("a switchover is under way")
	c.send(encode(t, `Query "insert into t values (1)"`, false))
	w.approach(2)
	foreign := func(heir topology.NodeID) {
		v := *w.board.View()
		v.Nodes = slices.Clone(v.Nodes)
		v.Nodes[1].Role, v.Nodes[1].Health = topology.RoleUnknown, topology.Foreign
		v.Heir = heir
		w.board.Publish(&v)
		w.c.viewChanged(&v)
		w.settle()
	}
	if foreign(2); len(w.to(2)) != 1 {
		t.Error("the connection to the heir did not survive its promotion")
	}
	if foreign(0); len(w.to(2)) != 0 {
		t.Error("the connection to a node that promoted itself is still there")
	}
}
