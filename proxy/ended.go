package proxy

import "go.uber.org/zap"

// A client may shut down its sending side and still wait for answers. PostgreSQL does not notice before
// it has executed all complete messages and wants to read the next one; then it ends, and with it an
// open transaction. So does a session. One that has left its server in the middle of a turn (without a
// Sync, in COPY data, in a message that is passed on as it comes) lets the server meet the end, whose
// last words are then the client's.
//
// A client that has gone altogether looks the same until something is written to it. What it had asked
// for is done, as PostgreSQL does it, also if it has to wait for a server first.

// input says whether the client will send more.
type input uint8

const (
	inputOpen   input = iota
	inputEnded        // session.in is all that is left
	inputPassed       // the held server has been told
)

// Ended: the client has shut down its sending side (reactor.Conn's OnEnd).
func (s *session) Ended() {
	if s.phase == phaseClosed {
		return
	}
	s.log.Debug("client sends no more", zap.Uint64("session", s.id))
	s.input = inputEnded
	s.proceed()
}

// meetEnd ends the session when it would have to read what will not come. What is left in s.in no
// phase could use: it is the beginning of a message.
func (s *session) meetEnd() {
	switch {
	case s.input == inputOpen || s.feeding || !s.reads() || !s.mayRead():
	case s.phase == phaseIdle || s.held == nil:
		s.finish()
	case s.input == inputEnded:
		s.input = inputPassed
		s.held.EndInput()
	}
}
