package proxy

import (
	"errors"
	"io"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/proxy/backend"
	"github.com/cstproxy/cstproxy/proxy/wire"
	"github.com/cstproxy/cstproxy/router"
)

// lostState says what a client knows of its open transaction whose server is gone.
type lostState uint8

const (
	notLost    lostState = iota
	lostUnsaid           // nothing yet: its next turn reads 40001
	lostSaid             // it has read 40001; until the end of the transaction it reads 25P02
)

// ServerClosed: a server that the session held is gone (backend.Owner).
func (s *session) ServerClosed(srv *backend.Server, err error) {
	if s.phase == phaseClosed {
		return
	}
	wasHeld := srv == s.held
	s.unkeep(srv)
	if !wasHeld {
		return
	}
	if !s.gate.since.IsZero() && !s.grant.lease.Ended() {
		s.gate.gone = err // behind what it said
		srv.Doom()
		return
	}
	s.openGate()
	if s.input == inputPassed && errors.Is(err, io.EOF) {
		s.held = nil
		s.finish() // it has met the end of what its client sends
		return
	}
	s.log.Info("server connection lost", zap.Uint64("session", s.id), zap.Int("node", int(srv.Key.Node)), zap.Error(err))
	s.serverLost(srv, serverGone)
	s.proceed()
}

// serverLost goes on without the server that the session held.
func (s *session) serverLost(srv *backend.Server, why loss) {
	s.held, s.dirty, s.stand, s.loss, s.wrote = nil, false, s.stand[:0], why, false
	s.account()
	s.leaveHold()
	s.disarm()
	switch {
	case s.last:
		s.finish()
	case s.phase == phaseLogin:
		if s.turn != nil {
			s.proxy.turns.put(s.turn)
			s.turn = nil
		}
		s.seekLoginServer()
	case s.turn == nil:
		s.lostWhileIdle()
	case s.phase == phaseIdle || s.phase == phaseHeld || s.phase == phasePreparing || s.phase == phaseVerifying:
		s.lostBefore()
	default:
		s.lostInTurn(srv)
	}
}

// lostWhileIdle: the transaction or the pinned state went with the server.
func (s *session) lostWhileIdle() {
	if reason, pinned := s.rs.Pinned(); pinned {
		s.fatal(pinLost(reason))
		return
	}
	if s.status != 'I' {
		s.lost, s.status = lostUnsaid, 'E'
	}
}

// lostBefore: the server went before it got to any of the turn.
func (s *session) lostBefore() {
	if reason, pinned := s.rs.Pinned(); pinned {
		s.fatal(pinLost(reason))
		return
	}
	if s.status != 'I' {
		s.lost, s.status = lostSaid, 'E'
		s.refuse(transactionLost(s.loss))
		return
	}
	s.rerun(s.turn.route)
}

// lostInTurn tells the client what is known of a turn whose server died, unless it can be run again.
func (s *session) lostInTurn(srv *backend.Server) {
	t := s.turn
	if t.mayGoElsewhere() && t.retryClass() == router.RetrySafe && (s.loss != serverGone || t.mayLoseAnother()) {
		if s.loss == serverGone {
			s.waited = s.proxy.now() // it has been running, not waiting
		}
		t.tried = append(t.tried, t.node)
		s.proxy.stats.rerun("lost")
		s.rerun(t.elsewhere())
		return
	}
	if s.inMessage(srv) {
		s.finish() // nothing can be said any more
		return
	}
	if reason, pinned := s.rs.Pinned(); pinned {
		s.fatal(pinLost(reason))
		return
	}
	s.undoReplies()
	reason := s.lossReason()
	switch {
	case t.ready: // all is answered, only the client is not done sending
		if s.status != 'I' {
			s.lost, s.status = lostUnsaid, 'E'
		}
		s.stray, t.rest = s.stray+t.rest, 0
		s.turnOver()
		s.proceed()
		return
	case reason.code == "40001" && (t.began != 'I' || !t.onlyBegins()):
		s.lost, s.status = lostSaid, 'E'
	default: // a BEGIN that fails begins nothing
		s.status = 'I'
		s.portal, s.portals = nil, nil
	}
	s.phase = phaseIdle
	s.deny(reason)
}

// mayRerun says whether the turn could be run a second time if its answer is lost or refused
// before any of it is at the client.
func (s *session) mayRerun() bool {
	t := s.turn
	if s.status != 'I' || t.open {
		return false
	}
	return t.route.Target == router.Standby || t.route.Target == router.Primary && (t.reads() || t.onlyBegins())
}

// onlyBegins says whether the turn is a lone BEGIN: nothing is lost with the server that it was sent to.
// Drivers take its failure for a broken connection.
func (t *turn) onlyBegins() bool {
	return len(t.executed) == 1 && t.executed[0].Statements == 1 && len(t.executed[0].Effects) == 1 &&
		t.executed[0].Effects[0].Kind == router.EffectBegin
}

// reads says whether the turn does nothing but read, wherever it was sent.
func (t *turn) reads() bool {
	for _, v := range t.verdicts {
		if v.Route.Target != router.Standby || v.Retry != router.RetrySafe {
			return false
		}
	}
	return len(t.verdicts) > 0
}

// lossReason says what is known of a turn whose server is gone.
func (s *session) lossReason() *refusal {
	t := s.turn
	ends := false
	for _, v := range t.verdicts {
		ends = ends || v == tooLong // nobody knows
		for i := range v.Effects {
			k := v.Effects[i].Kind
			ends = ends || k == router.EffectCommit || k == router.EffectPrepareTransaction ||
				t.began == 'I' && (k == router.EffectRollback || k == router.EffectDiscardAll)
		}
	}
	switch {
	case !ends && (t.began != 'I' || t.begins()):
		return transactionLost(s.loss)
	case t.began == 'I' && t.reads():
		return serverUnreachable()
	}
	return outcomeUnknown(s.loss)
}

// begins says whether nothing of a turn that came outside a transaction can be committed before a COMMIT:
// a Query with BEGIN in it, which is one transaction from its first statement on, or a pipeline whose
// first statement is BEGIN.
func (t *turn) begins() bool {
	if len(t.executed) == 0 || !t.endsItself() && t.executed[0].Statements != 1 {
		return false
	}
	for i := range t.executed[0].Effects {
		if t.executed[0].Effects[i].Kind == router.EffectBegin {
			return true
		}
	}
	return false
}

// maxLosses is how many servers a lone read may lose. It may be what makes them crash.
const maxLosses = 2

// mayLoseAnother counts a loss; false when the turn is not to be run again.
func (t *turn) mayLoseAnother() bool {
	t.losses++
	return t.losses <= maxLosses
}

// answerLost speaks for a transaction whose server is gone: the first turn reads why, all others
// that it is aborted, until one statement ends it. What comes with more statements in the same turn
// is refused, too: nobody could run those behind the end.
func (s *session) answerLost() {
	t := s.turn
	ends, asks := t.endsLost(), false
	for i := range t.ops {
		switch t.ops[i].typ {
		case 'P', 'B', 'D', 'E', 'Q', 'F':
			asks = true
		}
	}
	if asks && !ends {
		r := inLostTransaction()
		if s.lost == lostUnsaid {
			r = transactionLost(s.loss)
		}
		s.lost = lostSaid
		s.refuse(r)
		return
	}
	if ends {
		unsaid := s.lost == lostUnsaid
		s.lost, s.status = notLost, 'I'
		s.portal, s.portals = nil, nil
		s.rs.Done(rolledBack, router.TxIdle, router.Succeeded)
		if unsaid && t.commits() {
			// The client does not know yet that there is nothing left to commit.
			s.refuse(transactionLost(s.loss))
			return
		}
	}
	b := t.answer(s.proxy.scratch[:0], localAnswer{tag: "ROLLBACK"})
	if t.open {
		s.link.Write(b)
		s.phase = phaseSkip
		return
	}
	s.link.Write(wire.AppendReady(b, s.status))
	s.turnOver()
}

// endsLost says whether the turn executes one statement, and that one ends the transaction.
func (t *turn) endsLost() bool {
	if len(t.executed) != 1 || t.executed[0].Statements != 1 || len(t.executed[0].Effects) != 1 {
		return false
	}
	e := &t.executed[0].Effects[0]
	return (e.Kind == router.EffectCommit || e.Kind == router.EffectRollback) && e.Modes&router.ModeChain == 0
}

// commits says whether the turn asks for COMMIT.
func (t *turn) commits() bool {
	return len(t.executed) == 1 && len(t.executed[0].Effects) == 1 && t.executed[0].Effects[0].Kind == router.EffectCommit
}

var rolledBack = []*router.Verdict{{Statements: 1, Effects: []router.Effect{{Kind: router.EffectRollback}}}}
