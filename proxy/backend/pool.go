package backend

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/cstproxy/cstproxy/proxy/wire"
)

// pool holds the connections of one Key. LIFO: few hot servers are cheaper for PostgreSQL than
// many lukewarm ones, and the surplus grows old enough to be closed.
type pool struct {
	pools     *Pools
	key       Key
	limits    Limits
	servers   []*Server // all that are logged in
	idle      []*Server // the last is taken first
	dialing   int
	queue     Wait // ring of those who wait, oldest first
	waiting   int
	notBefore time.Time // no dial before this, after a failure
	used      time.Time
	opened    uint64
	dropped   uint64
	waited    time.Duration
}

// redialAfter is the pause after a failed dial; the balancer keeps new turns away meanwhile.
const redialAfter = 200 * time.Millisecond

var errJustFailed = errors.New("the last try has failed just now")

func (p *pool) acquire(w *Wait, who Waiter) (*Server, error) {
	now := p.pools.cfg.Now()
	p.used = now
	if n := len(p.idle); n > 0 {
		srv := p.idle[n-1]
		p.idle = p.idle[:n-1]
		srv.phase, srv.owner, srv.used = serverHeld, who, now
		return srv, nil
	}
	if p.waiting >= p.limits.MaxWaiting {
		return nil, ErrQueueFull
	}
	if len(p.servers)+p.dialing == 0 && now.Before(p.notBefore) {
		return nil, &NodeError{Node: p.key.Node, Err: errJustFailed}
	}
	w.pool, w.who, w.Since = p, who, now
	w.prev, w.next = p.queue.prev, &p.queue
	w.prev.next, w.next.prev = w, w
	p.waiting++
	p.dialForWaiters(now)
	return nil, nil
}

// dialForWaiters opens as many connections as there are waiters without one on its way, within
// the pool's and the node's bounds.
func (p *pool) dialForWaiters(now time.Time) {
	for p.dialing < p.waiting && len(p.servers)+p.dialing < p.limits.Size && !now.Before(p.notBefore) {
		if !p.pools.roomFor(p) {
			return
		}
		p.dial()
	}
}

func (p *pool) dial() {
	p.dialing++
	p.pools.perNode[nodeKey{p.key.Cluster, p.key.Node}]++
	p.pools.cfg.Dial(p.key, p.dialled)
}

func (p *Pools) full(nk nodeKey) bool {
	return p.cfg.MaxPerNode != 0 && p.perNode[nk] >= p.cfg.MaxPerNode
}

// roomFor says whether the node may get one more connection, closing an idle one of another pool
// if that makes the room.
func (p *Pools) roomFor(pl *pool) bool {
	nk := nodeKey{pl.key.Cluster, pl.key.Node}
	if !p.full(nk) {
		return true
	}
	var oldest *Server
	for key, other := range p.all {
		if key.Cluster == nk.cluster && key.Node == nk.node && len(other.idle) > 0 {
			if srv := other.idle[0]; oldest == nil || srv.used.Before(oldest.used) {
				oldest = srv
			}
		}
	}
	if oldest == nil {
		return false
	}
	oldest.pool.end(oldest)
	return true
}

func (p *pool) dialled(srv *Server, err error) {
	p.dialing--
	if err != nil {
		p.pools.perNode[nodeKey{p.key.Cluster, p.key.Node}]--
		p.dialFailed(err)
		return
	}
	now := p.pools.cfg.Now()
	srv.pool, srv.born, srv.used, srv.Params = p, now, now, p.pools.cfg.Params.Empty()
	if p.limits.Lifetime > 0 {
		srv.expires = now.Add(p.limits.Lifetime - rand.N(p.limits.Lifetime/10+1))
	}
	p.opened++
	p.servers = append(p.servers, srv)
	p.pools.cfg.Succeeded(p.key)
	p.ready(srv)
}

// dialFailed tells those who wait. A server that refuses the login has said something that the
// client should read; a full server is worth waiting for while we hold others of its places.
func (p *pool) dialFailed(err error) {
	now := p.pools.cfg.Now()
	p.notBefore = now.Add(redialAfter)
	if errors.Is(err, ErrNoCredential) {
		p.refuseAll(err) // the node is well, and every other one will ask the same
		return
	}
	var refusal *ServerError
	if !errors.As(err, &refusal) {
		p.pools.cfg.Failed(p.key, err)
		p.refuseAll(&NodeError{Node: p.key.Node, Err: err})
		return
	}
	switch {
	case refusal.SQLState() == "53300":
		if len(p.servers) > 0 {
			return
		}
		p.refuseAll(err)
	case refusal.unavailable():
		p.pools.cfg.Failed(p.key, err)
		p.refuseAll(&NodeError{Node: p.key.Node, Err: err})
	default:
		p.refuseAll(err)
	}
}

func (p *pool) refuseAll(err error) {
	for n := p.waiting; n > 0 && p.waiting > 0; n-- {
		w := p.queue.next
		who := w.who
		w.Leave()
		who.Refused(err)
	}
}

// ready hands a clean server to the first who waits, or keeps it.
func (p *pool) ready(srv *Server) {
	now := p.pools.cfg.Now()
	if srv.doomed || (!srv.expires.IsZero() && now.After(srv.expires)) || len(p.servers) > p.limits.Size {
		p.end(srv)
		return
	}
	srv.used = now
	if p.waiting > 0 {
		w := p.queue.next
		who := w.who
		p.waited += now.Sub(w.Since)
		w.Leave()
		srv.phase, srv.owner = serverHeld, who
		who.Granted(srv)
		return
	}
	srv.phase, srv.owner = serverIdle, nil
	p.idle = append(p.idle, srv)
}

func (p *pool) release(srv *Server, v Verdict) {
	srv.owner = nil
	switch {
	case v == Close || srv.doomed || srv.Frame.Rest > 0:
		p.end(srv)
	case v == Reset:
		srv.phase, srv.used = serverResetting, p.pools.cfg.Now()
		srv.Params = p.pools.cfg.Params.Empty()
		srv.Statements.Clear()
		srv.Statements.SetUnnamed(nil) // any simple Query drops it
		srv.Link.Resume()
		srv.Link.Write(resetQuery)
	default:
		p.ready(srv)
	}
}

// resetTimeout is how long DISCARD ALL may take before the connection is given up: it takes locks
// only on temporary tables of its own.
const resetTimeout = 30 * time.Second

var resetQuery = wire.AppendQuery(nil, []byte("DISCARD ALL"))
var terminate = wire.AppendEmpty(nil, 'X')

// end closes a connection in order.
func (p *pool) end(srv *Server) {
	p.remove(srv)
	srv.Link.Buffer(terminate)
	srv.Link.CloseAfterFlush()
	p.dialForWaiters(p.pools.cfg.Now())
}

// lost forgets a connection that is gone already.
func (p *pool) lost(srv *Server, _ error) {
	if srv.phase == serverClosed {
		return
	}
	p.dropped++
	p.remove(srv)
	p.dialForWaiters(p.pools.cfg.Now())
}

func (p *pool) remove(srv *Server) {
	if srv.phase == serverClosed {
		return
	}
	srv.phase = serverClosed
	p.pools.perNode[nodeKey{p.key.Cluster, p.key.Node}]--
	p.servers = without(p.servers, srv)
	p.idle = without(p.idle, srv)
	for key, other := range p.pools.all {
		if other != p && other.waiting > 0 && key.Node == p.key.Node && key.Cluster == p.key.Cluster {
			other.dialForWaiters(p.pools.cfg.Now())
		}
	}
}

func without(list []*Server, srv *Server) []*Server {
	for i, s := range list {
		if s == srv {
			copy(list[i:], list[i+1:])
			list[len(list)-1] = nil
			return list[:len(list)-1]
		}
	}
	return list
}

// doom closes an idle server now and any other as soon as it is given back.
func (p *pool) doom(srv *Server) {
	srv.doomed = true
	if srv.phase == serverIdle || srv.phase == serverResetting {
		p.end(srv)
	}
}

func (p *pool) sweep(now time.Time) {
	for _, srv := range append([]*Server(nil), p.idle...) {
		surplus := len(p.idle) > p.limits.MinIdle
		old := !srv.expires.IsZero() && now.After(srv.expires)
		if old || surplus && p.limits.IdleTimeout > 0 && now.Sub(srv.used) > p.limits.IdleTimeout {
			p.end(srv)
		}
	}
	for _, srv := range append([]*Server(nil), p.servers...) {
		if srv.phase == serverResetting && now.Sub(srv.used) > resetTimeout {
			p.end(srv)
		}
	}
	p.dialForWaiters(now)
	p.warm(p.limits.MinIdle)
}

// warm opens connections until n are idle or on their way, within the pool's and the node's bounds. None is
// closed for them: the oldest idle one might be the last that was opened here.
func (p *pool) warm(n int) {
	now, nk := p.pools.cfg.Now(), nodeKey{p.key.Cluster, p.key.Node}
	for len(p.idle)+p.dialing < n && len(p.servers)+p.dialing < p.limits.Size && !now.Before(p.notBefore) && !p.pools.full(nk) {
		p.dial()
	}
}
