package member

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/cstproxy/cstproxy/ha"
	"github.com/cstproxy/cstproxy/ha/fleet"
	"github.com/cstproxy/cstproxy/ha/hook"
	"github.com/cstproxy/cstproxy/ha/operation"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
	"github.com/cstproxy/cstproxy/ha/vip"
)

const (
	// orderly is how often a leader looks whether virtual addresses are where they belong and other load
	// balancers know the rotation, slotPause whether the replication slots are right.
	orderly   = time.Second
	slotPause = 10 * time.Second
	// settlePause is how often a primary is asked for a checkpoint on its timeline until it has one.
	settlePause = 10 * time.Second
	// hush is how long what can wait makes room for an operation that makes an epoch: writes are held, and
	// each look at a host or a server costs it processes.
	hush = 5 * time.Second
	// heartbeatTime bounds the making of the heartbeat's table.
	heartbeatTime = 30 * time.Second
)

// reign keeps the cluster in order while this member leads: the heartbeat's table, the virtual addresses,
// the replication slots, a new primary's first checkpoint, and what other load balancers know. It begins
// nothing that an operation does.
func (c *cluster) reign(ctx context.Context, term uint64) {
	for ctx.Err() == nil {
		s := c.setup()
		reigning, end := context.WithCancel(ctx)
		var under errgroup.Group
		under.Go(func() error { c.reignUnder(reigning, s, term); return nil })
		select {
		case <-ctx.Done():
		case <-s.replaced:
		}
		end()
		_ = under.Wait() // what went wrong is logged
	}
}

// reignUnder is reign while a setup is in force.
func (c *cluster) reignUnder(ctx context.Context, s *setup, term uint64) {
	if !s.conf.Operation.Enabled {
		return
	}
	executor, err := c.executorFor(c.member.fleetName())
	if err != nil {
		c.log.Error("nothing can be kept in order", zap.Error(err))
		return
	}
	balancers, err := s.balancers()
	if err != nil {
		c.log.Error("cstlb_list cannot be obeyed", zap.Error(err))
	}
	var all errgroup.Group
	all.Go(func() error { c.keep(ctx, orderly, c.heartbeatKeeper()); return nil })
	all.Go(func() error { c.prepareHosts(ctx, s.nodes); return nil })
	all.Go(func() error { c.keep(ctx, settlePause, c.settler(executor)); return nil })
	all.Go(func() error {
		c.keep(ctx, slotPause, c.quietly(c.slotKeeper(operation.NewSlots(executor))))
		return nil
	})
	if s.addresses.Segment != nil {
		all.Go(func() error {
			defer c.keepHoldings(nil)
			c.keep(ctx, orderly, c.quietly(c.addressKeeper(operation.NewVIPs(executor), term)))
			return nil
		})
	}
	if balancers != nil {
		all.Go(func() error { c.keep(ctx, orderly, c.balancerKeeper(balancers)); return nil })
	}
	_ = all.Wait() // the keepers log what went wrong
}

// keep calls step at once, whenever the record changes, and every so often, until ctx ends.
func (c *cluster) keep(ctx context.Context, every time.Duration, step func(context.Context)) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for ctx.Err() == nil {
		changed := c.member.fleet.Changed()
		step(ctx)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-tick.C:
		}
	}
}

// quietly leaves step out in the first moments of an operation that makes an epoch.
func (c *cluster) quietly(step func(context.Context)) func(context.Context) {
	var during record.OperationID
	var since time.Time
	return func(ctx context.Context) {
		if o := c.record().Making(); o != nil {
			if o.ID != during {
				during, since = o.ID, time.Now()
			}
			if time.Since(since) < hush {
				return
			}
		}
		step(ctx)
	}
}

// grumble logs a failure of a keeper when it is another one than before.
func (c *cluster) grumble(ctx context.Context, before *string, what string, err error) {
	text := ""
	if err != nil && ctx.Err() == nil {
		text = err.Error()
	}
	if text != "" && text != *before {
		c.log.Warn(what, zap.String("why", text))
	}
	*before = text
}

func (c *cluster) addressKeeper(addresses *operation.VIPs, term uint64) func(context.Context) {
	var last string
	return func(ctx context.Context) {
		record := c.record()
		if record.Epoch.Number == 0 {
			return
		}
		done, err := addresses.Step(ctx, operation.Wanted{Record: record, Term: term, Rotation: c.rotation()})
		c.keepHoldings(addresses.Holdings())
		for _, a := range done {
			c.log.Info("virtual address put in order", zap.Stringer("action", a))
		}
		c.grumble(ctx, &last, "a virtual address is not where it belongs", err)
	}
}

// keepHoldings notes where this leader has seen the virtual addresses.
func (c *cluster) keepHoldings(holdings map[vip.Kind]operation.Holding) {
	var list []fleet.Holding
	for _, kind := range slices.Sorted(maps.Keys(holdings)) {
		h := holdings[kind]
		list = append(list, fleet.Holding{Kind: string(kind), Address: h.VIP.Addr().String(), Hosts: h.Hosts, At: h.At})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holdings = list
}

// addresses are where this member, while it leads, has seen the virtual addresses.
func (c *cluster) addresses() []fleet.Holding {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.holdings
}

func (c *cluster) slotKeeper(slots *operation.Slots) func(context.Context) {
	var last string
	told := map[topology.NodeID]string{}
	return func(ctx context.Context) {
		lost, err := slots.Step(ctx, c.record())
		c.grumble(ctx, &last, "replication slots are not in order", err)
		for id, why := range lost {
			if told[id] != why {
				c.log.Warn("only a new copy helps this standby", zap.Int("node", int(id)), zap.String("why", why))
			}
		}
		told = lost
	}
}

// settler has the primary of an epoch take a checkpoint on its timeline, once in this reign. A failure is
// logged, and nothing else.
func (c *cluster) settler(e *operation.Executor) func(context.Context) {
	var last string
	var settled topology.Epoch
	return func(ctx context.Context) {
		r := c.record()
		if r.Epoch.Number == settled {
			return
		}
		done, err := e.Settle(ctx, r)
		if done {
			settled = r.Epoch.Number
		}
		c.grumble(ctx, &last, "the primary has no checkpoint on its timeline yet: lost now, it might have to be copied anew", err)
	}
}

func (s *setup) balancers() (*hook.Balancers, error) {
	o := &s.conf.Operation
	if len(o.CSTLB) == 0 {
		return nil, nil
	}
	var nodes []string
	for i := range s.nodes {
		nodes = append(nodes, s.nodes[i].Address())
	}
	return hook.NewBalancers(o.CSTLB, nodes, o.CSTLBToken)
}

func (c *cluster) balancerKeeper(balancers *hook.Balancers) func(context.Context) {
	var last string
	return func(ctx context.Context) {
		rotation := c.member.parts.Agent.Backends(c.name)
		spared := unseen(c.snapshot(), func(id topology.NodeID) bool { return c.member.fleet.Elsewhere(c.name, id) })
		c.grumble(ctx, &last, "a load balancer of cstlb_list does not know the rotation", balancers.Step(ctx, rotation, spared))
	}
}

// unseen are the addresses of the nodes of which it is not known whether they take reads: this member does not
// reach them, and others may, or it reaches none. Its own network must not empty the load balancers.
func unseen(s ha.Snapshot, elsewhere func(topology.NodeID) bool) (list []string) {
	blind := !slices.ContainsFunc(s.Nodes, func(n ha.NodeStatus) bool { return n.Failures == 0 && !n.LastSeen.IsZero() })
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if lost := n.Health == topology.Down || n.Health == topology.HealthUnknown; lost && (blind || elsewhere(n.ID)) {
			list = append(list, n.Address())
		}
	}
	return list
}

// heartbeatKeeper makes the heartbeat's table once, where that is permitted.
func (c *cluster) heartbeatKeeper() func(context.Context) {
	done := false
	return func(ctx context.Context) {
		if r := c.record(); done || r.Epoch.Number == 0 || r.Operation != nil {
			return
		}
		ctx, cancel := context.WithTimeout(ctx, heartbeatTime)
		defer cancel()
		err := c.member.parts.Agent.PrepareHeartbeat(ctx, c.name)
		if errors.Is(err, ha.ErrRefused) || ctx.Err() != nil {
			return // there is no primary now
		}
		done = true
		if err != nil {
			c.log.Warn("the write heartbeat has no table: a primary that takes no writes is noticed by its logins alone; run: cstproxy ctl init", zap.Error(err))
		}
	}
}

// prepareHosts puts the ratchet's wrapper on every host, whenever that answers for the first time in this
// reign: a host that was set up anew must not be found unprepared by the operation that needs it.
func (c *cluster) prepareHosts(ctx context.Context, nodes []operation.Node) {
	var all errgroup.Group
	defer func() { _ = all.Wait() }() // they log what went wrong
	for i := range nodes {
		if n := &nodes[i]; n.Host != nil {
			all.Go(func() error { c.prepareHost(ctx, n); return nil })
		}
	}
}

func (c *cluster) prepareHost(ctx context.Context, n *operation.Node) {
	tick := time.NewTicker(orderly)
	defer tick.Stop()
	last := ""
	for {
		if up, _, _ := n.Host.Up(); up {
			err := n.Host.Install(ctx)
			if err == nil {
				return
			}
			c.grumble(ctx, &last, "a host is not prepared for operations", fmt.Errorf("node %d: %w", n.ID, err))
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
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
