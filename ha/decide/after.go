package decide

import (
	"fmt"
	"strings"
	"time"

	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// aftermath bounds the step After: what has not followed by then is repaired as a task.
const aftermath = 40 * time.Second

// after puts the cluster in order around its new primary. The epoch is out and clients write; what
// fails here is a matter of repair, not of the operation.
func (p *Picture) after(op *record.Operation) Plan {
	if f := p.find(); f.is == crashed || f.is == lost {
		return p.end(op, record.Completed, p.report(op)+"; the new primary was lost again: "+f.why)
	}
	w := p.work(op)
	var waiting []string
	note := func(what string, state progress) {
		if state == pending {
			waiting = append(waiting, what)
		}
	}
	if p.Policy.WriteVIP != "" {
		note("the write VIP", w.do(w.action(TakeVIP, op.Candidate), 3))
	}
	for i := range p.Nodes {
		n := &p.Nodes[i]
		switch {
		case n.ID == op.Candidate || !n.Managed:
		case n.ID != op.Former:
			if p.wantsFollow(n) {
				note(name(n.ID), w.do(w.follow(n.ID), 2))
			}
		case op.Kind == record.Switch:
			if state := w.do(w.action(Start, n.ID), 2); state == succeeded {
				note(name(n.ID), w.do(w.follow(n.ID), 2))
			} else {
				note(name(n.ID), state)
			}
		case w.runs(Stop, n.ID):
			note(name(n.ID), pending) // the fence's own, which the next one would end and be as long as
		default:
			note(name(n.ID), w.quell(n))
		}
	}
	for _, hook := range p.Policy.Hooks {
		a := w.action(Hook, op.Candidate)
		a.Mode = hook
		note("hook "+hook, w.do(a, 1))
	}
	if len(waiting) > 0 && p.Now-p.StepSince < aftermath {
		w.wakeAt(p.StepSince + aftermath)
		return w.plan("node %d is primary of epoch %d; in hand: %s", op.Candidate, op.To, strings.Join(waiting, ", "))
	}
	return p.end(op, record.Completed, p.report(op))
}

// wantsFollow says whether a standby has to be pointed at the new primary: one that was recruited,
// or follows nobody or the former primary; not one that has to be repaired first. One that follows another standby may stay there.
func (p *Picture) wantsFollow(n *Node) bool {
	f := &n.Fact
	if !p.fresh(f) || p.outdated(n) || f.Role != topology.RoleStandby || p.astray(n) != "" || p.Record.Mark(n.ID).Twin {
		return false // one on another branch must not be sent log that it may take for its own's continuation
	}
	primary := p.Record.Epoch.Primary
	if f.Upstream == primary && f.Recruited == 0 {
		return false
	}
	up := p.node(f.Upstream)
	cascade := up != nil && up.ID != p.formerPrimary() && up.ID != primary && p.fresh(&up.Fact) && up.Fact.Role == topology.RoleStandby && f.Streaming
	return !cascade || f.Recruited != 0
}

// follow points a standby at the present primary.
func (w *work) follow(id topology.NodeID) Action {
	a := w.action(Follow, id)
	a.Upstream = w.p.Record.Epoch.Primary
	return a
}

// quell stops a server that may still run as primary of an epoch that has ended. One try: when its
// host comes back later, it is found as a second primary.
func (w *work) quell(n *Node) progress {
	f := &n.Fact
	if f.Stopped || w.p.fresh(f) && f.Role == topology.RoleStandby {
		if w.p.Policy.WriteVIP == "" {
			return succeeded
		}
		return w.do(w.action(DropVIP, n.ID), 1)
	}
	a := w.action(Stop, n.ID)
	a.Mode = "immediate"
	return w.do(a, 1)
}

// report is the sentence that the history keeps of a failover or switch.
func (p *Picture) report(op *record.Operation) string {
	e := &p.Record.Epoch
	text := fmt.Sprintf("node %d is primary of epoch %d on timeline %d", e.Primary, e.Number, e.History.Timeline)
	if e.Switch != 0 {
		text += fmt.Sprintf(", which begins at %s", e.Switch)
	}
	if op.Lost > 0 {
		text += fmt.Sprintf("; at least %s that the old primary had written are not on it", bytes(op.Lost))
	}
	return text
}
