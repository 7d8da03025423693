package proxy

import "github.com/cstproxy/cstproxy/proxy/wire"

// A primary may answer reads, and refuse writes or never finish them: its disk is full, its file system
// is frozen. Whether writes get done is told by what it says of them: a tag with rows that were written,
// and then the end of their transaction. Writes inside functions, DDL and COPY from a file are not
// counted, so the count may be too low, but it does not rise unless something was committed.

// noteTag follows a CommandComplete.
func (s *session) noteTag(msg []byte) {
	if x := s.turn.replies.first(); x != nil && x.kind == replyQuery {
		tag, _, _ := wire.CString(wire.Body(msg))
		s.noteDropped(tag)
	}
	if tag := wire.Body(msg); s.grant.primary && len(tag) >= len("COMMIT\x00") {
		s.noteWrite(tag)
	}
}

func (s *session) noteWrite(tag []byte) {
	switch string(tag[:6]) {
	case "INSERT", "UPDATE", "DELETE", "MERGE ":
		if !isOfNoRows(tag) {
			s.wrote = true
		}
	case "COMMIT":
		if len(tag) == len("COMMIT\x00") {
			s.committed()
		}
	case "ROLLBA": // of the transaction or of a part of it
		s.wrote = false
	default:
		if string(tag[:5]) == "COPY " && s.turn.copying != noCopy && !isOfNoRows(tag) {
			s.wrote = true
		}
	}
}

// isOfNoRows says whether the tag ends with " 0".
func isOfNoRows(tag []byte) bool { return string(tag[len(tag)-3:]) == " 0\x00" }

// noteEnd follows a ReadyForQuery behind which rows were written: an implicit transaction may be over.
func (s *session) noteEnd() {
	switch {
	case s.status != 'I':
	case s.turn.failed:
		s.wrote = false
	default:
		s.committed()
	}
}

// committed counts what was written, if anything was.
func (s *session) committed() {
	if s.wrote {
		s.wrote = false
		s.cluster.commits.Add(1)
	}
}

// Commits counts the transactions in which clients of a cluster have written rows and whose COMMIT, or
// implicit end, its primary has acknowledged. Any goroutine may call it. 0 when there is no such cluster.
func (p *Proxy) Commits(cluster string) uint64 {
	for _, c := range p.clusters {
		if c.Name == cluster {
			return c.commits.Load()
		}
	}
	return 0
}
