package decide

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// tasks takes every task one step on. An entry of one goes before the actions of the others, which
// are asked for again after it.
func (p *Picture) tasks(f finding) Plan {
	var all Plan
	for _, id := range slices.Sorted(maps.Keys(p.Record.Tasks)) {
		plan := p.task(p.Record.Tasks[id], f)
		if plan.Entry != nil {
			return plan
		}
		all.Actions = append(all.Actions, plan.Actions...)
		if all.Why != "" && plan.Why != "" {
			all.Why += "; "
		}
		all.Why += plan.Why
		if plan.Again != 0 && (all.Again == 0 || plan.Again < all.Again) {
			all.Again = plan.Again
		}
	}
	return all
}

func (p *Picture) task(op *record.Operation, f finding) Plan {
	n := p.node(op.Node)
	switch {
	case n == nil:
		return p.end(op, record.Failed, fmt.Sprintf("node %d was taken out of the configuration", op.Node))
	case p.Record.Froze != nil && p.automatic(op) && !p.well(n):
		return p.arrest(op, n)
	case op.Step == record.Intent && p.taskAge(n.ID) < p.rest(op):
		if p.well(n) {
			return p.end(op, record.Completed, fmt.Sprintf("node %d streams again", n.ID))
		}
		left := p.rest(op) - p.taskAge(n.ID)
		if tries := p.Record.Mark(n.ID).Tries; tries > 0 {
			return wait(left, "%s of node %d goes on in %s (%d failed so far)", op.Kind, n.ID, short(left), tries)
		}
		w := p.work(op)
		w.wake(left)
		w.look(n.ID)
		return w.plan("%s of node %d goes on in %s, or when it answers", op.Kind, n.ID, short(left))
	case op.Step == record.Intent:
		return p.advance(op, record.After, "%s node %d: %s", op.Kind, op.Node, op.Why)
	case op.Kind == record.Restart:
		return p.restart(op, n)
	}
	return p.repair(op, n, f)
}

// arrest ends an automatic task because an operator froze the cluster: he may be at work on that node. What
// is being done there is let end, because half a rewind is worse than a whole one, and nothing follows it;
// what is left to do then is found when the cluster is unfrozen. A leader that takes over here does not know
// what the one before had begun: it begins nothing either.
func (p *Picture) arrest(op *record.Operation, n *Node) Plan {
	by := p.Record.Froze.By
	if w := p.work(op); w.busy() {
		return w.plan("%s of node %d: what was begun is let end, and nothing follows, because %s froze the cluster", op.Kind, n.ID, by)
	}
	return p.end(op, record.Undone, fmt.Sprintf("%s froze the cluster before the %s of node %d was done", by, op.Kind, n.ID))
}

// rest is how long an automatic repair waits before it touches anything, because the ones before
// it failed, or had no answer and there is none yet: what they lacked may take a while to return.
func (p *Picture) rest(op *record.Operation) time.Duration {
	tries := max(p.Record.Mark(op.Node).Tries, p.unanswered(op.Node))
	if op.Kind != record.Repair || tries == 0 || !p.automatic(op) {
		return 0
	}
	return min(5*time.Second<<min(tries-1, 10), 5*time.Minute)
}

// restart runs a server again that is down: the epoch's primary as primary, others as standbys.
func (p *Picture) restart(op *record.Operation, n *Node) Plan {
	w := p.work(op)
	verb, role := Start, topology.RoleStandby
	if n.ID == p.Record.Epoch.Primary {
		verb, role = Revive, topology.RolePrimary
	}
	a := w.action(verb, n.ID)
	state := w.do(a, 2)
	switch {
	case state == failed:
		text, _ := w.tried(a)
		return p.end(op, record.Failed, fmt.Sprintf("node %d did not start: %s", n.ID, text))
	case state == succeeded && n.Fact.Role == role && !n.Fact.Stopped && p.works(n):
		if verb == Revive && p.Policy.WriteVIP != "" {
			return p.restoreVIP(w, n)
		}
		return p.end(op, record.Completed, fmt.Sprintf("node %d runs again as a %s", n.ID, role))
	case state == succeeded && p.sinceDone(a) > patience:
		return p.end(op, record.Failed, fmt.Sprintf("node %d was started, but members do not reach it", n.ID))
	case p.taskAge(n.ID) > a.Timeout+patience:
		return p.end(op, record.Failed, fmt.Sprintf("node %d did not come back within %s", n.ID, short(p.taskAge(n.ID))))
	}
	w.wake(patience)
	return w.plan("node %d is being started", n.ID)
}

// restoreVIP ends the restart of a primary: a host that was down has lost its addresses.
func (p *Picture) restoreVIP(w *work, n *Node) Plan {
	a := w.action(TakeVIP, n.ID)
	switch w.do(a, 3) {
	case succeeded:
		return p.end(w.op, record.Completed, fmt.Sprintf("node %d runs as the primary and has the write VIP", n.ID))
	case failed:
		text, _ := w.tried(a)
		return p.end(w.op, record.Failed, fmt.Sprintf("node %d runs, but the write VIP could not be put there: %s", n.ID, text))
	}
	return w.plan("node %d runs as the primary; the write VIP is being put there", n.ID)
}

// works says whether a quorum reaches the node.
func (p *Picture) works(n *Node) bool {
	t := p.tally(n.ID)
	return t.by[Answers]+t.by[Full]+t.by[Denied] >= t.quorum
}

const (
	// catchUp is how long a node that was told to follow may take until it streams.
	catchUp = 30 * time.Second
	// idleStandby is how long a standby may receive nothing before it is repaired: longer than its
	// receiver takes to notice a dead connection and to try again.
	idleStandby = 10 * time.Second
)

// well says whether a standby does what it should.
func (p *Picture) well(n *Node) bool { return !p.Record.Mark(n.ID).Twin && p.streams(n) }

// streams says whether a standby streams, on the way of the epoch, and is not told to stay away.
func (p *Picture) streams(n *Node) bool {
	f := &n.Fact
	return p.fresh(f) && f.Role == topology.RoleStandby && f.Streaming && f.Recruited == 0 && f.Complete &&
		f.SystemID == p.Record.Epoch.SystemID && p.astray(n) == "" && !p.followsAstray(n)
}

// formerPrimary is the primary of the epoch before, 0 when it is not known. Who still follows it was
// not meant to: it was not a cascade when that was set up.
func (p *Picture) formerPrimary() topology.NodeID {
	for i := range p.Record.Past {
		if o := &p.Record.Past[i]; o.ID == p.Record.Epoch.Operation {
			return o.Former
		}
	}
	if o := p.Record.Operation; o != nil && o.ID == p.Record.Epoch.Operation {
		return o.Former
	}
	return 0
}

// followsAstray says whether a standby streams from somebody who neither is the primary nor follows
// it, or from the former primary. Whom it follows is not always known.
func (p *Picture) followsAstray(n *Node) bool {
	up := p.node(n.Fact.Upstream)
	if up == nil || up.ID == p.Record.Epoch.Primary {
		return false
	}
	return up.ID == p.formerPrimary() || p.Record.Mark(up.ID).Quarantine != "" || p.fresh(&up.Fact) && up.Fact.Role == topology.RolePrimary
}
