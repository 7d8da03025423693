package member

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/ha"
	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/fleet"
	"github.com/cstproxy/cstproxy/ha/hook"
	"github.com/cstproxy/cstproxy/ha/operation"
	"github.com/cstproxy/cstproxy/ha/pgnode"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/remote"
	"github.com/cstproxy/cstproxy/ha/topology"
	"github.com/cstproxy/cstproxy/ha/vip"
)

// actionTime bounds one question of an operation to a server; a host that is away costs this much.
const actionTime = 2 * time.Second

// cluster is the ways to one cluster's servers.
type cluster struct {
	name   string
	conf   *ha.ClusterConfig
	member *Member
	nodes  []operation.Node // by rising id
	log    *zap.Logger

	replication, superuser pgnode.Conninfo
	addresses              operation.Addresses
	senses                 senses

	mu       sync.Mutex
	executor *operation.Executor // for the fleet's name, which it has from its birth on
	fleets   string              // that name
}

func (m *Member) newCluster(conf *ha.ClusterConfig, watch ha.Config) (*cluster, error) {
	c := &cluster{name: conf.Name, conf: conf, member: m, log: m.log.With(zap.String("cluster", conf.Name))}
	var err error
	if c.replication, err = conf.Replicator(); err != nil {
		return nil, err
	}
	if c.superuser, err = conf.Rewinder(); err != nil {
		return nil, err
	}
	access, err := conf.Superuser(actionTime)
	if err != nil {
		return nil, err
	}
	for _, n := range conf.Servers() {
		access.Host, access.Port = n.Host, n.Port
		server, err := pgnode.New(access)
		if err != nil {
			return nil, err
		}
		node := operation.Node{Node: n, SQL: server, Login: c.login(n), Elevate: conf.Operation.Elevate, BinDir: conf.Operation.BinFolder}
		if conf.Operation.TriggerFunction != "" {
			called := access
			called.Database = conf.Operation.TriggerDatabase
			if node.Trigger, err = pgnode.New(called); err != nil {
				return nil, err
			}
		}
		if conf.Operation.Enabled && conf.Operation.SSHKeyFile != "" {
			if node.Host, err = m.hosts.way(c.wayTo(n)); err != nil {
				return nil, fmt.Errorf("node %d: %w", n.ID, err)
			}
		}
		c.nodes = append(c.nodes, node)
	}
	if c.addresses, err = addressesOf(conf, m.log); err != nil {
		return nil, err
	}
	return c, c.sense()
}

func addressesOf(conf *ha.ClusterConfig, log *zap.Logger) (operation.Addresses, error) {
	a := operation.Addresses{}
	for _, want := range []struct {
		to   *vip.VIP
		kind vip.Kind
		text string
	}{{&a.Write, vip.Write, conf.WriteVIP}, {&a.Read, vip.Read, conf.ReadVIP}} {
		if want.text == "" || !conf.Operation.Enabled {
			continue
		}
		prefix, err := vip.Parse(want.text)
		if err != nil {
			return a, err
		}
		*want.to = vip.VIP{Kind: want.kind, Cluster: conf.Name, Prefix: prefix, Interface: conf.VIPInterface}
		a.Segment = vip.NewLocal(log)
	}
	return a, nil
}

func hooksOf(conf *ha.ClusterConfig) hook.Config {
	o := &conf.Operation
	return hook.Config{PreFence: o.PreFence, PostPromote: o.PostPromote, OnRoleChange: o.OnRoleChange, TriggerFunc: o.TriggerFunction}
}

func (c *cluster) login(n topology.Node) string {
	if c.conf.Operation.SSHUser != "" {
		return c.conf.Operation.SSHUser
	}
	return n.OSUser
}

func (c *cluster) wayTo(n topology.Node) remote.Config {
	o := &c.conf.Operation
	way := remote.DefaultConfig()
	way.Host, way.Port, way.User, way.Dir = n.Host, o.SSHPort, c.login(n), o.SSHFolder
	way.KeyFile, way.KnownHostsFile = o.SSHKeyFile, o.SSHKnownHostsFile
	return way
}

// fleet is the cluster as package fleet knows it.
func (c *cluster) fleet() fleet.Cluster {
	f := fleet.Cluster{Name: c.name, Policy: c.policy()}
	for i, n := range c.nodes {
		tags := c.tags(n.ID)
		f.Nodes = append(f.Nodes, decide.Node{
			Node: c.nodes[i].Node, NoFailover: tags.NoFailover, NoSync: tags.NoSync, Priority: tags.Priority, Managed: c.conf.Operation.Enabled,
		})
	}
	f.Servers = fleet.Servers{Look: c.look, Rule: c.rule, Prove: c.prove, Do: c.do, Stamps: c.stamps, Reign: c.reign}
	if c.member.parts.Open != nil {
		f.Servers.Open = func() int { return c.member.parts.Open(c.name) }
	}
	return f
}

func (c *cluster) tags(id topology.NodeID) ha.Tags {
	for i := range c.conf.Nodes {
		if topology.NodeID(c.conf.Nodes[i].ID) == id {
			return c.conf.Nodes[i].Tags
		}
	}
	return ha.Tags{}
}

// policy is what the configuration says about decisions.
func (c *cluster) policy() decide.Policy {
	o := &c.conf.Operation
	p := decide.Policy{
		OnCrash: o.OnCrash, RestartBudget: o.RestartBudget, Gray: o.GrayAfter, AntiFlap: o.AntiFlap, MaxLag: uint64(o.MaxLagOnFailover),
		Drain: o.SwitchDrain, OnOpen: o.SwitchOpen, SwitchBudget: o.SwitchBudget, MaxRepairs: o.MaxRepairs,
	}
	if o.FailoverWhenUnreachable {
		p.Unreachable = o.UnreachableAfter
	}
	if o.Enabled {
		p.WriteVIP, p.FenceHooks, p.Hooks = c.conf.WriteVIP, hooksOf(c.conf).Before(), hooksOf(c.conf).After()
	}
	return p
}

func (c *cluster) rule(r ha.Ruling) {
	if err := c.member.parts.Agent.Rule(c.name, r); err != nil {
		c.log.Error("the agent does not take the ruling", zap.Error(err))
	}
}

// do carries out an action.
func (c *cluster) do(ctx context.Context, fleetName string, a decide.Action) (decide.Result, operation.Report) {
	e, err := c.executorFor(fleetName)
	if err != nil {
		return decide.Result{Action: a, At: fleet.Now(), Err: err.Error()}, operation.Report{}
	}
	return e.Do(ctx, a)
}

func (c *cluster) executorFor(fleetName string) (*operation.Executor, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.executor != nil && c.fleets == fleetName {
		return c.executor, nil
	}
	e, err := operation.New(operation.Config{
		Fleet: fleetName, Cluster: c.name, Nodes: c.nodes, Replication: c.replication, Superuser: c.superuser, Now: fleet.Now,
		Addresses: c.addresses, Hooks: hooksOf(c.conf), Record: c.record,
		Progress: func(a decide.Action, line string) { c.member.fleet.Progress(c.name, a, line) },
	}, c.member.log)
	if err == nil {
		c.executor, c.fleets = e, fleetName
	}
	return e, err
}

// record is what the fleet has agreed on about the cluster.
func (c *cluster) record() *record.Cluster {
	r, err := c.member.fleet.Record(c.name)
	if err != nil {
		return &record.Cluster{} // the fleet was made with this cluster
	}
	return r
}

// stamps are what the hosts' ratchets remember.
func (c *cluster) stamps(ctx context.Context) (list []fleet.Stamp, missing []string) {
	for i := range c.nodes {
		n := &c.nodes[i]
		if n.Host == nil {
			continue
		}
		seen, err := n.Host.Seen(ctx)
		if err != nil {
			missing = append(missing, fmt.Sprintf("node %d: %v", n.ID, err))
		}
		for _, t := range seen {
			list = append(list, fleet.Stamp{Fleet: t.Fleet, Cluster: t.Cluster, Epoch: topology.Epoch(t.Epoch)})
		}
	}
	return list, missing
}
