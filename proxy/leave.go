package proxy

import (
	"github.com/cstproxy/cstproxy/proxy/backend"
	"github.com/cstproxy/cstproxy/router"
)

// leftover says what a session that ends leaves at the server that it holds.
type leftover uint8

const (
	leftUnfinished leftover = iota // a message half sent, or COPY data under way: end the connection
	leftRead                       // a question whose answer nobody wants any more
	leftAnswer                     // a turn that runs to its end, as it would without a proxy, or ours
	leftNothing
)

func (s *session) unfinished() leftover {
	t := s.turn
	switch s.phase {
	case phaseLogin, phasePreparing, phaseVerifying:
		if t != nil {
			return leftAnswer
		}
	case phaseTurn:
		switch {
		case t.rest > 0 || !t.replies.endReady():
			return leftUnfinished
		case t.route.Target == router.Standby, t.retryClass() == router.RetrySafe:
			return leftRead
		}
		return leftAnswer
	case phaseCopyIn:
		return leftUnfinished
	case phaseSkip:
		if s.held != nil && t.failed {
			return leftUnfinished
		}
	}
	return leftNothing
}

// loadedLibrary says whether LOAD has changed the session's server for good.
func (s *session) loadedLibrary() bool {
	if s.rs == nil {
		return false
	}
	for _, p := range s.rs.Pins() {
		if p.Reason == router.PinLibrary {
			return true
		}
	}
	return false
}

// letGo gives a server back when the client leaves; said is what it has said and nobody has read.
func (s *session) letGo(srv *backend.Server, left leftover, said []byte) {
	if srv != s.held {
		left, said = leftNothing, nil
	}
	switch {
	case left == leftUnfinished:
		s.proxy.cancelQuery(srv, s.cluster)
		srv.Release(backend.Close)
	case left == leftRead:
		s.proxy.cancelQuery(srv, s.cluster)
		srv.Abandon(said)
	case left == leftAnswer:
		srv.Abandon(said)
	case len(said) > 0, s.status != 'I' && srv == s.held, s.loadedLibrary():
		srv.Release(backend.Close)
	default:
		srv.Release(backend.Reset)
	}
}

func (s *session) isKept(srv *backend.Server) bool { return s.kept[0] == srv || s.kept[1] == srv }
