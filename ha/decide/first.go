package decide

import (
	"fmt"
	"strings"

	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// firstSight makes the first epoch of a cluster, of what is there: exactly one primary, or the one
// whose history leads on from all others', and no standby that has seen a later timeline. Every
// node must have been looked at by then, because the one that is missing may be the real primary.
func (p *Picture) firstSight() Plan {
	var claims []*Node
	for i := range p.Nodes {
		n := &p.Nodes[i]
		t := p.tally(n.ID)
		switch {
		case p.fresh(&n.Fact) && n.Fact.Role == topology.RolePrimary:
			claims = append(claims, n)
		case p.fresh(&n.Fact) && n.Fact.Role == topology.RoleStandby:
		case t.heard < t.quorum || len(t.failing) < t.quorum:
			return Plan{Why: fmt.Sprintf("node %d has not been probed by enough members yet", n.ID)}
		}
	}
	if len(claims) == 0 {
		return Plan{Why: "no node is a primary", Alarm: "no node is a primary, and none ever was as far as this fleet knows"}
	}
	first := newest(claims)
	if first == nil {
		text := fmt.Sprintf("%d nodes claim to be primary, and none of them descends from the others; stop the wrong ones", len(claims))
		return Plan{Why: text, Alarm: text}
	}
	if why := p.doubts(first); why != "" {
		return Plan{Why: why, Alarm: why}
	}
	f := &first.Fact
	e := record.Epoch{
		Number: p.unheard() + 1, Primary: first.ID, Address: first.Address(), SystemID: f.SystemID, History: f.History, Settings: f.Settings,
		Standbys: record.Standbys{Sync: p.syncSet(f.Sync, first.ID)},
	}
	for i := range p.Nodes {
		if n := &p.Nodes[i]; n != first && p.fresh(&n.Fact) && p.promising(n, f) {
			e.Eligible = append(e.Eligible, n.ID)
		}
	}
	why := fmt.Sprintf("node %d is the primary, on timeline %d", first.ID, f.History.Timeline)
	return p.commit(record.Entry{Adopt: &record.Adopt{Epoch: e, Why: why}}, "%s", why)
}

// unheard is the highest epoch that may ever have been given: by this fleet, or by another one before
// it, as the servers remember. They refuse what comes from a lower one.
func (p *Picture) unheard() topology.Epoch {
	highest := p.Record.LastEpoch
	for i := range p.Nodes {
		highest = max(highest, p.Nodes[i].Fact.Marked)
	}
	return highest
}

// doubts says why a node that claims to be primary may be an old one.
func (p *Picture) doubts(first *Node) string {
	for i := range p.Nodes {
		n := &p.Nodes[i]
		f := &n.Fact
		switch {
		case n == first || !p.fresh(f) || f.Role != topology.RoleStandby:
		case f.SystemID != first.Fact.SystemID:
			return fmt.Sprintf("node %d is of system %d, and node %d of system %d", first.ID, first.Fact.SystemID, n.ID, f.SystemID)
		case f.History.Timeline > first.Fact.History.Timeline:
			return fmt.Sprintf("node %d is primary on timeline %d, but node %d has followed timeline %d: a later primary is missing",
				first.ID, first.Fact.History.Timeline, n.ID, f.History.Timeline)
		}
	}
	return ""
}

// promising says whether a standby belongs among those that may be promoted after the primary that
// primary is the fact of.
func (p *Picture) promising(n *Node, primary *Fact) bool {
	f := &n.Fact
	mark := p.Record.Mark(n.ID)
	return n.Managed && !n.NoFailover && f.Role == topology.RoleStandby && f.Complete && f.Streaming && f.Recruited == 0 &&
		f.SystemID == primary.SystemID && f.History.IsPrefixOf(primary.History, p.position(n)) && mark.Quarantine == ""
}

func join(reasons []string) string {
	if len(reasons) == 0 {
		return "there is no other node"
	}
	return strings.Join(reasons, "; ")
}
