package member

import (
	"context"
	"net"
	"reflect"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/cstproxy/cstproxy/ha"
	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/fleet"
	"github.com/cstproxy/cstproxy/ha/pgnode"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/remote"
	"github.com/cstproxy/cstproxy/ha/remote/sshlocal"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// seenOf is a snapshot of a primary, node 1, and two standbys, of which node 3 never answered.
func seenOf(now time.Time) ha.Snapshot {
	node := func(id topology.NodeID, class decide.Class, o pgnode.Observation) ha.NodeStatus {
		n := ha.NodeStatus{Class: class, Since: now.Add(-3 * time.Second), Observation: o, Failure: "a reason"}
		n.NodeView.Node = topology.Node{ID: id, Host: "10.0.0." + string(rune('0'+id)), Port: 5432}
		return n
	}
	return ha.Snapshot{Taken: now, Accepted: 1, Nodes: []ha.NodeStatus{
		node(1, decide.Silent, pgnode.Observation{At: now.Add(-2 * time.Second), Role: topology.RolePrimary, SystemID: 7, Write: 90, Complete: true,
			Settings: pgnode.Settings{SyncNames: "ANY 1 (b, c)", MaxConnections: 100}}),
		node(2, decide.Answers, pgnode.Observation{At: now.Add(-100 * time.Millisecond), Role: topology.RoleStandby, SystemID: 7, Receive: 80, Replay: 70,
			Receiver: "streaming", Receiving: true, Complete: true, Upstream: "10.0.0.1:5432", Settings: pgnode.Settings{SyncNames: "ANY 1 (b, c)"}}),
		node(3, decide.Unprobed, pgnode.Observation{}),
	}}
}

func TestWhatIsSeenBecomesSightsAndFacts(t *testing.T) {
	now := time.Now()
	s := seenOf(now)
	seen := Look(s, Eyes{Traffic: func() bool { return true }})
	want := []fleet.Seen{
		{Node: 1, Sight: decide.Sight{Class: decide.Silent, Since: 3 * time.Second, Traffic: true, Why: "a reason"}, Age: 2 * time.Second,
			Fact: &decide.Fact{Role: topology.RolePrimary, SystemID: 7, Write: 90, Running: true, Complete: true, Settings: decide.Settings{MaxConnections: 100},
				Sync: record.SyncSet{Method: "any", Count: 1, Names: []string{"b", "c"}}}},
		{Node: 2, Sight: decide.Sight{Class: decide.Answers, Since: 3 * time.Second, Why: "a reason"}, Age: 100 * time.Millisecond,
			Fact: &decide.Fact{Role: topology.RoleStandby, SystemID: 7, Receive: 80, Replay: 70, Streaming: true, Upstream: 1, Running: true, Complete: true}},
		{Node: 3, Sight: decide.Sight{Since: 3 * time.Second, Why: "a reason"}},
	}
	if !reflect.DeepEqual(seen, want) {
		t.Errorf("got  %+v\nwant %+v", seen, want)
	}

	o := &s.Nodes[1].Observation
	fact := func() *decide.Fact { return Look(s, Eyes{})[1].Fact }
	o.Marker, o.Receiver = pgnode.Marker{Epoch: 9}, ""
	if f := fact(); f.Recruited != 9 || !f.Streaming {
		t.Errorf("recruited, its receiver not gone yet: %+v", f)
	}
	o.Receiving = false
	if f := fact(); f.Recruited != 9 || f.Streaming {
		t.Errorf("recruited: %+v", f)
	}
	o.Marker.Released, o.Receiver, o.Upstream = true, "streaming", "10.9.9.9:5432"
	if f := fact(); f.Recruited != 0 || f.Marked != 9 || !f.Streaming || f.Upstream != 0 {
		t.Errorf("released, to somebody else: %+v", f)
	}
	s.Nodes[0].DiskFull = true
	if f := Look(s, Eyes{})[0].Fact; !f.DiskFull {
		t.Errorf("%+v", f)
	}
}

// situation is what the scouts are told; the test changes it while they run.
type situation struct {
	mu sync.Mutex
	s  ha.Snapshot
}

func (s *situation) get() ha.Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.s
	out.Taken = time.Now()
	out.Nodes = append([]ha.NodeStatus(nil), out.Nodes...)
	return out
}

func (s *situation) set(change func(*ha.Snapshot)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.s)
}

func TestStandbysHostsAreAskedWhileThePrimaryDoesNotAnswer(t *testing.T) {
	ssh := sshlocal.ForTest(t)
	cfg := remote.DefaultConfig()
	cfg.Host, cfg.Port, cfg.User, cfg.KeyFile, cfg.KnownHostsFile, cfg.Dir = ssh.Host, ssh.Port, ssh.User, ssh.KeyFile, ssh.KnownHosts, t.TempDir()
	way, err := remote.New(cfg, zaptest.NewLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	primary, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	hosts := map[topology.NodeID]*remote.Host{1: way, 2: way, 3: way}
	now := &situation{s: seenOf(time.Now())}
	now.set(func(s *ha.Snapshot) {
		addr := primary.Addr().(*net.TCPAddr)
		s.Nodes[0].Host, s.Nodes[0].Port, s.Nodes[0].Class = "127.0.0.1", addr.Port, decide.Answers
	})
	scouts := NewScouts(now.get, func() map[topology.NodeID]*remote.Host { return hosts }, func() bool { return false })
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = way.Run(ctx) })
	running.Go(func() { _ = scouts.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	eyes := Eyes{Hosts: hosts, Scouts: scouts}

	await(t, "the host to be up", func() bool { return Look(now.get(), eyes)[1].Sight.Host == "up" })
	if f := Look(now.get(), eyes)[1].Fact; f.Primary != decide.Unprobed {
		t.Errorf("asked about a primary that answers: %+v", f)
	}
	now.set(func(s *ha.Snapshot) { s.Nodes[0].Failures = 1 }) // the class says nothing against it yet
	finds := func(want decide.Class) {
		t.Helper()
		await(t, "both standbys' hosts to find "+string(want), func() bool {
			seen := Look(now.get(), eyes)
			return seen[0].Fact.Primary == decide.Unprobed && seen[1].Fact.Primary == want && seen[2].Fact != nil && seen[2].Fact.Primary == want
		})
	}
	finds(decide.Answers)
	if never := Look(now.get(), eyes)[2]; never.Age != unknownAge || never.PrimaryAge > ample {
		t.Errorf("%+v", never)
	}
	if err := primary.Close(); err != nil {
		t.Fatal(err)
	}
	finds(decide.Refused)
	now.set(func(s *ha.Snapshot) { s.Accepted = 2 })
	if f := Look(now.get(), eyes)[2].Fact; f != nil {
		t.Errorf("what was found about a former primary is reported of the present one: %+v", f)
	}
}

func await(t *testing.T, what string, so func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(ample); !so(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
