package proxy

import (
	"github.com/cstproxy/cstproxy/proxy/wire"
	"github.com/cstproxy/cstproxy/router"
)

// answerLocally answers what no server has to be asked: an empty turn of one Sync, and single
// statements about cstproxy.route or about the protocol's prepared statements.
func (s *session) answerLocally() bool {
	t := s.turn
	if t.open || len(t.ops) == 0 {
		return false
	}
	if len(t.ops) == 1 && t.ops[0].typ == 'S' && s.held == nil {
		s.link.Write(wire.AppendReady(s.proxy.scratch[:0], s.status))
		s.turnOver()
		return true
	}
	if len(t.executed) != 1 || s.status == 'E' {
		return false
	}
	v := t.executed[0]
	if v.Statements != 1 || len(v.Effects) != 1 {
		return false
	}
	e := &v.Effects[0]
	answer, ok := s.localAnswer(e)
	if !ok {
		return false
	}
	if e.Kind == router.EffectRoute && e.Value != "" {
		if _, ok := router.ParseRouteChoice(e.Value); !ok {
			s.refuse(badRoute(e.Value))
			return true
		}
	}
	b := t.answer(s.proxy.scratch[:0], answer)
	s.rs.Done(t.executed, router.TxStatus(s.status), router.Succeeded)
	s.link.Write(wire.AppendReady(b, s.status))
	s.turnOver()
	return true
}

// localAnswer is the result of a statement that the proxy executes itself: a row, or only a tag.
type localAnswer struct {
	row bool
	// value is the one column's text.
	value string
	tag   string
}

func (s *session) localAnswer(e *router.Effect) (localAnswer, bool) {
	switch e.Kind {
	case router.EffectRoute:
		if e.Value == "" {
			return localAnswer{tag: "RESET"}, true
		}
		return localAnswer{tag: "SET"}, true
	case router.EffectShowRoute:
		return localAnswer{row: true, value: s.rs.RouteChoice().String(), tag: "SHOW"}, true
	case router.EffectDeallocate:
		st := s.stmts[e.Name]
		if st == nil || st.raw || s.turn.ops[0].typ != 'Q' {
			return localAnswer{}, false
		}
		delete(s.stmts, e.Name)
		st.Drop()
		return localAnswer{tag: "DEALLOCATE"}, true
	}
	return localAnswer{}, false
}

// answer writes what the turn's messages are answered with, up to ReadyForQuery.
func (t *turn) answer(b []byte, a localAnswer) []byte {
	for i := range t.ops {
		o := &t.ops[i]
		switch o.typ {
		case 'P':
			b = wire.AppendEmpty(b, '1')
		case 'B':
			b = wire.AppendEmpty(b, '2')
		case 'C':
			o.settled()
			b = wire.AppendEmpty(b, '3')
		case 'D':
			if kind, _, _ := wire.ReadTarget(t.body(o)); kind == 'S' {
				b = append(b, 't', 0, 0, 0, 6, 0, 0)
			}
			if a.row {
				b = wire.AppendTextColumn(b, routeParameter)
			} else {
				b = wire.AppendEmpty(b, 'n')
			}
		case 'Q', 'E':
			if a.row && o.typ == 'Q' {
				b = wire.AppendTextColumn(b, routeParameter)
			}
			if a.row {
				b = wire.AppendTextValue(b, a.value)
			}
			b = wire.AppendComplete(b, a.tag)
		}
	}
	return b
}
