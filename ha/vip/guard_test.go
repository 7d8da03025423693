package vip

import (
	"context"
	"errors"
	"testing"
	"time"
)

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
			step := func(h *host, g *Guard, d Duty) {
				t.Helper()
				h.must(func() error { return g.Step(context.Background(), d) })
			}
			a.must(func() error { return put(v) }) // left there by a process that was killed
			step(a, ga, Leave)
			if got := a.prefixes(v); len(got) != 0 {
				t.Fatalf("what was left there is there: %q", got)
			}
			step(a, ga, Hold)
			await(t, "a's answer", func() bool { return client.reach(v.Addr()) == "a" })
			step(a, ga, Hold)
			step(a, ga, Leave)
			step(b, gb, Hold)
			await(t, "b's answer", func() bool { return client.reach(v.Addr()) == "b" })
			b.must(func() error { return local().Drop(v) }) // by somebody else
			step(b, gb, Hold)
			if got := b.prefixes(v); len(got) != 1 {
				t.Errorf("it was taken away and b has %q", got)
			}
			// a paused member, back with the address: until it learns that it is no holder.
			a.must(func() error { return put(v) })
			gb.asked = time.Time{}
			err := b.do(func() error { return gb.Step(context.Background(), Hold) })
			var contested *Contested
			if !errors.As(err, &contested) || len(contested.Others) != 1 || contested.Others[0].String() != a.mac.String() {
				t.Errorf("two have it, and: %v", err)
			}
			await(t, "b's answer", func() bool { return client.reach(v.Addr()) == "b" })
			step(a, ga, Leave)
			step(b, gb, Leave)
			if got := append(a.prefixes(v), b.prefixes(v)...); len(got) != 0 {
				t.Errorf("at the end: %q", got)
			}
		})
	}
}
