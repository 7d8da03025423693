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
	if s.held != srv {
		s.held, s.grant = srv, s.cluster.grantFor(srv.Key.Node)
	}
	if s.phase == phaseHeld {
		s.phase = phaseWaiting // no more: it counts from here on
	}
	s.account() // before the look at the View: see closed
	if closed := s.blocked(); closed != "" {
		if s.status == 'I' {
			s.giveBack()
		}
		s.holdTurn(closed)
		return
	}
	t.node = srv.Key.Node
	t.rerunnable, t.renewable = s.mayRerun(), t.mayRenew()
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
	s.forgetSequences(srv)
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
	srv.Statements.SetUnnamed(nil) // any simple Query drops it
	t.own()                        // it is sent again elsewhere if the server ends before it gets there
	if !s.cluster.isAccepted(s.want, t.node) || len(s.unverified(srv)) > 0 {
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
	s.dirty = s.dirty || t.soils
	if t.plain && (len(s.stand) == 0 || t.sent) {
		s.sendPlain(srv)
	} else {
		s.sendRewritten(srv)
	}
	t.sent = true
	if t.open && !t.unflushed {
		s.answerInjected()
	}
	if !srv.Held(s) || s.phase != phaseTurn {
		return
	}
	if d := s.proxy.cfg.QueryTimeout; d > 0 {
		s.arm(d)
	}
	if srv.Link.Queued() > highWater {
		s.pause()
	}
}

// sendPlain writes messages that need no change, in one piece, unless the server's unnamed
// statement is another than the one that they mean.
func (s *session) sendPlain(srv *backend.Server) {
	t := s.turn
	have, known := srv.Statements.Unnamed(), false
	for i := range t.ops {
		o := &t.ops[i]
		switch {
		case !o.unnamed:
		case o.typ == 'P' || o.typ == 'C':
			known = true // from here on it is as the turn left it
		case o.typ != 'Q' && !known && !have.Is(o.prepared()):
			s.sendRewritten(srv)
			return
		}
	}
	for i := range t.ops {
		s.expect(&t.ops[i])
	}
	if t.copying == copyAsked {
		srv.Link.Buffer(t.msgs)
		srv.Link.Write(flushMessage)
		return
	}
	srv.Link.Write(t.msgs)
}

var flushMessage = wire.AppendEmpty(nil, 'H')
var syncMessage = wire.AppendEmpty(nil, 'S')

// prepared is what a Bind or Describe needs the server to have; nil for nothing.
func (o *op) prepared() *backend.Prepared {
	if o.stmt == nil {
		return nil
	}
	return o.stmt.Prepared
}

// expect notes the reply to a message that is sent as it is.
func (s *session) expect(o *op) {
	t := s.turn
	kind := replyBind
	switch o.typ {
	case 'Q', 'F':
		kind = replyQuery
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
	x := reply{kind: kind, op: *o}
	if o.unnamed {
		switch o.typ {
		case 'P':
			x.was = s.held.Statements.SetUnnamed(o.stmt.Prepared)
		case 'C', 'Q':
			x.was = s.held.Statements.SetUnnamed(nil)
		}
	}
	t.replies.push(x)
}

// sendRewritten writes the part message by message, with the names that servers know.
func (s *session) sendRewritten(srv *backend.Server) {
	t := s.turn
	out := s.closeEmpty(s.proxy.message[:0])
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
		case 'E':
			out = s.sendExecute(srv, o, out, raw)
		case 'Q':
			out = s.sendQuery(out, raw)
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
	if t.copying == copyAsked {
		out = append(out, flushMessage...)
	}
	srv.Link.Write(out)
	s.proxy.message = out[:0]
}

// sendParse sends a client's Parse under the name that all sessions use for the text, or answers
// it in the server's place when the server has the statement. In a failed transaction the server
// refuses to parse, so it is asked all the same.
func (s *session) sendParse(srv *backend.Server, o *op, out, raw []byte) []byte {
	t := s.turn
	switch {
	case o.unnamed:
		s.expect(o)
		return append(out, raw...)
	case o.prev != nil:
		// The name is taken: give the server a statement of that name, so that its own error
		// is what the client gets, and have the connection cleaned afterwards.
		if !o.prev.raw {
			out = s.parseEmpty(out, o.name)
		}
		s.expect(o)
		return append(out, raw...)
	case o.stmt.raw:
		s.expect(o)
		return append(out, raw...)
	}
	has, stale := srv.Statements.Has(o.stmt.Prepared)
	if has && !stale && s.status != 'E' {
		t.replies.push(reply{kind: replyParseDone, op: *o})
		return out
	}
	out = s.makeRoom(srv, o.stmt.Prepared, stale || has, out)
	t.replies.push(reply{kind: replyParse, op: *o, prepared: o.stmt.Prepared})
	return wire.AppendParse(out, o.stmt.Name, o.stmt.Text, o.stmt.Types)
}

// parseEmpty gives the server an empty statement under a client's own name, whatever was there.
func (s *session) parseEmpty(out []byte, name string) []byte {
	s.dirty = true
	out = wire.AppendTarget(out, 'C', 'S', name)
	s.turn.replies.push(reply{kind: replyCloseHidden})
	s.turn.replies.push(reply{kind: replyParseHidden})
	s.stand = append(s.stand, name)
	return wire.AppendParse(out, name, "", noTypes)
}

// closeEmpty closes what earlier turns gave the server that way, lest the client finds it.
func (s *session) closeEmpty(out []byte) []byte {
	if s.turn.sent {
		return out // an error may be on its way, behind which the server passes over everything but the Sync
	}
	for _, name := range s.stand {
		out = wire.AppendTarget(out, 'C', 'S', name)
		s.turn.replies.push(reply{kind: replyCloseHidden})
	}
	s.stand = s.stand[:0]
	return out
}

var noTypes = []byte{0, 0}

// makeRoom closes the oldest statement when the server has its fill, and a stale one before it is
// parsed again; it notes that the server has p.
func (s *session) makeRoom(srv *backend.Server, p *backend.Prepared, stale bool, out []byte) []byte {
	t := s.turn
	if stale {
		out = wire.AppendTarget(out, 'C', 'S', p.Name)
		t.replies.push(reply{kind: replyCloseHidden, prepared: p})
	}
	srv.Statements.Add(p)
	if old := srv.Statements.Oldest(s.proxy.cfg.MaxPrepared); old != nil && old != p {
		srv.Statements.Remove(old)
		out = wire.AppendTarget(out, 'C', 'S', old.Name)
		t.replies.push(reply{kind: replyCloseHidden, prepared: old})
	}
	return out
}

// ensure parses the statement on a server that lacks it.
func (s *session) ensure(srv *backend.Server, st *statement, out []byte) []byte {
	has, stale := srv.Statements.Has(st.Prepared)
	if has && !stale || st.raw {
		return out
	}
	out = s.makeRoom(srv, st.Prepared, stale, out)
	s.turn.replies.push(reply{kind: replyParseHidden, prepared: st.Prepared})
	return wire.AppendParse(out, st.Name, st.Text, st.Types)
}

func (s *session) sendBind(srv *backend.Server, o *op, out, raw []byte) []byte {
	b, _ := wire.ReadBind(wire.Body(raw))
	name := ""
	switch {
	case o.unnamed:
		out = s.ensureUnnamed(srv, o, out)
		s.expect(o)
		return append(out, raw...)
	case o.stmt == nil:
		name = unknown(b.Statement)
	default:
		out = s.ensure(srv, o.stmt, out)
		name = o.stmt.Name
	}
	s.expect(o)
	if s.turn.rest == 0 {
		return wire.AppendBind(out, b, name)
	}
	return wire.AppendBindHead(out, b, name, s.turn.rest)
}

// unknown is how a name that the client has not defined is sent: the server says in its own words
// that there is no such statement, even if there is one that sessions share.
func unknown(name []byte) string {
	if backend.Shared(name) {
		return string(name) + "?"
	}
	return string(name)
}

// ensureUnnamed makes the server's unnamed statement the session's: nobody may run or read what
// another session parsed.
func (s *session) ensureUnnamed(srv *backend.Server, o *op, out []byte) []byte {
	want := o.prepared()
	if srv.Statements.Unnamed().Is(want) {
		return out
	}
	if want == nil || o.stmt.raw {
		s.turn.replies.push(reply{kind: replyCloseHidden, unnamed: true, was: srv.Statements.SetUnnamed(nil)})
		return wire.AppendTarget(out, 'C', 'S', "")
	}
	s.turn.replies.push(reply{kind: replyParseHidden, unnamed: true, was: srv.Statements.SetUnnamed(want)})
	return wire.AppendParse(out, "", want.Text, want.Types)
}

func (s *session) sendDescribe(srv *backend.Server, o *op, out, raw []byte) []byte {
	kind, name, _ := wire.ReadTarget(wire.Body(raw))
	switch {
	case kind == 'P':
	case o.unnamed:
		out = s.ensureUnnamed(srv, o, out)
	case o.stmt == nil:
		s.expect(o)
		return wire.AppendTarget(out, 'D', 'S', unknown(name))
	default:
		out = s.ensure(srv, o.stmt, out)
		s.expect(o)
		return wire.AppendTarget(out, 'D', 'S', o.stmt.Name)
	}
	s.expect(o)
	return append(out, raw...)
}

// sendClose answers a Close of what sessions share in the server's place: others may use it.
func (s *session) sendClose(srv *backend.Server, o *op, out, raw []byte) []byte {
	switch {
	case o.unnamed:
	case o.prev != nil && !o.prev.raw, backend.Shared([]byte(o.name)):
		s.turn.replies.push(reply{kind: replyCloseDone, op: *o})
		return out
	}
	s.expect(o)
	return append(out, raw...)
}

// sendExecute sends an Execute of DEALLOCATE or DISCARD ALL, among others. What is deallocated has
// another name on the server, and stays there for other sessions: an empty statement stands in.
func (s *session) sendExecute(srv *backend.Server, o *op, out, raw []byte) []byte {
	switch {
	case o.drops:
		srv.Statements.Clear()
	case o.prev != nil && !o.prev.raw:
		out = s.parseEmpty(out, o.name)
	case backend.Shared([]byte(o.name)):
		srv.Statements.Doubt()
	}
	s.expect(o)
	return append(out, raw...)
}

// sendQuery does the same for a simple Query.
func (s *session) sendQuery(out, raw []byte) []byte {
	v := s.turn.executed[len(s.turn.executed)-1]
	for i := range v.Effects {
		e := &v.Effects[i]
		if e.Kind != router.EffectDeallocate || s.stmts[e.Name] == nil || s.stmts[e.Name].raw {
			continue
		}
		first := true
		for j := range i {
			first = first && (v.Effects[j].Kind != e.Kind || v.Effects[j].Name != e.Name)
		}
		if first {
			out = s.parseEmpty(out, e.Name)
		}
	}
	return append(out, raw...)
}
