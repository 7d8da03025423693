package proxy

import "github.com/cstproxy/cstproxy/proxy/wire"

// COPY … FROM STDIN and Sync. While a server takes COPY data it ignores Sync and Flush; after a
// failure it does not. So how many ReadyForQuery will come cannot be told from the Syncs that were
// sent. The session therefore sends a Sync only when it is known how the server will read it: the
// one that ends a turn with COPY FROM STDIN is kept back until the server has begun the COPY (then it
// would ignore it, and it is dropped) or has not (then it is sent).

// copyBegins: the server is ready for COPY data ('G').
func (s *session) copyBegins() {
	t := s.turn
	t.decided = true
	t.copying, t.copyIn = copyTaking, false
	if t.syncHeld {
		t.syncHeld = false
		t.replies.dropLast()
		t.open = true // until a Sync after the data
	}
	s.phase = phaseCopyIn
}

// dropLast takes back the reply that was noted last.
func (r *replies) dropLast() {
	if !r.empty() {
		r.all = r.all[:len(r.all)-1]
	}
}

// syncIfDue sends the Sync that was kept back once everything before it is answered without COPY.
func (s *session) syncIfDue() {
	t := s.turn
	if x := t.replies.first(); t.syncHeld && x != nil && x.kind == replySync {
		t.syncHeld = false
		s.held.Link.Write(syncMessage)
	}
}

// copyBroke: the server reported an error; if COPY was going on it is over.
func (s *session) copyBroke() {
	t := s.turn
	if s.phase != phaseCopyIn {
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
	s.phase = phaseTurn
	if x := s.turn.replies.first(); x != nil && x.kind == replyQuery {
		return
	}
	s.turn.open = true
	if s.turn.failed {
		s.phase = phaseSkip
	}
}

// copyIn passes COPY data on, as it comes.
func (s *session) copyIn(b []byte) int {
	t := s.turn
	if t.rest > 0 {
		n := min(t.rest, len(b))
		t.rest -= n
		s.toServer(b[:n])
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
			s.toServer(b)
			return len(b)
		case !whole && size > wire.MaxBeforeLogin:
			s.fatal(protocolViolation("message too long"))
			return 0
		}
		return s.copyOther(b, i, size)
	}
	if i > 0 {
		s.toServer(b[:i])
	}
	return i
}

// copyOther handles what is not data: b[:i] is data before it.
func (s *session) copyOther(b []byte, i, size int) int {
	if i > 0 {
		s.toServer(b[:i])
	}
	if i+size > len(b) {
		return i
	}
	switch b[i] {
	case 'c', 'f':
		s.toServer(b[i : i+size])
		s.turn.copying = copyEnded
		s.copyOver()
	case 'S', 'H': // the server would ignore them
	case 'X':
		s.terminate()
	default:
		s.fatal(protocolViolation("unexpected message type " + printableType(b[i]) + " during COPY from stdin"))
	}
	return i + size
}
