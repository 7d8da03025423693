package proxy

import (
	"github.com/cstproxy/cstproxy/proxy/backend"
	"github.com/cstproxy/cstproxy/proxy/params"
	"github.com/cstproxy/cstproxy/proxy/wire"
	"github.com/cstproxy/cstproxy/router"
)

// turnDone follows a turn's ReadyForQuery: the session takes note of what the turn did to it, and
// the server goes back unless a transaction or a pin keeps it.
func (s *session) turnDone() {
	t, srv := s.turn, s.held
	s.disarm()
	outcome := router.Succeeded
	if t.failed {
		outcome = router.Failed
	}
	effects := s.rs.Done(t.executed, router.TxStatus(s.status), outcome)
	s.apply(effects, srv)
	s.noteDDL()
	if t.reported && len(effects) == 0 && s.status == 'I' {
		s.dirty = true // a function changed a setting behind our back
	}
	if t.rest > 0 {
		s.stray, t.rest = t.rest, 0
		s.dirty = false
		s.unkeep(srv)
		srv.Release(backend.Close)
		s.held = nil
	}
	s.proxy.stats.turn(s, t)
	if s.last {
		s.finish()
		return
	}
	if s.status == 'I' {
		s.portal, s.portals = nil, nil
		s.giveBack()
	}
	s.turnOver()
	s.proceed()
}

// noteDDL counts schema changes as soon as they are made, committed or not: texts parsed from now
// on may mean something else.
func (s *session) noteDDL() {
	for _, v := range s.turn.executed {
		for i := range v.Effects {
			if v.Effects[i].Kind == router.EffectDDL {
				s.cluster.schemaChanged()
				return
			}
		}
	}
}

// giveBack returns the server after a transaction unless it has to be kept.
func (s *session) giveBack() {
	srv := s.held
	if srv == nil {
		return
	}
	if _, pinned := s.rs.Pinned(); pinned && !(s.dirty && srv.Doomed()) {
		return
	}
	s.held = nil
	if s.pooling == SessionPooling && !srv.Doomed() {
		s.keepServer(srv)
		return
	}
	s.unkeep(srv)
	verdict := backend.Clean
	if s.dirty {
		verdict = backend.Reset
	}
	s.dirty = false
	srv.Release(verdict)
}

// turnOver ends the turn on the session's side.
func (s *session) turnOver() {
	s.freeUnnamed()
	s.proxy.turns.put(s.turn)
	s.turn = nil
	s.phase = phaseIdle
	s.armIdle()
}

// apply puts settled effects into force: for the session, and for what is known of the server on
// which they were executed (nil when there was none).
func (s *session) apply(effects []router.Effect, srv *backend.Server) {
	reg := s.proxy.params
	for i := range effects {
		e := &effects[i]
		switch e.Kind {
		case router.EffectSet:
			v := params.Value{Text: e.Value, Form: params.SQL}
			s.want = reg.With(s.want, e.Name, v)
			if srv != nil {
				srv.Params = reg.With(srv.Params, e.Name, v)
			}
		case router.EffectReset:
			s.want = reg.Reset(s.want, s.start, e.Name)
			if srv != nil {
				srv.Params = reg.Without(srv.Params, e.Name)
			}
		case router.EffectResetAll, router.EffectDiscardAll:
			s.want = s.start
			if srv != nil {
				srv.Params = reg.Empty()
			}
			if e.Kind == router.EffectDiscardAll {
				s.forgetStatements(srv)
				s.dirty = false
			}
		case router.EffectDeallocateAll:
			s.forgetStatements(srv)
		case router.EffectDeallocate:
			if st := s.stmts[e.Name]; st != nil {
				delete(s.stmts, e.Name)
				if srv != nil {
					srv.Statements.Remove(st.Prepared)
				}
				st.Drop()
			}
		case router.EffectDDL:
			s.cluster.catalog.Changed(s.database)
		}
	}
}

// forgetStatements follows DEALLOCATE ALL, which drops the protocol's statements, too, on the
// server also those of other sessions.
func (s *session) forgetStatements(srv *backend.Server) {
	for _, st := range s.stmts {
		st.Drop()
	}
	clear(s.stmts)
	s.unnamed = nil
	if srv != nil {
		srv.Statements.Clear()
	}
}

// newUnnamed makes the statement behind an unnamed Parse. These come and go with every query, so
// they are reused.
func (s *session) newUnnamed(p *backend.Prepared) *statement {
	st := s.proxy.newStatement()
	st.Prepared = p
	s.dropUnnamed()
	s.turn.made = append(s.turn.made, st)
	return st
}

// dropUnnamed lets the unnamed statement go at the end of the turn, unless undo brings it back.
func (s *session) dropUnnamed() {
	if s.unnamed != nil {
		s.turn.made = append(s.turn.made, s.unnamed)
	}
	s.unnamed = nil
}

// freeUnnamed gives back the unnamed statements that no later Bind can mean.
func (s *session) freeUnnamed() {
	for _, st := range s.turn.made {
		if st == s.unnamed || st == s.portal || st.Prepared == nil || s.portalUses(st) {
			continue
		}
		st.Drop()
		s.proxy.freeStatement(st)
	}
}

func (s *session) portalUses(st *statement) bool {
	for _, p := range s.portals {
		if p == st {
			return true
		}
	}
	return false
}

// answerLocally answers what no server has to be asked: an empty turn of one Sync, and the
// statements about cstproxy.route.
func (s *session) answerLocally() bool {
	t := s.turn
	if len(t.ops) != 1 || t.open {
		return false
	}
	if t.ops[0].typ == 'S' && s.held == nil {
		s.link.Write(wire.AppendReady(s.proxy.scratch[:0], s.status))
		s.turnOver()
		return true
	}
	if t.ops[0].typ != 'Q' || s.status == 'E' {
		return false
	}
	v := t.executed[0]
	if v.Statements != 1 || len(v.Effects) != 1 {
		return false
	}
	b := s.proxy.scratch[:0]
	switch e := &v.Effects[0]; e.Kind {
	case router.EffectRoute:
		tag := "SET"
		if e.Value == "" {
			tag = "RESET"
		}
		b = wire.AppendComplete(b, tag)
	case router.EffectShowRoute:
		b = wire.AppendTextRow(b, routeParameter, s.rs.RouteChoice().String())
		b = wire.AppendComplete(b, "SHOW")
	case router.EffectDeallocate:
		st := s.stmts[e.Name]
		if st == nil {
			return false
		}
		delete(s.stmts, e.Name)
		st.Drop()
		b = wire.AppendComplete(b, "DEALLOCATE")
	default:
		return false
	}
	s.rs.Done(t.executed, router.TxStatus(s.status), router.Succeeded)
	s.link.Write(wire.AppendReady(b, s.status))
	s.turnOver()
	return true
}

// answerLost speaks for a transaction whose server is gone: the first turn reads why, all others
// that it is aborted, until it is ended.
func (s *session) answerLost() {
	t := s.turn
	ends := false
	for _, v := range t.executed {
		for i := range v.Effects {
			k := v.Effects[i].Kind
			ends = ends || k == router.EffectCommit || k == router.EffectRollback
		}
	}
	if !ends {
		s.refuse(inLostTransaction())
		return
	}
	s.lostTx, s.status = false, 'I'
	s.portals = nil
	b := s.proxy.scratch[:0]
	for i := range t.ops {
		switch t.ops[i].typ {
		case 'P':
			b = wire.AppendEmpty(b, '1')
		case 'B':
			b = wire.AppendEmpty(b, '2')
		case 'D':
			if kind, _, _ := wire.ReadTarget(t.body(&t.ops[i])); kind == 'S' {
				b = append(b, 't', 0, 0, 0, 6, 0, 0)
			}
			b = wire.AppendEmpty(b, 'n')
		case 'C':
			b = wire.AppendEmpty(b, '3')
		case 'E', 'Q':
			b = wire.AppendComplete(b, "ROLLBACK")
		}
	}
	s.rs.Done(rolledBack, router.TxIdle, router.Succeeded)
	if t.open {
		s.link.Write(b)
		s.phase = phaseSkip
		return
	}
	s.link.Write(wire.AppendReady(b, s.status))
	s.turnOver()
}

var rolledBack = []*router.Verdict{{Statements: 1, Effects: []router.Effect{{Kind: router.EffectRollback}}}}
