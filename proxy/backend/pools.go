package backend

import (
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/ha/topology"
	"github.com/cstproxy/cstproxy/proxy/params"
)

// Key names a pool: connections of one user to one database of one node of one cluster.
type Key struct {
	Cluster  string
	Node     topology.NodeID
	Database string
	User     string
}

// Limits are the bounds of one pool.
type Limits struct {
	// Size is the most connections of the pool, those in use counted.
	Size int
	// MinIdle connections are kept open, as far as credentials are known. 0: none.
	MinIdle int
	// IdleTimeout closes a connection that nobody used for so long. 0: never.
	IdleTimeout time.Duration
	// Lifetime closes a connection after so long, at most a tenth earlier so that not all of
	// them go at once. 0: never.
	Lifetime time.Duration
	// MaxWaiting bounds the queue of those who wait for a connection.
	MaxWaiting int
}

// Why an owner got no server.
var (
	// ErrQueueFull: as many wait as may.
	ErrQueueFull = errors.New("too many clients wait for a server connection")
	// ErrNodeLeft: the node takes no more queries of this kind; ask for another one.
	ErrNodeLeft = errors.New("the node left the rotation")
)

// NodeError says that the node could not be reached or takes nobody now: another one may.
type NodeError struct {
	Node topology.NodeID
	Err  error
}

func (e *NodeError) Error() string { return "connect to node: " + e.Err.Error() }
func (e *NodeError) Unwrap() error { return e.Err }

// Waiter is somebody in a pool's queue.
type Waiter interface {
	Owner
	Granted(srv *Server)
	Refused(err error)
}

// Wait is a place in a queue; embedded in its owner, used for one wait at a time.
type Wait struct {
	prev, next *Wait
	pool       *pool
	who        Waiter
	Since      time.Time
}

// Waiting says whether the place is in a queue.
func (w *Wait) Waiting() bool { return w.pool != nil }

// Leave gives the place up.
func (w *Wait) Leave() {
	if w.pool == nil {
		return
	}
	w.prev.next, w.next.prev = w.next, w.prev
	w.pool.waiting--
	w.prev, w.next, w.pool, w.who = nil, nil, nil, nil
}

// Dial makes a connection on a goroutine of its own and calls done on the loop, with a Server
// whose Link feeds it, or with an error.
type Dial func(key Key, done func(*Server, error))

// Config is what Pools need from their surroundings.
type Config struct {
	Dial   Dial
	Limits func(Key) Limits
	// MaxPerNode bounds the connections to one node over all pools. 0: no bound.
	MaxPerNode int
	// Failed and Succeeded tell the balancer how dialling went.
	Failed    func(Key, error)
	Succeeded func(Key)
	Params    *params.Registry
	Now       func() time.Time
	Log       *zap.Logger
}

// Pools are all pools of one loop.
type Pools struct {
	cfg     Config
	log     *zap.Logger
	all     map[Key]*pool
	perNode map[nodeKey]int
}

type nodeKey struct {
	cluster string
	node    topology.NodeID
}

// NewPools returns no pools; Acquire makes them.
func NewPools(cfg Config) *Pools {
	return &Pools{cfg: cfg, log: cfg.Log, all: map[Key]*pool{}, perNode: map[nodeKey]int{}}
}

// Acquire gives a server at once, or nil: then w waits and who.Granted or who.Refused follows.
func (p *Pools) Acquire(key Key, w *Wait, who Waiter) (*Server, error) {
	return p.pool(key).acquire(w, who)
}

// Warm opens connections until n are idle or on their way, as far as the bounds allow. Nobody waits for them:
// a failure is told as of any other dial.
func (p *Pools) Warm(key Key, n int) {
	pl := p.pool(key)
	pl.used = p.cfg.Now()
	pl.warm(n)
}

// Try connects to the key's node, beyond the pool's bounds if need be, and says whether the node takes
// connections now: also one that refuses this user or database does, or one that is full. The connection
// joins the pool if there is room.
func (p *Pools) Try(key Key, done func(takes bool)) {
	pl := p.pool(key)
	pl.dialing++
	p.perNode[nodeKey{key.Cluster, key.Node}]++
	p.cfg.Dial(key, func(srv *Server, err error) {
		takes := err == nil || errors.Is(err, ErrNoCredential)
		var refusal *ServerError
		if errors.As(err, &refusal) {
			takes = !refusal.unavailable()
		}
		pl.dialled(srv, err)
		done(takes)
	})
}

func (p *Pools) pool(key Key) *pool {
	pl := p.all[key]
	if pl == nil {
		pl = &pool{pools: p, key: key, limits: p.cfg.Limits(key)}
		pl.queue.prev, pl.queue.next = &pl.queue, &pl.queue
		p.all[key] = pl
	}
	return pl
}

// ViewChanged closes what leads to nodes that take no more queries, and makes those who wait for
// them ask again. serves says whether the node still serves, in the role it had.
func (p *Pools) ViewChanged(cluster string, serves func(topology.NodeID, topology.Epoch) Fate) {
	for key, pl := range p.all {
		if key.Cluster != cluster {
			continue
		}
		for _, srv := range append([]*Server(nil), pl.servers...) {
			switch serves(key.Node, srv.Epoch) {
			case Keep:
			case Finish:
				pl.doom(srv)
			case Cut:
				pl.doom(srv)
				if srv.phase != serverClosed {
					srv.Link.Close()
				}
			}
		}
		if serves(key.Node, 0) != Keep {
			pl.refuseAll(&NodeError{Node: key.Node, Err: ErrNodeLeft})
		}
	}
}

// Fate is what becomes of a node's connections when the View changes.
type Fate int

const (
	Finish Fate = iota // no new turn; held ones end their transaction
	Cut                // the node is gone: those who wait for its answer need not
	Keep
)

// Sweep closes what is too old or idle for too long, opens what MinIdle asks for, and forgets
// empty pools. Called about once a second.
func (p *Pools) Sweep() {
	now := p.cfg.Now()
	for key, pl := range p.all {
		pl.sweep(now)
		if len(pl.servers) == 0 && pl.dialing == 0 && pl.waiting == 0 && now.Sub(pl.used) > time.Minute {
			delete(p.all, key)
		}
	}
}

// Reload reads the limits of all pools again; maxPerNode replaces Config.MaxPerNode.
func (p *Pools) Reload(maxPerNode int) {
	p.cfg.MaxPerNode = maxPerNode
	for key, pl := range p.all {
		pl.limits = p.cfg.Limits(key)
	}
}

// CloseIdle ends all idle connections; those in use end when they are given back.
func (p *Pools) CloseIdle() {
	for _, pl := range p.all {
		for _, srv := range append([]*Server(nil), pl.servers...) {
			pl.doom(srv)
		}
	}
}

// Stat is one pool's numbers.
type Stat struct {
	Key                          Key
	Active, Idle, Waiting, Total int
	Dialing, Size                int
	OldestWait                   time.Duration
	WaitedTotal                  time.Duration
	Opened, Lost                 uint64
}

// Stats lists all pools.
func (p *Pools) Stats() []Stat {
	now := p.cfg.Now()
	stats := make([]Stat, 0, len(p.all))
	for key, pl := range p.all {
		st := Stat{Key: key, Idle: len(pl.idle), Waiting: pl.waiting, Total: len(pl.servers), Dialing: pl.dialing,
			Size: pl.limits.Size, Active: len(pl.servers) - len(pl.idle), Opened: pl.opened, Lost: pl.dropped, WaitedTotal: pl.waited}
		if pl.waiting > 0 {
			st.OldestWait = now.Sub(pl.queue.next.Since)
		}
		stats = append(stats, st)
	}
	return stats
}
