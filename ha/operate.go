package ha

import (
	"context"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/ha/pgnode"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// What operators may say about nodes. All of it is in the next View before the call returns, and in
// the state file when StateDir is set; saying it again changes nothing.

// Attach takes back a Detach or a Drain.
func (a *Agent) Attach(ctx context.Context, cluster string, id topology.NodeID) error {
	return a.passOn(a.order(ctx, cluster, id, orderNone))
}

// Detach takes a node out of the reads at once. A primary goes on taking writes.
func (a *Agent) Detach(ctx context.Context, cluster string, id topology.NodeID) error {
	return a.passOn(a.order(ctx, cluster, id, orderDetached))
}

// Drain lets what runs on a node come to its end and sends it no new reads.
func (a *Agent) Drain(ctx context.Context, cluster string, id topology.NodeID) error {
	return a.passOn(a.order(ctx, cluster, id, orderDraining))
}

func (a *Agent) order(ctx context.Context, name string, id topology.NodeID, o order) (Order, error) {
	c, err := a.ready(ctx, name)
	if err != nil {
		return Order{}, err
	}
	address, err := c.obey(id, o)
	if err != nil {
		return Order{}, err
	}
	return Order{Cluster: name, Address: address, Word: wordOf(o)}, a.persist()
}

// obey puts an order in force and returns the node's address.
func (c *cluster) obey(id topology.NodeID, o order) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entry(id)
	if e == nil {
		return "", fmt.Errorf("%w: cluster %q has no node %d", ErrUnknown, c.name, id)
	}
	if e.order != o {
		e.order = o
		c.log.Info("operator's order", zap.Int("node", int(id)), zap.Stringer("order", o))
		c.rejudge()
	}
	return e.conf.node().Address(), nil
}

// ready waits until the state file has been read, which would overwrite what is said before.
func (a *Agent) ready(ctx context.Context, name string) (*cluster, error) {
	c, err := a.cluster(name)
	if err != nil {
		return nil, err
	}
	select {
	case <-a.running:
		return c, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the agent to run: %w", ctx.Err())
	}
}

// AddBackend puts an address ("host:port") into the read rotation. A known node is attached. An
// unknown server becomes a node of its own if it is a standby of this cluster's system on a prefix
// of the primary's history; otherwise the error is ErrRefused and says why, ErrAddress when the
// text is no address.
func (a *Agent) AddBackend(ctx context.Context, cluster, addr string) error {
	return a.passOn(a.addBackend(ctx, cluster, addr))
}

func (a *Agent) addBackend(ctx context.Context, cluster, addr string) (Order, error) {
	conf, err := backendAt(addr)
	if err != nil {
		return Order{}, err
	}
	c, err := a.ready(ctx, cluster)
	if err != nil {
		return Order{}, err
	}
	if id := c.find(conf); id != 0 {
		return a.order(ctx, cluster, id, orderNone)
	}
	p, err := c.examine(ctx, conf)
	if err != nil {
		return Order{}, err
	}
	if err := c.adopt(conf, p); err != nil {
		return Order{}, err
	}
	return Order{Cluster: cluster, Address: conf.node().Address(), Word: Added}, a.persist()
}

func backendAt(addr string) (NodeConfig, error) {
	conf := DefaultNode()
	var err error
	conf.Host, conf.Port, err = splitAddress(addr)
	return conf, err
}

// RemoveBackend takes an address out of the read rotation: a node that was added at run time is
// forgotten, a configured one is detached. An unknown address is out already.
func (a *Agent) RemoveBackend(ctx context.Context, cluster, addr string) error {
	return a.passOn(a.removeBackend(ctx, cluster, addr))
}

func (a *Agent) removeBackend(ctx context.Context, cluster, addr string) (Order, error) {
	conf, err := backendAt(addr)
	if err != nil {
		return Order{}, err
	}
	c, err := a.ready(ctx, cluster)
	if err != nil {
		return Order{}, err
	}
	id := c.find(conf)
	if id == 0 {
		return Order{}, nil
	}
	if c.dismiss(id) {
		return Order{Cluster: cluster, Address: conf.node().Address(), Word: Removed}, a.persist()
	}
	return a.order(ctx, cluster, id, orderDetached)
}

// find is the id of the node with this address, 0 when there is none.
func (c *cluster) find(conf NodeConfig) topology.NodeID {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.entries {
		if e.conf.Host == conf.Host && e.conf.Port == conf.Port {
			return e.id
		}
	}
	return 0
}

// examine asks a server that is not in the cluster what it is.
func (c *cluster) examine(ctx context.Context, conf NodeConfig) (pulse, error) {
	c.mu.Lock()
	access := c.access
	c.mu.Unlock()
	access.Host, access.Port = conf.Host, conf.Port
	server, err := pgnode.New(access)
	if err != nil {
		return pulse{}, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	at := time.Now()
	o, err := observeOnce(ctx, server)
	if err != nil {
		return pulse{}, fmt.Errorf("%w: %s did not say what it is: %w", ErrRefused, conf.node().Address(), err)
	}
	return pulse{condition: conditionUp, seen: at, tried: at, observed: o}, nil
}

func observeOnce(ctx context.Context, server *pgnode.Server) (pgnode.Observation, error) {
	conn, err := server.Connect(ctx)
	if err != nil {
		return pgnode.Observation{}, err
	}
	defer conn.Close(ctx)
	return conn.Probe(ctx)
}

// adopt makes an examined server a node.
func (c *cluster) adopt(conf NodeConfig, p pulse) error {
	addr := conf.node().Address()
	c.mu.Lock()
	defer c.mu.Unlock()
	if slices.ContainsFunc(c.entries, func(e *entry) bool { return e.conf.node().Address() == addr }) {
		return nil // somebody was faster
	}
	switch why := c.verdict.foreign(&fact{pulse: p}); {
	case c.verdict.known.system == 0:
		return fmt.Errorf("%w: no primary of cluster %q has been seen yet that %s could be a standby of", ErrRefused, c.name, addr)
	case p.observed.Role != topology.RoleStandby:
		return fmt.Errorf("%w: %s is no standby", ErrRefused, addr)
	case why != "":
		return fmt.Errorf("%w: %s is no standby of cluster %q: %s", ErrRefused, addr, c.name, why)
	}
	conf.ID = int(c.lastID) + 1
	e, err := c.insert(conf, c.access)
	if err != nil {
		return err
	}
	e.added, e.pulse = true, p
	c.log.Info("node added", zap.Int("node", conf.ID), zap.String("address", addr))
	c.changed()
	return nil
}

// dismiss forgets an added node; false when the node is a configured one.
func (c *cluster) dismiss(id topology.NodeID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entry(id)
	if e == nil {
		return true
	}
	if !e.added {
		return false
	}
	c.log.Info("node removed", zap.Int("node", int(id)), zap.String("address", e.conf.node().Address()))
	c.remove(e)
	c.changed()
	return true
}
