package proxy

import (
	"errors"
	"fmt"
	"strings"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/proxy/auth"
	"github.com/cstproxy/cstproxy/proxy/catalog"
	"github.com/cstproxy/cstproxy/proxy/params"
	"github.com/cstproxy/cstproxy/proxy/wire"
	"github.com/cstproxy/cstproxy/router"
)

// routeParameter is the setting by which a session chooses its own routing.
const routeParameter = "cstproxy.route"

// readParameters turns start-up parameters and "options" into the session's first settings.
func (s *session) readParameters() error {
	reg := s.proxy.params
	s.rs = router.NewSession(router.SessionConfig{StandbyOnly: s.mode == ListenStandby})
	s.start = reg.Empty()
	var options []wire.Parameter
	for _, p := range s.login.parameters {
		if p.Name == "options" {
			more, err := wire.SplitOptions(p.Value)
			if err != nil {
				return err
			}
			options = append(options, more...)
		}
	}
	// As in PostgreSQL, what stands in "options" is set first and the packet's own parameters
	// win.
	for _, p := range append(options, s.login.parameters...) {
		name := strings.ToLower(p.Name)
		switch name {
		case "user", "database", "options", "replication":
			continue
		case routeParameter:
			if _, ok := router.ParseRouteChoice(p.Value); !ok {
				return fmt.Errorf("%s %q: want primary, standby or auto", routeParameter, p.Value)
			}
			s.rs.Startup(name, p.Value)
			continue
		}
		s.rs.Startup(name, p.Value)
		s.start = reg.With(s.start, name, params.Value{Text: p.Value})
	}
	s.want = s.start
	name, _ := s.start.Get(applicationName)
	s.retune(name.Text)
	return nil
}

// authenticate asks the rules what the client has to prove, and begins.
func (s *session) authenticate() {
	peer := s.link.RemoteAddr().Addr().Unmap()
	how := "no encryption"
	if s.secured == encrypted {
		how = "SSL encryption"
	}
	method, _, ok := s.proxy.rules().Match(auth.Conn{TLS: s.secured == encrypted, Database: s.database, User: s.user, Addr: peer})
	switch {
	case !ok:
		s.fatal(noRule(s.user, s.database, peer.String(), how))
	case method == auth.Trust:
		s.authenticated()
	case method == auth.ScramSHA256:
		s.phase = phaseVerifier
		s.cluster.catalog.Verifier(s.user, func(v *auth.Verifier, err error) {
			s.proxy.post(func() { s.verifierFound(v, err) })
		})
	default:
		s.fatal(ruleRejects(s.user, s.database, peer.String(), how))
	}
}

func (s *session) verifierFound(v *auth.Verifier, err error) {
	if s.phase != phaseVerifier {
		return
	}
	if err != nil {
		if !errors.Is(err, catalog.ErrUnknownUser) {
			s.log.Warn("password verifier not found", zap.Uint64("session", s.id), zap.Error(err))
			s.fatal(lookupDown())
			return
		}
		v = s.cluster.catalog.Mock(s.user)
	}
	s.login.verifier = v
	s.login.exchange = auth.NewScramServer(v, s.proxy.now())
	s.phase = phaseAuth
	s.link.Write(sayMechanisms(nil, auth.Mechanism))
	s.proceed()
}

// stepAuth takes the client's SASL messages.
func (s *session) stepAuth(b []byte) int {
	typ, size, ok, err := wire.Header(b)
	if err != nil || ok && (typ != 'p' || size > wire.MaxBeforeLogin) {
		s.fatal(protocolViolation("expected a SASL response"))
		return 0
	}
	if !ok || size > len(b) {
		return 0
	}
	body := wire.Body(b[:size])
	if s.login.exchange == nil {
		s.fatal(protocolViolation("expected a SASL response"))
		return size
	}
	if s.login.startup == nil {
		s.saslFirst(body)
	} else {
		s.saslFinal(body)
	}
	return size
}

// saslFirst reads SASLInitialResponse: mechanism, length, client-first-message.
func (s *session) saslFirst(body []byte) {
	name, rest, ok := wire.CString(body)
	if !ok || len(rest) < 4 || string(name) != auth.Mechanism {
		s.fatal(protocolViolation("client selected an invalid SASL authentication mechanism"))
		return
	}
	answer, err := s.login.exchange.First(rest[4:])
	if err != nil {
		s.fatal(badSASL(err))
		return
	}
	s.login.startup = []string{}
	s.link.Write(sayContinue(nil, answer))
}

func (s *session) saslFinal(body []byte) {
	answer, keys, err := s.login.exchange.Final(body)
	if err != nil {
		if auth.Malformed(err) {
			s.fatal(badSASL(err))
			return
		}
		s.loginFailed()
		return
	}
	if !s.login.verifier.CanLogin {
		s.fatal(mayNotLogIn(s.user))
		return
	}
	s.cluster.credentials.learn(s.user, keys)
	s.link.Buffer(sayFinal(nil, answer))
	s.login.exchange = nil
	s.authenticated()
}

// loginFailed refuses a wrong password. The verifier may have changed since it was read: it is
// read again for the next try.
func (s *session) loginFailed() {
	s.cluster.catalog.Forget(s.user)
	s.proxy.stats.loginFailed()
	s.log.Info("login failed", zap.Uint64("session", s.id), zap.String("client", s.link.RemoteAddr().String()), zap.String("user", s.user), zap.String("why", "wrong password, expired password or unknown user"))
	s.fatal(wrongPassword(s.user))
}

// retune asks the routing rules again, when the application's name is known or changes.
func (s *session) retune(application string) {
	s.rules = s.proxy.routing.Match(s.user, s.database, application)
	s.rs.Retune(s.rules.Choice)
}
