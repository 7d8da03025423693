package e2e

import (
	"context"
	"maps"
	"slices"
	"testing"
	"time"
)

// measure is one run; it returns the promises that were broken.
func (f *Fleet) measure(t *testing.T, about figure, w row) []string {
	t.Helper()
	f.lab.lend(t)
	r := &run{doing: "a whole cluster"}
	fig := about
	fig.At, fig.Event, fig.Load = time.Now().UTC().Truncate(time.Second), w.Name, loadAverage()
	defer func() {
		if t.Failed() && fig.Failed == "" {
			fig.Failed = r.doing
		}
		fig.keep(t)
	}()
	r.begin(t, f, w)
	pause(t.Context(), jitter())
	fig.Load = loadAverage()
	vip := r.past[0]
	r.doing = "the event to be made"
	r.happens(func() { w.Make(r) })
	r.recovers(w, vip)
	r.returned = r.event
	if w.Mend != nil {
		r.returned = time.Now()
		w.Mend(r)
	}
	if w.Epochs > 0 {
		r.returns()
	}
	r.doing = "the rows"
	r.tells(w, &fig)
	t.Logf("%s, %s, load %s: %s", fig.Preset, w.Name, fig.Load, r.report)
	t.Logf("phases in ms: %v; also: %v; acknowledged by the former primary: %d; broken: %v", fig.Phases, fig.Marks, fig.Stale, fig.Broken)
	return fig.Broken
}

// begin waits for a whole cluster with the leader in its place, and starts the clients.
func (r *run) begin(t *testing.T, f *Fleet, w row) {
	t.Helper()
	former := f.awaitWhole(t, 3*time.Minute)
	near := f.memberOn(former.Host)
	away := f.but(near)
	if w.Leads {
		r.doing = near.Name + " to lead"
		f.awaitLeader(t, near)
		r.leader, r.other = near, away[0]
	} else {
		r.doing = "a leader beside " + near.Name
		r.leader = f.leadsBeside(t, near)
		r.other = away[0]
		if r.leader == away[0] {
			r.other = away[1]
		}
	}
	r.doing = "clients that write"
	r.scene = &scene{trace: &trace{fleet: f}, t: t, former: former}
	load := usual(f.way(r.other))
	if w.Load != nil {
		load = w.Load(r)
	}
	r.scene.run = begin(t, f.lab.Host("c1"), load, former, f.nodes)
	r.direct(writeVIP)
	// Through a member that lives on; these hold their server, and are told when it is lost.
	r.kept, _ = former.saved(t)
	if !w.Unpinned {
		r.also(f.lab.Host("c1"), Load{Way: only(r.other), Pinned: 2, Pause: 50 * time.Millisecond})
	}
	if w.More != nil {
		w.More(r)
	}
}

// leadsBeside has any other than this member lead.
func (f *Fleet) leadsBeside(t *testing.T, near *Member) *Member {
	t.Helper()
	var leader *Member
	await(t, "a leader", func(context.Context) bool {
		leader = f.leads()
		return leader != nil
	})
	if leader != near {
		return leader
	}
	near.Kill()
	await(t, "another leader", func(context.Context) bool {
		leader = f.leads()
		return leader != nil && leader != near
	})
	near.Start()
	near.AwaitReady()
	return leader
}

// recovers waits until the clients write again, and have done so for a while.
func (r *run) recovers(w row, vip *trial) {
	r.t.Helper()
	r.doing = "writes after the event"
	awaitFor(r.t, time.Minute, r.doing, func(context.Context) bool {
		recently := time.Now().Add(-time.Second)
		if _, promoted := r.scene.run.watch.promoted(r.former, r.event); w.Epochs > 0 && !promoted {
			return false
		}
		return time.Since(r.event) > 3*time.Second && r.scene.run.ledger.acknowledged(recently) > 20 && vip.ledger.acknowledged(recently) > 5
	})
}

// begun is how many epochs have begun since the event.
func (r *run) begun() (n int) {
	for _, s := range r.epochs() {
		if s.first.After(r.event) {
			n++
		}
	}
	return n
}

// returns waits until the former primary is a standby of the new one.
func (r *run) returns() {
	r.t.Helper()
	r.doing = "the old primary's return"
	var at time.Time
	awaitFor(r.t, 3*time.Minute, r.doing, func(ctx context.Context) bool {
		bounded, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		got, err := r.former.Psql(bounded, `SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming' AND latest_end_lsn IS NOT NULL`)
		at = time.Now()
		return err == nil && got == "1"
	})
	r.streamed = at
}

// repaired notes how the old primary came back, and after what time. The fleet says so when the repair
// has ended, a bit after the server streams.
func (r *run) repaired() {
	how := "as it was"
	var took []phase
	for _, l := range r.fleet.log(r.event) {
		if l.Msg == "action done" && l.Node == r.former.ID() && (l.Verb == "rewind" || l.Verb == "rebuild") {
			how = "by " + l.Verb
			took = append(took, phase{"of that, " + l.Verb, lasted(l)})
		}
	}
	r.marks = append(r.marks, phase{"the old primary streams again, " + how, ms(r.streamed.Sub(r.returned))})
	r.marks = append(r.marks, took...)
}

func lasted(l line) float64 {
	d, err := time.ParseDuration(l.Lasted)
	if err != nil {
		return 0
	}
	return ms(d)
}

// tells ends the clients and writes down what they have seen.
func (r *run) tells(w row, fig *figure) {
	r.t.Helper()
	now := r.fleet.awaitWhole(r.t, 3*time.Minute)
	others := append(slices.Clone(r.more), r.past...)
	var missed []error
	for _, c := range others {
		missed = append(missed, c.end())
	}
	there := rows(r.t, now) // nobody but the measured clients writes any more
	for i, c := range others {
		report := c.report(r.event, there)
		report.Missed = missed[i]
		r.reports = append(r.reports, report)
	}
	r.report = r.scene.run.finish(r.t, r.event, now)
	about := *fig
	*fig = newFigure(about.Contender, about.Preset, about.Event, r.report)
	fig.Version, fig.Machine, fig.Postgres, fig.Timing, fig.Load = about.Version, about.Machine, about.Postgres, about.Timing, about.Load
	began, ended := r.report.Began, r.report.Ended
	if w.Epochs > 0 || r.begun() > 0 {
		fig.Phases = phasesFrom(r.fleet.log(r.event), r.event, began, ended)
	} else {
		fig.Phases = []phase{{"the same primary takes writes again", ms(r.report.Outage)}}
	}
	fig.Rate = r.scene.run.ledger.rate(r.event)
	for i, more := range r.more {
		r.adds(fig, r.reports[i])
		fig.Stale += r.stale(more)
		if more.load.Writers > 0 {
			r.marks = append(r.marks, phase{"longest wait of a write beside the old primary", ms(r.reports[i].Slowest)})
		}
	}
	fig.Stale += r.stale(r.scene.run)
	past := r.reports[len(r.more)]
	fig.Address = &addressed{Outage: ms(past.Outage), Lost: len(past.Lost), Stale: r.stale(r.past[0])}
	fig.Tail, fig.Data = r.former.saved(r.t)
	fig.Tail -= r.kept
	for _, p := range r.promises(w) {
		if err := p.Check(r.trace); err != nil {
			fig.Broken = append(fig.Broken, p.Name+": "+err.Error())
		}
	}
	if w.Epochs > 0 {
		r.repaired()
	}
	fig.Marks = r.marks
}

// adds has the figure tell of further clients of the members as well.
func (r *run) adds(fig *figure, more Report) {
	fig.Acknowledged += more.Acknowledged
	fig.Refused += more.Refused
	fig.Unknown += more.Unknown
	fig.Lost += len(more.Lost)
	fig.Twice += len(more.Twice)
	fig.IdleLost += more.IdleLost
	fig.BusyLost += more.BusyLost
	fig.PinnedLost += more.PinnedLost
	fig.Codes = maps.Clone(fig.Codes)
	for code, n := range more.Codes {
		fig.Codes[code] += n
	}
}

// promises are what the run is held against. The clients that come past the members are told what the
// servers say: nobody promises that it stays.
func (r *run) promises(w row) []invariant {
	list := append(slices.Clone(always), operationsEnd)
	switch {
	case w.Epochs == 0:
		list = append(list, epochUnchanged)
	default:
		list = append(list, oneEpochMore, nobodyWasAhead)
	}
	return list
}

// rate is how many writes per second were acknowledged in the second before a time.
func (l *ledger) rate(until time.Time) float64 {
	writes, _ := l.entries()
	n := 0.0
	for _, a := range writes {
		if a.Err == nil && a.ID != 0 && a.Done.Before(until) && a.Done.After(until.Add(-time.Second)) {
			n++
		}
	}
	return n
}

// stale counts the rows that the former primary acknowledged after the next epoch had begun.
func (r *run) stale(c *trial) (n int) {
	var next time.Time
	for _, s := range r.epochs() {
		if s.first.After(r.event) {
			next = s.first
			break
		}
	}
	if next.IsZero() {
		return 0
	}
	writes, _ := c.ledger.entries()
	for _, a := range writes {
		if a.Err == nil && a.Server == r.former.Addr && a.Done.After(next) {
			n++
		}
	}
	return n
}
