package decide

import (
	"fmt"
	"slices"

	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// repair climbs the ladder: re-attach, rewind, rebuild. Which rung is due follows from facts, and
// from what this leader has tried; a successor begins again with what costs nothing.
func (p *Picture) repair(op *record.Operation, n *Node, f finding) Plan {
	w := p.work(op)
	fact := &n.Fact
	if op.Kind == record.Clone {
		return p.rebuild(w, n, f)
	}
	shedding := w.shedVIP(n)
	switch {
	case n.ID == p.Record.Epoch.Primary:
		return p.end(op, record.Failed, fmt.Sprintf("node %d is the primary", n.ID))
	case shedding, w.busy():
		return w.plan("node %d is in repair", n.ID)
	case p.well(n) && (op.Mode == "" || op.Mode == "reattach" || w.rung(op.Mode)):
		return p.end(op, record.Completed, fmt.Sprintf("node %d follows node %d", n.ID, p.Record.Epoch.Primary))
	case op.Mode == "rebuild":
		return p.rebuild(w, n, f)
	case op.Mode == "rewind":
		return p.rewind(w, n, f)
	case !p.fresh(fact):
		return p.noAnswer(w, n)
	case fact.Vacant:
		return p.end(op, record.Failed, p.vacancy(n))
	case fact.Role == topology.RolePrimary && !fact.Stopped:
		return p.stopSecond(w, n)
	case fact.Role == topology.RoleUnknown && !fact.Stopped:
		return p.stopHung(w, n)
	case fact.SystemID != 0 && fact.SystemID != p.Record.Epoch.SystemID:
		return p.end(op, record.Failed, fmt.Sprintf("node %d is of another system; `cstproxy ctl repair -i %d --mode rebuild` replaces what is there", n.ID, n.ID))
	case fact.Halfway && !p.Record.Mark(n.ID).Twin:
		return p.rewind(w, n, f)
	case !fact.Complete, p.Record.Mark(n.ID).Twin:
		return p.rebuild(w, n, f)
	case p.diverged(n) && fact.History.Timeline == p.Record.Epoch.History.Timeline:
		return p.rebuild(w, n, f) // pg_rewind takes equal numbers for one timeline, and does nothing
	case p.diverged(n):
		return p.rewind(w, n, f)
	}
	return p.reattach(w, n, f)
}

// vacancy is about a host that was made ready, or whose disk is not mounted: an operator knows which.
func (p *Picture) vacancy(n *Node) string {
	return fmt.Sprintf("node %d has no data directory: `cstproxy ctl clone -i %d` makes one", n.ID, n.ID)
}

// shedVIP takes the write VIP away from a node that may have it from its time as primary, before
// anything else. It says whether that is under way; once is enough, and a failure waits for nobody.
func (w *work) shedVIP(n *Node) bool {
	if w.p.Policy.WriteVIP == "" || w.p.Record.Mark(n.ID).Quarantine == "" {
		return false
	}
	return w.do(w.action(DropVIP, n.ID), 3) == pending
}

// stopHung is about a server that runs and answers nobody. It may be starting; otherwise nothing is
// known of it, and it is stopped so that something can be. So is one that was cut off and has crashed
// before it was consistent: it waits for log that nobody brings, and reads its settings only at its start.
func (p *Picture) stopHung(w *work, n *Node) Plan {
	t := p.tally(n.ID)
	switch {
	case len(t.alive) > 0 || len(t.failing) < t.quorum:
		return p.noAnswer(w, n)
	case t.by[Starting] > 0 && n.Fact.Recruited == 0:
		return p.comingUp(w, n)
	}
	a := w.action(Stop, n.ID)
	a.Mode = "immediate"
	switch state := w.hold(a, 3); {
	case state == failed:
		text, _ := w.tried(a)
		return p.end(w.op, record.Failed, fmt.Sprintf("node %d answers nobody and cannot be stopped: %s", n.ID, text))
	case p.taskAge(n.ID) > a.Timeout+catchUp:
		return p.end(w.op, record.Failed, fmt.Sprintf("node %d answers nobody and was not seen to stop", n.ID))
	}
	w.wake(retryAfter)
	return w.plan("node %d runs and answers nobody: it is being stopped", n.ID)
}

// busy says whether something is being done to the node right now; it may not answer meanwhile.
func (w *work) busy() bool {
	return slices.ContainsFunc(w.p.Running, func(a Action) bool { return a.Operation == w.op.ID && a.Verb != Look })
}

// rung says whether the forced way of a mode has been gone.
func (w *work) rung(mode string) bool {
	verb := Rewind
	if mode == "rebuild" {
		verb = Rebuild
	}
	for i := range w.p.Finished {
		if r := &w.p.Finished[i]; r.Action.Operation == w.op.ID && r.Action.Verb == verb && r.Err == "" {
			return true
		}
	}
	return false
}

// diverged says whether the node has log that is not on the way to the epoch's.
func (p *Picture) diverged(n *Node) bool {
	f := &n.Fact
	at := max(f.Write, f.Receive, f.Replay)
	if !f.History.Known() && f.History.Timeline != 1 {
		return false
	}
	return !f.History.IsPrefixOf(p.Record.Epoch.History, at)
}

// noAnswer waits for the node's host. To give up is no failure of the repair: it begins again when
// the host is back.
func (p *Picture) noAnswer(w *work, n *Node) Plan {
	if p.taskAge(n.ID) > catchUp {
		return p.end(w.op, record.Undone, fmt.Sprintf("node %d and its host have not answered for %s", n.ID, short(p.taskAge(n.ID))))
	}
	w.wake(catchUp - p.taskAge(n.ID))
	w.look(n.ID)
	return w.plan("node %d does not answer", n.ID)
}

// unanswered is how many of the node's repairs in a row were left because nothing could be done there, while
// nothing is known of it still. Each leader counts them in the record: otherwise repairs of a node whose host
// answers and whose directory does not would begin and end twice a minute, whoever leads.
func (p *Picture) unanswered(id topology.NodeID) int {
	if n := p.node(id); n == nil || p.fresh(&n.Fact) {
		return 0
	}
	vain := 0
	for i := range p.Record.Past {
		switch o := &p.Record.Past[i]; {
		case o.Kind != record.Repair || o.Node != id:
		case o.Outcome == record.Undone:
			vain++
		default:
			vain = 0
		}
	}
	return vain
}

// comingUp waits for a server that recovers, which may take long. When it takes too long for a repair, it
// is left to itself: another repair begins only when it is up, or down.
func (p *Picture) comingUp(w *work, n *Node) Plan {
	if p.taskAge(n.ID) > catchUp {
		return p.end(w.op, record.Undone, fmt.Sprintf("node %d has been starting up for %s, and is waited for", n.ID, short(p.taskAge(n.ID))))
	}
	w.wake(catchUp - p.taskAge(n.ID))
	w.look(n.ID)
	return w.plan("node %d is starting up and lets nobody in yet", n.ID)
}

// stopSecond stops a server that runs as a primary beside the epoch's: in order, so that it can be
// rewound, and at once when it does not obey. One that somebody promoted while it could not be seen is
// left to an operator (second).
func (p *Picture) stopSecond(w *work, n *Node) Plan {
	if p.automatic(w.op) && !p.leftBehind(n) {
		if mark := p.Record.Mark(n.ID); mark.Tries < p.Policy.MaxRepairs {
			// Where voters do not reach it, nobody has looked at what it runs as (second), and it would be repaired again.
			mark.Quarantine, mark.Tries = p.beside(n), p.Policy.MaxRepairs
			return p.mark(n, mark, fmt.Sprintf("node %d: %s", n.ID, mark.Quarantine))
		}
		return p.end(w.op, record.Undone, fmt.Sprintf("node %d runs as a primary, and cstproxy did not promote it", n.ID))
	}
	if mark := p.Record.Mark(n.ID); !mark.Twin && p.twin(n) {
		mark.Twin = true
		return p.mark(n, mark, fmt.Sprintf("node %d is on a timeline %d of its own, which nothing tells from the cluster's", n.ID, n.Fact.History.Timeline))
	}
	fast, hard := w.action(Stop, n.ID), w.action(Stop, n.ID)
	fast.Mode, hard.Mode = "fast", "immediate"
	if w.hold(fast, 1) == failed && w.hold(hard, 2) == failed {
		text, _ := w.tried(hard)
		return p.end(w.op, record.Failed, fmt.Sprintf("node %d runs as a second primary and cannot be stopped: %s", n.ID, text))
	}
	if p.taskAge(n.ID) > fast.Timeout+catchUp {
		return p.end(w.op, record.Failed, fmt.Sprintf("node %d runs as a second primary and was not seen to stop", n.ID))
	}
	w.wake(retryAfter)
	return w.plan("node %d runs as a second primary: it is being stopped", n.ID)
}

// reattach starts the server when it is down, and points it at the primary.
func (p *Picture) reattach(w *work, n *Node, f finding) Plan {
	start, follow := w.action(Start, n.ID), w.follow(n.ID)
	if n.Fact.Stopped && n.Fact.Recruited == 0 {
		if w.hold(start, 2) == failed || p.taskAge(n.ID) > 2*catchUp {
			return p.unattached(w, n, f, start)
		}
		w.wake(retryAfter)
		return w.plan("node %d is being started as a standby", n.ID)
	}
	switch state := w.do(follow, 3); {
	case state == failed:
		return p.unattached(w, n, f, follow)
	case state == succeeded && p.taskAge(n.ID) > catchUp:
		return p.unattached(w, n, f, follow)
	}
	w.wake(max(catchUp-p.taskAge(n.ID), retryAfter))
	return w.plan("node %d is to follow node %d", n.ID, p.Record.Epoch.Primary)
}

// unattached goes on to the last rung, unless the operator has forbidden it.
func (p *Picture) unattached(w *work, n *Node, f finding, last Action) Plan {
	text, _ := w.tried(last)
	if text == "" {
		text = "it does not stream"
	}
	if !p.fresh(&n.Fact) {
		return p.noAnswer(w, n) // nothing is known against what is there
	}
	if w.op.Mode == "reattach" {
		return p.end(w.op, record.Failed, fmt.Sprintf("node %d could not be attached: %s", n.ID, text))
	}
	return p.rebuild(w, n, f)
}

// rewind takes back what the node wrote beside the epoch's way. pg_rewind changes the directory in
// place, so one that failed leaves only the last rung.
func (p *Picture) rewind(w *work, n *Node, f finding) Plan {
	if why := p.onlyCopy(n, f); why != "" {
		return p.end(w.op, record.Failed, why)
	}
	a := w.action(Rewind, n.ID)
	a.Upstream = p.Record.Epoch.Primary
	switch state := w.do(a, 2); {
	case state == failed && !p.fresh(&n.Fact):
		return p.noAnswer(w, n)
	case state == failed && w.op.Mode == "rewind":
		text, _ := w.tried(a)
		return p.end(w.op, record.Failed, fmt.Sprintf("node %d could not be rewound: %s", n.ID, text))
	case state == failed:
		return p.rebuild(w, n, f)
	case state == succeeded && p.sinceDone(a) > catchUp:
		return p.rebuild(w, n, f)
	}
	w.wake(catchUp)
	return w.plan("node %d has log that node %d lacks: it is being rewound, and that log kept aside", n.ID, p.Record.Epoch.Primary)
}

// rebuild copies the primary anew. Unless an operator asked for just that, the old directory must
// be kept: it may hold the only copy of what the node alone had written.
func (p *Picture) rebuild(w *work, n *Node, f finding) Plan {
	if why := p.onlyCopy(n, f); why != "" {
		return p.end(w.op, record.Failed, why)
	}
	a := w.action(Rebuild, n.ID)
	a.Upstream, a.Mode = p.Record.Epoch.Primary, "keep"
	switch {
	case w.op.Kind == record.Clone:
		a.Mode = "clone"
	case w.op.Mode == "rebuild":
		a.Mode = "replace"
	}
	switch state := w.do(a, 1); {
	case state == failed:
		text, _ := w.tried(a)
		return p.end(w.op, record.Failed, fmt.Sprintf("node %d could not be rebuilt: %s", n.ID, text))
	case state == succeeded && p.streams(n):
		return p.end(w.op, record.Completed, fmt.Sprintf("node %d was rebuilt and follows node %d", n.ID, p.Record.Epoch.Primary))
	case state == succeeded && p.sinceDone(a) > catchUp:
		return p.end(w.op, record.Failed, fmt.Sprintf("node %d was rebuilt and does not stream", n.ID))
	}
	w.wake(catchUp)
	return w.plan("node %d is being rebuilt from node %d", n.ID, a.Upstream)
}

// onlyCopy says why nothing on the node may be overwritten now: no healthy primary holds what the
// cluster agreed on.
func (p *Picture) onlyCopy(n *Node, f finding) string {
	primary := p.primary()
	switch {
	case n.ID == p.Record.Epoch.Primary:
		return fmt.Sprintf("node %d is the primary", n.ID)
	case primary == nil || f.is != healthy || !p.fresh(&primary.Fact) || primary.Fact.Role != topology.RolePrimary:
		return fmt.Sprintf("node %d is left as it is, because the primary is not well: %s", n.ID, f.why)
	case !primary.Fact.History.Equal(p.Record.Epoch.History):
		return fmt.Sprintf("node %d is left as it is, because node %d is not on the timeline of epoch %d", n.ID, primary.ID, p.Record.Epoch.Number)
	}
	return ""
}
