package proxy

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/cstproxy/cstproxy/proxy/backend"
	"github.com/cstproxy/cstproxy/proxy/params"
	"github.com/cstproxy/cstproxy/proxy/wire"
)

// greeting is what servers report to a login with certain start-up settings.
type greeting struct {
	key greetingKey
	// encoded are the ParameterStatus messages but application_name.
	encoded []byte
	// values are the same, by name; sql is what they say of how SQL is read.
	values map[string]string
	sql    envKey
}

type greetingKey struct {
	database, user, settings string
}

// applicationName is reported as the client gave it, so it needs no server to be known.
const applicationName = "application_name"

// authenticated goes on to the greeting: from memory, or from a server when nobody with these
// settings has logged in before. That first time also shows whether the database exists, the role
// may connect, and the settings are valid: the server's own FATAL is what the client then reads.
func (s *session) authenticated() {
	s.pooling = s.proxy.poolingFor(s.database, s.user)
	s.phase = phaseLogin
	if g := s.cluster.greetings[s.greetingKey()]; g != nil && s.pooling == TransactionPooling {
		s.greet(g)
		return
	}
	s.waited = s.proxy.now()
	s.seekLoginServer()
}

func (s *session) greetingKey() greetingKey {
	return greetingKey{s.database, s.user, s.proxy.params.Without(s.start, applicationName).Key()}
}

// seekLoginServer asks for any server: the primary if there is one.
func (s *session) seekLoginServer() {
	node := s.cluster.loginNode(s.mode)
	if node == 0 {
		s.holdLogin()
		return
	}
	srv, err := s.cluster.acquire(s, node)
	if err != nil {
		s.loginRefused(err)
		return
	}
	if srv != nil {
		s.loginGranted(srv)
	}
}

// loginGranted puts the session's settings on the server, always waiting for the answer.
func (s *session) loginGranted(srv *backend.Server) {
	s.held, s.grant = srv, grant{}
	sql := params.Catchup(s.proxy.scratch[:0], srv.Params, s.want)
	if len(sql) == 0 {
		s.loginPrepared(nil)
		return
	}
	s.turn = s.proxy.turns.get()
	srv.Statements.SetUnnamed(nil)
	srv.Link.Write(wire.AppendQuery(nil, sql))
}

func (s *session) loginRefused(err error) {
	var refusal *backend.ServerError
	var node *backend.NodeError
	switch {
	case errors.As(err, &node): // also one that refuses everybody now
		s.holdLogin()
	case errors.As(err, &refusal):
		s.fatal(fromServer(refusal))
	default:
		s.fatal(refusalFor(err))
	}
}

// holdLogin lets the login wait for a node, at most hold_writes.
func (s *session) holdLogin() {
	c := s.cluster
	waited := s.proxy.now().Sub(s.waited)
	switch {
	case waited >= s.proxy.cfg.HoldWrites:
		s.fatal(notHeldLonger(s.whyHeld(), waited.Round(time.Millisecond)))
	case !c.enqueue(s):
		s.fatal(holdFull(s.whyHeld()))
	default:
		c.noteHeld(s.whyHeld())
		s.arm(s.proxy.cfg.HoldWrites - waited)
	}
}

// loginPrepared: the server has taken the settings; what it reports now is the greeting.
// rest are bytes behind that.
func (s *session) loginPrepared(rest []byte) {
	srv := s.held
	srv.Params = s.want
	s.cluster.accept(s.want, srv.Key.Node)
	if s.turn != nil {
		s.proxy.turns.put(s.turn)
		s.turn = nil
	}
	g := s.cluster.remember(s.greetingKey(), srv.Reported)
	if len(rest) > 0 && !srv.Aside(rest) {
		srv.Doom()
	}
	if s.pooling == SessionPooling {
		s.keepServer(srv)
	} else {
		srv.Release(backend.Clean)
	}
	s.held = nil
	s.greet(g)
}

// greet ends the login.
func (s *session) greet(g *greeting) {
	b := sayOK(s.proxy.scratch[:0])
	name, _ := s.start.Get(applicationName)
	b = wire.AppendParameterStatus(b, applicationName, printable(name.Text))
	b = append(b, g.encoded...)
	s.key = s.proxy.register(s, s.login.version)
	b = wire.AppendKey(b, s.key.pid, []byte(s.key.secret))
	s.status = 'I'
	s.greeting, s.sql = g, g.sql
	b = wire.AppendReady(b, s.status)
	s.link.Write(b)
	s.proxy.stats.loggedIn()
	s.login = nil
	s.phase = phaseIdle
	s.armIdle()
	s.proceed()
}

// printable replaces what PostgreSQL replaces in application_name.
func printable(name string) string {
	b := []byte(name)
	for i, c := range b {
		if c < 32 || c > 126 {
			b[i] = '?'
		}
	}
	if len(b) > 63 {
		b = b[:63]
	}
	return string(b)
}

// remember makes a greeting of what a server reported. Differences between nodes that a client
// must not see are left out of it: in_hot_standby is always off.
func (c *cluster) remember(key greetingKey, reported map[string]string) *greeting {
	if len(c.greetings) >= maxGreetings {
		clear(c.greetings)
	}
	g := &greeting{key: key, values: map[string]string{}}
	for _, name := range slices.Sorted(maps.Keys(reported)) {
		value := reported[name]
		if name == applicationName {
			continue
		}
		if name == hotStandby {
			value = "off"
		}
		g.encoded = wire.AppendParameterStatus(g.encoded, name, value)
		g.values[name] = value
		g.sql.note(name, value)
	}
	c.greetings[key] = g
	return g
}

// maxGreetings bounds the memory that clients with many different settings can take.
const maxGreetings = 1000

const hotStandby = "in_hot_standby"
