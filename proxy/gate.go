package proxy

import (
	"slices"
	"time"

	"github.com/cstproxy/cstproxy/proxy/backend"
)

// What a primary says reaches a client only while this member holds the lease under which the session
// was given the server: commits in the middle of a batch, rows of a stale primary, every piece of a
// long result. Without the lease the bytes wait, unread, and the server is not read any more, until
//   - the lease is renewed: then they go on as if they had come now;
//   - its epoch has ended, or the wait has lasted hold_writes: then they are dropped, and what the client
//     hears is what it would hear if the server had been lost before it said them (lost.go).
// So a leader's election costs a healthy primary nothing but time, and nobody reads of a success that
// the next primary knows nothing about.

// answerGate is closed while since is set.
type answerGate struct {
	since time.Time
	bytes []byte // what the server has said since
	gone  error  // and its connection has ended behind that
}

// passes says whether bytes of a server whose grant needs a lease may be read; if not, they are kept.
func (s *session) passes(srv *backend.Server, b []byte) bool {
	if s.gate.since.IsZero() && s.grant.lease.Held(s.proxy.boottime()) {
		return true
	}
	s.holdAnswer(srv, b)
	return false
}

func (s *session) holdAnswer(srv *backend.Server, b []byte) {
	c, g := s.cluster, &s.gate
	switch {
	case s.grant.lease.Ended():
		s.cutOff(primaryReplaced)
		return
	case s.proxy.cfg.HoldWrites <= 0:
		s.cutOff(leaseOver)
		return
	case g.since.IsZero():
		*g = answerGate{since: s.proxy.now(), bytes: s.proxy.buffers.get()}
		srv.Link.Pause()
		c.gated = append(c.gated, s)
		c.noteHeld(noLease)
		s.proxy.stats.HeldAnswers.Add(1)
		s.proxy.watch()
	}
	g.bytes = append(g.bytes, b...)
}

// openGate forgets what was kept.
func (s *session) openGate() {
	if s.gate.since.IsZero() {
		return
	}
	c := s.cluster
	if i := slices.Index(c.gated, s); i >= 0 {
		c.gated = slices.Delete(c.gated, i, i+1)
	}
	s.proxy.stats.HeldAnswers.Add(-1)
	s.gate = answerGate{}
}

// reconsiderAnswers looks whether held answers can go on, oldest first.
func (c *cluster) reconsiderAnswers() {
	for _, s := range slices.Clone(c.gated) {
		if s.gate.since.IsZero() {
			continue // it went with another one
		}
		switch l := s.grant.lease; {
		case l.Ended():
			s.cutOff(primaryReplaced)
		case l.Held(c.proxy.boottime()):
			s.passOn()
		case c.proxy.now().Sub(s.gate.since) >= c.proxy.cfg.HoldWrites:
			s.cutOff(leaseOver)
		}
	}
}

// passOn reads what was kept, as if it came now.
func (s *session) passOn() {
	srv, g := s.held, s.gate
	s.openGate()
	if g.gone == nil {
		srv.Link.Resume()
	}
	s.FromServer(srv, g.bytes)
	s.proxy.buffers.put(g.bytes)
	switch {
	case g.gone == nil || s.held != srv:
	case !s.gate.since.IsZero():
		s.gate.gone = g.gone
	default:
		s.ServerClosed(srv, g.gone)
	}
}
