package proxy

import (
	"crypto/tls"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/proxy/wire"
)

type wireParameter = wire.Parameter

// stepStartup reads packets that have no type byte: SSLRequest, GSSENCRequest, CancelRequest, and
// at last the start-up packet itself.
func (s *session) stepStartup(b []byte) int {
	if b[0] == 0x16 {
		// A TLS ClientHello without SSLRequest: direct TLS, which is not offered.
		s.abandon("direct TLS is not supported")
		return 0
	}
	size, ok, err := wire.StartupSize(b)
	if err != nil {
		s.abandon("invalid length of startup packet")
		return 0
	}
	if !ok || len(b) < size {
		return 0
	}
	packet := b[:size]
	switch code := wire.StartupCode(packet); code {
	case wire.CodeSSL:
		s.answerSSL(packet, len(b) > size)
	case wire.CodeGSSENC:
		if s.secured == encrypted || size != 8 || s.asked(askedGSS) {
			s.abandon("GSSENCRequest out of place")
			break
		}
		s.link.Write([]byte{'N'})
	case wire.CodeCancel:
		pid, secret, ok := wire.ReadCancel(packet)
		if !ok {
			s.finish()
			break
		}
		s.phase = phaseCancelling
		s.proxy.cancel(pid, secret, s.finish)
	default:
		s.startUp(packet)
	}
	return size
}

// asks are the questions about encryption that a client has asked; each may be asked once, so that
// nobody can make the proxy answer without end.
type asks uint8

const (
	askedTLS asks = 1 << iota
	askedGSS
)

// asked says whether the question was asked before, and notes it.
func (s *session) asked(q asks) bool {
	before := s.asks&q != 0
	s.asks |= q
	return before
}

// abandon closes without an answer: whoever sent this does not speak the protocol.
func (s *session) abandon(why string) {
	s.log.Debug("connection closed before login", zap.Uint64("session", s.id), zap.String("why", why))
	s.finish()
}

// answerSSL answers an SSLRequest. Bytes that came with it, before TLS began, could have been put
// there by somebody in between: then the connection ends (CVE-2021-3935).
func (s *session) answerSSL(packet []byte, more bool) {
	cfg := s.proxy.clientTLS()
	switch {
	case s.secured == encrypted || len(packet) != 8 || s.asked(askedTLS):
		s.abandon("SSLRequest out of place")
	case cfg == nil:
		s.link.Write([]byte{'N'})
	case more:
		s.abandon("data before the TLS handshake")
	default:
		s.link.Write([]byte{'S'})
		s.phase = phaseSecuring
		s.link.StartTLS(cfg, s.tlsDone)
	}
}

func (s *session) tlsDone(_ tls.ConnectionState, err error) {
	if s.phase != phaseSecuring {
		return
	}
	if err != nil {
		s.log.Debug("TLS handshake failed", zap.Uint64("session", s.id), zap.Error(err))
		s.finish()
		return
	}
	s.secured = encrypted
	s.phase = phaseStartup
	s.proceed()
}

// startUp reads the start-up packet and begins the login.
func (s *session) startUp(packet []byte) {
	version := wire.StartupCode(packet)
	if version>>16 != 3 {
		s.fatal(unsupportedProtocol(version))
		return
	}
	start, err := wire.ReadStartup(packet)
	if err != nil {
		s.fatal(protocolViolation(err.Error()))
		return
	}
	if version > wire.Version32 || len(start.Unknown) > 0 {
		newest := min(version, wire.Version32)
		s.link.Buffer(wire.AppendNegotiate(nil, newest, start.Unknown))
		version = newest
	}
	s.login = &login{version: version, parameters: start.Parameters, began: s.proxy.now()}
	s.user, s.database = start.Get("user"), start.Get("database")
	if s.user == "" {
		s.fatal(noUserName())
		return
	}
	if s.database == "" {
		s.database = s.user
	}
	if r := start.Get("replication"); r != "" && r != "false" && r != "off" && r != "0" && r != "no" {
		s.fatal(noReplication())
		return
	}
	if limit := s.proxy.cfg.MaxClients; limit > 0 && len(s.proxy.sessions) > limit {
		s.fatal(tooManyClients(limit))
		return
	}
	if s.proxy.tlsRequired() && s.secured != encrypted {
		s.fatal(tlsRequired())
		return
	}
	if err := s.readParameters(); err != nil {
		s.fatal(badOptions(err))
		return
	}
	s.authenticate()
}
