package ha

import (
	"testing"
	"time"

	"github.com/cstproxy/cstproxy/ha/pgnode"
)

func TestWhatProbesAddUpTo(t *testing.T) {
	ok := func() error { return nil }
	fails := func(c pgnode.Cause) func() error {
		return func() error { return &pgnode.Failure{Cause: c, Message: c.String()} }
	}
	type step struct {
		asked, knocked func() error
		want           condition
	}
	up := step{ok, ok, conditionUp}
	both := func(c pgnode.Cause, want condition) step { return step{fails(c), ok, want} }
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"answers", []step{up, up}},
		{"silent twice", []step{up, both(pgnode.Silent, conditionSuspect), both(pgnode.Silent, conditionDown), up}},
		{"silent once", []step{up, both(pgnode.Silent, conditionSuspect), up, both(pgnode.Silent, conditionSuspect)}},
		{"refused and refused again", []step{up, both(pgnode.Refused, conditionSuspect), both(pgnode.Refused, conditionDown)}},
		{"never answered", []step{both(pgnode.Silent, conditionDown), both(pgnode.Silent, conditionDown), up}},
		{"starts up", []step{up, both(pgnode.Starting, conditionStarting), both(pgnode.Starting, conditionStarting), up}},
		{"wrong password", []step{both(pgnode.Denied, conditionDenied), both(pgnode.Denied, conditionDenied), up}},
		{"full", []step{up, both(pgnode.Full, conditionFull), both(pgnode.Full, conditionFull), both(pgnode.Full, conditionFull), up}},
		{"full on a new connection only", []step{up, {ok, fails(pgnode.Full), conditionUp}, {ok, fails(pgnode.Full), conditionUp}}},
		{"password changed under a kept connection", []step{up, {ok, fails(pgnode.Denied), conditionUp}}},
		{"shutting down under a kept connection", []step{up, {ok, fails(pgnode.Starting), conditionStarting}}},
		{"postmaster stopped", []step{up, {ok, fails(pgnode.Silent), conditionSuspect}, {ok, fails(pgnode.Silent), conditionDeaf}, {ok, fails(pgnode.Silent), conditionDeaf}, up}},
		{"postmaster gone", []step{up, {ok, fails(pgnode.Refused), conditionSuspect}, {ok, fails(pgnode.Refused), conditionDown}}},
		{"down and then full", []step{up, both(pgnode.Refused, conditionSuspect), both(pgnode.Refused, conditionDown), both(pgnode.Full, conditionDenied)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, now := pulse{}, time.Unix(1_700_000_000, 0)
			for i, s := range c.steps {
				now = now.Add(time.Second)
				p = p.beat(probe{at: now, asked: s.asked(), knocked: s.knocked()}, 2)
				if p.condition != s.want {
					t.Fatalf("after step %d: condition %d (%s), want %d", i+1, p.condition, p.why, s.want)
				}
				if (p.why == "") != (s.asked() == nil && s.knocked() == nil) {
					t.Errorf("after step %d: why %q", i+1, p.why)
				}
			}
		})
	}
}
