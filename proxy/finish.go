package proxy

import (
	"slices"

	"github.com/cstproxy/cstproxy/proxy/backend"
	"github.com/cstproxy/cstproxy/proxy/params"
	"github.com/cstproxy/cstproxy/router"
)

// turnDone follows a turn's ReadyForQuery: the session takes note of what the turn did to it, and
// the server goes back unless a transaction or a pin keeps it. rest are bytes of the server behind
// ReadyForQuery: they are the session's only if it keeps the server.
func (s *session) turnDone(rest []byte) {
	t, srv := s.turn, s.held
	s.disarm()
	s.noteEffects(srv)
	s.noteDDL()
	if t.reported && !t.maySet() {
		s.dirty = true // a function changed a setting behind our back
	}
	s.proxy.stats.turn(s, t)
	reason, _ := s.rs.Pinned()
	s.notePin(reason)
	if s.last {
		s.finish()
		return
	}
	if s.status == 'I' {
		s.portal, s.portals = nil, nil
		if _, pinned := s.rs.Pinned(); !pinned && len(rest) > 0 {
			if !srv.Aside(rest) {
				srv.Doom()
			}
			rest = nil
		}
		s.giveBack()
	}
	s.turnOver()
	if len(rest) > 0 && s.phase != phaseClosed {
		s.FromServer(srv, rest)
	}
	s.proceed()
}

// noteEffects tells the router how the turn ended, and puts what is settled into force. Of a pipeline
// that failed it is known which statements were executed: those up to the last one that ended or
// began a transaction, or set a savepoint in it, stay executed; the others were undone.
func (s *session) noteEffects(srv *backend.Server) {
	t := s.turn
	status := router.TxStatus(s.status)
	if !t.failed {
		s.apply(s.rs.Done(t.executed, status, router.Succeeded), srv)
		return
	}
	if t.endsItself() {
		s.apply(s.rs.Done(t.executed, status, router.Failed), srv)
		return
	}
	cut, between := 0, router.TxIdle
	for i, v := range t.done {
		if tx := transactionAfter(v); tx != 0 {
			cut, between = i+1, tx
		}
	}
	if cut > 0 {
		s.apply(s.rs.Done(t.done[:cut], between, router.Succeeded), srv)
	}
	s.apply(s.rs.Done(t.done[cut:], status, router.Failed), srv)
}

// transactionAfter is the transaction status that the statement's success leaves; 0 when it is none
// of those that decide it.
func transactionAfter(v *router.Verdict) router.TxStatus {
	for i := range v.Effects {
		switch e := &v.Effects[i]; e.Kind {
		case router.EffectBegin, router.EffectSavepoint, router.EffectRollbackTo, router.EffectRelease:
			return router.TxOpen
		case router.EffectCommit, router.EffectRollback, router.EffectPrepareTransaction, router.EffectDiscardAll:
			if e.Modes&router.ModeChain != 0 {
				return router.TxOpen
			}
			return router.TxIdle
		}
	}
	return 0
}

// noteDDL counts schema changes as soon as they are made, and once more when their transaction
// ends: texts parsed from then on may mean something else, also after a rollback.
func (s *session) noteDDL() {
	for _, v := range s.turn.executed {
		for i := range v.Effects {
			e := &v.Effects[i]
			if e.Kind == router.EffectDDL || e.Kind == router.EffectPin && e.Name == router.PinTemporary {
				s.changedSchema = true
				s.cluster.schemaChanged()
			}
		}
	}
	if s.changedSchema && s.status == 'I' {
		s.changedSchema = false
		s.cluster.schemaChanged()
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
	clean := len(s.stand) == 0
	s.held, s.stand = nil, s.stand[:0]
	if s.pooling == SessionPooling && !srv.Doomed() && clean {
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
	s.account()
	s.phase = phaseIdle
	s.armIdle()
	if s.dismissed != nil {
		s.fatal(s.dismissed)
	}
	s.leaveIfDraining()
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
			s.resetSQL(e.Name)
			s.want = reg.Reset(s.want, s.start, e.Name)
			if srv != nil {
				srv.Params = reg.Without(srv.Params, e.Name)
			}
		case router.EffectResetAll, router.EffectDiscardAll:
			s.sql = s.greeting.sql
			s.want = s.start
			if srv != nil {
				srv.Params = reg.Empty()
			}
			if e.Kind == router.EffectDiscardAll {
				s.dirty = false
			}
		case router.EffectUnpin:
			// RESET of a parameter that is not tracked: the server has its own default again,
			// while the session may have started with another value.
			if srv != nil && e.Name == router.PinSetting && e.Value != "" {
				srv.Params = reg.Without(srv.Params, e.Value)
			}
		case router.EffectDDL:
			s.cluster.catalog.Changed(s.database)
		}
	}
}

// resetSQL follows a RESET of what decides how SQL is read.
func (s *session) resetSQL(name string) {
	switch name {
	case "standard_conforming_strings":
		s.sql.strings = s.greeting.sql.strings
	case "client_encoding":
		s.sql.encoding = s.greeting.sql.encoding
	}
}

// maySet says whether the turn executed anything that may make the server report a parameter. What
// it reports for other reasons was changed by a function.
func (t *turn) maySet() bool {
	for _, v := range t.executed {
		if len(v.Effects) > 0 {
			return true
		}
	}
	return t.failed
}

// noteDropped follows DEALLOCATE and DISCARD ALL in a simple Query, by the tags of what was executed:
// there is no rollback for them. Those of the extended protocol have been followed in their order
// (analyse, send).
func (s *session) noteDropped(tag []byte) {
	t := s.turn
	switch string(tag) {
	case "DEALLOCATE ALL", "DISCARD ALL":
		s.held.Statements.Clear()
		for _, st := range s.stmts {
			st.Drop()
		}
		clear(s.stmts)
	case "DEALLOCATE":
		v := t.executed[len(t.executed)-1]
		for t.deallocated < len(v.Effects) {
			e := &v.Effects[t.deallocated]
			t.deallocated++
			if e.Kind != router.EffectDeallocate {
				continue
			}
			if backend.Shared([]byte(e.Name)) {
				s.held.Statements.Doubt()
			}
			if st := s.stmts[e.Name]; st != nil {
				delete(s.stmts, e.Name)
				st.Drop()
			}
			return
		}
	}
}

// newUnnamed makes the statement behind an unnamed Parse. These come and go with every query, so
// they are reused.
func (s *session) newUnnamed(p *backend.Prepared) *statement {
	st := s.proxy.newStatement()
	st.Prepared = p
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

// freeUnnamed gives back the unnamed statements that no later Bind or Execute can mean. Those that
// a portal still runs linger.
func (s *session) freeUnnamed() {
	t := s.turn
	linger := s.linger
	s.linger = s.linger[:0]
	for _, st := range linger {
		s.freeOrLinger(st)
	}
	for _, st := range t.made {
		if st != s.unnamed && st.Prepared != nil {
			s.freeOrLinger(st)
		}
	}
	clear(t.made)
	t.made = t.made[:0]
}

func (s *session) freeOrLinger(st *statement) {
	uses := st == s.portal
	for _, p := range s.portals {
		uses = uses || p == st
	}
	switch {
	case !uses:
		st.Drop()
		s.proxy.freeStatement(st)
	case !slices.Contains(s.linger, st):
		s.linger = append(s.linger, st)
	}
}
