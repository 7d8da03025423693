// Package balancer chooses the node that serves a read: smooth weighted round robin over the
// standbys that take reads, that are not banned after a failure, and that have replayed the writes
// which the read must see; else the primary, as far as the policy lets it. It asks no clock and
// does no I/O: what it knows is a View, the caller's time, and which connections failed. One
// Balancer belongs to one cluster and one loop; nothing here locks.
package balancer

import (
	"slices"
	"time"

	"github.com/cstproxy/cstproxy/ha/topology"
)

// Why a read goes where it goes. The phrases are for logs, SHOW and explain; the loop compares
// them with NotReplayed to tell whether waiting would help.
const (
	InTurn        = "standby in turn"
	PrimaryInTurn = "primary in turn"
	NotReplayed   = "own write not replayed yet"
	NoStandby     = "no standby takes reads"
	AllFailing    = "all standbys are failing"
	OnTrial       = "all nodes are failing, this one is tried"
	NoNode        = "no node takes reads"
	NotAllowed    = "no standby takes reads and primary_reads is never"
)

// Need is what one read asks for.
type Need struct {
	// Ticket is what the session's last write left behind.
	Ticket      topology.Ticket
	Consistency Consistency
	// Exclude are the nodes that this read was tried on already, Unproved those whose connections
	// cannot tell what they have replayed.
	Exclude, Unproved []topology.NodeID
}

// Balancer spreads the reads of one cluster.
type Balancer struct {
	config Config
	view   *topology.View // of which nodes is made
	nodes  []node
	newest topology.Ticket // of all sessions of this loop
	stats  Stats
}

// node is one node that takes reads by the present View, or that failed lately.
type node struct {
	id      topology.NodeID
	slot    int
	weight  int64
	takes   bool  // reads, by the View; false for a node that is only remembered
	primary bool  // proves every ticket
	current int64 // smooth weighted round robin's account
	// failures in a row; until is when the ban after the last of them ends, trial when the next
	// read may try a node whose ban has ended.
	failures     int
	until, trial time.Time
	picks        uint64
}

// New returns a balancer; the first Pick brings the nodes.
func New(c Config) *Balancer { return &Balancer{config: c} }

// Configure puts another configuration in force.
func (b *Balancer) Configure(c Config) {
	b.config = c
	b.view = nil
}

// Wait is how long a read whose Pick said NotReplayed may be held back for a standby.
func (b *Balancer) Wait() time.Duration { return b.config.ConsistencyWait }

// Stamp is the ticket of a write that the View's primary has acknowledged; see topology.Rounds.
func (b *Balancer) Stamp(v *topology.View) topology.Ticket {
	t := v.Rounds.Stamp(v.Epoch)
	if t.Newer(b.newest) {
		b.newest = t
	}
	return t
}

// Demands says whether the read must see a write, so that what a standby has proved matters.
func (b *Balancer) Demands(n Need) bool { return b.ticket(n) != topology.Ticket{} }

// Pick chooses a node for a read, 0 when there is none, and says why. It takes a turn of the node
// that it returns. A read that goes to the primary for its ticket's sake asks for rounds.
func (b *Balancer) Pick(v *topology.View, n Need, now time.Time) (topology.NodeID, string) {
	b.follow(v)
	ticket := b.ticket(n)
	var best, failing *node
	var total int64
	stale, standbys := false, false
	for i := range b.nodes {
		c := &b.nodes[i]
		if !c.takes || slices.Contains(n.Exclude, c.id) {
			continue
		}
		standbys = standbys || !c.primary
		if !c.primary && (!v.Rounds.Satisfied(c.slot, ticket, v.Epoch) || slices.Contains(n.Unproved, c.id)) {
			stale = true
			continue
		}
		if b.banned(c, now) {
			if failing == nil || c.until.Before(failing.until) {
				failing = c
			}
			continue
		}
		c.current += c.weight
		total += c.weight
		if best == nil || c.current > best.current {
			best = c
		}
	}
	if stale {
		v.Rounds.Want(now)
	}
	if best == nil {
		return b.fallBack(v, n, now, prospects{failing: failing, stale: stale, standbys: standbys})
	}
	best.current -= total
	b.take(best, now)
	if best.primary {
		return best.id, PrimaryInTurn
	}
	return best.id, InTurn
}

// take counts a pick. A node on probation gets one read per ban length until one has succeeded, so
// that a node that is still ill costs one read and not a burst.
func (b *Balancer) take(c *node, now time.Time) {
	c.picks++
	b.stats.Picks++
	if c.failures > 0 {
		c.trial = now.Add(b.config.Ban)
		b.stats.Trials++
	}
}

// ticket is what a node must have proved for the read.
func (b *Balancer) ticket(n Need) topology.Ticket {
	c := n.Consistency
	if c == AsConfigured {
		c = b.config.ReadConsistency
	}
	switch c {
	case Eventual:
		return topology.Ticket{}
	case Cluster:
		if b.newest.Newer(n.Ticket) {
			return b.newest
		}
	}
	return n.Ticket
}

// prospects are what was found while no node could simply have its turn.
type prospects struct {
	failing         *node // the banned node whose ban ends first
	stale, standbys bool
}

// fallBack chooses when no node is due. A read that must see a write goes to the primary whatever
// the policy says; refusing it would be the other way to keep the promise, and a worse one. A node
// that is banned is tried before a read is refused.
func (b *Balancer) fallBack(v *topology.View, n Need, now time.Time, p prospects) (topology.NodeID, string) {
	primary := v.Primary != 0 && !slices.Contains(n.Exclude, v.Primary)
	allowed := b.config.PrimaryReads != Never
	switch {
	case p.stale && primary:
		b.stats.NotReplayed++
		b.stats.Primary++
		return v.Primary, NotReplayed
	case primary && allowed:
		b.stats.LastResort++
		b.stats.Primary++
		if p.standbys {
			return v.Primary, AllFailing
		}
		return v.Primary, NoStandby
	case p.failing != nil:
		b.take(p.failing, now)
		return p.failing.id, OnTrial
	}
	b.stats.Refused++
	switch {
	case p.stale:
		return 0, NotReplayed
	case !allowed:
		return 0, NotAllowed
	}
	return 0, NoNode
}

// follow takes over a View that is new. Accounts and bans of nodes that stay are kept; a node that
// the agent had taken out and gives back starts without a ban, because it has been probed.
func (b *Balancer) follow(v *topology.View) {
	if b.view == v {
		return
	}
	b.view = v
	old := b.nodes
	b.nodes = make([]node, 0, len(v.Nodes))
	for i := range v.Nodes {
		n := &v.Nodes[i]
		c := node{id: n.ID}
		for j := range old {
			if old[j].id == n.ID {
				c = old[j]
			}
		}
		before := c.takes
		c.slot, c.weight, c.primary = n.Slot, int64(n.Weight), n.ID == v.Primary
		c.takes = n.TakesReads() || c.primary && b.config.PrimaryReads == Always && serves(n)
		if c.takes && !before {
			c.failures, c.current = 0, 0
		}
		b.nodes = append(b.nodes, c)
	}
}

// serves says whether a primary may take a turn as well.
func serves(n *topology.NodeView) bool {
	return n.Health == topology.Healthy && n.Weight > 0 && !n.NoLoadBalance
}

func (b *Balancer) find(id topology.NodeID) *node {
	for i := range b.nodes {
		if b.nodes[i].id == id {
			return &b.nodes[i]
		}
	}
	return nil
}

// Failed bans a node: a connection to it could not be made, or broke while it served.
func (b *Balancer) Failed(id topology.NodeID, now time.Time) {
	c := b.find(id)
	if c == nil {
		return
	}
	b.stats.Failures++
	if c.failures > 0 && now.Before(c.until) {
		return // connections that die together are one failure
	}
	ban := b.config.Ban
	for i := 0; i < c.failures && ban < b.config.BanMax; i++ {
		ban *= 2
	}
	c.failures++
	c.until = now.Add(min(ban, b.config.BanMax))
	c.current = 0
}

// Succeeded lifts the ban: the node has answered a read.
func (b *Balancer) Succeeded(id topology.NodeID) {
	if c := b.find(id); c != nil {
		c.failures = 0
	}
}

// banned says whether reads stay away from the node now. Trials whose outcome nobody reports are a
// success once enough of them have passed without a failure.
func (b *Balancer) banned(c *node, now time.Time) bool {
	if c.failures > 0 && now.Sub(c.until) >= trials*b.config.Ban {
		c.failures = 0
	}
	return c.failures > 0 && (now.Before(c.until) || now.Before(c.trial))
}

// trials is how many ban lengths a node stays on trial when nothing is heard of it.
const trials = 4
