package proxy

import (
	"github.com/cstproxy/cstproxy/proxy/wire"
	"github.com/cstproxy/cstproxy/router"
)

// gather looks for the end of a turn in what the client has sent so far. Nothing of a turn is
// used before its end is there, unless it grows beyond max_turn_bytes.
func (s *session) gather(b []byte) int {
	off, cut := s.scan(b)
	switch cut {
	case cutNothing, cutClosed:
		return 0
	case cutStray:
		return s.dropStray(b)
	}
	s.scanned = 0
	s.disarm()
	t := s.proxy.turns.get()
	t.began = s.status
	s.turn = t
	n := s.take(b, off, cut)
	if s.phase == phaseIdle {
		s.place()
	}
	return n
}

// dropStray drops bytes that nobody wants.
func (s *session) dropStray(b []byte) int {
	n := min(s.stray, len(b))
	s.stray -= n
	return n
}

// gatherMore does the same for a turn that is open, and sends what it finds to the turn's server.
func (s *session) gatherMore(b []byte) int {
	t := s.turn
	if t.rest > 0 {
		n := s.passRest(b)
		if t.rest == 0 && t.endsItself() {
			t.open = false // it was the last message of its turn
		}
		return n
	}
	off, cut := s.scan(b)
	switch cut {
	case cutNothing, cutClosed:
		return 0
	case cutStray:
		return s.dropStray(b)
	}
	s.scanned = 0
	if t.replies.empty() {
		t.replies.reset() // a turn may go on for hours
		s.freeUnnamed()
	}
	n := s.take(b, off, cut)
	if s.phase == phaseTurn {
		s.sendPart(s.held)
	}
	return n
}

// passRest passes on more of a message whose beginning has been sent.
func (s *session) passRest(b []byte) int {
	n := min(s.turn.rest, len(b))
	s.turn.rest -= n
	s.toServer(b[:n])
	return n
}

// toServer passes on a piece of a message whose beginning has been sent.
func (s *session) toServer(b []byte) {
	s.held.Link.Write(b)
	if s.held.Link.Queued() > highWater {
		s.pause()
	}
}

// endsItself says whether the turn's last message is one that needs no Sync behind it.
func (t *turn) endsItself() bool {
	if len(t.ops) == 0 {
		return false
	}
	last := t.ops[len(t.ops)-1].typ
	return last == 'Q' || last == 'F'
}

// take makes b[:off], or a first part of it, the turn's next part, and returns how long that is.
func (s *session) take(b []byte, off int, cut cutKind) int {
	t := s.turn
	t.msgs, t.owned = b[:off], t.owned[:0]
	t.open, t.unflushed = cut != cutTurn, cut == cutEnd
	s.analyse(cut)
	return len(t.msgs)
}

// cutKind says why a scan ended.
type cutKind uint8

const (
	cutNothing cutKind = iota // the end is not there yet
	cutTurn                   // Query, FunctionCall or Sync
	cutFlush
	cutLarge  // too long to wait for the end
	cutEnd    // the client sends no more
	cutStray  // COPY data that nobody wants any more
	cutClosed // the session ended
)

// scan walks over complete messages. It starts where the last scan of these bytes stopped.
func (s *session) scan(b []byte) (off int, cut cutKind) {
	off = s.scanned
	for {
		typ, size, ok, err := wire.Header(b[off:])
		if err != nil {
			s.fatal(protocolViolation("invalid message length"))
			return 0, cutClosed
		}
		if !ok {
			break
		}
		if !knownFrontend(typ) {
			s.fatal(protocolViolation("invalid frontend message type " + printableType(typ)))
			return 0, cutClosed
		}
		if off == 0 && (typ == 'd' || typ == 'c' || typ == 'f' || typ == 'H' && s.phase == phaseIdle) {
			// After a failed COPY the client may still be sending: PostgreSQL ignores it, too. And
			// a Flush with nothing before it flushes nothing.
			s.stray = size
			return 0, cutStray
		}
		if off+size > len(b) {
			if off+size > s.proxy.cfg.MaxTurnBytes {
				return s.cutLarge(b, off, typ)
			}
			break
		}
		next := off + size
		switch typ {
		case 'Q', 'F', 'S':
			return next, cutTurn
		case 'H':
			return next, cutFlush
		case 'X':
			// Whatever stands before it without a Sync would be rolled back.
			s.terminate()
			return 0, cutClosed
		}
		off = next
		if off > s.proxy.cfg.MaxTurnBytes {
			return off, cutLarge
		}
	}
	s.scanned = off
	if s.input == inputEnded && off > 0 {
		return off, cutEnd
	}
	return 0, cutNothing
}

// cutLarge ends the scan at a message that is too long to be waited for. What may be that long is
// passed on as it comes; the rest is nonsense.
func (s *session) cutLarge(b []byte, off int, typ byte) (int, cutKind) {
	if off > 0 {
		return off, cutLarge
	}
	if len(b) < 4096 {
		s.scanned = 0
		return 0, cutNothing // enough to read names and the first words
	}
	switch typ {
	case 'Q', 'P', 'B', 'F':
		return len(b), cutLarge
	}
	s.fatal(protocolViolation("message too long"))
	return 0, cutClosed
}

func knownFrontend(typ byte) bool {
	switch typ {
	case 'Q', 'P', 'B', 'D', 'E', 'C', 'S', 'H', 'F', 'X', 'd', 'c', 'f':
		return true
	}
	return false
}

func printableType(typ byte) string {
	if typ < 32 || typ > 126 {
		return "that is not printable"
	}
	return string(rune(typ))
}

// terminate ends the session at the client's wish.
func (s *session) terminate() {
	s.end()
	s.link.Close()
}

// skipToSync drops the rest of a turn that failed: on the proxy's word, which then answers the Sync,
// or on the server's, which then gets it.
func (s *session) skipToSync(b []byte) int {
	t := s.turn
	s.scanned = 0
	if t.rest > 0 {
		return s.passRest(b)
	}
	typ, size, ok, err := wire.Header(b)
	switch {
	case err != nil:
		s.fatal(protocolViolation("invalid message length"))
		return 0
	case !ok:
		return 0
	case typ == 'X':
		s.terminate()
		return 0
	case !knownFrontend(typ):
		s.fatal(protocolViolation("invalid frontend message type " + printableType(typ)))
		return 0
	case typ != 'S':
		s.stray = size
		return s.dropStray(b)
	case len(b) < size:
		return 0
	}
	if t.failed && s.held != nil {
		s.take(b, size, cutTurn)
		s.phase = phaseTurn
		s.sendPart(s.held)
		return size
	}
	s.link.Write(wire.AppendReady(s.proxy.scratch[:0], s.status))
	s.turnOver()
	return size
}

// refuse answers a turn of which the server has got nothing, or nothing of its present part, with
// an error of ours.
func (s *session) refuse(r *refusal) {
	s.undo(s.turn.ops)
	s.deny(r)
}

// deny ends the turn with an error of ours: one ErrorResponse and one ReadyForQuery, like any error.
// When the server has reported one already, the client waits for ReadyForQuery only.
func (s *session) deny(r *refusal) {
	t := s.turn
	s.scanned = 0
	s.disarm()
	s.account()
	s.proxy.stats.refused(r.code)
	if r.severity == severityFatal {
		s.fatal(r)
		return
	}
	b := s.proxy.scratch[:0]
	if !t.failed {
		b = r.append(b)
	}
	s.rs.Done(nil, router.TxStatus(s.status), router.Failed)
	open := t.open && !t.endsItself() && !t.synced
	s.stray, t.rest = s.stray+t.rest, 0
	if open {
		s.link.Write(b)
		s.phase = phaseSkip
		s.proceed()
		return
	}
	s.link.Write(wire.AppendReady(b, s.status))
	s.turnOver()
	s.proceed()
}
