package sim

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/cstproxy/cstproxy/ha/record"
)

// Options say what to run.
type Options struct {
	Seed uint64
	// Faults replace those that the seed would draw, unless nil.
	Faults []Fault
	// Without leaves a guard out, to see that it is missed.
	Without Guard
	// shape changes what the seed comes to.
	shape func(*plan)
	// Trace gets a line for everything of note; nil: nowhere.
	Trace io.Writer
}

// Report is what came of a run.
type Report struct {
	Seed   uint64
	Plan   string // what the seed comes to, faults apart
	Faults []Fault
	// Failure is nil when all invariants held.
	Failure *Failure
	// Counts, for a summary of many runs.
	Events, Writes, Acked, Epochs, Undone, Waiting, Helped int
	// Proved are the reads of clients that had written, on standbys.
	Proved int
	// Lasted is the virtual time that passed, Stall the longest part of it in which no client of any
	// member was told that a write is committed.
	Lasted, Stall time.Duration
}

func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %s\n", r.Seed, r.Plan)
	for i := range r.Faults {
		fmt.Fprintf(&b, "  %s\n", &r.Faults[i])
	}
	if f := r.Failure; f != nil {
		fmt.Fprintf(&b, "  %s broken at %.3f s: %s\n", f.Invariant, f.At.Seconds(), f.What)
	}
	return b.String()
}

const (
	// budget is how long after the last fault everything may take to work again, the repairs included.
	budget = 60 * time.Second
	// maxEvents bounds a run: two members that keep each other busy without any time passing would
	// never end.
	maxEvents = 2_000_000
	// maxOperations is more than any sensible run of a minute or two takes.
	maxOperations = 80
)

// Run runs one seed.
func Run(o Options) Report {
	p := drawPlan(o.Seed)
	p.without = o.Without
	if o.shape != nil {
		o.shape(&p)
	}
	if o.Faults != nil {
		p.faults = slices.Clone(o.Faults)
		p.findEnd()
	}
	w := newWorld(p, o.Trace)
	w.trace("seed %d: %s", p.seed, p.String())
	w.begin()
	w.run()
	r := Report{Seed: p.seed, Plan: p.String(), Faults: p.faults, Failure: w.failure, Events: w.events, Writes: w.writes, Acked: len(w.acks), Helped: w.helped, Proved: w.proved, Lasted: w.now, Stall: w.stall}
	c := w.truth()
	r.Epochs = int(c.Epoch.Number)
	for _, o := range c.Past {
		switch o.Outcome {
		case record.Undone:
			r.Undone++
		case record.Waits:
			r.Waiting++
		}
	}
	return r
}

// run lets time pass until an invariant is broken or everything works again after the last fault.
func (w *world) run() {
	healed := max(w.plan.end, firstFault) + time.Second
	for w.failure == nil && w.turn(healed) {
		w.bound()
	}
	if w.failure != nil {
		return
	}
	w.trace("all faults are over")
	unsettled := "nothing has happened"
	for end := healed + budget; w.failure == nil; {
		slice := min(w.now+500*time.Millisecond, end)
		for w.failure == nil && w.turn(slice) {
			w.bound()
		}
		w.now = max(w.now, slice)
		if unsettled = w.unsettled(healed); unsettled == "" {
			break
		}
		if w.now > healed+operatorLooks {
			w.operate()
		}
		if w.now >= end {
			w.fail(w.whichPromise(unsettled), fmt.Sprintf("%s after the last fault: %s", budget, unsettled))
		}
	}
	w.last()
}

// bound ends runs that go in circles.
func (w *world) bound() {
	if n := w.truth().LastOperation; n > maxOperations {
		w.fail("I12", fmt.Sprintf("%d operations were begun; the last ones ended so: %s", n, w.lately()))
	}
	if w.events > maxEvents {
		w.fail("model", "more events than a run can have")
	}
}

// lately is how the last operations ended.
func (w *world) lately() string {
	var b strings.Builder
	past := w.truth().Past
	for _, o := range past[max(0, len(past)-3):] {
		fmt.Fprintf(&b, "%s of node %d %s: %s; ", o.Kind, o.Node, o.Outcome, o.Note)
	}
	return b.String()
}

// unsettled is what does not work yet, "" when all does.
func (w *world) unsettled(since time.Duration) string {
	c := w.truth()
	if o := c.Operation; o != nil {
		return fmt.Sprintf("I12: %s %d is at step %s", o.Kind, o.ID, o.Step)
	}
	for id, t := range c.Tasks {
		return fmt.Sprintf("I12: %s %d of node %d is at step %s", t.Kind, t.ID, id, t.Step)
	}
	if w.twoVIPs >= 0 {
		return "I9: two hosts hold the write VIP"
	}
	if n := w.node(c.Epoch.Primary); n != nil && w.plan.policy.WriteVIP != "" && !n.host.vip {
		return fmt.Sprintf("I9: %s, the primary's host, does not hold the write VIP", n.name())
	}
	for _, m := range w.members {
		if !m.witness && w.served[m] <= since {
			return fmt.Sprintf("I7: no write through %s is acknowledged (alarm: %q)", m.name, w.alarm)
		}
	}
	return ""
}

func (w *world) whichPromise(unsettled string) string {
	name, _, _ := strings.Cut(unsettled, ":")
	return name
}

// last is what must be true at the end: I2 once more.
func (w *world) last() {
	c := w.truth()
	n := w.node(c.Epoch.Primary)
	if w.failure != nil || n == nil {
		return
	}
	if lost := w.missing(n.wal); w.strict() && len(lost) > 0 && !w.lossAccepted(c) {
		w.fail("I2", fmt.Sprintf("%d acknowledged writes are not on %s, the first is %d", len(lost), n.name(), lost[0]))
	}
}

// lossAccepted says whether an operator took it upon himself: by an order, or with his own hands.
func (w *world) lossAccepted(c *record.Cluster) bool {
	return slices.ContainsFunc(w.plan.faults, func(f Fault) bool { return f.Kind == ByHand }) || slices.ContainsFunc(c.Past, func(o record.Operation) bool { return o.Accept == record.AcceptLoss })
}

// traceEntry shows what an entry changed.
func (w *world) traceEntry(e *record.Entry) {
	if w.out == nil {
		return
	}
	switch {
	case e.Found != nil:
		w.trace("log: the fleet is founded")
	case e.Adopt != nil:
		w.trace("log: epoch %d, primary n%d, observed: %s", e.Adopt.Epoch.Number, e.Adopt.Epoch.Primary, e.Adopt.Why)
	case e.Begin != nil:
		o := e.Begin.Operation
		w.trace("log: %s %d begins, %d → %d: %s", o.Kind, o.ID, o.From, o.To, o.Why)
	case e.Advance != nil:
		o := e.Advance.To
		w.trace("log: %s %d at %s, recruited %v, candidate n%d %s %s", o.Kind, o.ID, o.Step, o.Recruited, o.Candidate, o.Outcome, o.Note)
	case e.Mark != nil:
		w.trace("log: mark of n%d: %+v", e.Mark.Node, e.Mark.Mark)
	case e.Standbys != nil:
		w.trace("log: standbys %v, synchronous %v", e.Standbys.Eligible, e.Standbys.Sync.Nodes)
	}
}

// Shrink drops faults from a failing run for as long as it goes on failing in the same way.
func Shrink(r Report, o Options) Report {
	if r.Failure == nil {
		return r
	}
	for again := true; again; {
		again = false
		for i := range r.Faults {
			fewer := slices.Delete(slices.Clone(r.Faults), i, i+1)
			o.Faults = fewer
			if o.Faults == nil {
				o.Faults = []Fault{}
			}
			if s := Run(o); s.Failure != nil && s.Failure.Invariant == r.Failure.Invariant {
				r, again = s, true
				break
			}
		}
	}
	return r
}
