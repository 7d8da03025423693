package proxy

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"time"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/ha/topology"
	"github.com/cstproxy/cstproxy/proxy/backend"
	"github.com/cstproxy/cstproxy/proxy/wire"
)

// cancelKey is what a client shows to cancel its query: the process id and secret of its greeting.
type cancelKey struct {
	pid    uint32
	secret string
}

// register gives the session a key of its own. In session pooling the pid is the one of its server
// process, so that pg_stat_activity and the client agree.
func (p *Proxy) register(s *session, version uint32) cancelKey {
	size := 4
	if version >= wire.Version32 {
		size = 32
	}
	secret := make([]byte, size)
	for {
		p.random(secret)
		key := cancelKey{p.nextPID(s), string(secret)}
		if _, taken := p.keys[key]; !taken {
			p.keys[key] = s
			return key
		}
	}
}

func (p *Proxy) random(b []byte) {
	// crypto/rand.Read never fails (it ends the process if the kernel has no randomness).
	_, _ = rand.Read(b)
}

func (p *Proxy) nextPID(s *session) uint32 {
	if s.pooling == SessionPooling {
		for _, srv := range s.kept {
			if srv != nil {
				return srv.PID
			}
		}
	}
	var b [4]byte
	p.random(b[:])
	// Below 2^22, the largest process id of Linux, and never 0.
	return binary.BigEndian.Uint32(b[:])%(1<<22-1) + 1
}

// cancel acts on a CancelRequest. A wrong key is not answered, like everything about cancelling. taken
// follows when the request can no longer hit anything: a client waits for its connection to close
// before it goes on, so that its next statement is not the one that is cancelled.
func (p *Proxy) cancel(pid uint32, secret []byte, taken func()) {
	s := p.keys[cancelKey{pid, string(secret)}]
	if s == nil || !p.cancels.Allow() {
		p.stats.cancelIgnored()
		taken()
		return
	}
	switch s.phase {
	case phaseTurn, phaseCopyIn:
		p.cancelThen(s.held, s.cluster, taken)
		return
	case phaseHeld, phaseParked, phaseWaiting:
		s.wait.Leave()
		s.cancelHeld()
	}
	taken()
}

// cancelQuery asks the node to cancel what srv does. The server cannot go back to its pool before
// the node has taken the request, so that no other session's query is hit.
func (p *Proxy) cancelQuery(srv *backend.Server, c *cluster) {
	p.cancelThen(srv, c, func() {})
}

func (p *Proxy) cancelThen(srv *backend.Server, c *cluster, taken func()) {
	if srv == nil || c.view.Node(srv.Key.Node) == nil {
		taken()
		return
	}
	node := c.view.Node(srv.Key.Node)
	srv.BeginCancel()
	p.stats.cancelSent()
	p.strike(node.Node, srv.PID, srv.Secret, func(err error) {
		if err != nil {
			p.log.Info("cancel request failed", zap.Int("node", int(srv.Key.Node)), zap.Error(err))
		}
		srv.EndCancel()
		taken()
	})
}

// sendCancel sends a cancel request on a goroutine; done follows when the node has taken it.
func (p *Proxy) sendCancel(node topology.Node, pid uint32, secret []byte, done func(error)) {
	p.spawn(func(ctx context.Context) {
		ctx, end := context.WithTimeout(ctx, cancelTimeout)
		defer end()
		err := p.dialer.Load().Cancel(ctx, node, pid, secret)
		p.post(func() { done(err) })
	})
}

// cancelTimeout bounds how long a server is kept from its pool by a cancel request.
const cancelTimeout = 5 * time.Second
