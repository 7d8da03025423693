// Package ha watches the PostgreSQL servers and tells the data plane, in Views on a Board, which of
// them takes the writes and which take reads. Roles are observed, never configured: what
// pg_is_in_recovery(), the system identifier and the timeline's history say, weighed by judge.
// The Agent is the only publisher of Views. It also runs the rounds by which a session's own writes
// are found on standbys, keeps what operators said about nodes, and answers their questions. This
// agent is a fleet of one member: it observes, and changes nothing on a server.
package ha

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/ha/pgnode"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// Rotation lists the nodes that take reads by a View, in the balancer's order; nil means the
// standbys that do. The balancer's policy decides whether the primary is among them.
type Rotation func(*topology.View) []topology.NodeID

// Agent watches all clusters. Its methods may be called from any goroutine; those that change or
// ask something work while Run does.
type Agent struct {
	log      *zap.Logger
	clusters map[string]*cluster // immutable
	names    []string            // in the configuration's order; immutable
	rotation Rotation
	running  chan struct{} // closed when the state file has been read
	save     chan struct{}
	passed   func(Order) // may be nil

	mu     sync.Mutex // orders Apply and guards config
	config Config

	saving sync.Mutex // orders writes of the state file
}

// New returns an agent for the clusters of cfg, each with its board, which from now on shows the
// configured nodes, none of them probed. Nothing is asked before Run. rotation may be nil.
func New(cfg Config, boards map[string]*topology.Board, rotation Rotation, log *zap.Logger) (*Agent, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	a := &Agent{
		log: log, config: cfg, rotation: rotation,
		clusters: map[string]*cluster{},
		running:  make(chan struct{}), save: make(chan struct{}, 1),
	}
	for i := range cfg.Clusters {
		name := cfg.Clusters[i].Name
		if boards[name] == nil {
			return nil, fmt.Errorf("cluster %q has no board", name)
		}
		a.clusters[name] = newCluster(name, boards[name], log)
		a.clusters[name].save = a.save
		a.names = append(a.names, name)
	}
	settings, err := a.prepare(cfg)
	if err != nil {
		return nil, err
	}
	for _, s := range settings {
		if err := s.cluster.apply(s); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// Run watches until ctx ends; it returns when all of its goroutines have. The error is that of
// reading the state file.
func (a *Agent) Run(ctx context.Context) error {
	if err := a.load(); err != nil {
		return err
	}
	close(a.running)
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, c := range a.clusters {
		wg.Add(1)
		go func() { defer wg.Done(); c.run(ctx) }()
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.save:
		}
		if err := a.persist(); err != nil {
			a.log.Error("state not saved, trying again", zap.Error(err))
			pause(ctx, saveRetry, nil, nil)
			wake(a.save)
		}
	}
}

// saveRetry is the pause after a state file could not be written; nothing waits for it.
const saveRetry = 5 * time.Second

// Apply puts a new configuration in force: nodes, access, limits and intervals, without touching
// what did not change. It is taken as a whole or refused as a whole. Clusters neither come nor go
// while the process runs, because the data plane has one Board for each, and StateDir stays.
func (a *Agent) Apply(cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if cfg.StateDir != a.config.StateDir {
		return fmt.Errorf("%w: state_dir changes only with a restart", ErrRefused)
	}
	settings, err := a.prepare(cfg)
	if err != nil {
		return err
	}
	for _, s := range settings {
		if err := s.cluster.apply(s); err != nil {
			return err
		}
	}
	a.config = cfg
	wake(a.save)
	return nil
}

// settings are what one cluster is told by a configuration.
type settings struct {
	cluster *cluster
	conf    ClusterConfig
	access  pgnode.Config
	config  Config
}

// prepare does everything of a configuration that can fail.
func (a *Agent) prepare(cfg Config) ([]settings, error) {
	if len(cfg.Clusters) != len(a.clusters) {
		return nil, fmt.Errorf("%w: clusters come and go only with a restart", ErrRefused)
	}
	var list []settings
	for i := range cfg.Clusters {
		conf := cfg.Clusters[i]
		c := a.clusters[conf.Name]
		if c == nil {
			return nil, fmt.Errorf("%w: cluster %q is new; clusters come and go only with a restart", ErrRefused, conf.Name)
		}
		access, err := conf.access(cfg.ProbeTimeout)
		if err != nil {
			return nil, err
		}
		for _, n := range conf.Nodes {
			access.Host, access.Port = n.Host, n.Port
			if _, err := pgnode.New(access); err != nil {
				return nil, err
			}
		}
		conf.Nodes = slices.Clone(conf.Nodes)
		list = append(list, settings{cluster: c, conf: conf, access: access, config: cfg})
	}
	return list, nil
}

// apply brings the cluster's nodes into line with the settings. Nodes that operators added stay; one
// whose address the configuration now has becomes the configured one, and one whose id the
// configuration now gives to another gets a new id.
func (c *cluster) apply(s settings) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conf, c.access, c.grace = s.conf, s.access, s.config.RivalGrace
	c.timing = timing{interval: s.config.ProbeInterval, timeout: s.config.ProbeTimeout, deadAfter: s.config.DeadAfter}
	c.monitor.setPace(pace{wanted: s.config.RoundInterval, idle: s.config.IdleRoundInterval})
	before := map[string]entry{}
	var added []NodeConfig
	for _, e := range slices.Clone(c.entries) {
		before[e.conf.node().Address()] = *e
		i := slices.IndexFunc(s.conf.Nodes, func(n NodeConfig) bool { return c.same(e, n, s.access) })
		if i >= 0 {
			e.conf, e.added = s.conf.Nodes[i], false
			continue
		}
		if e.added && !slices.ContainsFunc(s.conf.Nodes, func(n NodeConfig) bool { return n.node().Address() == e.conf.node().Address() }) {
			added = append(added, e.conf)
		}
		c.remove(e)
	}
	defer c.changed()
	for _, n := range s.conf.Nodes {
		c.lastID = max(c.lastID, topology.NodeID(n.ID))
		if c.entry(topology.NodeID(n.ID)) != nil {
			continue
		}
		e, err := c.insert(n, s.access)
		if err != nil {
			return err
		}
		e.inherit(before)
	}
	for _, n := range added {
		if c.entry(topology.NodeID(n.ID)) != nil {
			c.lastID++
			n.ID = int(c.lastID)
		}
		e, err := c.insert(n, s.access)
		if err != nil {
			return err
		}
		e.added = true
		e.inherit(before)
	}
	return nil
}

// inherit goes on with what was known and ordered of the server at the same address, so that a new
// password or timeout does not look like a dead node until the next probe.
func (e *entry) inherit(before map[string]entry) {
	if old, ok := before[e.conf.node().Address()]; ok {
		e.order, e.pulse, e.lagging = old.order, old.pulse, old.lagging
	}
}

// same says whether the entry can go on as the node n: same id, same server, same way in.
func (c *cluster) same(e *entry, n NodeConfig, access pgnode.Config) bool {
	access.Host, access.Port = n.Host, n.Port
	return int(e.id) == n.ID && e.access == access
}

// Clusters are the names, in the order of the configuration.
func (a *Agent) Clusters() []string { return slices.Clone(a.names) }

func (a *Agent) cluster(name string) (*cluster, error) {
	if c := a.clusters[name]; c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("%w: there is no cluster %q", ErrUnknown, name)
}

// ReportFailure tells the agent that a connection to a node failed or broke: the node has to prove
// again what it has replayed, and is probed at once. It never blocks; unknown names are ignored.
func (a *Agent) ReportFailure(cluster string, id topology.NodeID) {
	c := a.clusters[cluster]
	if c == nil {
		return
	}
	if n := (*c.index.Load())[id]; n != nil {
		c.monitor.lost(n)
		n.probeNow()
		wake(n.lane)
	}
}

// Snapshot is everything known of one cluster. The error is ErrUnknown.
func (a *Agent) Snapshot(cluster string) (Snapshot, error) {
	c, err := a.cluster(cluster)
	if err != nil {
		return Snapshot{}, err
	}
	return c.snapshot(), nil
}

func (c *cluster) snapshot() Snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := &c.verdict
	s := Snapshot{
		Cluster: c.name, Epoch: v.known.epoch, Primary: v.primary, Accepted: v.known.primary, WhyNoPrimary: v.why, Alarm: v.alarm,
		SystemID: v.known.system, Timeline: v.known.history.Timeline, Taken: time.Now(),
		Nodes: make([]NodeStatus, len(c.entries)),
	}
	for i, e := range c.entries {
		lag := c.monitor.lagOf(e.id)
		s.Nodes[i] = NodeStatus{
			NodeView: v.nodes[i], Observation: e.pulse.observed,
			LastSeen: e.pulse.seen, LastTried: e.pulse.tried, Failure: e.pulse.why, Failures: e.pulse.failures,
			Class: e.pulse.class, Since: e.pulse.since, DiskFull: e.pulse.full,
			LagBytes: lag.bytes, Lag: lag.time, LagKnown: lag.known && v.nodes[i].Role == topology.RoleStandby,
			Warnings:   e.warnings(c.member),
			Proved:     c.monitor.rounds.Safe(e.slot),
			InRotation: v.nodes[i].TakesReads(), Added: e.added, Tags: e.conf.Tags,
		}
	}
	return s
}

// warnings are those of a server that a member operates.
func (e *entry) warnings(member string) []string {
	if member == "" || e.pulse.seen.IsZero() {
		return nil
	}
	return e.pulse.observed.Warnings
}

// Backends are the addresses in the read rotation, in ring order; nil for an unknown cluster.
func (a *Agent) Backends(cluster string) []string {
	c := a.clusters[cluster]
	if c == nil {
		return nil
	}
	view := c.board.View()
	list := []string{}
	if a.rotation != nil {
		for _, id := range a.rotation(view) {
			if n := view.Node(id); n != nil {
				list = append(list, n.Address())
			}
		}
		return list
	}
	for i := range view.Nodes {
		if n := &view.Nodes[i]; n.TakesReads() {
			list = append(list, n.Address())
		}
	}
	return list
}
