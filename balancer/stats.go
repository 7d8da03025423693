package balancer

import (
	"time"

	"github.com/cstproxy/cstproxy/ha/topology"
)

// Stats counts what a Balancer has decided since New.
type Stats struct {
	// Picks are reads given to a node in its turn or on trial, Primary those sent to the primary
	// because no other node was due: NotReplayed for their own write, LastResort because no
	// standby took reads. Refused found no node at all.
	Picks, Primary, NotReplayed, LastResort, Refused uint64
	// Failures are bans, Trials reads that tried a banned node again.
	Failures, Trials uint64
	// Nodes are by rising id.
	Nodes []NodeStats
}

// NodeStats is one node's part.
type NodeStats struct {
	ID    topology.NodeID
	Picks uint64
	// Failures in a row; Banned while they keep reads away.
	Failures int
	Banned   bool
}

// Stats copies the counters. Like all methods it belongs to the loop.
func (b *Balancer) Stats(now time.Time) Stats {
	s := b.stats
	s.Nodes = make([]NodeStats, len(b.nodes))
	for i := range b.nodes {
		c := &b.nodes[i]
		s.Nodes[i] = NodeStats{ID: c.id, Picks: c.picks, Failures: c.failures, Banned: b.banned(c, now)}
	}
	return s
}

// Rotation lists the nodes that a View gives reads to under c, in ring order: the standbys that
// take reads, and the primary while the policy counts it in. It is for display and for cstlb's
// list; any goroutine may call it.
func Rotation(c Config) func(*topology.View) []topology.NodeID {
	return func(v *topology.View) []topology.NodeID {
		var ring []topology.NodeID
		standbys := 0
		for i := range v.Nodes {
			if v.Nodes[i].TakesReads() {
				standbys++
			}
		}
		for i := range v.Nodes {
			n := &v.Nodes[i]
			primary := n.ID == v.Primary && serves(n) &&
				(c.PrimaryReads == Always || c.PrimaryReads == LastResort && standbys == 0)
			if n.TakesReads() || primary {
				ring = append(ring, n.ID)
			}
		}
		return ring
	}
}
