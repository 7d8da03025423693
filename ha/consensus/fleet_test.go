package consensus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/cstproxy/cstproxy/ha/peer"
	"github.com/cstproxy/cstproxy/ha/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

// fleet is members in this process, talking TLS over loopback through relays that can be cut.
type fleet struct {
	t       testing.TB
	key     *peer.Key
	dir     string
	members []*node
	voters  []peer.Member
	cuts    cuts
}

// node is one member; log and link are nil while it is down.
type node struct {
	fleet *fleet
	name  string
	at    int
	cfg   Config
	front net.Listener // where the others dial
	log   *Log
	link  *peer.Link
	stop  func() error
}

func newFleet(t testing.TB, names ...string) *fleet {
	t.Helper()
	key, err := peer.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{t: t, key: key, dir: t.TempDir(), cuts: cuts{pairs: map[[2]int]bool{}}}
	for _, name := range names {
		f.add(name)
	}
	for _, n := range f.members {
		f.voters = append(f.voters, n.member())
	}
	for _, n := range f.members {
		n.cfg.Voters = f.voters
	}
	return f
}

func (f *fleet) add(name string) *node {
	f.t.Helper()
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	n := &node{fleet: f, name: name, at: len(f.members), front: front}
	n.cfg = DefaultConfig(name)
	n.cfg.Address, n.cfg.Dir = front.Addr().String(), filepath.Join(f.dir, name)
	n.cfg.Heartbeat, n.cfg.Election, n.cfg.LeaderLease = 500*time.Millisecond, 500*time.Millisecond, 400*time.Millisecond
	n.cfg.Voters = f.voters
	f.members = append(f.members, n)
	f.t.Cleanup(func() { n.down(); front.Close() })
	return n
}

func (n *node) member() peer.Member { return peer.Member{Name: n.name, Address: n.cfg.Address} }

// source is the address from which a member dials, so that relays know it.
func source(at int) net.IP { return net.IPv4(127, 0, 1, byte(at+1)) }

func (n *node) start() {
	t := n.fleet.t
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := peer.DefaultConfig(n.name)
	cfg.Handshake, cfg.MaxHandshakesPerHost = time.Second, 100
	cfg.Dialer.LocalAddr = &net.TCPAddr{IP: source(n.at)}
	log := zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel)).Named(n.name)
	if n.link, err = peer.New(cfg, n.fleet.key, listener, log); err != nil {
		t.Fatal(err)
	}
	if n.log, err = New(n.cfg, n.link, log); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	errs := make([]error, 2)
	wg.Add(3)
	linking, unlink := context.WithCancel(context.Background())
	go func() { defer wg.Done(); errs[0] = n.log.Run(ctx); unlink() }()
	go func() { defer wg.Done(); errs[1] = n.link.Run(linking) }()
	go func() { defer wg.Done(); n.relay(linking, listener.Addr().String()) }()
	n.stop = func() error {
		cancel()
		wg.Wait()
		if errs[0] != nil {
			return errs[0]
		}
		return errs[1]
	}
}

// down ends a member, as a restart would.
func (n *node) down() {
	if n.stop == nil {
		return
	}
	if err := n.stop(); err != nil {
		n.fleet.t.Errorf("%s: %v", n.name, err)
	}
	n.stop, n.log, n.link = nil, nil, nil
}

func (f *fleet) start() {
	for _, n := range f.members {
		n.start()
	}
}

// leader waits until all of the given members agree on a leader among them that can commit.
func (f *fleet) leader(among ...*node) *node {
	f.t.Helper()
	var found *node
	f.await(func() error {
		var name string
		for i, n := range among {
			l := n.log.Leader().Name
			if l == "" || i > 0 && l != name {
				return fmt.Errorf("%s follows %q, others %q; %s", n.name, l, name, n.log.Waiting())
			}
			name = l
		}
		for _, n := range among {
			if n.name == name {
				found = n
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				defer cancel()
				return n.log.Barrier(ctx)
			}
		}
		return fmt.Errorf("the leader %s is not among them", name)
	})
	return found
}

// do has the leader do something, again when the leadership was lost meanwhile, as a busy machine
// may have it, and returns who did it.
func (f *fleet) do(what func(*Log) error, among ...*node) *node {
	f.t.Helper()
	for range 20 {
		leader := f.leader(among...)
		err := what(leader.log)
		if err == nil {
			return leader
		}
		if !errors.Is(err, ErrNotLeader) && !errors.Is(err, ErrUnknownOutcome) && !errors.Is(err, errNoQuorum) {
			f.t.Fatal(err)
		}
	}
	f.t.Fatal("no leader lasts")
	return nil
}

// propose has an entry committed by whoever leads; one that was committed before is stale.
func (f *fleet) propose(e record.Entry, among ...*node) *node {
	f.t.Helper()
	return f.do(func(l *Log) error {
		err := l.Propose(within(f.t), e)
		if errors.Is(err, record.ErrStale) && e.Found != nil {
			return nil
		}
		return err
	}, among...)
}

func (f *fleet) await(ok func() error) {
	f.t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if err = ok(); err == nil {
			return
		}
	}
	f.t.Fatalf("it did not come: %v", err)
}

func (f *fleet) others(but *node) []*node {
	var list []*node
	for _, n := range f.members {
		if n != but && n.log != nil {
			list = append(list, n)
		}
	}
	return list
}

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func founding(name string) record.Entry { return record.Entry{Found: &record.Found{Fleet: name}} }

// froze is an entry that can be repeated; why tells one from the other.
func froze(why string) record.Entry {
	return record.Entry{Cluster: "c", Froze: &record.Frozen{Froze: &record.Froze{By: "test", Why: why}}}
}

// frozen is the last froze that a member has applied.
func frozenBy(l *Log) string {
	state, _ := l.State()
	if c := state.Clusters["c"]; c != nil && c.Froze != nil {
		return c.Froze.Why
	}
	return ""
}

func (f *fleet) holds(why string, among ...*node) {
	f.t.Helper()
	f.await(func() error {
		for _, n := range among {
			if got := frozenBy(n.log); got != why {
				return fmt.Errorf("%s has %q, want %q", n.name, got, why)
			}
		}
		return nil
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
