package ha

import (
	"testing"
	"time"

	"github.com/cstproxy/cstproxy/ha/decide"
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

// What is decided from is the class: nothing speaks against a server before it has failed twice in a
// row, and a heartbeat that cannot be tried takes nothing back.
func TestTheClassFollowsTheSecondFailure(t *testing.T) {
	fails := func(c pgnode.Cause) error { return &pgnode.Failure{Cause: c, Message: c.String()} }
	beat := func(w pgnode.Writes) heartbeat { return heartbeat{duty: dutyBeat, writes: w, why: w.String()} }
	up := func(w pgnode.Writes) probe { return probe{heart: beat(w)} }
	down := func(c pgnode.Cause) probe { return probe{asked: fails(c), knocked: fails(c), heart: beat(0)} }
	full := probe{knocked: fails(pgnode.Full), heart: beat(0)}
	type steps []probe
	type classes []decide.Class
	for _, c := range []struct {
		name  string
		steps steps
		want  classes
		since string // the step since which each of them holds
	}{
		{"silent", steps{up(0), down(pgnode.Silent), down(pgnode.Silent), up(0)}, classes{decide.Answers, decide.Answers, decide.Silent, decide.Answers}, "1124"},
		{"silent once", steps{up(0), down(pgnode.Silent), up(0), down(pgnode.Silent)}, classes{decide.Answers, decide.Answers, decide.Answers, decide.Answers}, "1111"},
		{"refused, then starting", steps{up(0), down(pgnode.Refused), down(pgnode.Refused), down(pgnode.Starting), up(0)},
			classes{decide.Answers, decide.Answers, decide.Refused, decide.Starting, decide.Answers}, "11225"},
		{"starting", steps{up(0), down(pgnode.Starting), down(pgnode.Starting)}, classes{decide.Answers, decide.Answers, decide.Starting}, "112"},
		{"first seen while it starts", steps{down(pgnode.Starting), down(pgnode.Starting)}, classes{decide.Unprobed, decide.Starting}, "11"},
		{"takes connections, says nothing", steps{up(0), down(pgnode.Hung), down(pgnode.Hung), down(pgnode.Silent)},
			classes{decide.Answers, decide.Answers, decide.Stuck, decide.Silent}, "1122"},
		{"out of connections, then silent", steps{up(0), down(pgnode.Full), down(pgnode.Silent), down(pgnode.Silent)},
			classes{decide.Answers, decide.Full, decide.Full, decide.Silent}, "1223"},
		{"stuck", steps{up(pgnode.Commits), up(pgnode.Stuck), up(pgnode.Stuck), up(pgnode.Commits)},
			classes{decide.Answers, decide.Answers, decide.Stuck, decide.Answers}, "1124"},
		{"stuck, nothing new in between", steps{up(0), up(pgnode.Stuck), up(0), up(pgnode.DiskFull), up(0), up(pgnode.NoTable)},
			classes{decide.Answers, decide.Answers, decide.Answers, decide.Stuck, decide.Stuck, decide.Stuck}, "111222"},
		{"slow", steps{up(0), up(pgnode.Stuck), up(pgnode.Commits), up(pgnode.Stuck), up(pgnode.Commits)},
			classes{decide.Answers, decide.Answers, decide.Answers, decide.Answers, decide.Answers}, "11111"},
		{"locked, read-only", steps{up(0), up(pgnode.Stuck), up(pgnode.Blocked), up(pgnode.Stuck), up(pgnode.ReadOnly), up(pgnode.Stuck)},
			classes{decide.Answers, decide.Answers, decide.Answers, decide.Answers, decide.Answers, decide.Answers}, "111111"},
		{"stuck, then full", steps{up(0), up(pgnode.Stuck), {heart: beat(pgnode.Stuck), knocked: fails(pgnode.Full)}, full, down(pgnode.Full)},
			classes{decide.Answers, decide.Answers, decide.Stuck, decide.Stuck, decide.Stuck}, "11222"},
		{"stuck, one probe lost", steps{up(0), up(pgnode.Stuck), up(pgnode.Stuck), {heart: beat(0), asked: fails(pgnode.Silent)}},
			classes{decide.Answers, decide.Answers, decide.Stuck, decide.Stuck}, "1122"},
		{"stuck, then restarted", steps{up(0), up(pgnode.Stuck), up(pgnode.Stuck), down(pgnode.Refused), down(pgnode.Refused), up(0)},
			classes{decide.Answers, decide.Answers, decide.Stuck, decide.Stuck, decide.Refused, decide.Answers}, "112226"},
		{"not the primary any more", steps{up(0), up(pgnode.Stuck), up(pgnode.Stuck), {}}, classes{decide.Answers, decide.Answers, decide.Stuck, decide.Answers}, "1124"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, start := pulse{}, time.Unix(1_700_000_000, 0)
			for i, b := range c.steps {
				b.at = start.Add(time.Duration(i+1) * time.Second)
				since := start.Add(time.Duration(c.since[i]-'0') * time.Second)
				p = p.beat(b, 2)
				if p.class != c.want[i] || !p.since.Equal(since) {
					t.Fatalf("after step %d: %q since %s, want %q since %s", i+1, p.class, p.since, c.want[i], since)
				}
			}
		})
	}
}
