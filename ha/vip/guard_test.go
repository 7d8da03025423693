package vip

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"
)

func yes() bool { return true }

// ear hears what a segment says of an address, and of one that might have it.
type ear struct {
	v               VIP
	who             net.HardwareAddr
	mu              sync.Mutex
	s               *segment
	asked, answered int
}

func (h *host) listens(v VIP, who net.HardwareAddr) *ear {
	h.t.Helper()
	e := &ear{v: v, who: who}
	h.must(func() (err error) {
		e.s, err = open("eth0", protocol(v.Addr()))
		return err
	})
	h.t.Cleanup(e.s.close)
	return e
}

// heard counts the questions who has the address, and the frames that say it is that one.
func (e *ear) heard() (asked, answered int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for {
		frame, err := e.s.receive(time.Millisecond)
		if err != nil || frame == nil {
			return e.asked, e.answered
		}
		switch said := claim(e.v.Addr(), frame); {
		case said != nil && bytes.Equal(said, e.who):
			e.answered++
		case said == nil && bytes.Contains(frame, e.v.Addr().AsSlice()):
			e.asked++
		}
	}
}

// A member is paused, or asks and is not answered, and its hold on the address ends at the worst moment: it
// would turn the clients away from the new holder.
func TestAnAddressThatIsHeldNoMoreIsNotAnnounced(t *testing.T) {
	for family, prefix := range families {
		t.Run(family, func(t *testing.T) {
			t.Parallel()
			hosts := newSegment(t, "a", "b", "client")
			a, b, v := hosts[0], hosts[1], vipOf(t, prefix)
			frames := len(repeats()) * len(announcements(v.Addr(), a.mac, a.mac))
			step := func(g *Guard, holds func() bool) {
				t.Helper()
				a.must(func() error { return g.Step(context.Background(), holds) })
			}

			ears := hosts[2].listens(v, a.mac)
			step(NewGuard(local(), v), func() bool { _, answered := ears.heard(); return answered == 0 })
			if _, got := ears.heard(); got == 0 || got == frames {
				t.Errorf("%d frames announce what is over after the first one", got)
			}
			if got := a.prefixes(v); len(got) != 0 {
				t.Errorf("it is over, and a has %q", got)
			}

			g := NewGuard(local(), v)
			step(g, yes)
			b.must(func() error { return put(v) })
			ears = hosts[2].listens(v, a.mac)
			g.again, g.asked = false, time.Time{}
			step(g, func() bool { asked, _ := ears.heard(); return asked == 0 })
			if asked, got := ears.heard(); asked == 0 || got != 0 {
				t.Errorf("over since %d questions who has it, too, and %d frames say that it is a", asked, got)
			}
			if got := a.prefixes(v); len(got) != 0 {
				t.Errorf("it is over, and a has %q", got)
			}
		})
	}
}

func TestATakenAddressIsAnnouncedOnceMoreLater(t *testing.T) {
	hosts := newSegment(t, "a", "client")
	a, v := hosts[0], vipOf(t, families["IPv4"])
	g := NewGuard(local(), v)
	step := func() {
		t.Helper()
		a.must(func() error { return g.Step(context.Background(), yes) })
	}
	step()
	ears := hosts[1].listens(v, a.mac)
	step()
	_, before := ears.heard()
	g.taken = g.taken.Add(-announceAgain)
	step()
	_, again := ears.heard()
	step()
	if _, after := ears.heard(); before != 0 || again == 0 || after != again {
		t.Errorf("%d frames soon after it was taken, %d later, %d in the end", before, again, after)
	}
}

func TestTheMembersVIPIsWhereItsHolderIs(t *testing.T) {
	for family, prefix := range families {
		t.Run(family, func(t *testing.T) {
			t.Parallel()
			hosts := newSegment(t, "a", "b", "client")
			a, b, client := hosts[0], hosts[1], hosts[2]
			a.serve()
			b.serve()
			v := vipOf(t, prefix)
			ga, gb := NewGuard(local(), v), NewGuard(local(), v)
			step := func(h *host, g *Guard, holds func() bool) {
				t.Helper()
				h.must(func() error { return g.Step(context.Background(), holds) })
			}
			a.must(func() error { return put(v) }) // left there by a process that was killed
			step(a, ga, No)
			if got := a.prefixes(v); len(got) != 0 {
				t.Fatalf("what was left there is there: %q", got)
			}
			step(a, ga, yes)
			await(t, "a's answer", func() bool { return client.reach(v.Addr()) == "a" })
			step(a, ga, yes)
			step(a, ga, No)
			step(b, gb, yes)
			await(t, "b's answer", func() bool { return client.reach(v.Addr()) == "b" })
			b.must(func() error { return local().Drop(v) }) // by somebody else
			step(b, gb, yes)
			if got := b.prefixes(v); len(got) != 1 {
				t.Errorf("it was taken away and b has %q", got)
			}
			// a paused member, back with the address: until it learns that it is no holder.
			a.must(func() error { return put(v) })
			gb.asked = time.Time{}
			err := b.do(func() error { return gb.Step(context.Background(), yes) })
			var contested *Contested
			if !errors.As(err, &contested) || len(contested.Others) != 1 || contested.Others[0].String() != a.mac.String() {
				t.Errorf("two have it, and: %v", err)
			}
			await(t, "b's answer", func() bool { return client.reach(v.Addr()) == "b" })
			step(a, ga, No)
			step(b, gb, No)
			if got := append(a.prefixes(v), b.prefixes(v)...); len(got) != 0 {
				t.Errorf("at the end: %q", got)
			}
		})
	}
}
