package decide

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// choice is who would be promoted, and why the others would not.
type choice struct {
	node *Node // nil: nobody
	at   topology.LSN
	// behind is by how much it lacks the last position that was seen on the primary, in bytes.
	behind uint64
	why    string
	// refused are the reasons against each of the others, or against all.
	refused []string
	// offer is what an operator can do when nobody may be promoted.
	offer string
}

// position is how far a node's log goes on the epoch's timeline. A standby may have replayed from
// its own disk, or from an archive, what it has not received again since it was started.
func (p *Picture) position(n *Node) topology.LSN {
	if n.Fact.Role == topology.RolePrimary {
		if left, ok := n.Fact.History.LeftAt(p.Record.Epoch.History.Timeline); ok {
			return left
		}
		return n.Fact.Write
	}
	return max(n.Fact.Receive, n.Fact.Replay)
}

// backlog is how much it has yet to replay.
func (n *Node) backlog() uint64 {
	if n.Fact.Receive <= n.Fact.Replay {
		return 0
	}
	return uint64(n.Fact.Receive - n.Fact.Replay)
}

// cutOff says whether the node certainly receives nothing from the primary of op.From: it bears the
// operation's marker and its receiver is gone, or it is a primary itself.
func (p *Picture) cutOff(n *Node, op *record.Operation) bool {
	if p.Weakness&NoRecruit != 0 {
		return true
	}
	f := &n.Fact
	if f.Role == topology.RolePrimary {
		return p.fresh(f)
	}
	return f.At != 0 && f.Recruited == op.To && !f.Streaming
}

// cut lists the nodes for which cutOff holds.
func (p *Picture) cut(op *record.Operation) []topology.NodeID {
	var list []topology.NodeID
	for i := range p.Nodes {
		if n := &p.Nodes[i]; n.ID != p.Record.Epoch.Primary && p.cutOff(n, op) {
			list = append(list, n.ID)
		}
	}
	return list
}

// choose finds the standby that op may promote, or with nil the one that could be promoted as far
// as is known before anybody was cut off.
func (p *Picture) choose(op *record.Operation) choice {
	var fit []*Node
	var c choice
	for i := range p.Nodes {
		n := &p.Nodes[i]
		if n.ID == p.Record.Epoch.Primary {
			continue
		}
		if why := p.unfit(n, op); why != "" {
			c.refused = append(c.refused, fmt.Sprintf("node %d %s", n.ID, why))
			continue
		}
		fit = append(fit, n)
	}
	if len(fit) == 0 {
		c.offer = "repair one of the standbys, or bring the primary back"
		if way := p.lastWay(); way != "" {
			c.offer += "; " + way
		}
		return c
	}
	slices.SortFunc(fit, p.better)
	best := fit[0]
	if op != nil && op.Node != 0 {
		return p.chooseNamed(c, fit, op)
	}
	c.take(p, best)
	c.why = p.ranking(fit)
	return c
}

// better orders by what a DBA wants most: no log lost, then that it works (a promotion that was
// given up speaks against a node), then his own preference, then the shortest wait for replay; the id
// makes the choice the same whoever decides.
func (p *Picture) better(a, b *Node) int {
	return cmp.Or(
		cmp.Compare(p.position(b), p.position(a)),
		cmp.Compare(p.promotionsInVain(a.ID), p.promotionsInVain(b.ID)),
		cmp.Compare(b.Priority, a.Priority),
		cmp.Compare(a.backlog(), b.backlog()),
		cmp.Compare(a.ID, b.ID),
	)
}

// promotionsInVain counts the promotions of the node in this epoch that were given up.
func (p *Picture) promotionsInVain(id topology.NodeID) int {
	vain := 0
	for i := range p.Record.Past {
		if o := &p.Record.Past[i]; o.Candidate == id && o.From == p.Record.Epoch.Number {
			vain++
		}
	}
	return vain
}

// chooseNamed takes the node that was named. In a failover the other standbys' log would be lost
// when it goes further: that takes an operator's word, except for a switch, where the shutdown
// checkpoint decides.
func (p *Picture) chooseNamed(c choice, fit []*Node, op *record.Operation) choice {
	i := slices.IndexFunc(fit, func(n *Node) bool { return n.ID == op.Node })
	if i < 0 {
		c.offer = "name another node"
		return c
	}
	named, best := fit[i], fit[0]
	if op.Kind == record.Failover && op.Accept != record.AcceptLoss && p.position(best) > p.position(named) {
		c.refused = append(c.refused, fmt.Sprintf("node %d has %s less than node %d", named.ID, bytes(uint64(p.position(best)-p.position(named))), best.ID))
		c.offer = fmt.Sprintf("name node %d, or repeat with --accept-data-loss", best.ID)
		return c
	}
	c.take(p, named)
	c.why = fmt.Sprintf("node %d was named; it is at %s", named.ID, p.position(named))
	return c
}

func (c *choice) take(p *Picture, n *Node) {
	c.node, c.at = n, p.position(n)
	common := c.at
	if n.Fact.Role != topology.RolePrimary {
		common = min(common, p.common(n))
	}
	if last := p.lastSeen(); last > common {
		c.behind = uint64(last - common)
	}
}

// lastSeen is the last position that was seen on the epoch's primary, which may run as a standby by now;
// 0 when it never answered.
func (p *Picture) lastSeen() topology.LSN {
	primary := p.primary()
	switch {
	case primary == nil:
		return 0
	case primary.Fact.Role == topology.RoleStandby:
		return max(primary.Fact.Write, p.position(primary))
	}
	return primary.Fact.Write
}

// advice is what an operator can do.
func (c *choice) advice() string {
	if c.offer == "" && c.node != nil {
		return fmt.Sprintf("`cstproxy ctl failover -i %d --accept-data-loss` promotes node %d all the same", c.node.ID, c.node.ID)
	}
	return c.offer
}

// ranking is the order of the candidates as a sentence.
func (p *Picture) ranking(fit []*Node) string {
	var list []string
	for _, n := range fit {
		list = append(list, fmt.Sprintf("node %d received %s", n.ID, p.position(n)))
	}
	return strings.Join(list, ", ")
}

// unfit says what speaks against promoting the node; empty when nothing does.
func (p *Picture) unfit(n *Node, op *record.Operation) string {
	if why := p.unfitKnown(n, op); why != "" {
		return why
	}
	if op != nil && !p.cutOff(n, op) {
		return "has not been cut off from the old primary"
	}
	return ""
}

// unfitKnown is unfit as far as it can be known before anybody is cut off.
func (p *Picture) unfitKnown(n *Node, op *record.Operation) string {
	f, e, mark := &n.Fact, &p.Record.Epoch, p.Record.Mark(n.ID)
	promoted := f.Role == topology.RolePrimary // by somebody else: his choice, if nothing is lost
	accepted := op != nil && op.Accept == record.AcceptLoss
	last := p.lastResource(n, op)
	switch {
	case !n.Managed:
		return "cannot be operated"
	case n.NoFailover && !promoted:
		return "is tagged nofailover"
	case mark.Quarantine != "" && !(promoted && op != nil && op.Node == n.ID) && !last:
		return "is in quarantine: " + mark.Quarantine
	case (op == nil || p.automatic(op)) && p.promotionsInVain(n.ID) >= 2:
		return "could not be promoted twice"
	case f.At == 0:
		return "never answered"
	case p.Now-f.At > 2*p.lease():
		return fmt.Sprintf("has not answered for %s", short(p.Now-f.At))
	case f.Stopped, f.Role == topology.RoleUnknown:
		return "is not running"
	case f.SystemID != e.SystemID:
		return fmt.Sprintf("is of another system (%d, not %d)", f.SystemID, e.SystemID)
	case !f.Complete:
		return "has no complete copy"
	case f.DiskFull:
		return "has no space left for log"
	case !slices.Contains(e.Eligible, n.ID) && !accepted && !promoted:
		return "is not among the standbys that were published as eligible"
	}
	if why := p.astray(n); why != "" && !last {
		return why
	}
	if f.Role == topology.RoleStandby && f.History.Timeline != e.History.Timeline && !last {
		// It lacks all that the primary wrote, and PostgreSQL would give it the number of a timeline
		// that exists.
		return fmt.Sprintf("is still on timeline %d, at %s", f.History.Timeline, p.position(n))
	}
	return p.lower(n)
}

// astray says why the node's log does not lead to the epoch's, or from it when it was promoted. Two
// branches can bear the same timeline number, so whole histories are compared.
func (p *Picture) astray(n *Node) string {
	f, base := &n.Fact, p.Record.Epoch.History
	switch {
	case f.Role == topology.RolePrimary && f.History.Descends(base):
		return ""
	case f.Role == topology.RolePrimary:
		return fmt.Sprintf("is a primary on timeline %d, which does not descend from timeline %d", f.History.Timeline, base.Timeline)
	case !base.Known() && f.History.Timeline == base.Timeline:
		return ""
	case !f.History.IsPrefixOf(base, p.position(n)):
		return fmt.Sprintf("is on another branch (timeline %d, at %s)", f.History.Timeline, p.position(n))
	}
	return ""
}

// lower names the first setting with which the node could not follow, or replace, the primary.
func (p *Picture) lower(n *Node) string {
	a, b := n.Fact.Settings, p.Record.Epoch.Settings
	if primary := p.primary(); primary != nil && primary.Fact.Settings != (Settings{}) {
		b = primary.Fact.Settings
	}
	if a == (Settings{}) {
		return "" // it was never asked
	}
	for _, s := range []struct {
		name       string
		here, want int
	}{
		{"max_connections", a.MaxConnections, b.MaxConnections},
		{"max_worker_processes", a.MaxWorkers, b.MaxWorkers},
		{"max_wal_senders", a.MaxSenders, b.MaxSenders},
		{"max_prepared_transactions", a.MaxPrepared, b.MaxPrepared},
		{"max_locks_per_transaction", a.MaxLocks, b.MaxLocks},
	} {
		if s.here < s.want {
			return fmt.Sprintf("has %s = %d, the primary had %d", s.name, s.here, s.want)
		}
	}
	return ""
}

// lossy says why promoting c would, or could, lose commits that a client was told of; empty when
// the policy allows what is known. An operator's word is not asked for here.
func (p *Picture) lossy(c choice, cut []topology.NodeID) string {
	e := &p.Record.Epoch
	if e.Synchronous() {
		if !e.Standbys.Broken(cut) && p.Weakness&NoRecruit == 0 {
			return fmt.Sprintf("only %d of the %d synchronous standbys are at hand, and %d are needed to be sure of the last commit",
				countIn(e.Sync.Nodes, cut), len(e.Sync.Names), len(e.Sync.Names)-e.Sync.Count+1)
		}
		return p.outrun(c, cut)
	}
	if c.behind > p.Policy.MaxLag {
		age := ""
		if f := &p.primary().Fact; f.At != 0 {
			age = fmt.Sprintf(", seen %s ago", short(p.Now-f.At))
		}
		return fmt.Sprintf("node %d lacks at least %s of what the primary had written (%s of %s%s), and max_lag_on_failover is %s",
			c.node.ID, bytes(c.behind), c.at, p.lastSeen(), age, bytes(p.Policy.MaxLag))
	}
	return ""
}

// outrun says which synchronous standby has more than c: one that may not be promoted itself, and
// that may have confirmed the last commit alone.
func (p *Picture) outrun(c choice, cut []topology.NodeID) string {
	for i := range p.Nodes {
		n := &p.Nodes[i]
		if slices.Contains(cut, n.ID) && slices.Contains(p.Record.Epoch.Sync.Nodes, n.ID) && p.astray(n) == "" && p.position(n) > c.at {
			return fmt.Sprintf("node %d %s, but it is a synchronous standby and has %s more than node %d", n.ID, p.unfitKnown(n, nil), bytes(uint64(p.position(n)-c.at)), c.node.ID)
		}
	}
	return ""
}

func countIn(list, in []topology.NodeID) int {
	n := 0
	for _, id := range list {
		if slices.Contains(in, id) {
			n++
		}
	}
	return n
}
