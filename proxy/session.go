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
	OnEnd(ended func())
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
	phaseStartup    phase = iota // start-up packets (startup.go)
	phaseSecuring                // TLS handshake under way
	phaseCancelling              // a cancel request of this client is on its way (startup.go)
	phaseVerifier                // waiting for the password verifier (login.go)
	phaseAuth                    // SASL exchange (login.go)
	phaseLogin                   // authenticated, waiting for what a server reports (greet.go)
	phaseIdle                    // between turns, in a transaction or not (gather.go)
	phaseHeld                    // a turn waits for a node, or for permission to use the primary (hold.go)
	phaseParked                  // a read waits for a standby that has its own write (place.go)
	phaseWaiting                 // a turn waits for a server connection (place.go)
	phasePreparing               // the server gets the session's settings before the turn (send.go)
	phaseVerifying               // the server describes statements before the turn (verify.go)
	phaseTurn                    // a turn is at the server (reply.go)
	phaseCopyIn                  // the server takes COPY data (copy.go)
	phaseSkip                    // after an error of ours, skipping to Sync (gather.go)
	phaseClosed
)

// session is one client's side of the conversation. It does no I/O and never blocks: its driver
// feeds it (Data, Ended, Drained, Closed, FromServer, Granted …) and it answers by writing to links.
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
	asks    asks
	in      []byte // bytes of the client that cannot be used yet
	scanned int    // how much of them gather has looked at
	stray   int    // bytes of a message still to be dropped
	input   input  // whether more will come (ended.go)
	timer   timer

	login    *login // until the greeting
	user     string
	database string
	pooling  PoolMode
	key      cancelKey

	rs       *router.Session
	rules    router.Match
	sql      envKey      // how the session's SQL is to be read
	greeting *greeting   // what the client was told at start-up
	start    *params.Set // as at start-up; RESET goes back to it
	want     *params.Set // as the session wants its servers now
	ticket   topology.Ticket
	status   byte // transaction status of the last ReadyForQuery
	lost     lostState
	dirty    bool   // the held server has leftovers that nobody tracks: reset before reuse
	wrote    bool   // rows, on the primary, in the transaction that is open
	last     bool   // the server said FATAL: the client has read it and its session ends
	pin      string // why the server is kept outside transactions
	counted  bool   // among the cluster's open writes
	alarmed  bool   // the timer is set
	paused   bool   // the client is not read

	changedSchema bool // in the transaction that is open
	feeding       bool // run is at work, and goes on by itself

	pathOf  *params.Set // settings of which path is the sum
	pathSum uint64

	stmts   map[string]*statement
	unnamed *statement
	stand   []string              // empty statements that the held server has under the client's names
	linger  []*statement          // unnamed ones of earlier turns that portals still run
	portal  *statement            // behind the unnamed portal
	portals map[string]*statement // behind named ones, until the transaction ends

	turn   *turn
	held   *backend.Server    // the server of the turn, the transaction or the pin
	kept   [2]*backend.Server // session pooling: one per router.Target (Primary, Standby)
	grant  grant              // under what it was given
	gate   answerGate         // what it said while that did not count
	loss   loss               // why the last one was lost
	wait   backend.Wait
	hold   holdPlace
	waited time.Time

	dismissed *refusal // what it ends with when its turn is over (lastword.go)
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
	// shape identifies how a server described the statement to this client (parameters and
	// columns); 0 while it has not asked.
	shape uint64
	name  string // the client's
	raw   bool   // too long to keep: one server has it, under the client's name
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
	s.feeding = true
	for len(rest) > 0 && s.phase != phaseClosed {
		before := s.phase
		n := s.step(rest)
		rest = rest[n:]
		if n == 0 && s.phase == before {
			break
		}
	}
	s.feeding = false
	s.keep(rest)
}

// step gives bytes to the current phase; it returns how many were used.
func (s *session) step(b []byte) int {
	if s.stray > 0 && s.reads() {
		return s.dropStray(b)
	}
	switch s.phase {
	case phaseStartup:
		return s.stepStartup(b)
	case phaseAuth:
		return s.stepAuth(b)
	case phaseIdle:
		if s.link.Queued() > highWater {
			return 0 // a client that does not read its answers gets no new ones
		}
		return s.gather(b)
	case phaseTurn:
		if s.reads() {
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
	} else if n := len(rest); n < len(s.in) {
		copy(s.in, rest)
		s.in = s.in[:n]
	}
	switch {
	case s.phase == phaseClosed:
	case len(s.in) > 0 && !s.reads() || !s.mayRead():
		s.pause()
	case s.paused:
		s.paused = false
		s.link.Resume()
	}
	s.meetEnd()
}

// reads says whether the phase uses a client's bytes as they come.
func (s *session) reads() bool {
	switch s.phase {
	case phaseStartup, phaseAuth, phaseIdle, phaseCopyIn, phaseSkip:
		return true
	case phaseTurn:
		return s.turn.open && s.turn.copying != copyAsked
	}
	return false
}

func (s *session) pause() {
	if !s.paused {
		s.paused = true
		s.link.Pause()
	}
}

// mayRead says whether the queues leave room for what the client sends, and for its answers.
func (s *session) mayRead() bool {
	return s.link.Queued() <= highWater && (s.held == nil || s.held.Link.Queued() <= highWater)
}

// proceed goes on with bytes that had to wait.
func (s *session) proceed() {
	if s.feeding || s.phase == phaseClosed {
		return
	}
	if len(s.in) > 0 {
		s.run(s.in)
		return
	}
	if s.paused && s.mayRead() {
		s.paused = false
		s.link.Resume()
	}
	s.meetEnd()
}

// Drained: the client has read what was queued for it (reactor.Handler).
func (s *session) Drained() {
	if s.held != nil && s.gate.since.IsZero() {
		s.held.Link.Resume()
	}
	s.proceed()
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
	if !s.inMessage(s.held) {
		s.link.Write(r.append(nil))
	}
	s.finish()
}

// inMessage says whether the client has got a part of a message of the server, and waits for the rest.
func (s *session) inMessage(srv *backend.Server) bool {
	return srv != nil && srv.Frame.Rest > 0 && srv.Frame.Drop == backend.Forward && (s.turn == nil || s.turn.forwarded)
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
	left := s.unfinished()
	s.phase = phaseClosed
	s.notePin("")
	s.disarm()
	s.wait.Leave()
	s.leaveHold()
	said := s.gate.bytes
	s.openGate()
	if srv := s.held; srv != nil && !s.isKept(srv) {
		s.letGo(srv, left, said)
	}
	for _, srv := range s.kept {
		if srv != nil {
			s.letGo(srv, left, said)
		}
	}
	s.proxy.buffers.put(said)
	s.held, s.kept = nil, [2]*backend.Server{}
	s.account()
	if s.turn != nil {
		s.proxy.turns.put(s.turn)
		s.turn = nil
	}
	for _, st := range s.stmts {
		st.Drop()
	}
	for _, st := range s.linger {
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
