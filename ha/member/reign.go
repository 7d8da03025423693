package member

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/ha"
	"github.com/cstproxy/cstproxy/ha/operation"
	"github.com/cstproxy/cstproxy/ha/topology"
)

const (
	// orderly is how often a leader looks whether the virtual addresses are where they belong.
	orderly = time.Second
	// heartbeatTime bounds the making of the heartbeat's table.
	heartbeatTime = 30 * time.Second
)

// reign keeps the cluster in order while this member leads: the heartbeat's table, and the virtual
// addresses. It begins nothing that an operation does.
func (c *cluster) reign(ctx context.Context, term uint64) {
	if !c.conf.Operation.Enabled {
		return
	}
	executor, err := c.executorFor(c.member.fleetName())
	if err != nil {
		c.log.Error("nothing can be kept in order", zap.Error(err))
		return
	}
	addresses := operation.NewVIPs(executor)
	prepared := false
	tick := time.NewTicker(orderly)
	defer tick.Stop()
	for {
		changed := c.member.fleet.Changed()
		record := c.record()
		if !prepared && record.Epoch.Number != 0 && record.Operation == nil {
			prepared = c.prepareHeartbeat(ctx)
		}
		if c.addresses.Segment != nil && record.Epoch.Number != 0 {
			done, err := addresses.Step(ctx, operation.Wanted{Record: record, Term: term, Rotation: c.rotation()})
			for _, a := range done {
				c.log.Info("virtual address moved", zap.Stringer("action", a))
			}
			if err != nil && ctx.Err() == nil {
				c.log.Warn("a virtual address is not where it belongs", zap.Error(err))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-tick.C:
		}
	}
}

// prepareHeartbeat makes the heartbeat's table where that is permitted, and says whether there is
// nothing more to try.
func (c *cluster) prepareHeartbeat(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, heartbeatTime)
	defer cancel()
	err := c.member.parts.Agent.PrepareHeartbeat(ctx, c.name)
	switch {
	case err == nil:
		return true
	case errors.Is(err, ha.ErrRefused) || ctx.Err() != nil:
		return false
	}
	c.log.Warn("the write heartbeat has no table, so that a primary that takes no writes is noticed by its logins alone; run: cstproxy ctl init",
		zap.Error(err))
	return true
}

// rotation are the nodes that take reads, by their ids, the primary last.
func (c *cluster) rotation() []topology.NodeID {
	s := c.snapshot()
	var list []topology.NodeID
	for i := range s.Nodes {
		if s.Nodes[i].InRotation {
			list = append(list, s.Nodes[i].ID)
		}
	}
	if s.Primary != 0 && !slices.Contains(list, s.Primary) {
		list = append(list, s.Primary)
	}
	return list
}
