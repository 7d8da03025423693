package decide

import (
	"fmt"
	"time"

	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// wayBack bounds the step Undo: no failover can begin while it lasts.
const wayBack = 10 * time.Second

// undo leads everybody back to epoch From. Members route writes of it again as soon as the step is
// committed: whatever happens now, this operation cannot make its epoch any more. Who cannot be led
// back now is found later, as a standby that bears a marker or a primary that does not run.
//
// Only the leader does this. One that dies here leaves the rest to the next leader, who reads Recruited
// in the record; a Release that arrives late is refused by its host once anything newer was ordered there.
func (p *Picture) undo(op *record.Operation) Plan {
	w := p.work(op)
	var waiting, left []topology.NodeID
	// The old primary may have been stopped, by this leader or by one before it, and a late command
	// may still stop it. Revive does nothing to one that runs, but from then on its host refuses
	// what belongs to earlier steps.
	if old := p.primary(); old != nil && old.Managed {
		switch w.do(w.action(Revive, old.ID), 3) {
		case pending:
			waiting = append(waiting, old.ID)
		case failed:
			left = append(left, old.ID)
		}
	}
	for _, id := range op.Recruited {
		n := p.node(id)
		if n == nil || n.Fact.Role == topology.RolePrimary {
			continue
		}
		switch w.leadBack(n) {
		case pending:
			waiting = append(waiting, id)
		case failed:
			left = append(left, id)
		}
	}
	if len(waiting) > 0 && p.Now-p.StepSince < wayBack {
		w.wakeAt(p.StepSince + wayBack)
		return w.plan("leading back to epoch %d: %s", op.From, names(waiting))
	}
	outcome, note := op.Outcome, op.Note
	if outcome == record.Open {
		outcome = record.Undone
	}
	left = append(left, waiting...)
	if len(left) > 0 {
		note += fmt.Sprintf("; %s could not be led back yet", names(left))
	}
	plan := p.end(op, outcome, note)
	if len(left) > 0 || outcome != record.Undone {
		plan.Alarm = note
	}
	return plan
}

// leadBack releases a recruited node that may receive the primary's log. A Release starts a server that is
// down, and has one with log of its own take the primary's for its continuation: who is in quarantine, a
// twin, down or on another branch is left as he is, and is a matter of repair (tend), which looks first and
// keeps such log aside. A leader that has just come knows nothing of a node yet: it asks before it acts.
func (w *work) leadBack(n *Node) progress {
	p, f, mark := w.p, &n.Fact, w.p.Record.Mark(n.ID)
	switch {
	case mark.Quarantine != "" || mark.Twin || f.Stopped:
		return succeeded
	case f.At == 0 && p.Now-p.StepSince < 2*p.lease():
		w.look(n.ID)
		return pending
	case f.At == 0:
		return failed
	case f.Role == topology.RoleStandby && p.astray(n) != "":
		return succeeded
	}
	a := w.action(Release, n.ID)
	a.Upstream = p.Record.Epoch.Primary
	return w.do(a, 3)
}
