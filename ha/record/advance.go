package record

import (
	"fmt"
	"maps"
	"slices"

	"github.com/cstproxy/cstproxy/ha/topology"
)

func (c *Cluster) advance(a *Advance) error {
	present := c.Operation
	if !a.To.Kind.MakesEpoch() {
		present = c.Tasks[a.To.Node]
	}
	switch {
	case present == nil || present.ID != a.To.ID:
		return stale("%s %d is not under way", a.To.Kind, a.To.ID)
	case present.Step != a.From:
		return stale("%s %d is at step %s, not %s", present.Kind, present.ID, present.Step, a.From)
	}
	if err := present.mayBecome(&a.To); err != nil {
		return err
	}
	next := a.To
	next.Recruited = slices.Clone(next.Recruited)
	if err := c.cross(present, a); err != nil {
		return err
	}
	if next.Step == Promote && present.Step != Promote {
		if next.Timeline <= c.Epoch.History.Timeline {
			return malformed("timeline %d does not follow timeline %d", next.Timeline, c.Epoch.History.Timeline)
		}
		c.LastTimeline = max(c.LastTimeline, next.Timeline)
	}
	c.markFor(&next, present.Step)
	switch {
	case next.Step == Done && next.Kind.MakesEpoch():
		c.Operation = nil
		c.remember(next)
	case next.Step == Done:
		c.Tasks = maps.Clone(c.Tasks)
		delete(c.Tasks, next.Node)
		c.remember(next)
	case next.Kind.MakesEpoch():
		c.Operation = &next
	default:
		c.Tasks = maps.Clone(c.Tasks)
		c.Tasks[next.Node] = &next
	}
	return nil
}

// mayBecome says why o cannot become next.
func (o *Operation) mayBecome(next *Operation) error {
	switch {
	case next.Kind != o.Kind || next.From != o.From || next.To != o.To || next.By != o.By || next.Node != o.Node || next.Former != o.Former || next.Left != o.Left || next.Accept != o.Accept || next.Appointment != o.Appointment:
		return malformed("%s %d cannot become another operation", o.Kind, o.ID)
	case !o.Step.leadsTo(next.Step):
		return malformed("step %s does not lead to step %s", o.Step, next.Step)
	case !o.Kind.MakesEpoch() && next.Step != o.Step && next.Step != After && next.Step != Done:
		return malformed("a %s has no step %s", o.Kind, next.Step)
	case (next.Step == Done) != next.Outcome.final() && next.Step != Undo:
		return malformed("step %s with outcome %q", next.Step, next.Outcome)
	case next.Step == Undo && !next.Outcome.known():
		return malformed("there is no outcome %q", next.Outcome)
	case o.Candidate != 0 && next.Candidate != o.Candidate:
		return malformed("node %d was committed as the candidate; another one needs another operation", o.Candidate)
	case o.Candidate == 0 && next.Candidate != 0 && next.Step != Promote, next.Candidate < 0:
		return malformed("the candidate is set with step %s", Promote)
	case o.Timeline != 0 && next.Timeline != o.Timeline, o.Timeline == 0 && next.Timeline != 0 && next.Step != Promote:
		return malformed("the timeline is set with step %s", Promote)
	case o.Kind.MakesEpoch() && next.Step == Promote && next.Candidate == 0:
		return malformed("nobody is to be promoted")
	}
	for _, id := range o.Recruited {
		if !slices.Contains(next.Recruited, id) {
			return malformed("node %d was recruited and is forgotten", id)
		}
	}
	return nil
}

// leadsTo: an operation goes on, or stays where it is to note something. From After there is no
// way back: the epoch is out. From Undo there is none forward: members route writes of From again.
func (s Step) leadsTo(next Step) bool {
	switch next {
	case s:
		return s >= Intent && s < Done
	case Undo:
		return s >= Intent && s <= Promote
	case Done:
		return s >= Intent && s < Done
	case After:
		return s == Promote || s == Intent // the latter for tasks; cross guards it
	case Freeze, Fence, Promote:
		return s == next-1
	}
	return false
}

// cross makes the new epoch when an operation moves to After, and refuses an epoch everywhere else.
func (c *Cluster) cross(present *Operation, a *Advance) error {
	crossing := present.Kind.MakesEpoch() && a.To.Step == After && present.Step != After
	switch {
	case !crossing && a.Epoch != nil:
		return malformed("an epoch begins with step %s of a failover or a switch only", After)
	case !crossing:
		return nil
	case present.Step != Promote:
		return malformed("step %s does not lead to step %s", present.Step, After)
	case a.Epoch == nil:
		return malformed("step %s of a %s needs the new epoch", After, present.Kind)
	}
	e := a.Epoch
	switch {
	case e.Number != present.To || e.Operation != present.ID || e.Primary != present.Candidate:
		return malformed("epoch %d with primary %d is not what %s %d is to make", e.Number, e.Primary, present.Kind, present.ID)
	case e.SystemID != c.Epoch.SystemID:
		return malformed("node %d is of another system than the cluster", e.Primary)
	case e.History.Timeline < present.Timeline:
		return malformed("timeline %d of the new epoch is below timeline %d", e.History.Timeline, present.Timeline)
	}
	c.start(*e)
	return nil
}

// markFor marks the nodes for which it means something that an operation went from step to now's
// step.
func (c *Cluster) markFor(now *Operation, step Step) {
	switch {
	case now.Step == step:
	case now.Kind.MakesEpoch() && now.Step == After:
		c.setMark(now.Candidate, Mark{})
		if now.Kind == Failover {
			c.setMark(now.Former, Mark{Quarantine: fmt.Sprintf("it was the primary of epoch %d, and may have log that node %d lacks", now.From, now.Candidate)})
		}
	case now.Kind.MakesEpoch() && step == Promote:
		mark := c.Mark(now.Candidate)
		mark.Barred = fmt.Sprintf("its promotion to epoch %d was given up", now.To)
		c.setMark(now.Candidate, mark)
	case (now.Kind == Repair || now.Kind == Clone) && now.Outcome == Completed:
		c.setMark(now.Node, Mark{})
	case (now.Kind == Repair || now.Kind == Clone) && now.Outcome == Failed:
		mark := c.Mark(now.Node)
		mark.Tries++
		c.setMark(now.Node, mark)
	}
}

// Mark is what the fleet remembers of the node; the zero Mark for an ordinary one.
func (c *Cluster) Mark(id topology.NodeID) Mark {
	if m := c.Nodes[id]; m != nil {
		return *m
	}
	return Mark{}
}

// Find is the operation or task under way with that number; nil when there is none.
func (c *Cluster) Find(id OperationID) *Operation {
	if c.Operation != nil && c.Operation.ID == id {
		return c.Operation
	}
	for _, t := range c.Tasks {
		if t.ID == id {
			return t
		}
	}
	return nil
}

// Frozen is the operation for which members route no writes of epoch e and forward no answers of its
// primary, 0 when there is none. Everybody asks this: the member that holds a lease, and the leader that
// would grant one.
func (c *Cluster) Frozen(e topology.Epoch) OperationID {
	o := c.Operation
	if o == nil || o.From != e || o.Step < Freeze || o.Step > Promote || c.Drains(e) != 0 {
		return 0
	}
	return o.ID
}

// Making is the operation that is to end in a new epoch and has not begun it; nil when there is none.
func (c *Cluster) Making() *Operation {
	if o := c.Operation; o != nil && o.Kind.MakesEpoch() && o.Step < After {
		return o
	}
	return nil
}

// Drains is the operation for which members begin no new writes of epoch e, and bring those that have
// begun to their end; 0 when there is none. Only a switch does so, before it freezes: its primary is
// well.
func (c *Cluster) Drains(e topology.Epoch) OperationID {
	if o := c.Operation; o != nil && o.Kind == Switch && o.From == e && o.Step == Freeze {
		return o.ID
	}
	return 0
}
