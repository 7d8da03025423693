package decide

import (
	"fmt"
	"strings"

	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// The last node that is left may lack a whole timeline: it was down while another one was promoted, and that
// one is lost now; or it is the former primary, in quarantine because its log goes another way. No repair helps,
// because there is no primary to repair it from. An operator can have it promoted by its name, with
// --accept-data-loss, and by nothing less.
//
// Only the leader that carries that order out asks here, each time that it chooses, and until the promotion is
// committed: when the primary or a node with more comes back by then, nobody is promoted. Once it is committed a
// next leader goes on with it as with any other. The timeline gets a number that nobody has used
// (Record.LastTimeline), so whoever followed the lost one, and wakes late, is seen as on another branch.

// lastResource says whether the node may be promoted for want of a better one although it is remote.
func (p *Picture) lastResource(n *Node, op *record.Operation) bool {
	if op == nil || op.Kind != record.Failover || op.Accept != record.AcceptLoss || op.Node != n.ID || p.automatic(op) ||
		n.Fact.Role != topology.RoleStandby || !p.remote(n) || p.find().is == healthy {
		return false
	}
	return p.nearer(n) == nil
}

// remote says whether more than a lag keeps a standby from the epoch: its timeline, its branch, or quarantine.
func (p *Picture) remote(n *Node) bool {
	return n.Fact.Role == topology.RoleStandby &&
		(p.Record.Mark(n.ID).Quarantine != "" || p.astray(n) != "" || n.Fact.History.Timeline != p.Record.Epoch.History.Timeline)
}

// nearer is another node that answers and is not remote, whatever else may speak against promoting it; nil:
// there is none.
func (p *Picture) nearer(n *Node) *Node {
	for i := range p.Nodes {
		m := &p.Nodes[i]
		f := &m.Fact
		there := m.ID != n.ID && m.ID != p.Record.Epoch.Primary && p.fresh(f) && f.SystemID == p.Record.Epoch.SystemID && f.Complete
		if there && (f.Role == topology.RoleStandby && !p.remote(m) || f.Role == topology.RolePrimary && p.astray(m) == "") {
			return m
		}
	}
	return nil
}

// common is up to where a standby's log is the epoch's.
func (p *Picture) common(n *Node) topology.LSN {
	mine, base := n.Fact.History.Forks, p.Record.Epoch.History.Forks
	at := p.position(n)
	for i := range max(len(mine), len(base)) {
		switch {
		case i < len(mine) && i < len(base) && mine[i] == base[i]:
			continue
		case i < len(mine) && i < len(base):
			return min(at, mine[i].End, base[i].End)
		case i < len(mine):
			return min(at, mine[i].End)
		}
		return min(at, base[i].End)
	}
	return at
}

// forsaken says what is lost, and what comes back, when a remote node is promoted.
func (p *Picture) forsaken(n *Node) string {
	common, e := p.common(n), &p.Record.Epoch
	text := fmt.Sprintf("everything that was written after %s is lost", common)
	if own := e.History.Timeline; n.Fact.History.Timeline != own {
		text += fmt.Sprintf(", timeline %d of epoch %d included", own, e.Number)
	}
	if at := p.position(n); at > common {
		text += fmt.Sprintf("; %s that node %d alone has written counts again", bytes(uint64(at-common)), n.ID)
	}
	return text
}

// lastWay is the order with which an operator can have a remote node promoted now, for each that there is.
func (p *Picture) lastWay() string {
	var ways []string
	for i := range p.Nodes {
		n := &p.Nodes[i]
		order := record.Operation{Kind: record.Failover, Node: n.ID, Accept: record.AcceptLoss}
		if n.ID != p.Record.Epoch.Primary && p.lastResource(n, &order) && p.unfitKnown(n, &order) == "" {
			ways = append(ways, fmt.Sprintf("`cstproxy ctl failover -i %d --accept-data-loss` promotes node %d all the same: %s", n.ID, n.ID, p.forsaken(n)))
		}
	}
	return strings.Join(ways, "; ")
}

// wayTo says what an operator can do first to have a node promoted that he has named and accepted loss for.
func (p *Picture) wayTo(n *Node) string {
	f := &n.Fact
	const asStandby = "start it as a standby (standby.signal in its data directory)"
	nearer := p.nearer(n)
	switch {
	case p.find().is == healthy:
		return ""
	case nearer != nil && p.remote(n):
		return fmt.Sprintf("; node %d answers and is nearer", nearer.ID)
	case f.Role == topology.RolePrimary && p.astray(n) != "":
		return "; to have it promoted all the same stop it, " + asStandby + ", and repeat the order"
	case f.Stopped && nearer == nil:
		return "; " + asStandby + ", and repeat the order"
	}
	return ""
}
