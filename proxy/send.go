package proxy

import (
	"github.com/cstproxy/cstproxy/proxy/backend"
	"github.com/cstproxy/cstproxy/proxy/params"
	"github.com/cstproxy/cstproxy/proxy/wire"
	"github.com/cstproxy/cstproxy/router"
)

// send gives the turn to srv, after bringing srv's settings to what the session wants. Settings
// that this node has accepted before travel in the same write as the turn; others are awaited
// first, because a turn must not run under settings that were refused.
func (s *session) send(srv *backend.Server) {
	t := s.turn
	s.held = srv
	t.node = srv.Key.Node
	t.rerunnable = s.mayRerun()
	if t.rerunnable || !t.plain {
		t.own()
	}
	s.sendOn(srv)
}

// sendOn takes the next step towards the server: settings, statements, the turn itself.
func (s *session) sendOn(srv *backend.Server) {
	if srv.Params != s.want && s.status == 'I' && !s.bringSettings(srv) {
		return
	}
	if len(s.unverified(srv)) > 0 {
		s.verifyFirst(srv)
		return
	}
	s.sendPart(srv)
}

// bringSettings says whether the turn may follow at once.
func (s *session) bringSettings(srv *backend.Server) bool {
	t := s.turn
	sql := params.Catchup(s.proxy.scratch[:0], srv.Params, s.want)
	if len(sql) == 0 {
		srv.Params = s.want
		return true
	}
	msg := wire.AppendQuery(s.proxy.message[:0], sql)
	s.proxy.message, s.proxy.scratch = msg[:0], sql[:0]
	if !s.cluster.isAccepted(s.want, t.node) || len(s.unverified(srv)) > 0 {
		t.own()
		s.phase = phasePreparing
		srv.Link.Write(msg)
		return false
	}
	t.replies.push(reply{kind: replyHidden})
	srv.Link.Buffer(msg)
	srv.Params = s.want
	return true
}

// sendPart writes the messages of the turn's current part to the server, names rewritten, and
// notes which replies are owed.
func (s *session) sendPart(srv *backend.Server) {
	t := s.turn
	s.phase = phaseTurn
	if t.plain {
		s.sendPlain(srv)
	} else {
		s.sendRewritten(srv)
	}
	if t.open {
		s.answerInjected()
	}
	if !srv.Held(s) || s.phase != phaseTurn {
		return
	}
	if t.syncHeld {
		s.syncIfDue()
	}
	if d := s.proxy.cfg.QueryTimeout; d > 0 {
		s.arm(d)
	}
	if srv.Link.Queued() >= highWater {
		s.pause()
	}
}

// sendPlain writes messages that need no change, in one piece.
func (s *session) sendPlain(srv *backend.Server) {
	t := s.turn
	out := t.msgs
	for i := range t.ops {
		o := &t.ops[i]
		if o.typ == 'B' && s.prepareUnnamed(srv, o) {
			// The server needs a Parse before this Bind: everything is written piecewise.
			s.sendRewritten(srv)
			return
		}
		if o.typ == 'P' && o.name == "" && o.stmt != nil {
			srv.Statements.Unnamed = o.stmt.Prepared
		}
	}
	for i := range t.ops {
		s.expect(&t.ops[i])
	}
	if t.copyIn && t.endsSync() {
		// Whether the server reads the Sync depends on COPY starting: see copy.go.
		t.syncHeld = true
		srv.Link.Buffer(out[:t.ops[len(t.ops)-1].off])
		srv.Link.Write(flushMessage)
		return
	}
	srv.Link.Write(out)
}

var flushMessage = wire.AppendEmpty(nil, 'H')
var syncMessage = wire.AppendEmpty(nil, 'S')

// prepareUnnamed says whether a Bind of the unnamed statement would find another text, or none, on
// the server.
func (s *session) prepareUnnamed(srv *backend.Server, o *op) bool {
	var want *backend.Prepared
	if o.stmt != nil {
		want = o.stmt.Prepared
	}
	return srv.Statements.Unnamed != want
}

// expect notes the reply to a message that is sent as it is.
func (s *session) expect(o *op) {
	t := s.turn
	kind := replyBind
	switch o.typ {
	case 'Q', 'F':
		kind = replyQuery
		s.held.Statements.Unnamed = nil
	case 'P':
		kind = replyParse
	case 'D':
		kind = replyDescribe
	case 'E':
		kind = replyExecute
	case 'C':
		kind = replyClose
	case 'S':
		kind = replySync
	case 'B':
	default:
		return // Flush and stray COPY data are not answered
	}
	t.replies.push(reply{kind: kind, op: *o})
}

// sendRewritten writes the part message by message, with the names that servers know.
func (s *session) sendRewritten(srv *backend.Server) {
	t := s.turn
	out := s.proxy.message[:0]
	for i := range t.ops {
		o := &t.ops[i]
		raw := t.msgs[o.off:o.end]
		switch o.typ {
		case 'P':
			out = s.sendParse(srv, o, out, raw)
		case 'B':
			out = s.sendBind(srv, o, out, raw)
		case 'D':
			out = s.sendDescribe(srv, o, out, raw)
		case 'C':
			out = s.sendClose(srv, o, out, raw)
		case 'S':
			if t.copyIn {
				t.syncHeld = true
				out = append(out, flushMessage...)
			} else {
				out = append(out, raw...)
			}
			s.expect(o)
		default:
			s.expect(o)
			out = append(out, raw...)
		}
		if len(out) > 32<<10 {
			srv.Link.Buffer(out)
			out = out[:0]
		}
	}
	srv.Link.Write(out)
	s.proxy.message = out[:0]
}

// sendParse sends a client's Parse under the name that all sessions use for the text, or answers
// it in the server's place when the server has the statement.
func (s *session) sendParse(srv *backend.Server, o *op, out, raw []byte) []byte {
	t := s.turn
	switch {
	case o.stmt == nil: // too large to keep: goes as it is, and pins
		s.expect(o)
		return append(out, raw...)
	case o.name == "":
		srv.Statements.Unnamed = o.stmt.Prepared
		out = s.ensureNeeded(srv, o, out)
		s.expect(o)
		if o.stmt.needs != nil {
			return wire.AppendParse(out, "", o.stmt.Text, o.stmt.Types)
		}
		return append(out, raw...)
	case o.prev != nil:
		// The name is taken: give the server a statement of that name, so that its own error
		// is what the client gets, and have the connection cleaned afterwards.
		s.dirty = true
		out = wire.AppendParse(out, o.name, "", []byte{0, 0})
		t.replies.push(reply{kind: replyParseHidden})
		s.expect(o)
		return append(out, raw...)
	}
	has, stale := srv.Statements.Has(o.stmt.Prepared)
	if has && !stale {
		t.replies.push(reply{kind: replyParseDone, op: *o})
		return out
	}
	out = s.ensureNeeded(srv, o, out)
	out = s.makeRoom(srv, o.stmt.Prepared, stale, out)
	t.replies.push(reply{kind: replyParse, op: *o, stmt: o.stmt})
	return wire.AppendParse(out, o.stmt.Name, o.stmt.Text, o.stmt.Types)
}

// makeRoom closes the oldest statement when the server has its fill, and a stale one before it is
// parsed again; it notes that the server has p.
func (s *session) makeRoom(srv *backend.Server, p *backend.Prepared, stale bool, out []byte) []byte {
	t := s.turn
	if stale {
		out = wire.AppendTarget(out, 'C', 'S', p.Name)
		t.replies.push(reply{kind: replyCloseHidden})
	}
	srv.Statements.Add(p)
	if old := srv.Statements.Oldest(s.proxy.cfg.MaxPrepared); old != nil && old != p {
		srv.Statements.Remove(old)
		out = wire.AppendTarget(out, 'C', 'S', old.Name)
		t.replies.push(reply{kind: replyCloseHidden})
	}
	return out
}

// ensure parses the statement on a server that lacks it.
func (s *session) ensure(srv *backend.Server, st *statement, out []byte) []byte {
	has, stale := srv.Statements.Has(st.Prepared)
	if has && !stale {
		return out
	}
	out = s.makeRoom(srv, st.Prepared, stale, out)
	s.turn.replies.push(reply{kind: replyParseHidden, stmt: st})
	return wire.AppendParse(out, st.Name, st.Text, st.Types)
}

// ensureNeeded parses what a DEALLOCATE is about on a server that lacks it.
func (s *session) ensureNeeded(srv *backend.Server, o *op, out []byte) []byte {
	if o.stmt == nil || o.stmt.needs == nil {
		return out
	}
	return s.ensure(srv, o.stmt.needs, out)
}

func (s *session) sendBind(srv *backend.Server, o *op, out, raw []byte) []byte {
	b, _ := wire.ReadBind(wire.Body(raw))
	out = s.ensureNeeded(srv, o, out)
	switch {
	case len(b.Statement) == 0:
		out = s.ensureUnnamed(srv, o, out)
		s.expect(o)
		return append(out, raw...)
	case o.stmt == nil:
		// Unknown to us: the server says so in its own words.
		s.expect(o)
		return append(out, raw...)
	}
	out = s.ensure(srv, o.stmt, out)
	s.expect(o)
	if s.turn.rest == 0 {
		return wire.AppendBind(out, b, o.stmt.Name)
	}
	return wire.AppendBindHead(out, b, o.stmt.Name, s.turn.rest)
}

// ensureUnnamed makes the server's unnamed statement the session's.
func (s *session) ensureUnnamed(srv *backend.Server, o *op, out []byte) []byte {
	if !s.prepareUnnamed(srv, o) {
		return out
	}
	if o.stmt == nil {
		// Some other session's text is there; the client must not run it.
		srv.Statements.Unnamed = nil
		s.turn.replies.push(reply{kind: replyCloseHidden})
		return wire.AppendTarget(out, 'C', 'S', "")
	}
	srv.Statements.Unnamed = o.stmt.Prepared
	s.turn.replies.push(reply{kind: replyParseHidden})
	return wire.AppendParse(out, "", o.stmt.Text, o.stmt.Types)
}

func (s *session) sendDescribe(srv *backend.Server, o *op, out, raw []byte) []byte {
	kind, name, _ := wire.ReadTarget(wire.Body(raw))
	if kind == 'S' && len(name) == 0 {
		out = s.ensureUnnamed(srv, o, out)
	}
	if kind == 'P' || len(name) == 0 || o.stmt == nil {
		s.expect(o)
		return append(out, raw...)
	}
	out = s.ensure(srv, o.stmt, out)
	s.expect(o)
	return wire.AppendTarget(out, 'D', 'S', o.stmt.Name)
}

func (s *session) sendClose(srv *backend.Server, o *op, out, raw []byte) []byte {
	kind, name, _ := wire.ReadTarget(wire.Body(raw))
	if kind == 'S' && len(name) > 0 && o.prev != nil {
		s.turn.replies.push(reply{kind: replyCloseDone, op: *o})
		return out
	}
	if kind == 'S' && len(name) == 0 {
		srv.Statements.Unnamed = nil
	}
	s.expect(o)
	return append(out, raw...)
}

// toServer passes on a piece of a message whose beginning has been sent.
func (s *session) toServer(b []byte) {
	s.held.Link.Write(b)
	if s.held.Link.Queued() >= highWater {
		s.pause()
	}
}

// mayRerun says whether the turn could be run a second time if its answer is lost or refused
// before any of it is at the client.
func (s *session) mayRerun() bool {
	t := s.turn
	return t.route.Target == router.Standby && s.status == 'I' && !t.open && !t.copyIn
}
