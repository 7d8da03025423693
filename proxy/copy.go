package proxy

import "github.com/cstproxy/cstproxy/proxy/wire"

// COPY … FROM STDIN and Sync. While a server takes COPY data it ignores Sync and Flush; before, and
// after a failure, it does not. So how many ReadyForQuery will come cannot be told from the Syncs
// that were sent. The session therefore sends no Sync before it is known how the server will read
// it: a turn's part ends behind an Execute of COPY … FROM STDIN (analyse), a Flush is sent along,
// and nothing more is read from the client until the server has begun the COPY or has not.

// copyBegins: the server is ready for COPY data ('G').
func (s *session) copyBegins() {
	t := s.turn
	t.decided = true
	if t.copying != copyAsked && t.replies.dropSync() {
		t.open = true // an unread text: the Sync that went along with it is ignored
	}
	t.copying, t.synced = copyBegun, false
	s.phase, s.scanned = phaseCopyIn, 0
}

// dropSync takes back the reply that was noted last if it is the one to a Sync.
func (r *replies) dropSync() bool {
	if r.empty() || r.all[len(r.all)-1].kind != replySync {
		return false
	}
	r.all = r.all[:len(r.all)-1]
	return true
}

// copyBroke: the server reported an error; if COPY was going on it is over.
func (s *session) copyBroke() {
	t := s.turn
	if s.phase != phaseCopyIn {
		t.copying = noCopy
		return
	}
	t.copying = copyFailed
	if t.rest == 0 {
		s.copyOver()
	}
}

// copyOver leaves the phase. A simple COPY is followed by ReadyForQuery, and what the client still
// sends is dropped then; an extended one by whatever the client sends up to its Sync.
func (s *session) copyOver() {
	t := s.turn
	s.phase = phaseTurn
	if t.ready {
		s.turnDone(nil)
		return
	}
	if x := t.replies.first(); x != nil && x.kind == replyQuery {
		return
	}
	t.open = true
	if !t.failed {
		return
	}
	s.phase = phaseSkip
	if t.synced {
		s.step(syncMessage) // the server answers it: it has failed before it read any data
	}
}

// copyIn passes COPY data on, as it comes.
func (s *session) copyIn(b []byte) int {
	t := s.turn
	if t.rest > 0 {
		n := s.passRest(b)
		if t.rest == 0 && t.copying == copyFailed {
			s.copyOver()
		}
		return n
	}
	i := 0
	for i < len(b) {
		typ, size, ok, err := wire.Header(b[i:])
		if err != nil {
			s.fatal(protocolViolation("invalid message length"))
			return 0
		}
		if !ok {
			break
		}
		whole := i+size <= len(b)
		switch {
		case typ == 'd' && whole:
			i += size
			continue
		case typ == 'd':
			t.rest = i + size - len(b)
			s.copyData(b)
			return len(b)
		case !whole && size > wire.MaxBeforeLogin:
			s.fatal(protocolViolation("message too long"))
			return 0
		}
		return s.copyOther(b, i, size)
	}
	if i > 0 {
		s.copyData(b[:i])
	}
	return i
}

// copyData passes messages of COPY data on.
func (s *session) copyData(b []byte) {
	if s.turn.copying == copyBegun {
		s.turn.copying, s.turn.synced = copyTaking, false
	}
	s.toServer(b)
}

// copyOther handles what is not data: b[:i] is data before it.
func (s *session) copyOther(b []byte, i, size int) int {
	t := s.turn
	if i > 0 {
		s.copyData(b[:i])
	}
	if i+size > len(b) {
		return i
	}
	switch b[i] {
	case 'c', 'f':
		s.copyData(b[i : i+size])
		t.copying = copyEnded
		s.copyOver()
	case 'S': // ignored, unless it turns out that the server never began to read
		x := t.replies.first()
		t.synced = t.copying == copyBegun && x != nil && x.kind == replyExecute
	case 'H': // the server would ignore it
	case 'X':
		s.terminate()
	default:
		s.fatal(protocolViolation("unexpected message type " + printableType(b[i]) + " during COPY from stdin"))
	}
	return i + size
}
