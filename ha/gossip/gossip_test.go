package gossip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/ha/topology"
)

func TestConfigurationsThatAreRefused(t *testing.T) {
	for name, spoil := range map[string]func(*Config){
		"shall join others without a key":       func(c *Config) { c.Key = nil },
		"can be reached by others without one":  func(c *Config) { c.Key, c.Join, c.Bind = nil, nil, "10.1.2.3:7946" },
		"listens everywhere without one":        func(c *Config) { c.Key, c.Join, c.Bind = nil, nil, "0.0.0.0:7946" },
		"has half a key":                        func(c *Config) { c.Key = c.Key[:16] },
		"has no name":                           func(c *Config) { c.Name = "" },
		"has a name that is too long":           func(c *Config) { c.Name = strings.Repeat("n", 65) },
		"binds a name, which would be all":      func(c *Config) { c.Bind = "localhost:7946" },
		"binds no port":                         func(c *Config) { c.Bind = "127.0.0.1" },
		"binds all and does not say which":      func(c *Config) { c.Bind = "[::]:7946" },
		"joins an address without a port":       func(c *Config) { c.Join = []string{"10.0.0.1"} },
		"joins nothing":                         func(c *Config) { c.Join = []string{""} },
		"probes all the time":                   func(c *Config) { c.ProbeInterval = 0 },
		"has a description that is too long":    func(c *Config) { c.Meta.Peer = strings.Repeat("p", 200) },
		"is of a cluster with a name too long":  func(c *Config) { c.Meta.Epochs = map[string]topology.Epoch{strings.Repeat("c", 65): 1} },
		"has a port that none is in advertise":  func(c *Config) { c.Advertise = "m1:70000" },
		"has a host that is none in advertise":  func(c *Config) { c.Advertise = ":7946" },
		"binds a link-local address, with zone": func(c *Config) { c.Bind = "[fe80::1%eth0]:7946" },
	} {
		c := settings("m1", "127.0.0.1", "127.0.0.2:7946")
		spoil(&c)
		if _, err := New(c, nil, zap.NewNop()); err == nil {
			t.Errorf("a member runs that %s", name)
		} else if strings.Contains(err.Error(), "kkkk") {
			t.Errorf("the key is in the error: %v", err)
		}
	}
	c := settings("m1", "127.0.0.1")
	c.Key = nil
	if _, err := New(c, nil, zap.NewNop()); err != nil {
		t.Errorf("a member that nobody can reach needs no key: %v", err)
	}
	if _, err := New(c, []byte("garbage"), zap.NewNop()); err == nil {
		t.Error("a ledger that cannot be read was taken")
	}
}

func TestMembersFindEachOtherThroughOne(t *testing.T) {
	members := fleet(t, 4)
	for i, m := range members {
		for _, other := range m.Members() {
			if other.Meta.Role != Voter || other.Meta.Version != "1.0" || !strings.HasSuffix(other.Meta.Peer, ":7947") {
				t.Errorf("m%d: %+v", i+1, other)
			}
		}
		m.await("an event for each", func() bool { return m.happened(func(e Event) bool { return e.Kind == Joined }) >= 3 })
	}
	epochs := map[string]topology.Epoch{"main": 7}
	if err := members[2].Describe(Meta{Peer: "p:1", Role: Witness, Epochs: epochs}); err != nil {
		t.Fatal(err)
	}
	for _, m := range members {
		m.await("the new description", func() bool {
			for _, other := range m.Members() {
				if other.Name == "m3" && other.Meta.Role == Witness && other.Meta.Epochs["main"] == 7 {
					return m == members[2] || m.happened(func(e Event) bool { return e.Kind == Changed && e.Member.Name == "m3" }) > 0
				}
			}
			return false
		})
	}
	members[3].stop()
	for _, m := range members[:3] {
		m.await("the goodbye", func() bool { return m.presence("m4") == Left })
	}
}

func TestAKilledMemberIsMissedAndOneThatThawsIsBack(t *testing.T) {
	members := fleet(t, 3)
	child := spawn(t, "child", members[0].address())
	for _, m := range members {
		m.await("the child", func() bool { return m.presence("child") == Present })
	}
	if err := child.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for _, m := range members {
		m.await("that the child is gone", func() bool {
			return m.presence("child") == Gone && m.happened(func(e Event) bool { return e.Kind == Departed && e.Member.Name == "child" }) > 0
		})
	}
	if err := child.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for _, m := range members {
		m.await("that the child is back", func() bool { return m.presence("child") == Present })
	}
	if err := child.Signal(os.Kill); err != nil {
		t.Fatal(err)
	}
	for _, m := range members {
		m.await("the child's death", func() bool { return m.presence("child") == Gone })
		m.await("the others", func() bool { return len(strings.Fields(m.present())) == 2 })
	}
}

func TestAMessageReachesEveryoneOnce(t *testing.T) {
	members := fleet(t, 5)
	const each = 20
	texts := func(name string, i int) string {
		return fmt.Sprintf("%s %d %s", name, i, strings.Repeat("x", (MaxMessage-20)*i/each))
	}
	for i := range each {
		for _, m := range members {
			if err := m.Broadcast([]byte(texts(m.config.Name, i))); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := members[0].Broadcast(make([]byte, MaxMessage)); err != nil {
		t.Fatal(err)
	}
	for _, to := range members {
		for _, from := range members {
			if to == from {
				continue
			}
			for i := range each {
				is := func(e Event) bool {
					return e.Kind == Message && e.Member.Name == from.config.Name && string(e.Payload) == texts(from.config.Name, i)
				}
				to.await(fmt.Sprintf("message %d of %s", i, from.config.Name), func() bool { return to.happened(is) > 0 })
			}
		}
	}
	for _, m := range members[1:] {
		m.await("the largest message", func() bool {
			return m.happened(func(e Event) bool { return bytes.Equal(e.Payload, make([]byte, MaxMessage)) }) == 1
		})
		if n := m.happened(func(e Event) bool { return e.Kind == Message }); n != 4*each+1 {
			t.Errorf("%s heard %d messages, want %d", m.config.Name, n, 4*each+1)
		}
	}
	if err := members[0].Broadcast(make([]byte, MaxMessage+1)); err == nil {
		t.Error("a message that fits into no packet was taken")
	}
}

func TestHintsDoNotPileUp(t *testing.T) {
	c := settings("m1", "127.0.0.1")
	g, err := New(c, nil, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	for range maxOutbox {
		if err := g.Broadcast(nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.Broadcast(nil); !errors.Is(err, ErrBusy) {
		t.Errorf("message %d waits: %v", maxOutbox+1, err)
	}
	for i := range 2 * maxOutbox { // the ledger takes them nevertheless
		if err := g.Publish(fmt.Sprint(i), nil); err != nil {
			t.Fatal(err)
		}
	}
	calls := newCallbacks(g)
	for i := range uint64(2 * maxEvents) {
		calls.NotifyMsg(frame{kind: message, origin: "m2", number: i + 1}.encode())
	}
	if g.Dropped() != maxEvents || len(g.Events()) != maxEvents || calls.queue.NumQueued() != maxQueued {
		t.Errorf("%d events dropped, %d wait, %d frames are passed on", g.Dropped(), len(g.Events()), calls.queue.NumQueued())
	}
}

func TestTheLedgerConvergesAfterAPartition(t *testing.T) {
	ra, rb := newRelay(t, 1), newRelay(t, 3) // and b's packets come three times
	a := behind(t, ra, settings("a", "127.0.0.1"))
	b := behind(t, rb, settings("b", "127.0.0.1", strings.Replace(ra.address, "127.0.0.1", "localhost", 1)))
	a.sees("b")
	b.sees("a")
	publish := func(m *member, key, value string) {
		t.Helper()
		if err := m.Publish(key, []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	holds := func(m *member, key, value string) {
		t.Helper()
		m.await(fmt.Sprintf("%s = %q", key, value), func() bool { v, _ := m.Ledger().Get(key); return string(v) == value })
	}
	publish(a, "both", "old")
	publish(a, "deleted", "x")
	holds(b, "both", "old")
	holds(b, "deleted", "x")
	b.await("the event", func() bool {
		return b.happened(func(e Event) bool { return e.Kind == Amended && e.Keys[0] == "both" }) == 1
	})

	ra.cut.Store(true)
	rb.cut.Store(true)
	a.await("that b is gone", func() bool { return a.presence("b") == Gone })
	b.await("that a is gone", func() bool { return b.presence("a") == Gone })
	publish(a, "both", "a1")
	publish(b, "both", "b1")
	publish(b, "both", "b2") // the later word: b has counted further
	publish(a, "of a", "1")
	publish(b, "of b", "2")
	if err := b.Retract("deleted"); err != nil {
		t.Fatal(err)
	}
	ra.cut.Store(false)
	rb.cut.Store(false)
	for _, m := range []*member{a, b} {
		holds(m, "both", "b2")
		holds(m, "of a", "1")
		holds(m, "of b", "2")
		m.await("the deletion", func() bool { _, there := m.Ledger().Get("deleted"); return !there })
	}
	a.sees("b")
	b.sees("a")
	if !bytes.Equal(a.Ledger().Encode(), b.Ledger().Encode()) {
		t.Error("the ledgers differ")
	}
	// What is kept outlives the member.
	again, err := New(settings("c", "127.0.0.1"), a.Ledger().Encode(), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	if v, _ := again.Ledger().Get("both"); string(v) != "b2" {
		t.Errorf("after a restart the ledger has %q", v)
	}
}

func TestTheSearchGoesWhereAMemberMayBe(t *testing.T) {
	g, err := New(settings("me", "127.0.0.1", "127.0.0.1:1", "127.0.0.2:1", "localhost:5", "no-such-host.invalid:1"), nil, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	g.roster.advertise(address{"127.0.0.1", 1}) // in its own list
	for name, at := range map[string]string{"there": "127.0.0.2:1", "gone": "127.0.0.3:1", "left": "127.0.0.4:1"} {
		g.roster.join(Member{Name: name, Address: at})
	}
	g.roster.goodbye("left")
	for _, name := range []string{"gone", "left"} {
		g.roster.depart(name)
	}
	var targets []string
	for _, a := range g.missing(context.Background()) {
		if a.ip != "::1" {
			targets = append(targets, a.String())
		}
	}
	if got := strings.Join(targets, " "); got != "127.0.0.1:5 127.0.0.3:1" {
		t.Errorf("searched at %s", got)
	}
}

func TestTheRosterIsBounded(t *testing.T) {
	r := newRoster("me")
	for i := range maxMembers {
		name := fmt.Sprint("m", i)
		if !r.admit(name) {
			t.Fatalf("no room for %s", name)
		}
		r.join(Member{Name: name})
	}
	if r.admit("one more") || !r.admit("m0") || !r.admit("me") {
		t.Error("a full fleet takes a stranger, or refuses its own")
	}
	r.depart("m5")
	r.depart("m6")
	if !r.admit("one more") || r.admit("m5 again") && len(r.members) >= maxMembers {
		t.Error("who is away keeps its place")
	}
	if _, known := r.depart("m5"); known {
		t.Error("the one that was away for the longest time was not forgotten")
	}
}

func TestAMemberWithAnotherKeyStaysOutside(t *testing.T) {
	members := fleet(t, 2)
	c := settings("stranger", "127.0.0.3", members[0].address())
	c.Key = bytes.Repeat([]byte("x"), KeySize)
	stranger := begin(t, c)
	refusals := func(m *member) int {
		return m.logs.Filter(func(e loggedEntry) bool { return strings.Contains(fmt.Sprint(e.Context), "decrypt") }).Len()
	}
	members[0].await("a packet of the stranger", func() bool { return refusals(members[0]) > 0 })
	if err := stranger.Broadcast([]byte("let me in")); err != nil {
		t.Fatal(err)
	}
	before := refusals(members[0])
	members[0].await("more of them", func() bool { return refusals(members[0]) > before })
	for _, m := range append(members, stranger) {
		if strings.Contains(m.present(), "stranger") || m == stranger && m.present() != "" {
			t.Errorf("%s sees %s", m.config.Name, m.present())
		}
	}
	for _, e := range members[0].logs.All() {
		if strings.Contains(fmt.Sprint(e), strings.Repeat("k", 8)) {
			t.Errorf("the key is in the log: %v", e)
		}
	}
}

func TestTheSecondOfANameStaysOutside(t *testing.T) {
	members := fleet(t, 2)
	second := begin(t, settings("m2", "127.0.0.3", members[0].address()))
	members[0].await("the conflict", func() bool { return members[0].logs.FilterMessageSnippet("same name").Len() > 0 })
	for _, other := range members[0].Members() {
		if other.Address == second.address() {
			t.Errorf("%+v took the place of the first", other)
		}
	}
}

func TestAnAddressInUseIsSaid(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := settings("m1", "127.0.0.1")
	c.Bind = l.Addr().String()
	g, err := New(c, nil, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Run(context.Background()); !errors.Is(err, syscall.EADDRINUSE) && (err == nil || !strings.Contains(err.Error(), "in use")) {
		t.Errorf("Run: %v", err)
	}
	c.Bind, c.Advertise = "127.0.0.1:0", "no-such-host.invalid:1"
	if g, err = New(c, nil, zap.NewNop()); err != nil {
		t.Fatal(err)
	}
	if err := g.Run(context.Background()); err == nil || !strings.Contains(err.Error(), "no-such-host.invalid") {
		t.Errorf("Run: %v", err)
	}
}
