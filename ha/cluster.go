package ha

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/ha/pgnode"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// node is one server with what its goroutines need. Immutable but for the channels; a node whose
// address or access changed is replaced.
type node struct {
	id     topology.NodeID
	slot   int
	server *pgnode.Server
	access pgnode.Config // what server was made from
	poke   chan struct{} // probe now
	urge   chan struct{} // probe now, however short ago the last probe was
	lane   chan struct{} // ask for the replay position now
	heart  *heart
}

func (n *node) probeNow() { wake(n.poke) }

// entry is a node with what changes about it. Guarded by cluster.mu.
type entry struct {
	*node
	conf    NodeConfig
	added   bool // by an operator at run time
	order   order
	pulse   pulse
	lagging bool
}

// cluster watches one cluster and publishes its View.
type cluster struct {
	name    string
	board   *topology.Board
	log     *zap.Logger
	monitor *monitor
	// reconcile says that the set of nodes changed; save that the state file is out of date.
	reconcile chan struct{}
	save      chan struct{}
	// index is for callers that must not wait for mu.
	index atomic.Pointer[map[topology.NodeID]*node]

	mu      sync.Mutex
	conf    ClusterConfig
	timing  timing
	access  pgnode.Config // host and port open
	grace   time.Duration
	entries []*entry // by rising id
	slots   slots
	lastID  topology.NodeID // the highest id that was ever given
	verdict verdict
	ruling  *Ruling // nil: the cluster is not ruled
	notice  func()  // after every probe; nil when nobody asked
	member  string  // in whose name heartbeats are written; empty: none are
}

func newCluster(name string, board *topology.Board, log *zap.Logger) *cluster {
	c := &cluster{
		name: name, board: board, log: log.With(zap.String("cluster", name)),
		reconcile: make(chan struct{}, 1),
	}
	c.monitor = newMonitor(board.View().Rounds, pace{}, c.log)
	c.index.Store(&map[topology.NodeID]*node{})
	return c
}

// slots hands out places in topology.Rounds. A place that became free is given again as late as
// possible, so that nobody still holds a View in which it is the former node's.
type slots struct {
	next  int
	freed []int
}

func (s *slots) take() (int, error) {
	if s.next < topology.MaxSlots {
		s.next++
		return s.next - 1, nil
	}
	if len(s.freed) == 0 {
		return 0, fmt.Errorf("%w: the cluster has %d nodes, which is the most", ErrRefused, topology.MaxSlots)
	}
	slot := s.freed[0]
	s.freed = s.freed[1:]
	return slot, nil
}

func (s *slots) give(slot int) { s.freed = append(s.freed, slot) }

// run watches until ctx ends and returns when all its goroutines have.
func (c *cluster) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Add(1)
	go func() { defer wg.Done(); c.monitor.run(ctx) }()
	running := map[*node]context.CancelFunc{}
	for {
		wanted := c.nodes()
		for n, stop := range running {
			if !slices.Contains(wanted, n) {
				stop()
				delete(running, n)
			}
		}
		for _, n := range wanted {
			if running[n] != nil {
				continue
			}
			part, stop := context.WithCancel(ctx)
			running[n] = stop
			wg.Add(3)
			go func() { defer wg.Done(); c.watcher(n).run(part) }()
			go func() { defer wg.Done(); n.heart.run(part, func() (pgnode.Heartbeat, duty) { return c.duty(n.id) }) }()
			go func() { defer wg.Done(); c.monitor.runLane(part, n) }()
		}
		select {
		case <-ctx.Done():
			for _, stop := range running {
				stop()
			}
			return
		case <-c.reconcile:
		}
	}
}

func (c *cluster) watcher(n *node) *watcher {
	return &watcher{
		server: n.server,
		poke:   n.poke,
		urge:   n.urge,
		lost:   func() { c.monitor.lost(n) },
		report: func(p pulse) { c.observed(n, p) },
		heart:  n.heart,
		duty:   func() duty { _, d := c.duty(n.id); return d },
		timing: func() timing {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.timing
		},
	}
}

func (c *cluster) nodes() []*node {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]*node, len(c.entries))
	for i, e := range c.entries {
		list[i] = e.node
	}
	return list
}

// observed takes in a probe. A node that was replaced meanwhile has nothing more to say.
func (c *cluster) observed(n *node, p pulse) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entry(n.id); e != nil && e.node == n {
		e.pulse = p
		c.rejudge()
		if c.notice != nil {
			c.notice()
		}
	}
}

func (c *cluster) entry(id topology.NodeID) *entry {
	for _, e := range c.entries {
		if e.id == id {
			return e
		}
	}
	return nil
}

// rejudge judges anew and publishes if the data plane must know. Call with mu held.
func (c *cluster) rejudge() {
	p := picture{
		known: c.verdict.known, grace: c.grace, now: time.Now(), ruling: c.ruling,
		limits: limits{bytes: c.conf.MaxLagBytes, time: c.conf.MaxLag},
		facts:  make([]fact, len(c.entries)),
	}
	for i, e := range c.entries {
		n := e.conf.node()
		p.facts[i] = fact{node: n, slot: e.slot, pulse: e.pulse, order: e.order, lagging: e.lagging, lag: c.monitor.lagOf(e.id)}
	}
	v := judge(p)
	c.tell(&v)
	changed := c.verdict.known.epoch != v.known.epoch || !maps.Equal(c.verdict.known.outlived(), v.known.outlived())
	c.verdict = v
	for i, e := range c.entries {
		h := v.nodes[i].Health
		e.lagging = h == topology.Lagging || h == topology.NotStreaming
	}
	c.monitor.assign(c.assignment())
	c.publish()
	if changed {
		wake(c.save)
	}
}

// assignment is what the rounds are about after the present verdict. Call with mu held.
func (c *cluster) assignment() assignment {
	v := &c.verdict
	a := assignment{epoch: v.known.epoch, timeline: v.known.history.Timeline, standbys: map[*node]standbyPart{}}
	for i, e := range c.entries {
		view := &v.nodes[i]
		if e.id == v.primary {
			a.primary = e.node
			a.flushed = flushDelay(e.pulse.observed.Settings.WALWriterDelay)
			continue
		}
		if view.Role != topology.RoleStandby || !e.pulse.condition.speaks() || view.Health == topology.HealthUnknown {
			continue // foreign nodes have no role
		}
		a.standbys[e.node] = standbyPart{serves: view.TakesReads(), timeline: e.pulse.observed.Timeline}
	}
	return a
}

// publish shows the verdict to the data plane unless it shows that already. Call with mu held.
func (c *cluster) publish() {
	v := &c.verdict
	old := c.board.View()
	next := &topology.View{
		Cluster: c.name, Epoch: v.known.epoch, Primary: v.primary, WhyNoPrimary: v.why,
		SystemID: v.known.system, Nodes: v.nodes, Rounds: old.Rounds,
	}
	if c.ruling != nil {
		next.Lease, next.Frozen, next.Heir = c.ruling.Lease, c.ruling.Frozen, c.ruling.Heir
	}
	if old.Version > 0 && old.Epoch == next.Epoch && old.Primary == next.Primary && old.WhyNoPrimary == next.WhyNoPrimary &&
		old.SystemID == next.SystemID && old.Lease == next.Lease && old.Frozen == next.Frozen && old.Heir == next.Heir && slices.Equal(old.Nodes, next.Nodes) {
		return
	}
	c.board.Publish(next)
}

// tell writes what changed into the log. Call with mu held, before the new verdict is in place.
func (c *cluster) tell(v *verdict) {
	old := &c.verdict
	switch {
	case v.known.epoch != old.known.epoch:
		c.log.Info("new epoch", zap.Uint64("epoch", uint64(v.known.epoch)), zap.Int("node", int(v.primary)),
			zap.Uint32("timeline", uint32(v.known.history.Timeline)), zap.String("why", v.reason))
	case v.primary != old.primary && v.primary != 0:
		c.log.Info("primary answers", zap.Uint64("epoch", uint64(v.known.epoch)), zap.Int("node", int(v.primary)))
	case v.why != old.why && v.primary == 0:
		c.log.Warn("no primary", zap.Uint64("epoch", uint64(v.known.epoch)), zap.String("why", v.why))
	}
	if v.alarm != old.alarm && v.alarm != "" {
		c.log.Error("an operator must look at this", zap.String("why", v.alarm))
	}
	for i := range v.nodes {
		n := &v.nodes[i]
		before := topology.NodeView{}
		for j := range old.nodes {
			if old.nodes[j].ID == n.ID {
				before = old.nodes[j]
			}
		}
		if n.Health != before.Health || n.Role != before.Role {
			c.log.Info("node changed", zap.Int("node", int(n.ID)), zap.Stringer("role", n.Role),
				zap.Stringer("health", n.Health), zap.Stringer("before", before.Health), zap.String("why", n.Why))
		}
	}
}

// changed is called with mu held after entries or their access changed.
func (c *cluster) changed() {
	slices.SortFunc(c.entries, func(a, b *entry) int { return int(a.id - b.id) })
	index := make(map[topology.NodeID]*node, len(c.entries))
	for _, e := range c.entries {
		index[e.id] = e.node
		c.lastID = max(c.lastID, e.id)
	}
	c.index.Store(&index)
	c.rejudge()
	wake(c.reconcile)
}

// insert makes an entry for conf, reached by access. Call with mu held; changed must follow.
func (c *cluster) insert(conf NodeConfig, access pgnode.Config) (*entry, error) {
	access.Host, access.Port = conf.Host, conf.Port
	server, err := pgnode.New(access)
	if err != nil {
		return nil, err
	}
	slot, err := c.slots.take()
	if err != nil {
		return nil, err
	}
	e := &entry{conf: conf, node: &node{
		id: topology.NodeID(conf.ID), slot: slot, server: server, access: access,
		poke: make(chan struct{}, 1), urge: make(chan struct{}, 1), lane: make(chan struct{}, 1), heart: newHeart(server),
	}}
	c.entries = append(c.entries, e)
	return e, nil
}

// remove drops an entry. Call with mu held; changed must follow.
func (c *cluster) remove(e *entry) {
	c.entries = slices.DeleteFunc(c.entries, func(o *entry) bool { return o == e })
	c.monitor.forget(e.node)
	c.slots.give(e.slot)
}
