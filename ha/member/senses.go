package member

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/cstproxy/cstproxy/ha"
	"github.com/cstproxy/cstproxy/ha/fleet"
	"github.com/cstproxy/cstproxy/ha/lease"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/remote"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// senses are how a member sees one cluster, and proves that its primary is not being succeeded.
type senses struct {
	eyes   Eyes
	prover *Prover
}

// sense makes c's senses, and has the agent write heartbeats to a primary that is operated. The agent
// must not run yet.
func (c *cluster) sense() error {
	m := c.member
	c.senses = senses{
		eyes:   Eyes{Scouts: NewScouts(c.snapshot, c.hosts, c.stopping)},
		prover: NewProver(m.parts.Agent, c.name, m.name(), c.log),
	}
	if m.parts.Traffic != nil {
		c.senses.eyes.Traffic = func() bool { return m.parts.Traffic(c.name) }
	}
	if !c.setup().conf.Operation.Enabled {
		return nil
	}
	return m.parts.Agent.Beat(c.name, m.name())
}

// run keeps the senses until ctx ends.
func (s *senses) run(ctx context.Context) error {
	var all errgroup.Group
	all.Go(func() error { return s.eyes.Scouts.Run(ctx) })
	all.Go(func() error { return s.prover.Run(ctx) })
	return all.Wait()
}

// snapshot is what the agent knows of the cluster.
func (c *cluster) snapshot() ha.Snapshot {
	s, err := c.member.parts.Agent.Snapshot(c.name)
	if err != nil {
		return ha.Snapshot{} // an agent without the cluster has seen nothing of it
	}
	return s
}

// stopping says whether a switchover stops the primary.
func (c *cluster) stopping() bool {
	o := c.record().Making()
	return o != nil && o.Kind == record.Switch && o.Step >= record.Fence
}

// hosts are the ways to the nodes' hosts.
func (c *cluster) hosts() map[topology.NodeID]*remote.Host { return c.setup().hosts }

func (c *cluster) look() []fleet.Seen {
	eyes := c.senses.eyes
	eyes.Hosts = c.hosts()
	return Look(c.snapshot(), eyes)
}

func (c *cluster) prove(ctx context.Context, e record.Epoch, p lease.Proof) lease.Proof {
	return c.senses.prover.Prove(ctx, e, p)
}
