package proxy

import (
	"bytes"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/proxy/backend"
	"github.com/cstproxy/cstproxy/proxy/wire"
	"github.com/cstproxy/cstproxy/router"
)

// serverError judges an ErrorResponse: it is passed on as it is, or the turn is run again and the
// client never sees it.
func (r *reader) serverError(msg []byte) backend.Disposal {
	s, t := r.s, r.s.turn
	body := wire.Body(msg)
	code := string(wire.ErrorField(body, 'C'))
	last := string(wire.ErrorField(body, 'V')) != "ERROR"
	switch {
	case s.phase == phasePreparing || s.phase == phaseLogin:
		return r.settingsRefused(body)
	case t == nil:
		s.last = s.last || last
		return backend.Forward
	case t.hidden():
		return r.settingsRefused(body)
	}
	if t.mayGoElsewhere() && s.runElsewhere(r, code, last) {
		return backend.Swallow
	}
	if r.refreshPlan(body, code) {
		return backend.Swallow
	}
	r.injected()
	t.failed, t.decided = true, true
	s.last = s.last || last
	s.skipReplies()
	return backend.Forward
}

// mayGoElsewhere says whether nothing of the answer is at the client yet.
func (t *turn) mayGoElsewhere() bool { return t.rerunnable && !t.forwarded && !t.decided }

// runElsewhere runs a lone read again after a standby refused it or broke off, if that is safe.
func (s *session) runElsewhere(r *reader, code string, last bool) bool {
	t := s.turn
	class := t.retryClass()
	lost := last || code == "40001" || code == "40P01" || code[:min(2, len(code))] == "57"
	switch {
	case lost && code != "57014" && class == router.RetrySafe:
		t.tried = append(t.tried, t.node)
		s.proxy.stats.rerun("lost")
		if last {
			s.dropServer(r.srv)
		} else {
			s.giveUp(r)
		}
		r.ended = true
		s.rerun(router.Route{Target: router.Standby, Why: "read run again elsewhere"})
		return true
	case refusedByStandby(code) && class != router.RetryNever && s.mode != ListenStandby && t.node != s.cluster.view.Primary:
		if code == "25006" {
			s.learn()
		}
		s.proxy.stats.rerun("refused")
		s.giveUp(r)
		r.ended = true
		s.rerun(router.Route{Target: router.Primary, Why: "a standby refused it"})
		return true
	}
	return false
}

// refusedByStandby lists what a standby answers to a turn that the primary may well run: a write,
// something that recovery does not allow, or a name whose DDL it has not replayed yet.
func refusedByStandby(code string) bool {
	switch code {
	case "25006", "0A000", "55000", "42P01", "42703", "42883", "3F000", "42704":
		return true
	}
	return false
}

// retryClass is the most careful class among the turn's texts.
func (t *turn) retryClass() router.RetryClass {
	class := router.RetrySafe
	for _, v := range t.verdicts {
		class = min(class, v.Retry)
	}
	return class
}

// learn remembers the turn's texts as writes, when it is clear which one was refused.
func (s *session) learn() {
	t := s.turn
	if !t.single() {
		return
	}
	for i := range t.ops {
		o := &t.ops[i]
		switch {
		case o.typ == 'Q':
			text, _ := wire.ReadQuery(t.body(o))
			s.cluster.classifier.Learn(text)
		case o.typ == 'B' && o.stmt != nil:
			s.cluster.classifier.Learn([]byte(o.stmt.Text))
			o.stmt.verdict = nil
		}
	}
}

// giveUp gives up a server in the middle of its answer; it will be clean before its next use.
func (s *session) giveUp(r *reader) {
	s.unkeep(r.srv)
	r.srv.Abandon(r.b[r.next:])
}

// dropServer ends a server that said its last word.
func (s *session) dropServer(srv *backend.Server) {
	s.unkeep(srv)
	srv.Release(backend.Close)
}

// rerun starts the turn over, from its first message.
func (s *session) rerun(route router.Route) {
	t := s.turn
	t.replies.reset()
	t.held = t.held[:0]
	t.route = route
	t.syncHeld, t.reported, t.failed = false, false, false
	s.held = nil
	s.phase = phaseIdle
	s.seek()
}

// refreshPlan handles an error that a text parsed earlier, for somebody else, gives after DDL
// changed its meaning. A client that parses the text in this very turn would not get it without a
// proxy: the text is parsed anew and the turn run again, as long as nothing of it has taken effect.
// A client that relies on an older Parse reads the error, as it would directly.
func (r *reader) refreshPlan(body []byte, code string) bool {
	s, t := r.s, r.s.turn
	stale := code == "0A000" && string(wire.ErrorField(body, 'R')) == "RevalidateCachedQuery" ||
		code == "XX000" && bytes.HasPrefix(wire.ErrorField(body, 'M'), []byte("cache lookup failed"))
	if !stale || t.forwarded || t.decided || t.open || t.restaled || t.began != 'I' || t.plain || !t.single() {
		return false
	}
	parses := false
	for i := range t.ops {
		parses = parses || t.ops[i].typ == 'P' && t.ops[i].name != ""
	}
	if !parses {
		return false
	}
	t.restale, t.restaled = true, true
	s.cluster.schemaChanged()
	for x := t.replies.first(); x != nil && x.kind != replySync; x = t.replies.first() {
		t.replies.pop()
	}
	return true
}

// sendAgain is the second half: the server is ready again.
func (r *reader) sendAgain() backend.Disposal {
	s, t := r.s, r.s.turn
	t.restale = false
	t.replies.reset()
	t.held = t.held[:0]
	for i := range t.ops {
		if o := &t.ops[i]; o.typ == 'P' && o.name != "" && o.stmt != nil {
			fresh := s.proxy.statements.Intern([]byte(o.stmt.Text), o.stmt.Types, s.cluster.schema)
			o.stmt.Drop()
			o.stmt.Prepared = fresh
		}
	}
	s.sendOn(r.srv)
	return backend.Swallow
}

// skipReplies drops what the server will not answer after an error: everything up to the Sync. What
// those messages would have defined is taken back.
func (s *session) skipReplies() {
	t := s.turn
	if x := t.replies.first(); x == nil || x.kind == replyQuery {
		s.copyBroke()
		return
	}
	first := t.replies.head
	for x := t.replies.first(); x != nil && x.kind != replySync; x = t.replies.first() {
		t.replies.pop()
	}
	for i := t.replies.head - 1; i >= first; i-- {
		x := &t.replies.all[i]
		switch x.kind {
		case replyParse, replyParseDone, replyClose, replyCloseDone:
			s.undoOne(&x.op)
		}
		if x.stmt != nil {
			s.held.Statements.Remove(x.stmt.Prepared)
		}
		if x.kind == replyCloseHidden || x.op.typ == 'P' && x.op.name == "" {
			s.held.Statements.Unnamed = nil
			s.dirty = s.dirty || x.kind == replyCloseHidden
		}
	}
	if t.replies.empty() {
		t.open = true // the Sync is still to come from the client
		if s.phase == phaseTurn {
			s.phase = phaseSkip
		}
	}
	s.copyBroke()
	s.syncIfDue()
}

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
	s.held = nil
	s.disarm()
	s.log.Info("server connection lost", zap.Uint64("session", s.id), zap.Int("node", int(srv.Key.Node)), zap.Error(err))
	switch {
	case s.last:
		s.finish()
	case s.phase == phaseLogin:
		s.turn = nil
		s.seekLoginServer()
	case s.turn == nil:
		s.lostWhileIdle()
	case s.phase == phasePreparing || s.phase == phaseVerifying:
		s.rerun(s.turn.route) // nothing of it was sent
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
		// Nothing can be said before the client asks: its next turn reads 40001.
		s.lostTx, s.status = true, 'E'
	}
}

// lostInTurn tells the client what is known of a turn whose server died, unless it can be run again.
func (s *session) lostInTurn(srv *backend.Server) {
	t := s.turn
	if reason, pinned := s.rs.Pinned(); pinned {
		s.fatal(pinLost(reason))
		return
	}
	if t.mayGoElsewhere() && t.retryClass() == router.RetrySafe {
		t.tried = append(t.tried, t.node)
		s.proxy.stats.rerun("lost")
		s.rerun(router.Route{Target: router.Standby, Why: "read run again elsewhere"})
		return
	}
	if srv.Frame.Rest > 0 || len(srv.Frame.Part) > 0 {
		s.fatal(answerCut())
		return
	}
	reason := s.lossReason()
	if t.began != 'I' && reason.code == "40001" {
		s.lostTx, s.status = true, 'E'
	} else {
		s.status = 'I'
	}
	s.phase = phaseIdle
	s.refuse(reason)
}

// lossReason says what is known of a turn whose server is gone.
func (s *session) lossReason() *refusal {
	t := s.turn
	ends, reads := false, len(t.verdicts) > 0
	for _, v := range t.verdicts {
		reads = reads && v.Route.Target == router.Standby && v.Retry == router.RetrySafe
		for i := range v.Effects {
			k := v.Effects[i].Kind
			ends = ends || k == router.EffectCommit || k == router.EffectPrepareTransaction
		}
	}
	switch {
	case t.began != 'I' && !ends:
		return transactionLost()
	case t.began == 'I' && reads:
		return serverUnreachable()
	}
	return outcomeUnknown()
}

// settingsRefused: the server did not take the session's settings.
func (r *reader) settingsRefused(body []byte) backend.Disposal {
	s := r.s
	r.ended = true
	if s.phase == phaseLogin {
		// The start-up packet asked for something that the server refuses: its words, as FATAL.
		s.held = nil
		r.srv.Abandon(r.b[r.next:])
		s.fatal(&refusal{code: string(wire.ErrorField(body, 'C')), message: string(wire.ErrorField(body, 'M')),
			detail: string(wire.ErrorField(body, 'D')), hint: string(wire.ErrorField(body, 'H'))})
		return backend.Swallow
	}
	message := string(bytes.Clone(wire.ErrorField(body, 'M')))
	if s.phase == phasePreparing {
		s.held = nil
		s.unkeep(r.srv)
		r.srv.Abandon(r.b[r.next:])
		s.phase = phaseIdle
		s.refuse(stateRefused(message))
		return backend.Swallow
	}
	s.dropServer(r.srv)
	s.held = nil
	s.fatal(stateRefused(message))
	return backend.Swallow
}

// preparing takes the server's answer to the session's settings.
func (r *reader) preparing(typ byte, msg []byte) backend.Disposal {
	s := r.s
	if typ != 'Z' {
		return backend.Swallow
	}
	if len(msg) != 6 || msg[5] != 'I' {
		r.broken()
		return backend.Swallow
	}
	r.srv.Params = s.want
	if s.phase == phaseLogin {
		r.ended = true
		s.loginPrepared()
		return backend.Swallow
	}
	s.cluster.accept(s.want, r.srv.Key.Node)
	s.sendOn(r.srv)
	return backend.Swallow
}

// stamp notes, before the client reads of its success, which replay position makes what it may
// have written visible on a standby.
func (s *session) stamp() {
	c := s.cluster
	if s.held.Key.Node != c.view.Primary {
		return
	}
	for _, v := range s.turn.executed {
		if v.Route.Target != router.Standby {
			s.ticket = c.balancer.Stamp(c.view)
			return
		}
	}
}

// unkeep takes a server off the list that session pooling keeps.
func (s *session) unkeep(srv *backend.Server) {
	for i := range s.kept {
		if s.kept[i] == srv {
			s.kept[i] = nil
		}
	}
}

// fromServer makes an error of the turn of what a server said to a login.
func fromServer(e *backend.ServerError) *refusal {
	return &refusal{severity: severityError, code: e.Code, message: e.Message}
}
