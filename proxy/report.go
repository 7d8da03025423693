package proxy

import (
	"strings"

	"github.com/cstproxy/cstproxy/proxy/backend"
	"github.com/cstproxy/cstproxy/proxy/wire"
	"github.com/cstproxy/cstproxy/router"
)

// report takes a ParameterStatus: it is kept for the connection, and the client gets it only if
// its own statements caused it and nodes cannot differ in it. What it is told after a RESET is the
// value that it goes back to, its own of start-up, which the next turn brings to its server.
func (s *session) report(srv *backend.Server, body []byte) ([]byte, backend.Disposal) {
	srv.Report(body)
	if s.ours() {
		return nil, backend.Swallow
	}
	name, value, _ := wire.ReadParameterStatus(body)
	if string(name) == hotStandby {
		return nil, backend.Swallow
	}
	s.noteReported(string(name), string(value))
	t := s.turn
	if t == nil {
		return nil, backend.Forward
	}
	t.reported = true
	if own, ok := s.greeting.values[string(name)]; ok && t.resets(string(name)) && s.startedWith(string(name)) && own != string(value) {
		return wire.AppendParameterStatus(nil, string(name), own), backend.Swallow
	}
	return nil, backend.Forward
}

// startedWith says whether the start-up packet set the parameter.
func (s *session) startedWith(name string) bool {
	_, ok := s.start.Get(strings.ToLower(name))
	return ok
}

// resets says whether the turn executes a RESET of the parameter.
func (t *turn) resets(name string) bool {
	for _, v := range t.executed {
		for i := range v.Effects {
			switch e := &v.Effects[i]; e.Kind {
			case router.EffectResetAll, router.EffectDiscardAll:
				return true
			case router.EffectReset:
				if strings.EqualFold(e.Name, name) {
					return true
				}
			}
		}
	}
	return false
}

// noteReported follows the settings that decide how the client's SQL is read and routed.
func (s *session) noteReported(name, value string) {
	s.sql.note(name, value)
	if name == applicationName {
		s.retune(value)
	}
}

func (k *envKey) note(name, value string) {
	switch name {
	case "standard_conforming_strings":
		k.strings = router.StandardStrings
		if value == "off" {
			k.strings = router.EscapeStrings
		}
	case "client_encoding":
		k.encoding = router.EncodingOf(value)
	}
}
