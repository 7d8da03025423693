package decide

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// Decide says what the leader of p's cluster does now.
func Decide(p Picture) Plan {
	switch op := p.Record.Operation; {
	case p.Record.Epoch.Number == 0:
		return p.firstSight()
	case op == nil:
		return p.steady()
	case op.Step == record.Undo:
		return p.undo(op)
	case op.Step == record.After:
		return p.after(op)
	case op.Step == record.Promote:
		return p.promote(op)
	case op.Kind == record.Switch:
		return p.switchOver(op)
	default:
		return p.failOver(op)
	}
}

// wait is what a plan says that only waits.
func wait(again time.Duration, why string, args ...any) Plan {
	return Plan{Why: fmt.Sprintf(why, args...), Again: again}
}

// commit proposes e.
func (p *Picture) commit(e record.Entry, why string, args ...any) Plan {
	e.Cluster, e.Proposer = p.Cluster, p.Self
	return Plan{Entry: &e, Why: fmt.Sprintf(why, args...)}
}

// advance moves op on to step.
func (p *Picture) advance(op *record.Operation, step record.Step, why string, args ...any) Plan {
	next := *op
	next.Step = step
	return p.move(op, next, fmt.Sprintf(why, args...))
}

// move makes next of op.
func (p *Picture) move(op *record.Operation, next record.Operation, why string) Plan {
	return p.commit(record.Entry{Advance: &record.Advance{From: op.Step, To: next}}, "%s", why)
}

// end closes an operation, or a task, with an outcome and a sentence about it.
func (p *Picture) end(op *record.Operation, outcome record.Outcome, note string) Plan {
	next := *op
	next.Step, next.Outcome, next.Note = record.Done, outcome, note
	return p.move(op, next, fmt.Sprintf("%s %d ends (%s): %s", op.Kind, op.ID, outcome, note))
}

// giveUp leaves an operation that has promoted nobody. Before Fence nothing was touched, and it is
// enough to say so; after that everybody has to be led back.
func (p *Picture) giveUp(op *record.Operation, outcome record.Outcome, note string) Plan {
	plan := Plan{}
	if op.Step <= record.Freeze {
		plan = p.end(op, outcome, note)
	} else {
		next := *op
		next.Step, next.Outcome, next.Note = record.Undo, outcome, note
		plan = p.move(op, next, fmt.Sprintf("undo %s %d: %s", op.Kind, op.ID, note))
	}
	if outcome == record.Waits || outcome == record.Failed {
		plan.Alarm = note
	}
	return plan
}

// begin proposes an operation of this leader's own.
func (p *Picture) begin(o record.Operation, why string) Plan {
	o = p.numbered(o)
	o.By, o.Why = p.Self, why
	what := fmt.Sprintf("%s %d", o.Kind, o.ID)
	if !o.Kind.MakesEpoch() {
		what += fmt.Sprintf(" of node %d", o.Node)
	}
	return p.commit(record.Entry{Begin: &record.Begin{Operation: o}}, "begin %s: %s", what, why)
}

// numbered gives an operation the numbers that the record demands now.
func (p *Picture) numbered(o record.Operation) record.Operation {
	o.ID, o.From, o.To, o.Step = p.Record.LastOperation+1, p.Record.Epoch.Number, p.Record.LastEpoch, record.Intent
	if o.Kind.MakesEpoch() {
		o.To++
	}
	return o
}

// node finds a node; nil when it is not configured.
func (p *Picture) node(id topology.NodeID) *Node {
	for i := range p.Nodes {
		if p.Nodes[i].ID == id {
			return &p.Nodes[i]
		}
	}
	return nil
}

// primary is the node of the present epoch; nil when it was taken out of the configuration.
func (p *Picture) primary() *Node { return p.node(p.Record.Epoch.Primary) }

// defaultLease stands in where a policy gives none, so that no freshness limit is zero.
const defaultLease = 1500 * time.Millisecond

// lease is L.
func (p *Picture) lease() time.Duration {
	if p.Policy.Lease > 0 {
		return p.Policy.Lease
	}
	return defaultLease
}

// fresh says whether a fact is young enough to act on: two leases, which is four probes.
func (p *Picture) fresh(f *Fact) bool { return f.At != 0 && p.Now-f.At <= 2*p.lease() }

// automatic says whether a member began the operation, not an operator.
func (p *Picture) automatic(op *record.Operation) bool {
	for i := range p.Members {
		if p.Members[i].Name == op.By {
			return true
		}
	}
	return op.By == p.Self
}

// short prints a duration as people say it.
func short(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		text := d.Round(time.Second).String()
		if strings.HasSuffix(text, "m0s") {
			text = strings.TrimSuffix(text, "0s")
		}
		return text
	case d >= time.Second:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Millisecond).String()
}

// bytes prints a distance in the log.
func bytes(n uint64) string {
	for _, unit := range []struct {
		size uint64
		name string
	}{{1 << 30, "GB"}, {1 << 20, "MB"}, {1 << 10, "kB"}} {
		if n >= unit.size {
			number := strconv.FormatFloat(float64(n)/float64(unit.size), 'f', 1, 64)
			return strings.TrimSuffix(number, ".0") + " " + unit.name
		}
	}
	return fmt.Sprintf("%d bytes", n)
}
