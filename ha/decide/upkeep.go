package decide

import (
	"fmt"
	"time"

	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// upkeep looks after everybody but the primary: second primaries, broken standbys, and the list of
// those that may be promoted.
func (p *Picture) upkeep(f finding) Plan {
	var alarm string
	for i := range p.Nodes {
		n := &p.Nodes[i]
		if n.ID == p.Record.Epoch.Primary {
			continue
		}
		plan := p.tend(n, f)
		if plan.Entry != nil || len(plan.Actions) > 0 {
			return plan
		}
		if alarm == "" {
			alarm = plan.Alarm
		}
	}
	plan := p.publish(f)
	if plan.Alarm == "" {
		plan.Alarm = alarm
	}
	return plan
}

// tend marks a node that is broken, begins its repair, and takes the mark away when it is well.
func (p *Picture) tend(n *Node, f finding) Plan {
	mark := p.Record.Mark(n.ID)
	fact := &n.Fact
	switch {
	case p.Record.Tasks[n.ID] != nil:
		return Plan{}
	case p.fresh(fact) && fact.Role == topology.RolePrimary && p.reached(n.ID):
		return p.second(n, mark, f)
	case p.well(n) && mark != record.Mark{}:
		return p.mark(n, record.Mark{}, fmt.Sprintf("node %d streams again", n.ID))
	case p.well(n):
		return Plan{}
	}
	why := p.ailing(n)
	switch {
	case why == "":
		return Plan{}
	case mark.Fault == "" && mark.Quarantine == "":
		mark.Fault = why
		return p.mark(n, mark, fmt.Sprintf("node %d is broken: %s", n.ID, why))
	}
	return p.mend(n, mark, f, why)
}

func (p *Picture) mark(n *Node, mark record.Mark, why string) Plan {
	return p.commit(record.Entry{Mark: &record.Marking{Node: n.ID, Mark: &mark}}, "%s", why)
}

// second is about a node that runs as a primary beside the epoch's. One that this fleet left behind
// is stopped and repaired. One that somebody promoted by hand gets no write of ours and loses the
// VIP, but is left alone: that somebody may have had a reason.
func (p *Picture) second(n *Node, mark record.Mark, f finding) Plan {
	ours, why := p.leftBehind(n), p.beside(n)
	alarm := fmt.Sprintf("node %d: %s", n.ID, why)
	twin := p.twin(n) && !mark.Twin
	switch {
	case f.is != healthy && !twin:
		return Plan{Alarm: alarm} // it may be the answer to the primary's death
	case mark.Quarantine == "" || twin || !ours && mark.Tries < p.Policy.MaxRepairs:
		mark.Quarantine, mark.Twin = why, mark.Twin || twin
		if !ours {
			mark.Tries = max(mark.Tries, p.Policy.MaxRepairs)
		}
		plan := p.mark(n, mark, alarm)
		plan.Alarm = alarm
		return plan
	}
	plan := p.mend(n, mark, f, why)
	if plan.Alarm == "" {
		plan.Alarm = alarm
	}
	return plan
}

// beside says that a node runs as a primary beside the epoch's, and whose doing that is.
func (p *Picture) beside(n *Node) string {
	why := fmt.Sprintf("it runs as a primary on timeline %d beside node %d", n.Fact.History.Timeline, p.Record.Epoch.Primary)
	if !p.leftBehind(n) {
		why += "; cstproxy did not promote it"
	}
	return why
}

// twin says whether a node that runs as a primary is on a timeline with the number and the origin of
// one on the epoch's way, although it never was the primary of that one: two promotions from one
// position, whose histories are equal and whose logs are not.
func (p *Picture) twin(n *Node) bool {
	h := n.Fact.History
	if !h.IsPrefixOf(p.Record.Epoch.History, 0) {
		return false
	}
	for i := range p.Record.Past {
		if o := &p.Record.Past[i]; o.Former == n.ID && o.Left == h.Timeline {
			return false
		}
	}
	return true
}

// leftBehind says whether a node that runs as a primary is one of this fleet's: the primary of an earlier
// epoch, on that epoch's timeline, or a candidate that was given up and was promoted all the same, straight
// from the timeline that was to be left. Once such a candidate was healthy again (Barred is gone) its host
// refuses the old order, so whoever promoted it since, or a former primary beyond its epoch's timeline,
// meant to.
//
// What is not ours is left running: no member routes to it, whoever leads and whenever it is seen. Where the
// history of operations is too short to know, that is the answer, too.
func (p *Picture) leftBehind(n *Node) bool {
	h, barred := n.Fact.History, p.Record.Mark(n.ID).Barred != ""
	for i := range p.Record.Past {
		o := &p.Record.Past[i]
		switch {
		case !o.Kind.MakesEpoch():
		case o.Former == n.ID && o.Left == h.Timeline:
			return true
		case o.Candidate == n.ID && barred && o.Outcome != record.Completed && forkedFrom(h, o.Left):
			return true
		}
	}
	return false
}

// forkedFrom says whether the history's timeline left that one, as far as it is known.
func forkedFrom(h topology.History, parent topology.Timeline) bool {
	if last := len(h.Forks) - 1; last >= 0 {
		return h.Forks[last].Timeline == parent
	}
	return !h.Known()
}

// ailing says what is wrong with a standby; empty when nothing is, or nothing is known for certain.
func (p *Picture) ailing(n *Node) string {
	f := &n.Fact
	t := p.tally(n.ID)
	down := t.by[Refused] + t.by[Silent] + t.by[Stuck]
	switch {
	case down >= t.quorum && down > 0:
		return fmt.Sprintf("it does not answer %d of %d voters", down, t.voters)
	case f.Stopped:
		return "its server is stopped"
	case !p.fresh(f):
		return ""
	case f.SystemID != p.Record.Epoch.SystemID:
		return fmt.Sprintf("it is of another system (%d)", f.SystemID)
	case !f.Complete:
		return "it has no complete copy"
	case f.Recruited != 0:
		return fmt.Sprintf("it was cut off for epoch %d and not led back", f.Recruited)
	case p.astray(n) != "":
		return "it " + p.astray(n)
	case p.followsAstray(n):
		return fmt.Sprintf("it follows node %d, which is not the primary", f.Upstream)
	case !f.Streaming && p.Now-f.Since > idleStandby:
		return fmt.Sprintf("it has received nothing for %s", short(p.Now-f.Since))
	}
	return ""
}

// mend begins the repair of a node that is marked, as often as the policy allows.
func (p *Picture) mend(n *Node, mark record.Mark, f finding, why string) Plan {
	fact := &n.Fact
	t := p.tally(n.ID)
	switch {
	case f.is != healthy && p.Record.Froze == nil && n.Managed && fact.Stopped && p.fresh(fact) && fact.Complete &&
		mark.Quarantine == "" && p.restartsInVain(n.ID) < 3:
		// Nothing is lost by running it, and it may be the one to be promoted.
		return p.begin(record.Operation{Kind: record.Restart, Node: n.ID}, why+", and the primary is not well")
	case f.is != healthy:
		return Plan{Why: fmt.Sprintf("node %d is not repaired while the primary is not well", n.ID)}
	case p.Record.Froze != nil:
		return p.froze(fmt.Sprintf("node %d: %s", n.ID, why))
	case !n.Managed:
		return Plan{Alarm: fmt.Sprintf("node %d: %s; it cannot be operated from here", n.ID, why)}
	case fact.Vacant:
		return Plan{Alarm: p.vacancy(n)}
	case mark.Tries >= p.Policy.MaxRepairs:
		return Plan{Alarm: fmt.Sprintf("node %d: %s; it is not repaired by itself any more (%d tries): `cstproxy ctl repair -i %d`", n.ID, why, mark.Tries, n.ID)}
	case t.by[Starting] >= t.quorum && p.fresh(fact) && !fact.Stopped && fact.Recruited == 0:
		return Plan{Alarm: fmt.Sprintf("node %d: %s; it is starting up and lets nobody in yet. If that does not end: `cstproxy ctl repair -i %d --mode rebuild`", n.ID, why, n.ID)}
	case !t.hostUp && (!p.fresh(fact) || p.outdated(n)):
		return Plan{Alarm: fmt.Sprintf("node %d: %s, and neither does its host", n.ID, why)}
	}
	return p.begin(record.Operation{Kind: record.Repair, Node: n.ID}, why)
}

// unlisted is how long a standby stays eligible without streaming. Its place in the list does no
// harm: it keeps a member without quorum from going on, and every candidate is looked at anyway.
const unlisted = 10 * time.Second

// publish keeps the record's lists of standbys up to date: those to be promoted, the synchronous
// ones, and which older lists no member goes by any more.
func (p *Picture) publish(f finding) Plan {
	primary, e := p.primary(), &p.Record.Epoch
	if f.is != healthy || !p.fresh(&primary.Fact) || primary.Fact.Role != topology.RolePrimary {
		return Plan{}
	}
	want := record.Standbys{Sync: p.syncSet(primary.Fact.Sync, primary.ID)}
	for i := range p.Nodes {
		if n := &p.Nodes[i]; n.ID != primary.ID && (p.fresh(&n.Fact) && p.promising(n, &primary.Fact) || p.lingers(n)) {
			want.Eligible = append(want.Eligible, n.ID)
		}
	}
	known := p.known()
	forget := len(e.Former) > 0 && e.Former[0].Version < known
	if len(e.Former) >= record.MaxFormer && !forget {
		want = e.Standbys // the log takes no more; what is published stays safe
	}
	settings := primary.Fact.Settings
	news := settings != Settings{} && settings != e.Settings
	if e.Standbys.Equal(want) && !forget && !news {
		return Plan{}
	}
	why := fmt.Sprintf("from now on %s may be promoted", names(want.Eligible))
	switch {
	case !e.Standbys.Equal(want):
	case forget:
		why = fmt.Sprintf("every member knows that %s may be promoted", names(want.Eligible))
	default:
		why = fmt.Sprintf("settings of node %d that a standby needs as high", primary.ID)
	}
	return p.commit(record.Entry{Standbys: &record.Publish{Epoch: e.Number, Version: e.Version, Known: known, Settings: settings, Standbys: want}}, "%s", why)
}

// lingers says whether a listed standby keeps its place although it does not stream now.
func (p *Picture) lingers(n *Node) bool {
	listed := false
	for _, id := range p.Record.Epoch.Eligible {
		listed = listed || id == n.ID
	}
	f := &n.Fact
	quiet := f.At // silent since then
	if p.fresh(f) {
		quiet = f.Since
		listed = listed && !f.Streaming
	}
	return listed && n.Managed && !n.NoFailover && p.Record.Mark(n.ID).Quarantine == "" && f.Role != topology.RolePrimary &&
		p.Now-quiet < unlisted
}

// known is the newest version of the lists that every member is certain to have read.
func (p *Picture) known() uint64 {
	least := p.Record.Epoch.Version
	for i := range p.Members {
		if m := &p.Members[i]; !m.Witness {
			least = min(least, m.Known)
		}
	}
	return least
}
