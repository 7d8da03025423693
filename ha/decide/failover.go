package decide

import (
	"fmt"
	"strings"
	"time"

	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

const (
	// patience is how long a failover looks for somebody to promote before it gives up and says so.
	patience = 10 * time.Second
	// recruitWait is how long it waits for a standby that members reach but that does not obey.
	recruitWait = 1500 * time.Millisecond
	// stopWait is how long it waits for the old primary to stop when its host answers. The leases
	// keep clients of ours away from it in any case.
	stopWait = time.Second
	// recruitTries is more than patience has room for.
	recruitTries = 1 << 20
)

// failOver takes a failover from Intent to Promote.
func (p *Picture) failOver(op *record.Operation) Plan {
	if p.returned(op) {
		return p.giveUp(op, record.Undone, "the primary is back: "+p.find().why)
	}
	switch op.Step {
	case record.Intent:
		return p.advance(op, record.Freeze, "hold the writes of epoch %d", op.From)
	case record.Freeze:
		next := *op
		next.Step, next.Recruited = record.Fence, p.recruits()
		return p.move(op, next, fmt.Sprintf("cut %s off from node %d", names(next.Recruited), p.Record.Epoch.Primary))
	}
	return p.fence(op)
}

// returned says whether a failover has lost its cause: the primary that was missed works again. An
// operator's order stands, and so does one that has begun to stop the primary.
func (p *Picture) returned(op *record.Operation) bool {
	if !p.automatic(op) || p.find().is != healthy {
		return false
	}
	if old := p.primary(); old == nil || p.fresh(&old.Fact) && old.Fact.Role != topology.RolePrimary {
		return false
	}
	for i := range p.Finished {
		if a := p.Finished[i].Action; a.Verb == Stop && a.Operation == op.ID {
			return false
		}
	}
	for _, a := range p.Running {
		if a.Verb == Stop && a.Operation == op.ID {
			return false
		}
	}
	return true
}

// recruits are the nodes to be cut off: all that can be operated, whether or not they may be
// promoted. Whoever is left streaming could complete a quorum of the old primary.
func (p *Picture) recruits() []topology.NodeID {
	var list []topology.NodeID
	for i := range p.Nodes {
		if n := &p.Nodes[i]; n.ID != p.Record.Epoch.Primary && n.Managed {
			list = append(list, n.ID)
		}
	}
	return list
}

// fence recruits, chooses, stops the old primary, and waits for the leases.
func (p *Picture) fence(op *record.Operation) Plan {
	w := p.work(op)
	waiting := w.recruit()
	crashed := p.crashed()
	stopping := crashed && w.stopOld()
	for i := range p.Nodes {
		w.shedVIP(&p.Nodes[i]) // nobody waits for it
	}
	cut := p.cut(op)
	c := p.choose(op)
	against := p.against(op, c, cut)
	inTime := p.Now-p.StepSince < patience
	switch {
	case len(waiting) > 0 && p.Now-p.StepSince < recruitWait:
		w.wakeAt(p.StepSince + recruitWait)
		return w.plan("waiting for %s to leave node %d", names(waiting), p.Record.Epoch.Primary)
	case against != "" && inTime:
		w.wakeAt(p.StepSince + patience)
		return w.plan("nobody can be promoted yet: %s", against)
	case against != "":
		return p.giveUp(op, record.Waits, fmt.Sprintf("nobody was promoted: %s; %s", against, c.advice()))
	}
	if !crashed {
		stopping = w.stopOld()
	}
	g := p.gate(op, cut)
	switch {
	case g.shut && !inTime:
		return p.giveUp(op, record.Waits, fmt.Sprintf("nobody was promoted: %s; %s", g.why, g.remedy))
	case g.shut:
		w.wakeAt(p.StepSince + patience)
		return w.plan("%s is to be promoted (%s); %s", name(c.node.ID), c.why, g.why)
	case p.Now < g.until:
		w.wakeAt(g.until)
		return w.plan("%s is to be promoted (%s); %s", name(c.node.ID), c.why, g.why)
	case stopping && !crashed && p.Now-p.StepSince < stopWait:
		w.wakeAt(p.StepSince + stopWait)
		return w.plan("%s is to be promoted (%s); the old primary is being stopped", name(c.node.ID), c.why)
	}
	next := p.promotion(op, c.node)
	next.Lost = c.behind
	return p.move(op, next, fmt.Sprintf("promote node %d at epoch %d: %s; %s", c.node.ID, op.To, op.Why, c.why))
}

// promotion is op with n as its candidate, and a timeline that nobody is known to have used. A node
// that was promoted already keeps its own.
func (p *Picture) promotion(op *record.Operation, n *Node) record.Operation {
	next := *op
	next.Step, next.Candidate, next.Expected = record.Promote, n.ID, p.position(n)
	next.Timeline = p.Record.LastTimeline
	for i := range p.Nodes {
		next.Timeline = max(next.Timeline, p.Nodes[i].Fact.History.Timeline)
	}
	next.Timeline++
	if n.Fact.Role == topology.RolePrimary {
		next.Timeline = n.Fact.History.Timeline
	}
	return next
}

// recruit has every recruit leave the old primary. It returns those that have not but probably
// will: a member reaches them.
func (w *work) recruit() (waiting []topology.NodeID) {
	if w.p.Weakness&NoRecruit != 0 {
		return nil
	}
	for _, id := range w.op.Recruited {
		n := w.p.node(id)
		if n == nil || w.p.cutOff(n, w.op) {
			continue
		}
		if w.do(w.action(Recruit, id), recruitTries) != failed && w.p.reached(id) {
			waiting = append(waiting, id)
		}
	}
	return waiting
}

// crashed says that the old primary's process is gone as far as a majority sees, so that to stop what
// may be left of it harms nobody, and need not be waited for.
func (p *Picture) crashed() bool {
	t := p.tally(p.Record.Epoch.Primary)
	return t.by[Refused] >= t.quorum
}

// stopOld stops the old primary as well as that can be done, and says whether it may still succeed.
func (w *work) stopOld() bool {
	old := w.p.primary()
	if old == nil || !old.Managed {
		return false
	}
	a := w.action(Stop, old.ID)
	a.Mode = "immediate"
	if w.do(a, 1) != pending {
		return false
	}
	t := w.p.tally(old.ID)
	return t.hostUp || t.by[Refused] > 0 || len(t.alive) > 0 || t.by[Stuck] > 0
}

// against says what stands in the way of promoting c; empty when nothing does.
func (p *Picture) against(op *record.Operation, c choice, cut []topology.NodeID) string {
	if c.node == nil {
		return strings.Join(c.refused, "; ")
	}
	if op.Accept == record.AcceptLoss {
		return ""
	}
	return p.lossy(c, cut)
}

// promote has the candidate promoted, and makes the epoch once it is primary on a timeline of its
// own. A successor of the leader that began this does it again: whoever is primary stays so.
func (p *Picture) promote(op *record.Operation) Plan {
	w := p.work(op)
	n := p.node(op.Candidate)
	if n == nil {
		return p.giveUpPromotion(op, fmt.Sprintf("node %d was taken out of the configuration", op.Candidate))
	}
	w.fenceHooks()
	a := w.action(PromoteIt, op.Candidate)
	a.Timeline = op.Timeline
	state := w.do(a, p.promotionTries(op.Candidate))
	f := &n.Fact
	switch {
	case state == succeeded && f.Role == topology.RolePrimary && f.At >= p.StepSince && f.History.Timeline >= op.Timeline:
		return p.cross(op, n)
	case state == succeeded && f.Role == topology.RolePrimary && f.At >= p.StepSince:
		return p.giveUpPromotion(op, fmt.Sprintf("node %d became a primary on timeline %d, but timelines up to %d may exist elsewhere", n.ID, f.History.Timeline, op.Timeline-1))
	case state == failed:
		text, _ := w.tried(a)
		return p.giveUpPromotion(op, fmt.Sprintf("node %d could not be promoted: %s", op.Candidate, text))
	case p.Now-p.StepSince > a.Timeout+patience:
		return p.giveUpPromotion(op, fmt.Sprintf("node %d was not seen as a primary within %s", op.Candidate, short(p.Now-p.StepSince)))
	case state == succeeded:
		w.look(op.Candidate)
	}
	w.wakeAt(p.StepSince + a.Timeout + patience)
	return w.plan("node %d is being promoted to epoch %d", op.Candidate, op.To)
}

// fenceHooks begins the user's own ways to fence the old primary, which may cut its power. That is before the
// promotion succeeds and not before it is committed: up to there a failover is undone when nobody can be
// promoted or when the primary answers again, and what a program has done to a host is not. What they come
// to changes nothing here.
//
// The leader begins them. Dies it here, the next one begins them again; and one that wakes late is told by a
// majority that it leads no more, see package operation.
func (w *work) fenceHooks() {
	if w.op.Kind != record.Failover {
		return
	}
	for _, hook := range w.p.Policy.FenceHooks {
		a := w.action(Hook, w.op.Former)
		a.Mode = hook
		w.do(a, 1)
	}
}

// promotionTries is how often the candidate is told. One that a quorum does not reach any more, or on
// which nobody listens, is not going to obey: somebody else has to, while the writes wait.
func (p *Picture) promotionTries(candidate topology.NodeID) int {
	if t := p.tally(candidate); t.by[Silent]+t.by[Refused] >= t.quorum {
		return 1
	}
	return 3
}

// giveUpPromotion leaves an operation whose candidate may or may not have become a primary. No
// member ever routes to it in epoch op.To, which was not published and now never will be. After a
// switch there is an old primary to go back to; after a failover the next one looks for somebody.
func (p *Picture) giveUpPromotion(op *record.Operation, note string) Plan {
	if op.Kind == record.Switch {
		return p.giveUp(op, record.Failed, note)
	}
	plan := p.end(op, record.Failed, note)
	plan.Alarm = note
	return plan
}

// cross commits the new epoch.
func (p *Picture) cross(op *record.Operation, n *Node) Plan {
	f := &n.Fact
	e := record.Epoch{
		Number: op.To, Operation: op.ID, Primary: n.ID, Address: n.Address(),
		SystemID: f.SystemID, History: f.History, Settings: f.Settings,
		Standbys: record.Standbys{Sync: p.syncSet(f.Sync, n.ID)},
	}
	left, ok := f.History.LeftAt(p.Record.Epoch.History.Timeline)
	if last := len(f.History.Forks) - 1; !ok && last >= 0 {
		left = f.History.Forks[last].End // it was never there (lastResource)
	}
	e.Switch = left
	// Whoever is about to follow may be promoted next. One that does not follow yet only keeps a
	// member without quorum from going on.
	for i := range p.Nodes {
		m := &p.Nodes[i]
		old := m.ID == p.Record.Epoch.Primary && op.Kind == record.Failover
		if m.ID != n.ID && !old && m.Managed && !m.NoFailover && p.Record.Mark(m.ID).Quarantine == "" {
			e.Eligible = append(e.Eligible, m.ID)
		}
	}
	next := *op
	next.Step = record.After
	plan := p.move(op, next, fmt.Sprintf("node %d is primary of epoch %d on timeline %d", n.ID, op.To, f.History.Timeline))
	plan.Entry.Advance.Epoch = &e
	return plan
}

// syncSet finds the nodes behind a primary's synchronous_standby_names. The primary's own name is
// often among them, because all nodes have the same setting: nobody streams under it. A name that
// several standbys bear cannot be counted, just as '*' cannot.
func (p *Picture) syncSet(s record.SyncSet, primary topology.NodeID) record.SyncSet {
	set := record.SyncSet{Method: s.Method, Count: s.Count, Any: s.Any}
	for _, name := range s.Names {
		var bearers []topology.NodeID
		own := false
		for i := range p.Nodes {
			switch {
			case p.Nodes[i].AppName != name:
			case p.Nodes[i].ID == primary:
				own = true
			default:
				bearers = append(bearers, p.Nodes[i].ID)
			}
		}
		if own && len(bearers) == 0 {
			continue
		}
		set.Any = set.Any || len(bearers) > 1
		set.Names, set.Nodes = append(set.Names, name), append(set.Nodes, bearers...)
	}
	return set
}

func name(id topology.NodeID) string { return fmt.Sprintf("node %d", id) }

func names(list []topology.NodeID) string {
	if len(list) == 0 {
		return "nobody"
	}
	var all []string
	for _, id := range list {
		all = append(all, name(id))
	}
	return strings.Join(all, ", ")
}
