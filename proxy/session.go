package proxy

import (
	"crypto/tls"
	"net/netip"
	"time"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/ha/topology"
	"github.com/cstproxy/cstproxy/proxy/auth"
	"github.com/cstproxy/cstproxy/proxy/backend"
	"github.com/cstproxy/cstproxy/proxy/params"
	"github.com/cstproxy/cstproxy/router"
)

// clientLink is the connection to a client as a session sees it; the reactor's Conn is one, and
// the transcript harness of the tests another.
type clientLink interface {
	backend.Link
	StartTLS(cfg *tls.Config, done func(tls.ConnectionState, error), rest ...byte)
	RemoteAddr() netip.AddrPort
}

// timer is one alarm of a session; Set replaces the previous one.
type timer interface {
	Set(d time.Duration)
	Stop()
}

// phase is where a session stands. Each phase has its legal events in a file of its own.
type phase uint8

const (
	phaseStartup   phase = iota // start-up packets (startup.go)
	phaseSecuring               // TLS handshake under way
	phaseVerifier               // waiting for the password verifier (login.go)
	phaseAuth                   // SASL exchange (login.go)
	phaseLogin                  // authenticated, waiting for what a server reports (greet.go)
	phaseIdle                   // between turns, in a transaction or not (gather.go)
	phaseHeld                   // a turn waits for a node to exist (place.go)
	phaseWaiting                // a turn waits for a server connection (place.go)
	phasePreparing              // the server gets the session's settings before the turn (send.go)
	phaseVerifying              // the server describes statements before the turn (verify.go)
	phaseTurn                   // a turn is at the server (reply.go)
	phaseCopyIn                 // the server takes COPY data (copy.go)
	phaseSkip                   // after an error of ours, skipping to Sync (gather.go)
	phaseClosed
)

// session is one client's side of the conversation. It does no I/O and never blocks: its driver
// feeds it (Data, Drained, Closed, FromServer, Granted …) and it answers by writing to links.
// All calls come on one loop.
type session struct {
	proxy   *Proxy
	cluster *cluster
	link    clientLink
	id      uint64
	log     *zap.Logger
	phase   phase
	mode    ListenerMode
	secured tlsState
	in      []byte // bytes of the client that cannot be used yet
	scanned int    // how much of them gather has looked at
	stray   int    // bytes of a message still to be dropped
	since   time.Time
	timer   timer

	login    *login // until the greeting
	user     string
	database string
	pooling  PoolMode
	key      cancelKey

	rs      *router.Session
	rules   router.Match
	sql     envKey      // how the session's SQL is to be read
	start   *params.Set // as at start-up; RESET goes back to it
	want    *params.Set // as the session wants its servers now
	ticket  topology.Ticket
	status  byte // transaction status of the last ReadyForQuery
	lostTx  bool // the transaction's server is gone; only its end is accepted
	dirty   bool // the held server has leftovers that nobody tracks: reset before reuse
	last    bool // the server said FATAL: the client has read it and its session ends
	holding bool // in the cluster's list of those who wait for a node
	alarmed bool // the timer is set
	paused  bool // the client is not read

	stmts   map[string]*statement
	unnamed *statement
	portal  *statement            // behind the unnamed portal
	portals map[string]*statement // behind named ones, until the transaction ends

	turn   *turn
	held   *backend.Server    // the server of the turn, the transaction or the pin
	kept   [2]*backend.Server // session pooling: one per router.Target (Primary, Standby)
	wait   backend.Wait
	waited time.Time
}

// tlsState says how far TLS was negotiated.
type tlsState uint8

const (
	plainText tlsState = iota
	encrypted
)

// statement is a prepared statement of the session: shared text, and what the router said of it.
type statement struct {
	*backend.Prepared
	verdict *router.Verdict
	// stamp says under which circumstances the verdict was made.
	stamp classified
	// needs is what a DEALLOCATE of one of the protocol's statements drops.
	needs *statement
}

// login is what is needed only until the client is greeted.
type login struct {
	startup    []string // protocol options to refuse, by name
	version    uint32
	parameters []wireParameter
	exchange   *auth.ScramServer
	verifier   *auth.Verifier
	began      time.Time
}

// Data takes bytes of the client (reactor.Handler).
func (s *session) Data(b []byte) {
	if s.phase == phaseClosed {
		return
	}
	if len(s.in) > 0 {
		s.in = append(s.in, b...)
		b = s.in
	}
	s.run(b)
}

// run lets the current phase use b, and the next ones, and keeps what is left.
func (s *session) run(b []byte) {
	rest := b
	for len(rest) > 0 && s.phase != phaseClosed {
		before := s.phase
		n := s.step(rest)
		rest = rest[n:]
		if n == 0 && s.phase == before {
			break
		}
	}
	s.keep(rest)
}

// step gives bytes to the current phase; it returns how many were used.
func (s *session) step(b []byte) int {
	switch s.phase {
	case phaseStartup:
		return s.stepStartup(b)
	case phaseAuth:
		return s.stepAuth(b)
	case phaseIdle:
		return s.gather(b)
	case phaseTurn:
		if s.turn.open {
			return s.gatherMore(b)
		}
	case phaseCopyIn:
		return s.copyIn(b)
	case phaseSkip:
		return s.skipToSync(b)
	}
	return 0
}

// keep stores what no phase could use yet. A session that has bytes waiting which it cannot use
// before something else happens stops reading.
func (s *session) keep(rest []byte) {
	if s.phase == phaseClosed || len(rest) == 0 {
		s.proxy.buffers.put(s.in)
		s.in = nil
	} else if len(s.in) == 0 {
		s.in = append(s.proxy.buffers.get(), rest...)
	} else if n := copy(s.in, rest); n < len(s.in) {
		s.in = s.in[:n]
	}
	if len(s.in) > 0 && !s.reads() {
		s.pause()
	} else if s.paused && s.mayRead() {
		s.paused = false
		s.link.Resume()
	}
}

// reads says whether the phase uses a client's bytes as they come.
func (s *session) reads() bool {
	switch s.phase {
	case phaseStartup, phaseAuth, phaseIdle, phaseCopyIn, phaseSkip:
		return true
	case phaseTurn:
		return s.turn.open
	}
	return false
}

func (s *session) pause() {
	if !s.paused {
		s.paused = true
		s.link.Pause()
	}
}

// mayRead says whether the server's queue leaves room for what the client sends.
func (s *session) mayRead() bool {
	return s.held == nil || s.held.Link.Queued() < highWater
}

// proceed goes on with bytes that had to wait.
func (s *session) proceed() {
	if len(s.in) > 0 {
		s.run(s.in)
		return
	}
	if s.paused && s.mayRead() {
		s.paused = false
		s.link.Resume()
	}
}

// Drained: the client has read what was queued for it (reactor.Handler).
func (s *session) Drained() {
	if s.held != nil {
		s.held.Link.Resume()
	}
}

// ServerDrained: the server has taken what was queued for it (backend.Owner).
func (s *session) ServerDrained(*backend.Server) { s.proceed() }

// Closed: the client is gone (reactor.Handler).
func (s *session) Closed(err error) {
	if s.phase == phaseClosed {
		return
	}
	s.log.Debug("client left", zap.Uint64("session", s.id), zap.Error(err))
	s.end()
}

// fatal tells the client why the session ends, and ends it.
func (s *session) fatal(r *refusal) {
	if s.phase == phaseClosed {
		return
	}
	r.severity = severityFatal
	s.proxy.stats.refused(r.code)
	s.link.Write(r.append(nil))
	s.finish()
}

// finish ends the session after what is queued for the client has been written.
func (s *session) finish() {
	if s.phase == phaseClosed {
		return
	}
	s.end()
	s.link.CloseAfterFlush()
}

// end frees everything the session holds; the link is not touched.
func (s *session) end() {
	busy := s.phase == phaseTurn || s.phase == phaseCopyIn || s.phase == phasePreparing || s.phase == phaseVerifying
	s.phase = phaseClosed
	s.disarm()
	s.wait.Leave()
	s.cluster.forget(s)
	if srv := s.held; srv != nil && !s.isKept(srv) {
		s.letGo(srv, busy)
	}
	for _, srv := range s.kept {
		if srv != nil {
			s.letGo(srv, busy && srv == s.held)
		}
	}
	s.held, s.kept = nil, [2]*backend.Server{}
	if s.turn != nil {
		s.proxy.turns.put(s.turn)
		s.turn = nil
	}
	for _, st := range s.stmts {
		st.Drop()
	}
	if s.unnamed != nil {
		s.unnamed.Drop()
	}
	s.stmts, s.unnamed, s.login = nil, nil, nil
	s.proxy.buffers.put(s.in)
	s.in = nil
	s.proxy.left(s)
}

// letGo gives a server back when the client leaves. In the middle of a turn it is told to stop:
// nobody reads the answer.
func (s *session) letGo(srv *backend.Server, busy bool) {
	switch {
	case busy:
		s.proxy.cancelQuery(srv, s.cluster)
		srv.Release(backend.Close)
	case s.status != 'I' && srv == s.held:
		srv.Release(backend.Close)
	default:
		srv.Release(backend.Reset)
	}
}

func (s *session) isKept(srv *backend.Server) bool { return s.kept[0] == srv || s.kept[1] == srv }
