package proxy

import (
	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/proxy/backend"
	"github.com/cstproxy/cstproxy/proxy/wire"
)

// A server that ends a connection says so, with the same SQLSTATE 57P01 when it is being stopped, when
// its postmaster was killed, and when somebody ends this one connection with pg_terminate_backend. A
// session stays when its server goes away, and hears what became of its transaction. It ends, as it would
// without a proxy, when the server goes on and it is the client that somebody wants to be gone.
//
// What tells the two apart is whether the node lets somebody in whose connection was begun after that
// word: a postmaster that is stopping, or is dead, lets nobody in. (The words themselves depend on
// lc_messages.) The session need not wait for that: it is treated as one whose server was lost, and ends
// when it turns out otherwise.

// goesAway says whether the server's last word ends the server's connection but not the session. One that
// is pinned ends in any case, and reads the server's own words.
func (r *reader) goesAway(code string) bool {
	s := r.s
	if r.replaced(code) {
		return true
	}
	if _, pinned := s.rs.Pinned(); pinned {
		return false
	}
	switch code {
	case "57P01", "57P02", "57P03", "40001": // 40001: a standby's transaction was in the way of its recovery
		return true
	}
	return false
}

// replaced says whether the server's last word is that of a primary that is being replaced.
func (r *reader) replaced(code string) bool {
	return r.s.grant.primary && code[:min(2, len(code))] == "57" && r.s.cluster.Board.View().Frozen != ""
}

// wentAway goes on without a server that said its last word.
func (r *reader) wentAway(body []byte, code string) {
	s := r.s
	r.flush()
	r.ended = true
	s.log.Info("server ended its connection", zap.Uint64("session", s.id), zap.Int("node", int(r.srv.Key.Node)),
		zap.String("sqlstate", code), zap.ByteString("why", wire.ErrorField(body, 'M')))
	if code == "57P01" && !r.replaced(code) {
		s.cluster.inquire(r.srv.Key, dismissal{s, serverSaid(body)})
	}
	s.dropServer(r.srv)
	s.serverLost(r.srv, serverGone)
}

// dismissal is a session that ends if the node which ended its connection goes on.
type dismissal struct {
	session *session
	why     *refusal
}

// inquiry is a connection to a node that is being tried: those who asked for it, and those who came
// when it had begun, of whom a success says nothing.
type inquiry struct {
	asked, late []dismissal
}

func (c *cluster) inquire(key backend.Key, list ...dismissal) {
	if q := c.inquiries[key.Node]; q != nil {
		q.late = append(q.late, list...)
		return
	}
	q := &inquiry{asked: list}
	c.inquiries[key.Node] = q
	epoch := c.view.Epoch
	c.pools.Try(key, func(goesOn bool) {
		delete(c.inquiries, key.Node)
		if v := c.Board.View(); !goesOn || v.Epoch != epoch || v.Primary == key.Node && v.Frozen != "" {
			return
		}
		if len(q.late) > 0 {
			c.inquire(key, q.late...)
		}
		for _, d := range q.asked {
			d.session.dismiss(d.why)
		}
	})
}

// dismiss ends the session with the server's words: now, or when the turn is over that may have written
// something elsewhere meanwhile.
func (s *session) dismiss(why *refusal) {
	switch {
	case s.phase == phaseClosed:
	case (s.phase == phaseTurn || s.phase == phaseCopyIn) && !s.turn.reads():
		s.dismissed = why
	default:
		s.fatal(why)
	}
}
