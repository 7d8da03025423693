// Package backend keeps the connections to the nodes: one Server per connection, pools of them by
// node, database and user, and what each server is known to hold (parameters, prepared
// statements). Everything but Dialer belongs to one loop and is neither locked nor blocking.
// A Server is either idle in its pool, being reset, or held by exactly one owner; it goes back to
// the idle ones only in a state that the next owner can rely on.
package backend

import (
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/ha/topology"
	"github.com/cstproxy/cstproxy/proxy/params"
	"github.com/cstproxy/cstproxy/proxy/wire"
)

// Link is a connection on the loop; the reactor's Conn is one.
type Link interface {
	Write(b []byte)  // at once, the rest is queued
	Buffer(b []byte) // queued until the end of the event
	Queued() int
	Pause()
	Resume()
	Close()
	CloseWrite() // ends this side's bytes behind what is queued
	CloseAfterFlush()
}

// Owner is who holds a Server. All calls come on the loop.
type Owner interface {
	FromServer(srv *Server, b []byte)
	ServerDrained(srv *Server)
	// ServerClosed is the last call: the Server is already out of its pool.
	ServerClosed(srv *Server, err error)
}

// Verdict says in which state an owner gives a Server back. The zero value is the safe one.
type Verdict int

const (
	Close Verdict = iota // unknown state: end the connection
	Reset                // outside a transaction, but with leftovers: DISCARD ALL first
	Clean                // as its Params and Statements say
)

// Frame is a reader's place in the server's stream of messages, between two pieces of it.
type Frame struct {
	// Part holds the beginning of a message that has to be complete before it can be judged.
	Part []byte
	// Rest is how many bytes of the current message are still to come, and Drop whether they
	// are for nobody.
	Rest int
	Drop Disposal
}

// Disposal is what happens to the rest of a message.
type Disposal int

const (
	Forward Disposal = iota
	Swallow
)

// Server is one connection to a node, logged in.
type Server struct {
	Key    Key
	Link   Link
	PID    uint32
	Secret []byte
	// Reported are the parameters as the server last reported them.
	Reported map[string]string
	// Params is what was set on this connection since its login.
	Params     *params.Set
	Statements Statements
	Frame      Frame
	// Epoch is the epoch in which the node was chosen when the connection was made.
	Epoch topology.Epoch
	// Born is when in the rounds the connection was made, and Proved: its node has proved since then how far
	// it has replayed.
	Born   topology.Moment
	Proved bool

	owner   Owner
	pool    *pool
	born    time.Time
	expires time.Time
	used    time.Time
	cancels int     // cancel requests on their way to this server
	given   Verdict // what the owner said, while cancels > 0
	phase   serverPhase
	doomed  bool // its node or its pool is gone: never idle again
}

type serverPhase int

const (
	serverHeld serverPhase = iota
	serverIdle
	serverResetting
	serverDraining   // given up in the middle of an answer
	serverCancelling // given back while a cancel request may still hit it
	serverClosed
)

var errUnexpected = errors.New("the server sent something while nobody had asked")

// Data takes bytes from the connection (reactor.Handler).
func (s *Server) Data(b []byte) {
	if s.phase == serverHeld {
		s.owner.FromServer(s, b)
		return
	}
	if s.phase != serverClosed && !s.readIdle(b) {
		s.pool.lost(s, errUnexpected)
		s.Link.Close()
	}
}

// Drained passes the word that the write queue is short again (reactor.Handler).
func (s *Server) Drained() {
	if s.phase == serverHeld {
		s.owner.ServerDrained(s)
	}
}

// Closed ends the Server (reactor.Handler).
func (s *Server) Closed(err error) {
	if s.phase == serverClosed {
		return
	}
	owner, held := s.owner, s.phase == serverHeld
	s.pool.lost(s, err)
	if held {
		owner.ServerClosed(s, err)
	}
}

// Aside takes what the server says while its owner does not use it; false: it is of no more use.
func (s *Server) Aside(b []byte) bool { return s.readIdle(b) }

// Abandon gives the server back in the middle of an answer that nobody wants: rest are bytes that
// came already. It is reset before its next use.
func (s *Server) Abandon(rest []byte) {
	if s.phase != serverHeld {
		return
	}
	s.owner, s.phase = nil, serverDraining
	s.Link.Resume()
	if len(rest) > 0 {
		s.Data(rest)
	}
}

// readIdle takes what a server says while nobody holds it: reports are kept, notices dropped, the
// answer to a reset awaited. false: the connection is of no more use.
func (s *Server) readIdle(b []byte) bool {
	if n := min(s.Frame.Rest, len(b)); n > 0 {
		s.Frame.Rest -= n // of a message whose beginning the last owner has had
		b = b[n:]
	}
	s.Frame.Part = append(s.Frame.Part, b...)
	b = s.Frame.Part
	for {
		typ, size, ok, err := wire.Header(b)
		if err != nil || size > 64<<10 {
			return false
		}
		if !ok || size > len(b) {
			s.Frame.Part = append(s.Frame.Part[:0], b...)
			if len(b) == 0 {
				s.Frame.Part = nil
			}
			return true
		}
		if !s.idleMessage(typ, wire.Body(b[:size])) {
			return false
		}
		b = b[size:]
	}
}

func (s *Server) idleMessage(typ byte, body []byte) bool {
	switch typ {
	case 'S':
		s.Report(body)
		return true
	case 'N', 'A':
		return true
	case 'E':
		if s.phase == serverDraining && string(wire.ErrorField(body, 'V')) == "ERROR" {
			return true
		}
		// 57P01 on an idle server is not for the next client to read.
		s.pool.pools.log.Info("server ended an idle connection", zap.Int("node", int(s.Key.Node)),
			zap.ByteString("sqlstate", wire.ErrorField(body, 'C')), zap.ByteString("why", wire.ErrorField(body, 'M')))
		return false
	case 'C':
		return s.phase == serverResetting || s.phase == serverDraining
	case 'Z':
		if s.phase == serverDraining && len(body) == 1 && body[0] == 'I' {
			s.phase = serverHeld
			s.Release(Reset)
			return true
		}
		if s.phase != serverResetting || len(body) != 1 || body[0] != 'I' {
			return false
		}
		s.pool.ready(s)
		return true
	}
	return s.phase == serverDraining
}

// Report keeps what a ParameterStatus message says.
func (s *Server) Report(body []byte) {
	name, value, ok := wire.ReadParameterStatus(body)
	if !ok || s.Reported[string(name)] == string(value) {
		return
	}
	s.Reported[string(name)] = string(value)
}

// Held says whether owner still holds the server.
func (s *Server) Held(owner Owner) bool { return s.phase == serverHeld && s.owner == owner }

// Doomed says that the server must not be kept beyond its transaction: its node left the View
// or changed its role.
func (s *Server) Doomed() bool { return s.doomed }

// Doom makes the server end as soon as it is given back.
func (s *Server) Doom() { s.doomed = true }

// EndInput tells the server that its client sends no more, so that it does about it what it would do
// without a proxy: it answers what it has read, and ends.
func (s *Server) EndInput() {
	s.doomed = true
	s.Link.CloseWrite()
}

// BeginCancel keeps the server out of the pool until EndCancel, so that a cancel request that is
// still on its way cannot hit the next owner's query.
func (s *Server) BeginCancel() { s.cancels++ }

// EndCancel says that a cancel request has been taken or has failed.
func (s *Server) EndCancel() {
	s.cancels--
	if s.cancels == 0 && s.phase == serverCancelling {
		s.phase = serverHeld
		s.pool.release(s, s.given)
	}
}

// Release gives the server back to its pool.
func (s *Server) Release(v Verdict) {
	if s.phase != serverHeld {
		return
	}
	if s.cancels > 0 && v != Close {
		s.phase, s.given, s.owner = serverCancelling, v, nil
		return
	}
	s.pool.release(s, v)
}
