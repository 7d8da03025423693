package proxy

import (
	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/proxy/backend"
	"github.com/cstproxy/cstproxy/proxy/wire"
)

// maxInspected bounds the messages that are kept until they are complete; longer ones are judged
// by their beginning. Errors and reports are far shorter.
const maxInspected = 64 << 10

// reader is one pass over bytes of a server. b[start:at] goes to the client as it is.
type reader struct {
	s         *session
	srv       *backend.Server
	b         []byte
	start, at int
	next      int  // where the message that is being judged ends, as far as it is in b
	finished  bool // the turn's ReadyForQuery was among them
	ended     bool // the session or its hold on the server ended
}

// FromServer takes bytes of a server that the session holds (backend.Owner).
func (s *session) FromServer(srv *backend.Server, b []byte) {
	if srv != s.held {
		// A kept connection that is not in use can only say something asynchronous.
		if !srv.Aside(b) {
			s.unkeep(srv)
			srv.Release(backend.Close)
		}
		return
	}
	if s.grant.lease != nil && !s.passes(srv, b) {
		return
	}
	r := reader{s: s, srv: srv, b: b}
	r.read()
	if r.ended || s.phase == phaseClosed {
		s.proceed()
		return
	}
	r.flush()
	if r.finished {
		s.turnDone(b[r.at:])
		return
	}
	if s.link.Queued() > highWater {
		srv.Link.Pause()
	}
	if s.reads() {
		s.proceed()
	}
}

// read walks over all messages and parts of messages in b.
func (r *reader) read() {
	f := &r.srv.Frame
	for r.at < len(r.b) && !r.ended && !r.finished {
		if f.Rest > 0 {
			n := min(f.Rest, len(r.b)-r.at)
			f.Rest -= n
			if f.Drop == backend.Swallow {
				r.cutTo(r.at + n)
			} else {
				r.at += n
			}
			continue
		}
		if len(f.Part) > 0 {
			if !r.completePart(f) {
				return
			}
			continue
		}
		if !r.message(f) {
			return
		}
	}
}

// completePart adds to a message whose beginning came earlier; false when b is used up.
func (r *reader) completePart(f *backend.Frame) bool {
	need := wire.HeaderSize
	typ, size, ok, err := wire.Header(f.Part)
	if err != nil {
		r.broken()
		return false
	}
	if ok {
		need = r.inspect(typ, size)
	}
	n := min(need-len(f.Part), len(r.b)-r.at)
	f.Part = append(f.Part, r.b[r.at:r.at+n]...)
	r.cutTo(r.at + n)
	if len(f.Part) < need || !ok {
		if len(f.Part) < wire.HeaderSize {
			return false
		}
		if typ, size, _, err = wire.Header(f.Part); err != nil {
			r.broken()
			return false
		}
		if need = r.inspect(typ, size); len(f.Part) < need {
			return r.at < len(r.b)
		}
	}
	msg := f.Part
	f.Part = nil
	f.Rest = size - len(msg)
	r.next = r.at
	f.Drop = r.judge(typ, msg)
	if r.ended {
		return false
	}
	if f.Drop == backend.Forward {
		r.insert(msg)
	}
	return true
}

// message judges the message at r.at; false when too little of it is there.
func (r *reader) message(f *backend.Frame) bool {
	b := r.b[r.at:]
	typ, size, ok, err := wire.Header(b)
	if err != nil {
		r.broken()
		return false
	}
	if !ok || len(b) < r.inspect(typ, size) {
		f.Part = append(f.Part, b...)
		r.cutTo(len(r.b))
		return false
	}
	have := min(size, len(b))
	r.next = r.at + have
	drop := r.judge(typ, b[:have])
	if r.ended {
		return false
	}
	if drop == backend.Swallow {
		r.cutTo(r.at + have)
	} else {
		r.at += have
	}
	f.Rest, f.Drop = size-have, drop
	return true
}

// inspect is how much of a message must be there before it can be judged.
func (r *reader) inspect(typ byte, size int) int {
	switch typ {
	case 'E', 'S', 'Z', 'C', 'N', 'A', 'G':
		return min(size, maxInspected)
	case 't', 'T', 'n':
		if t := r.s.turn; t != nil && (r.s.phase == phaseVerifying || t.describes()) {
			return min(size, maxInspected)
		}
	}
	return wire.HeaderSize
}

// cutTo leaves b[r.at:to] out of what the client gets.
func (r *reader) cutTo(to int) {
	r.flush()
	r.start, r.at = to, to
}

// flush passes on what has been judged so far, or keeps it back while the turn may still be run
// elsewhere.
func (r *reader) flush() {
	span := r.b[r.start:r.at]
	r.start = r.at
	t := r.s.turn
	if t == nil {
		if len(span) > 0 {
			r.s.link.Write(span)
		}
		return
	}
	if t.holdsBack(len(span)) {
		t.held = append(t.held, span...)
		return
	}
	if len(t.held) > 0 {
		r.s.link.Buffer(t.held)
		t.held = t.held[:0]
		t.forwarded = true
	}
	if len(span) > 0 {
		t.forwarded = true
		r.s.link.Write(span)
	}
}

// insert puts bytes of ours, or a message that was put together, into the client's stream.
func (r *reader) insert(b []byte) {
	r.flush()
	t := r.s.turn
	if t != nil && t.holdsBack(len(b)) {
		t.held = append(t.held, b...)
		return
	}
	if t != nil {
		t.forwarded = true
	}
	r.s.link.Buffer(b)
}

// holdsBack says whether more of the answer is kept back: nothing in it commits us yet to this
// server.
func (t *turn) holdsBack(more int) bool {
	return (t.rerunnable || t.renewable) && !t.decided && !t.forwarded && len(t.held)+more <= maxHeldBack
}

// maxHeldBack bounds what is kept back of an answer: the messages before the first row.
const maxHeldBack = 16 << 10

// broken ends a server whose messages make no sense.
func (r *reader) broken() {
	r.ended = true
	r.s.log.Error("server sent an impossible message", zap.Int("node", int(r.srv.Key.Node)))
	r.srv.Link.Close()
}

// judge decides about one message, which is complete or at least long enough; it may take the
// turn's state further.
func (r *reader) judge(typ byte, msg []byte) backend.Disposal {
	s, t := r.s, r.s.turn
	switch typ {
	case 'S', 'N', 'A':
		if t != nil && !s.ours() {
			r.injected() // their place is in front of what comes at any time
		}
	}
	switch typ {
	case 'S':
		instead, drop := s.report(r.srv, wire.Body(msg))
		if instead != nil {
			r.insert(instead)
		}
		return drop
	case 'N', 'A':
		if s.ours() {
			return backend.Swallow
		}
		return backend.Forward
	case 'E':
		if s.phase != phaseVerifying {
			return r.serverError(msg)
		}
		if string(wire.ErrorField(wire.Body(msg), 'V')) != severityError {
			return r.brokeOff()
		}
	}
	if t == nil {
		r.broken()
		return backend.Swallow
	}
	if s.phase == phasePreparing || s.phase == phaseLogin {
		return r.preparing(typ, msg)
	}
	if s.phase == phaseVerifying {
		return r.verifying(typ, msg)
	}
	if t.hidden() {
		if typ == 'Z' {
			t.replies.pop()
		}
		return backend.Swallow
	}
	r.injected()
	switch typ {
	case 't', 'T', 'n':
		if t.describes() {
			s.described(t.replies.first().op.stmt, typ, msg)
		}
		return r.answered(typ)
	case '1', '2', '3':
		return r.answered(typ)
	case 'C', 'I', 's':
		t.decided = true
		if typ == 'C' {
			s.noteTag(msg)
		}
		return r.answered(typ)
	case 'G':
		s.copyBegins()
	case 'Z':
		return r.ready(msg)
	}
	t.decided = true
	return backend.Forward
}

// ours says whether the server is answering a question that the client has not asked.
func (s *session) ours() bool {
	switch s.phase {
	case phaseLogin, phasePreparing, phaseVerifying:
		return true
	}
	return s.turn != nil && s.turn.hidden()
}

// injected writes the answers that are ours to give and whose turn has come.
func (r *reader) injected() {
	t := r.s.turn
	for x := t.replies.first(); x != nil; x = t.replies.first() {
		switch x.kind {
		case replyParseDone:
			r.insert(parseComplete)
		case replyCloseDone:
			x.op.settled()
			r.insert(closeComplete)
		default:
			return
		}
		t.replies.pop()
	}
}

var parseComplete = wire.AppendEmpty(nil, '1')
var closeComplete = wire.AppendEmpty(nil, '3')

// answerInjected gives the answers that are ours to give when nothing is expected from the server
// before them (Flush).
func (s *session) answerInjected() {
	s.turn.decided = true
	r := reader{s: s, srv: s.held}
	r.injected()
	r.flush()
}

// answered takes an answer off the queue.
func (r *reader) answered(typ byte) backend.Disposal {
	t := r.s.turn
	x := t.replies.first()
	if x == nil || x.kind == replyQuery {
		return backend.Forward
	}
	drop := backend.Forward
	switch {
	case typ == '1' && (x.kind == replyParse || x.kind == replyParseHidden):
		if x.kind == replyParseHidden {
			drop = backend.Swallow
		}
	case typ == '2' && x.kind == replyBind:
	case typ == '3' && (x.kind == replyClose || x.kind == replyCloseHidden):
		if x.kind == replyCloseHidden {
			drop = backend.Swallow
		}
	case (typ == 'T' || typ == 'n') && x.kind == replyDescribe:
	case (typ == 'C' || typ == 'I' || typ == 's') && x.kind == replyExecute:
	default:
		return backend.Forward // 'T' in front of rows, 'C' inside a simple Query
	}
	if x.kind == replyClose || x.kind == replyExecute {
		x.op.settled()
		if x.op.verdict != nil {
			t.done = append(t.done, x.op.verdict)
		}
	}
	t.replies.pop()
	if t.copying == copyAsked && t.replies.empty() {
		t.copying = noCopy // the server did without
	}
	return drop
}

// ready takes ReadyForQuery.
func (r *reader) ready(msg []byte) backend.Disposal {
	s, t := r.s, r.s.turn
	x := t.replies.first()
	if x == nil || (x.kind != replySync && x.kind != replyQuery) || len(msg) != 6 {
		s.log.Error("ReadyForQuery out of place", zap.Int("node", int(r.srv.Key.Node)))
		r.broken()
		return backend.Swallow
	}
	t.replies.pop()
	if t.restale {
		return r.sendAgain()
	}
	s.status = msg[5]
	t.decided = true
	if s.wrote {
		s.noteEnd()
	}
	s.stamp()
	t.ready = t.replies.empty() && !t.open
	r.finished = t.ready && t.rest == 0
	return backend.Forward
}
