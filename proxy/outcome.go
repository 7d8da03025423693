package proxy

import (
	"bytes"

	"github.com/cstproxy/cstproxy/ha/topology"
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
	switch ours := s.phase == phasePreparing || s.phase == phaseLogin || t != nil && t.hidden(); {
	case ours && last:
		return r.brokeOff()
	case ours:
		return r.settingsRefused(body)
	case last && r.goesAway(code):
		r.wentAway(body, code)
		return backend.Swallow
	case t == nil:
		s.last = s.last || last
		return backend.Forward
	}
	if r.refreshPlan(body, code) {
		return backend.Swallow
	}
	if t.mayGoElsewhere() && s.runElsewhere(r, code, last) {
		return backend.Swallow
	}
	r.injected()
	t.failed, t.decided = true, true
	s.last = s.last || last
	renamed := t.clientNames(msg)
	s.skipReplies()
	if renamed != nil {
		r.insert(renamed)
		return backend.Swallow
	}
	return backend.Forward
}

// clientNames puts the client's own name of a statement into an error that the server gave for it;
// nil when there is nothing to be done.
func (t *turn) clientNames(msg []byte) []byte {
	x := t.replies.first()
	if x == nil || x.op.unnamed || x.op.typ != 'B' && x.op.typ != 'D' {
		return nil
	}
	theirs, ours := "?\"", "\""
	if st := x.op.stmt; st != nil {
		theirs, ours = "\""+st.Name+"\"", "\""+st.name+"\""
	}
	body := wire.Body(msg)
	text := wire.ErrorField(body, 'M')
	if !bytes.Contains(text, []byte(theirs)) || theirs == ours || !bytes.Contains(text, []byte(sharedName)) {
		return nil
	}
	return wire.ReplaceField(msg, 'M', bytes.Replace(text, []byte(theirs), []byte(ours), 1))
}

// sharedName is how PostgreSQL's messages name a statement that sessions share.
const sharedName = "prepared statement \"cst_"

// mayGoElsewhere says whether nothing of the answer is at the client yet.
func (t *turn) mayGoElsewhere() bool { return t.rerunnable && !t.forwarded && !t.decided }

// runElsewhere runs a lone read again after a standby refused it or broke off, if that is safe.
func (s *session) runElsewhere(r *reader, code string, last bool) bool {
	t := s.turn
	class := t.retryClass()
	lost := last || code == "40001" || code == "40P01" || code[:min(2, len(code))] == "57"
	switch {
	case lost && code != "57014" && class == router.RetrySafe && (!last || t.mayLoseAnother()):
		t.tried = append(t.tried, t.node)
		s.proxy.stats.rerun("lost")
		if last {
			s.dropServer(r.srv)
		} else {
			s.giveUp(r)
		}
		r.ended = true
		s.rerun(t.elsewhere())
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

// elsewhere is where a lone read goes that has lost its server: to a standby or, if it was meant for
// the primary, to whoever is that now.
func (t *turn) elsewhere() router.Route {
	if t.route.Target != router.Standby {
		return t.route
	}
	return router.Route{Target: router.Standby, Why: "read run again elsewhere"}
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
	if t.onlyBegins() {
		return router.RetrySafe
	}
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
	t.reported, t.failed = false, false
	s.held, s.dirty, s.stand = nil, false, s.stand[:0]
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
	if !stale || !t.renewable || t.forwarded || t.decided || t.restaled {
		return false
	}
	t.restale, t.restaled = true, true
	s.cluster.schemaChanged()
	for x := t.replies.first(); x != nil && x.kind != replySync; x = t.replies.first() {
		t.replies.pop()
	}
	return true
}

// mayRenew says whether the turn parses a named text, and runs so little that nothing can have
// taken effect when that text turns out to be stale.
func (t *turn) mayRenew() bool {
	if t.plain || t.open || t.began != 'I' || !t.single() {
		return false
	}
	for i := range t.ops {
		if t.ops[i].typ == 'P' && t.ops[i].name != "" {
			return true
		}
	}
	return false
}

// sendAgain is the second half: the server is ready again.
func (r *reader) sendAgain() backend.Disposal {
	s, t := r.s, r.s.turn
	t.restale = false
	t.replies.reset()
	t.held = t.held[:0]
	for i := range t.ops {
		if o := &t.ops[i]; o.typ == 'P' && o.name != "" && o.stmt != nil {
			fresh := s.proxy.statements.Intern([]byte(o.stmt.Text), o.stmt.Types, s.schema())
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
	failed := t.replies.first()
	parses := failed.op.unnamed && failed.kind == replyParse
	if parses {
		failed.op.prev = nil // the server dropped the older one before it looked at the text
	}
	s.undoReplies()
	if parses || failed.unnamed {
		s.held.Statements.SetUnnamed(nil)
	}
	if t.replies.empty() {
		t.open = true // the Sync is still to come from the client
		if s.phase == phaseTurn {
			s.phase = phaseSkip
		}
	}
	s.copyBroke()
}

// undoReplies drops what is owed up to the Sync, and takes back what it would have defined or
// dropped, for the session and for what is known of the server.
func (s *session) undoReplies() {
	t := s.turn
	first := t.replies.head
	for x := t.replies.first(); x != nil && x.kind != replySync; x = t.replies.first() {
		t.replies.pop()
	}
	for i := t.replies.head - 1; i >= first; i-- {
		x := &t.replies.all[i]
		s.undoOne(&x.op)
		if s.held != nil {
			s.undoOnServer(x)
		}
	}
}

// undoOnServer takes back what was noted of the server when a message was sent that it passes over.
func (s *session) undoOnServer(x *reply) {
	have := &s.held.Statements
	if x.unnamed || x.op.unnamed && (x.op.typ == 'P' || x.op.typ == 'C' || x.op.typ == 'Q') {
		have.RestoreUnnamed(x.was)
	}
	switch x.kind {
	case replyParse, replyParseHidden:
		if x.prepared != nil {
			have.Remove(x.prepared)
		}
	case replyCloseHidden:
		if x.prepared != nil {
			have.Add(x.prepared)
			have.Stale(x.prepared) // it may be there
		}
	case replyExecute:
		if x.op.drops {
			have.Doubt()
		}
	}
}

// settingsRefused: the server did not take the session's settings.
func (r *reader) settingsRefused(body []byte) backend.Disposal {
	s := r.s
	r.ended = true
	why := serverSaid(body)
	switch s.phase {
	case phaseLogin:
		// The start-up packet asked for something that the server refuses: its words, as FATAL.
		s.held = nil
		r.srv.Abandon(r.b[r.next:])
		s.fatal(why)
	case phasePreparing:
		s.held = nil
		s.unkeep(r.srv)
		r.srv.Abandon(r.b[r.next:])
		s.phase = phaseIdle
		s.refuse(stateRefused(why.message))
	default:
		s.dropServer(r.srv)
		s.held = nil
		s.fatal(stateRefused(why.message))
	}
	return backend.Swallow
}

// brokeOff: the server said its last word while it answered us, so it never got to any of the turn.
func (r *reader) brokeOff() backend.Disposal {
	s := r.s
	r.ended = true
	s.dropServer(r.srv)
	if s.phase == phaseTurn {
		s.held = nil
		s.lostBefore()
		return backend.Swallow
	}
	s.serverLost(r.srv, serverGone)
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
		s.loginPrepared(r.b[r.next:])
		return backend.Swallow
	}
	s.cluster.accept(s.want, r.srv.Key.Node)
	s.sendOn(r.srv)
	return backend.Swallow
}

// stamp notes, before the client reads of its success, which replay position makes what it may
// have written visible on a standby.
//
// A turn that was sent to the primary is always stamped, also a supposed read that a standby refused.
// A transaction is stamped at its end, too: what its statements wrote becomes visible with COMMIT,
// which by itself counts as no write. Only what ran on a standby cannot have written; that the
// primary may just be missing from the View makes no difference.
func (s *session) stamp() {
	c := s.cluster
	if n := c.view.Node(s.held.Key.Node); n != nil && n.Role == topology.RoleStandby {
		return
	}
	if s.turn.began != 'I' || s.turn.route.Target == router.Primary {
		s.ticket = c.balancer.Stamp(c.view)
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
