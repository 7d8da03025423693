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
		a := w.action(Release, id)
		a.Upstream = p.Record.Epoch.Primary
		switch w.do(a, 3) {
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
