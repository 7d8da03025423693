// Package member makes this process a member of a fleet, alone or among others: from the configuration
// it builds the ways to the servers and hosts, the consensus log, the links and the gossip, and hands
// them to package fleet.
package member

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/cstproxy/cstproxy/ha"
	"github.com/cstproxy/cstproxy/ha/consensus"
	"github.com/cstproxy/cstproxy/ha/fleet"
	"github.com/cstproxy/cstproxy/ha/gossip"
	"github.com/cstproxy/cstproxy/ha/lease"
	"github.com/cstproxy/cstproxy/ha/peer"
	"github.com/cstproxy/cstproxy/ha/vip"
)

// Parts are what a member works with. Whoever calls New runs the agent, after New.
type Parts struct {
	Agent *ha.Agent
	// Open counts this member's open write transactions of a cluster; nil where it has no clients.
	Open func(cluster string) int
	// Traffic says whether transactions of clients committed on the cluster's primary within the last
	// probe interval; nil where it has no clients.
	Traffic func(cluster string) bool
	// Admin and Version are what the member tells the others of itself.
	Admin, Version string
}

// Member is this process in its fleet. Run runs everything that New has made.
type Member struct {
	cfg      Config
	parts    Parts
	log      *zap.Logger
	stateDir string
	clusters map[string]*cluster
	hosts    hosts
	record   *consensus.Log
	fleet    *fleet.Fleet
	gossip   *gossip.Gossip // nil for a member alone
	guard    *vip.Guard     // nil without a proxy_vip
}

// aloneName is the name of a member without a section [fleet], in its log and on the hosts.
const aloneName = "alone"

// evidence is how many of the last decisions are kept for each cluster.
const evidence = 200

// New opens the member's sockets and connects nothing. The agent must not run yet.
func New(cfg Config, watch ha.Config, parts Parts, log *zap.Logger) (*Member, error) {
	if err := errors.Join(cfg.Validate(), Check(cfg, watch)); err != nil {
		return nil, err
	}
	m := &Member{cfg: cfg, parts: parts, log: log.Named("member"), stateDir: watch.StateDir, clusters: map[string]*cluster{}, hosts: newHosts(log)}
	joint := fleet.Config{
		Name: m.name(), Witness: cfg.Witness, Terms: lease.Terms{Length: cfg.Lease, Drift: cfg.ClockDrift}, Evidence: evidence,
	}
	for i := range watch.Clusters {
		c, err := m.newCluster(&watch.Clusters[i], notice(&watch))
		if err != nil {
			return nil, fmt.Errorf("cluster %s: %w", watch.Clusters[i].Name, err)
		}
		m.clusters[c.name] = c
		joint.Clusters = append(joint.Clusters, c.fleet())
	}
	joined, err := m.join(log)
	if err != nil {
		return nil, err
	}
	m.record = joined.Log
	if m.fleet, err = fleet.New(joint, joined, log); err != nil {
		return nil, err
	}
	if m.guard, err = m.newGuard(); err != nil {
		return nil, err
	}
	parts.Agent.Observed(m.fleet.Observed)
	if m.gossip != nil {
		parts.Agent.Passed(m.tell)
	}
	return m, nil
}

func (m *Member) name() string {
	if m.cfg.Alone() {
		return aloneName
	}
	return m.cfg.Name
}

// join makes what connects the member to the others.
func (m *Member) join(log *zap.Logger) (fleet.Parts, error) {
	settings := consensus.DefaultConfig(m.name())
	settings.Heartbeat, settings.Election, settings.LeaderLease = m.cfg.Heartbeat, m.cfg.Election, m.cfg.LeaderLease
	if m.cfg.Alone() {
		settings.Dir = filepath.Join(m.stateDir, aloneName)
		l, err := consensus.New(settings, nil, log)
		return fleet.Parts{Log: l}, err
	}
	key, err := peer.LoadKey(m.cfg.KeyFile)
	if err != nil {
		return fleet.Parts{}, err
	}
	listener, err := net.Listen("tcp", m.cfg.PeerBind)
	if err != nil {
		return fleet.Parts{}, fmt.Errorf("open the port for the other members: %w", err)
	}
	link, err := peer.New(peer.DefaultConfig(m.cfg.Name), key, listener, log)
	if err != nil {
		return fleet.Parts{}, errors.Join(err, listener.Close())
	}
	settings.Dir, settings.Address = filepath.Join(m.stateDir, "fleet"), m.peerAddress()
	if settings.Voters, err = m.cfg.voters(); err != nil {
		return fleet.Parts{}, errors.Join(err, listener.Close())
	}
	l, err := consensus.New(settings, link, log)
	if err != nil {
		return fleet.Parts{}, errors.Join(err, listener.Close())
	}
	if m.gossip, err = m.newGossip(key, log); err != nil {
		return fleet.Parts{}, errors.Join(err, listener.Close())
	}
	return fleet.Parts{Log: l, Link: link}, nil
}

func (m *Member) peerAddress() string {
	if m.cfg.PeerAdvertise != "" {
		return m.cfg.PeerAdvertise
	}
	return m.cfg.PeerBind
}

func (m *Member) newGossip(key *peer.Key, log *zap.Logger) (*gossip.Gossip, error) {
	settings := gossip.DefaultConfig()
	settings.Name, settings.Bind, settings.Advertise, settings.Join = m.cfg.Name, m.cfg.Bind, m.cfg.Advertise, m.cfg.Join
	settings.Key, settings.ProbeInterval = key.Gossip(), m.cfg.GossipInterval
	settings.Meta = gossip.Meta{Peer: m.peerAddress(), Admin: m.parts.Admin, Version: m.parts.Version, Role: gossip.Voter}
	if m.cfg.Witness {
		settings.Meta.Role = gossip.Witness
	}
	state, err := readLedger(m.ledgerFile())
	if err != nil {
		return nil, fmt.Errorf("read operators' orders: %w", err)
	}
	return gossip.New(settings, state, log)
}

// fleetName is the name by which hosts know this fleet's decisions; empty before its birth.
func (m *Member) fleetName() string {
	state, _ := m.record.State()
	return state.Fleet
}

// Fleet is what operators' orders and questions go to.
func (m *Member) Fleet() *fleet.Fleet { return m.fleet }

// Apply puts in force what a reload changes of the clusters: nodes, addresses, ways and policies, all of
// it or nothing. Whether a cluster is operated changes only with a restart.
func (m *Member) Apply(watch ha.Config) error {
	defer m.hosts.keep(m.setups) // of those in force then
	next := map[*cluster]*setup{}
	for i := range watch.Clusters {
		conf := &watch.Clusters[i]
		c := m.clusters[conf.Name]
		if c == nil || conf.Operation.Enabled != c.setup().conf.Operation.Enabled {
			return fmt.Errorf("%w: cluster %s: whether it is operated changes only with a restart", ha.ErrRefused, conf.Name)
		}
		s, err := m.newSetup(conf, notice(&watch))
		if err != nil {
			return fmt.Errorf("cluster %s: %w", conf.Name, err)
		}
		next[c] = s
	}
	for c, s := range next {
		if err := c.configure(s); err != nil {
			return err // the fleet knows every cluster that this member has
		}
	}
	return nil
}

// setups are those in force.
func (m *Member) setups() []*setup {
	var list []*setup
	for _, c := range m.clusters {
		list = append(list, c.setup())
	}
	return list
}

// Run takes part until ctx ends. An error is one that the member cannot get over by itself.
func (m *Member) Run(ctx context.Context) error {
	parts, ctx := errgroup.WithContext(ctx)
	parts.Go(func() error { return m.hosts.run(ctx) })
	for _, c := range m.clusters {
		parts.Go(func() error { return c.senses.run(ctx) })
	}
	parts.Go(func() error { return m.fleet.Run(ctx) })
	if m.gossip != nil {
		parts.Go(func() error { return m.gossip.Run(ctx) })
		parts.Go(func() error { m.hear(ctx); return nil })
	}
	if m.guard != nil {
		parts.Go(func() error { m.mind(ctx); return nil })
	}
	return parts.Wait()
}
