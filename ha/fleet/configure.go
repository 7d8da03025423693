package fleet

import (
	"fmt"
	"slices"

	"github.com/cstproxy/cstproxy/ha"
	"github.com/cstproxy/cstproxy/ha/decide"
)

// Configure puts another policy and other nodes of a cluster in force, here. What is known of a node
// stays while its id and address do. An operation whose node is gone finds that out. The error is
// ha.ErrUnknown, or of too many nodes.
func (f *Fleet) Configure(name string, policy decide.Policy, nodes []decide.Node) error {
	if len(nodes) > maxNodes {
		return fmt.Errorf("cluster %s: %d nodes are more than the %d that a report has room for", name, len(nodes), maxNodes)
	}
	i := slices.IndexFunc(f.clusters, func(c *cluster) bool { return c.Name == name })
	if i < 0 {
		return fmt.Errorf("cluster %q: %w", name, ha.ErrUnknown)
	}
	policy.Lease, policy.Drift = f.cfg.Terms.Length, f.cfg.Terms.Drift
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.clusters[i]
	c.Policy, c.Nodes = policy, nodes
	if f.reign == nil {
		return nil
	}
	s := f.reign.seats[name]
	known := s.nodes
	s.Policy, s.nodes = policy, slices.Clone(nodes)
	for _, old := range known {
		if n := s.node(old.ID); n != nil && n.Address() == old.Address() {
			n.Fact = old.Fact
		}
	}
	s.wake()
	return nil
}
