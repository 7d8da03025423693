package member

import (
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/ha"
	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/hook"
	"github.com/cstproxy/cstproxy/ha/operation"
	"github.com/cstproxy/cstproxy/ha/pgnode"
	"github.com/cstproxy/cstproxy/ha/remote"
	"github.com/cstproxy/cstproxy/ha/topology"
	"github.com/cstproxy/cstproxy/ha/vip"
)

// actionTime bounds one question of an operation to a server; a host that is away costs this much.
const actionTime = 2 * time.Second

// setup is what a configuration says of a cluster, with the ways to its servers that follow from it.
// Immutable; a reload makes another one.
type setup struct {
	conf   ha.ClusterConfig // file with the policies that the log has changed
	file   ha.ClusterConfig
	notice time.Duration    // see tooGray
	nodes  []operation.Node // by rising id
	hosts  map[topology.NodeID]*remote.Host

	replication, superuser pgnode.Conninfo
	addresses              operation.Addresses

	replaced chan struct{} // closed when another one is in force
}

func (m *Member) newSetup(conf *ha.ClusterConfig, notice time.Duration) (*setup, error) {
	s := &setup{conf: *conf, file: *conf, notice: notice, hosts: map[topology.NodeID]*remote.Host{}, replaced: make(chan struct{})}
	var err error
	if s.replication, err = conf.Replicator(); err != nil {
		return nil, err
	}
	if s.superuser, err = conf.Rewinder(); err != nil {
		return nil, err
	}
	for _, n := range conf.Servers() {
		node, err := s.node(n, &m.hosts)
		if err != nil {
			return nil, fmt.Errorf("node %d: %w", n.ID, err)
		}
		s.nodes = append(s.nodes, node)
	}
	if s.addresses, err = s.addressesOf(m.log); err != nil {
		return nil, err
	}
	// What else cannot be obeyed is found by whoever has to.
	_, err = operation.New(operation.Config{Nodes: s.nodes, Now: func() time.Duration { return 0 }, Addresses: s.addresses, Hooks: s.hooks()}, zap.NewNop())
	return s, err
}

func (s *setup) node(n topology.Node, hosts *hosts) (operation.Node, error) {
	o := &s.conf.Operation
	node := operation.Node{Node: n, Login: s.login(n), Elevate: o.Elevate, BinDir: o.BinFolder}
	access, err := s.conf.Superuser(actionTime)
	if err != nil {
		return node, err
	}
	access.Host, access.Port = n.Host, n.Port
	if node.SQL, err = pgnode.New(access); err != nil {
		return node, err
	}
	if o.TriggerFunction != "" {
		access.Database = o.TriggerDatabase
		if node.Trigger, err = pgnode.New(access); err != nil {
			return node, err
		}
	}
	if !o.Enabled || o.SSHKeyFile == "" {
		return node, nil
	}
	node.Host, err = hosts.way(s.wayTo(n))
	s.hosts[n.ID] = node.Host
	return node, err
}

func (s *setup) login(n topology.Node) string {
	if s.conf.Operation.SSHUser != "" {
		return s.conf.Operation.SSHUser
	}
	return n.OSUser
}

func (s *setup) wayTo(n topology.Node) remote.Config {
	o := &s.conf.Operation
	way := remote.DefaultConfig()
	way.Host, way.Port, way.User, way.Dir = n.Host, o.SSHPort, s.login(n), o.SSHFolder
	way.KeyFile, way.KnownHostsFile = o.SSHKeyFile, o.SSHKnownHostsFile
	return way
}

func (s *setup) addressesOf(log *zap.Logger) (operation.Addresses, error) {
	a := operation.Addresses{}
	for _, want := range []struct {
		to   *vip.VIP
		kind vip.Kind
		text string
	}{{&a.Write, vip.Write, s.conf.WriteVIP}, {&a.Read, vip.Read, s.conf.ReadVIP}} {
		if want.text == "" || !s.conf.Operation.Enabled {
			continue
		}
		prefix, err := vip.Parse(want.text)
		if err != nil {
			return a, err
		}
		*want.to = vip.VIP{Kind: want.kind, Cluster: s.conf.Name, Prefix: prefix, Interface: s.conf.VIPInterface}
		a.Segment = vip.NewLocal(log)
	}
	return a, nil
}

func (s *setup) hooks() hook.Config {
	o := &s.conf.Operation
	return hook.Config{PreFence: o.PreFence, PostPromote: o.PostPromote, OnRoleChange: o.OnRoleChange, TriggerFunc: o.TriggerFunction}
}

// decided are the nodes as package decide knows them, without facts.
func (s *setup) decided() []decide.Node {
	list := make([]decide.Node, len(s.nodes))
	for i := range s.nodes {
		tags := s.tags(s.nodes[i].ID)
		list[i] = decide.Node{
			Node: s.nodes[i].Node, NoFailover: tags.NoFailover, NoSync: tags.NoSync, Priority: tags.Priority, Managed: s.conf.Operation.Enabled,
		}
	}
	return list
}

func (s *setup) tags(id topology.NodeID) ha.Tags {
	for i := range s.conf.Nodes {
		if topology.NodeID(s.conf.Nodes[i].ID) == id {
			return s.conf.Nodes[i].Tags
		}
	}
	return ha.Tags{}
}

// policy is what the configuration says about decisions.
func (s *setup) policy() decide.Policy {
	o := &s.conf.Operation
	p := decide.Policy{
		OnCrash: o.OnCrash, RestartBudget: o.RestartBudget, Gray: o.GrayAfter, AntiFlap: o.AntiFlap, MaxLag: uint64(o.MaxLagOnFailover),
		Drain: o.SwitchDrain, OnOpen: o.SwitchOpen, SwitchBudget: o.SwitchBudget, MaxRepairs: o.MaxRepairs,
	}
	if o.FailoverWhenUnreachable {
		p.Unreachable = o.UnreachableAfter
	}
	if o.Enabled {
		p.WriteVIP, p.FenceHooks, p.Hooks = s.conf.WriteVIP, s.hooks().Before(), s.hooks().After()
	}
	return p
}
