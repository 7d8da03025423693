package fleet

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/cstproxy/cstproxy/ha"
	"github.com/cstproxy/cstproxy/ha/consensus"
	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/lease"
	"github.com/cstproxy/cstproxy/ha/operation"
	"github.com/cstproxy/cstproxy/ha/peer"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must come.
const patience = 60 * time.Second

var terms = lease.Terms{Length: 1500 * time.Millisecond, Drift: 0.01}

// world is members in this process, which talk TLS over loopback and keep a real log, and three
// servers that exist here only.
type world struct {
	t       *testing.T
	members []*member
	cuts    cuts
	key     *peer.Key
	voters  []peer.Member
	dir     string // a folder for each member's log

	mu       sync.Mutex
	servers  map[topology.NodeID]*server
	promoted []string // what was wrong when somebody was promoted
	proofs   bool     // members can collect proofs
	stamps   []Stamp  // what the hosts remember
	// recruits, unless nil, holds every recruiting until it is closed, or its leader is none any more.
	recruits chan struct{}
}

// server is what a server would say of itself.
type server struct {
	class decide.Class
	since time.Time
	fact  decide.Fact
}

type member struct {
	world  *world
	name   string
	at     int
	front  net.Listener
	fleet  *Fleet
	log    *consensus.Log
	cancel context.CancelFunc
	ended  chan error

	mu     sync.Mutex
	ruling ha.Ruling
	frozen []string          // each reason for which writes were held
	values map[string]string // of policies, as they were put in force last
}

func newWorld(t *testing.T, names ...string) *world {
	t.Helper()
	return newWorldAfter(t, nil, names...)
}

// newWorldAfter is a world whose hosts remember another fleet.
func newWorldAfter(t *testing.T, stamps []Stamp, names ...string) *world {
	t.Helper()
	w := &world{t: t, stamps: stamps, cuts: cuts{away: map[int]bool{}}, servers: map[topology.NodeID]*server{}}
	for id := topology.NodeID(1); id <= 3; id++ {
		f := decide.Fact{Role: topology.RoleStandby, SystemID: 7, History: topology.History{Timeline: 1}, Receive: 0x5000000, Replay: 0x5000000,
			Streaming: true, Upstream: 1, Running: true, Complete: true}
		if id == 1 {
			f = decide.Fact{Role: topology.RolePrimary, SystemID: 7, History: topology.History{Timeline: 1}, Write: 0x5000000, Running: true, Complete: true}
		}
		w.servers[id] = &server{class: decide.Answers, since: time.Now(), fact: f}
	}
	key, err := peer.NewKey()
	must(t, err)
	w.key, w.dir = key, t.TempDir()
	for i, name := range names {
		front, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		w.members = append(w.members, &member{world: w, name: name, at: i, front: front})
		w.voters = append(w.voters, peer.Member{Name: name, Address: front.Addr().String()})
	}
	for _, n := range w.members {
		n.start()
	}
	return w
}

func (n *member) start() {
	t, key, voters, dir := n.world.t, n.world.key, n.world.voters, filepath.Join(n.world.dir, n.name)
	t.Helper()
	log := zaptest.NewLogger(t, zaptest.Level(zap.InfoLevel)).Named(n.name)
	cfg := consensus.DefaultConfig(n.name)
	var link *peer.Link
	behind := ""
	if len(voters) > 1 {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		behind = listener.Addr().String()
		conf := peer.DefaultConfig(n.name)
		conf.Handshake, conf.MaxHandshakesPerHost = time.Second, 100
		conf.Dialer.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(n.at+1))}
		link, err = peer.New(conf, key, listener, log)
		must(t, err)
		cfg.Address, cfg.Dir, cfg.Voters = n.front.Addr().String(), dir, voters
	}
	var err error
	n.log, err = consensus.New(cfg, link, log.WithOptions(zap.IncreaseLevel(zap.WarnLevel)))
	must(t, err)
	n.fleet, err = New(n.config(), Parts{Log: n.log, Link: link}, log)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel, n.ended = cancel, make(chan error, 1)
	var wg sync.WaitGroup
	wg.Add(1)
	go func() { defer wg.Done(); n.relay(ctx, behind) }()
	go func() { n.ended <- n.fleet.Run(ctx); wg.Wait(); close(n.ended) }()
	t.Cleanup(n.stop)
}

// stop ends a member and waits until nothing of it is left.
func (n *member) stop() {
	n.cancel()
	n.front.Close()
	for err := range n.ended {
		if err != nil {
			n.world.t.Errorf("%s: %v", n.name, err)
		}
	}
}

func (n *member) config() Config {
	c := Cluster{Name: "c", Policy: decide.Policy{OnCrash: "failover", RestartBudget: time.Second, Gray: 5 * time.Second, MaxLag: 1 << 20, MaxRepairs: 3},
		Servers: Servers{Look: n.world.look, Rule: n.rule, Prove: n.world.prove, Do: n.world.do, Stamps: n.world.remembered, Reign: n.reigns, Amend: n.amend, Check: n.check}}
	for id := topology.NodeID(1); id <= 3; id++ {
		c.Nodes = append(c.Nodes, decide.Node{Node: topology.Node{ID: id, Host: "127.0.0.1", Port: 5430 + int(id)}, Managed: true})
	}
	return Config{Name: n.name, Witness: n.name == "witness", Terms: terms, Evidence: 50, Clusters: []Cluster{c}}
}

// reigns keeps nothing in order, and could not do so in a fleet without a name: hosts would not know it.
func (n *member) reigns(ctx context.Context, term uint64) {
	if state, _ := n.log.State(); state.Fleet == "" {
		n.world.t.Errorf("%s reigns in term %d, and the fleet has no name", n.name, term)
	}
	<-ctx.Done()
}

func (n *member) rule(r ha.Ruling) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ruling = r
	if r.Frozen != "" {
		n.frozen = append(n.frozen, r.Frozen)
	}
}

func (n *member) ruled() ha.Ruling {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ruling
}

// look is what every member sees.
func (w *world) look() []Seen {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []Seen
	for id, s := range w.servers {
		seen := Seen{Node: id, Sight: decide.Sight{Class: s.class, Since: time.Since(s.since)}}
		if s.class == decide.Answers {
			f := s.fact
			seen.Fact = &f
		}
		all = append(all, seen)
	}
	return all
}

func (w *world) becomes(id topology.NodeID, class decide.Class) {
	w.mu.Lock()
	w.servers[id].class, w.servers[id].since = class, time.Now()
	w.mu.Unlock()
	for _, n := range w.members {
		n.fleet.Observed("c")
	}
}

// prove lets the primary commit a heartbeat, which whoever streams from it flushes.
func (w *world) prove(_ context.Context, e record.Epoch, p lease.Proof) lease.Proof {
	w.mu.Lock()
	defer w.mu.Unlock()
	primary := w.servers[e.Primary]
	if !w.proofs || primary.class != decide.Answers || primary.fact.Role != topology.RolePrimary {
		return p
	}
	primary.fact.Write += 8
	p.Heartbeat = primary.fact.Write
	for id, s := range w.servers {
		if s.fact.Streaming && s.fact.Upstream == e.Primary {
			s.fact.Receive, s.fact.Replay, p.Flushed[id] = p.Heartbeat, p.Heartbeat, p.Heartbeat
		}
	}
	return p
}

// do carries out an action, and checks before a promotion that nobody can write to the old primary.
func (w *world) do(ctx context.Context, fleet string, a decide.Action) (decide.Result, operation.Report) {
	w.mu.Lock()
	held := w.recruits
	w.mu.Unlock()
	if held != nil && a.Verb == decide.Recruit {
		select {
		case <-held:
		case <-ctx.Done():
			return decide.Result{Action: a, Err: ctx.Err().Error()}, operation.Report{}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	s, r := w.servers[a.Node], decide.Result{Action: a}
	if fleet == "" {
		w.promoted = append(w.promoted, "an action came before the fleet had a name")
	}
	if s.class != decide.Answers {
		r.Err = "the host does not answer"
		return r, operation.Report{}
	}
	f := &s.fact
	switch a.Verb {
	case decide.Recruit:
		f.Streaming, f.Upstream, f.Recruited = false, 0, a.Epoch
	case decide.Release:
		f.Streaming, f.Upstream, f.Recruited = true, a.Upstream, 0
	case decide.PromoteIt:
		for _, n := range w.members {
			if l := n.ruled(); l.Lease != nil && l.Epoch.Number < a.Epoch && l.Lease.Held(int64(Now())) {
				w.promoted = append(w.promoted, fmt.Sprintf("%s held a lease of epoch %d", n.name, l.Epoch.Number))
			}
		}
		f.Role, f.Recruited, f.Upstream, f.Write = topology.RolePrimary, 0, 0, f.Receive+100
		f.History = topology.History{Timeline: a.Timeline, Forks: []topology.Fork{{Timeline: f.History.Timeline, End: f.Receive}}}
	case decide.Follow:
		*f = decide.Fact{Role: topology.RoleStandby, SystemID: 7, History: w.servers[a.Upstream].fact.History, Receive: w.servers[a.Upstream].fact.Write,
			Replay: w.servers[a.Upstream].fact.Write, Streaming: true, Upstream: a.Upstream, Running: true, Complete: true}
	}
	seen := operation.Report{Fact: *f}
	seen.Fact.At = Now()
	return r, seen
}

func (w *world) await(ok func() error) {
	w.t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if err = ok(); err == nil {
			return
		}
	}
	w.t.Fatalf("it did not come: %v", err)
}

// rules waits until each of the members routes writes of an epoch from number on, with a lease.
func (w *world) rules(number topology.Epoch, among ...*member) {
	w.t.Helper()
	w.await(func() error {
		for _, n := range among {
			r := n.ruled()
			if r.Epoch.Number < number || r.Frozen != "" || r.Lease == nil || !r.Lease.Held(int64(Now())) {
				return fmt.Errorf("%s is at epoch %d, frozen %q", n.name, r.Epoch.Number, r.Frozen)
			}
		}
		return nil
	})
}

// leader waits until the members agree on one among them, and that one rules.
func (w *world) leader(among ...*member) *member {
	w.t.Helper()
	var found *member
	w.await(func() error {
		for _, n := range among {
			if n.leads() && n.log.Leader().Name == n.name {
				found = n
				return nil
			}
		}
		return fmt.Errorf("nobody among %d leads", len(among))
	})
	return found
}

func (w *world) others(but *member) []*member {
	var list []*member
	for _, n := range w.members {
		if n != but {
			list = append(list, n)
		}
	}
	return list
}

// sound fails the test when somebody was promoted while writes could go elsewhere.
func (w *world) sound() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, wrong := range w.promoted {
		w.t.Error(wrong)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// leads says whether the member has decided something as leader.
func (n *member) leads() bool {
	n.fleet.mu.Lock()
	defer n.fleet.mu.Unlock()
	return n.fleet.reign != nil && len(n.fleet.reign.seats["c"].decisions) > 0
}

func (w *world) remembered(context.Context) ([]Stamp, []string) { return w.stamps, nil }

func testLog(t *testing.T) *zap.Logger { return zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel)) }
