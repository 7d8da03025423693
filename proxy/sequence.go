package proxy

import (
	"bytes"

	"github.com/cstproxy/cstproxy/proxy/backend"
	"github.com/cstproxy/cstproxy/proxy/wire"
	"github.com/cstproxy/cstproxy/router"
)

// currval and lastval answer from what the server connection did last, and in transaction pooling
// that may have been another session. A session that asks outside a transaction, on a connection that
// it does not keep, must not read another's numbers: the connection forgets them first, and the
// client gets PostgreSQL's "not yet defined in this session".

// forgetSequences makes the server forget before such a turn.
func (s *session) forgetSequences(srv *backend.Server) {
	if s.status != 'I' || s.pooling == SessionPooling || !s.turn.asksSequence() {
		return
	}
	if _, pinned := s.rs.Pinned(); pinned {
		return
	}
	s.turn.replies.push(reply{kind: replyHidden})
	srv.Link.Buffer(discardSequences)
}

var discardSequences = wire.AppendQuery(nil, []byte("DISCARD SEQUENCES"))

// asksSequence looks closer only at texts with a volatile function.
func (t *turn) asksSequence() bool {
	volatile := false
	for _, v := range t.executed {
		volatile = volatile || v.Route.Why == router.WhyVolatile
	}
	if !volatile {
		return false
	}
	for i := range t.ops {
		o := &t.ops[i]
		text := t.body(o)
		if o.typ == 'B' && o.stmt != nil {
			text = []byte(o.stmt.Text)
		}
		if text = bytes.ToLower(text); bytes.Contains(text, []byte("currval")) || bytes.Contains(text, []byte("lastval")) {
			return true
		}
	}
	return false
}
