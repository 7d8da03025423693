package proxy

import (
	"errors"
	"slices"
	"time"

	"github.com/cstproxy/cstproxy/balancer"
	"github.com/cstproxy/cstproxy/ha/topology"
	"github.com/cstproxy/cstproxy/proxy/backend"
	"github.com/cstproxy/cstproxy/router"
)

// place finds the server for a turn whose first part is complete.
func (s *session) place() {
	t := s.turn
	if s.lost != notLost {
		s.answerLost()
		return
	}
	if s.answerLocally() {
		return
	}
	t.route = s.rs.Route(t.verdicts)
	s.waited = s.proxy.now()
	if s.held != nil {
		s.goOn()
		return
	}
	t.route = s.overrule(t.route)
	s.seek()
}

// overrule applies what stands above the router: the listener, and turns that go on after a Flush,
// whose rest is not known.
func (s *session) overrule(r router.Route) router.Route {
	switch {
	case s.mode == ListenStandby:
		return router.Route{Target: router.Standby, Why: "read-only listener"}
	case s.mode == ListenPrimary:
		return router.Route{Target: router.Primary, Why: "primary listener"}
	case s.turn.open:
		return router.Route{Target: router.Primary, Why: "flush before sync"}
	case r.Target == router.Standby && s.cluster.catalog.Knowledge(s.database) == nil:
		return router.Route{Target: router.Primary, Why: "catalogue not read yet"}
	case r.Target == router.Standby && s.turn.mayPin():
		return router.Route{Target: router.Primary, Why: "several statements that change the session"}
	case r.Target == router.Pinned:
		// The server that it was pinned to is gone, and so is the state.
		return router.Route{Target: router.Primary, Why: r.Why}
	}
	return r
}

// mayPin says whether the turn could tie the session to its server by failing half-way: then it had
// better be one that can do anything.
func (t *turn) mayPin() bool {
	statements, changes := 0, false
	for _, v := range t.executed {
		statements += v.Statements
		for i := range v.Effects {
			switch v.Effects[i].Kind {
			case router.EffectSet, router.EffectReset, router.EffectResetAll, router.EffectDiscard, router.EffectDiscardAll,
				router.EffectDeallocate, router.EffectDeallocateAll, router.EffectPin, router.EffectUnpin, router.EffectRoute:
				changes = true
			}
		}
	}
	return changes && statements > 1
}

// seek asks for a server of the right kind; send, refuse, or a wait follows.
func (s *session) seek() {
	t := s.turn
	if srv := s.keptStandby(); srv != nil && s.proved(srv) {
		s.send(srv)
		return
	}
	node, why := s.chooseNode()
	if why == balancer.NotReplayed && s.park() {
		return
	}
	closed := ""
	if node != 0 && node == s.cluster.view.Primary {
		if closed = s.cluster.closed(); closed != "" {
			node, why = s.withoutPrimary(), ""
		}
	}
	if node == 0 {
		s.holdTurn(closed)
		return
	}
	if why != "" {
		t.route.Why = why
	}
	if kept := s.keptFor(node); kept != nil {
		if s.proved(kept) {
			s.send(kept)
		} else {
			s.seekOther(kept)
		}
		return
	}
	t.node = node
	srv, err := s.cluster.acquire(s, node)
	switch {
	case err != nil:
		s.Refused(err)
	case srv != nil && s.proved(srv):
		s.send(srv)
	case srv != nil:
		srv.Release(backend.Clean)
		s.seekOther(srv)
	default:
		s.waitFor(phaseWaiting, s.proxy.cfg.WaitTimeout)
	}
}

// proved says whether what the balancer knows of a standby counts for this connection to it: whoever has
// restarted lets clients in before it has replayed everything again, and a member that stood still, or was
// cut off, learns of the restart last. So a read that must see a write goes by a connection whose node has
// answered since it was made.
func (s *session) proved(srv *backend.Server) bool {
	v := s.cluster.view
	if srv.Proved || srv.Key.Node == v.Primary || s.turn.route.Target != router.Standby || s.mode == ListenStandby ||
		!s.cluster.balancer.Demands(balancer.Need{Ticket: s.ticket}) {
		return true
	}
	n := v.Node(srv.Key.Node)
	srv.Proved = n != nil && v.Rounds.ProvedSince(n.Slot, srv.Born)
	return srv.Proved
}

// seekOther leaves a node out by whose connection nothing was proved yet.
func (s *session) seekOther(srv *backend.Server) {
	s.turn.unproved = append(s.turn.unproved, srv.Key.Node)
	s.phase = phaseIdle
	s.seek()
}

// park lets a read wait a moment for a standby that has replayed the session's own write, as long as
// consistency_wait allows it.
func (s *session) park() bool {
	if s.mode == ListenStandby || s.proxy.now().Sub(s.waited) >= s.cluster.balancer.Wait() {
		return false
	}
	s.waitFor(phaseParked, parkStep)
	return true
}

// parkStep is how often a parked read asks again: the monitor's rounds are 10 ms apart then.
const parkStep = 5 * time.Millisecond

// chooseNode picks the node; 0 means that there is none now. why replaces the router's reason
// when the balancer decided otherwise.
func (s *session) chooseNode() (topology.NodeID, string) {
	t, v := s.turn, s.cluster.view
	if t.route.Target != router.Standby {
		for _, tried := range t.tried {
			if tried == v.Primary {
				return 0, ""
			}
		}
		return v.Primary, ""
	}
	need := balancer.Need{Ticket: s.ticket, Exclude: t.tried, Unproved: t.unproved}
	if s.mode == ListenStandby {
		return s.cluster.readOnly.Pick(v, need, s.proxy.now())
	}
	return s.cluster.balancer.Pick(v, need, s.proxy.now())
}

func (s *session) waitFor(p phase, atMost time.Duration) {
	s.phase = p
	s.turn.own()
	if atMost > 0 {
		s.arm(atMost)
	}
}

// Granted brings the server that was waited for (backend.Waiter).
func (s *session) Granted(srv *backend.Server) {
	s.disarm()
	switch s.phase {
	case phaseWaiting:
		if s.proved(srv) {
			s.send(srv)
		} else {
			srv.Release(backend.Clean)
			s.seekOther(srv)
		}
		s.proceed() // more of an open turn may have come meanwhile
	case phaseLogin:
		s.loginGranted(srv)
	default:
		srv.Release(backend.Clean)
	}
}

// Refused says that the pool that was asked will not give a server (backend.Waiter). Another node
// may: for a read the balancer is asked again, a turn for the primary is held.
func (s *session) Refused(err error) {
	if s.phase == phaseLogin {
		s.loginRefused(err)
		return
	}
	defer s.proceed()
	s.disarm()
	var node *backend.NodeError
	var refusal *backend.ServerError
	switch {
	case errors.As(err, &node):
		if s.turn.route.Target == router.Standby && len(s.turn.tried) < maxTries {
			s.turn.tried = append(s.turn.tried, node.Node)
			s.phase = phaseIdle
			s.seek()
			return
		}
		s.holdTurn("")
	case errors.As(err, &refusal):
		// The server's own words, as an error of this turn.
		s.refuse(fromServer(refusal))
	default:
		s.refuse(refusalFor(err))
	}
}

// maxTries is how many nodes a read may be refused by before it is held like a write.
const maxTries = 8

// again is called when the View changed, or some time after a node could not be reached: a held
// turn or login asks once more.
func (s *session) again() {
	switch s.phase {
	case phaseHeld:
		s.disarm()
		s.turn.tried, s.turn.unproved = s.turn.tried[:0], s.turn.unproved[:0]
		if s.held != nil {
			s.goOn()
		} else {
			s.seek()
		}
		s.proceed()
	case phaseLogin:
		if !s.wait.Waiting() && s.held == nil {
			s.seekLoginServer()
		}
	}
}

// expired is the session's alarm.
func (s *session) expired() {
	s.alarmed = false
	switch s.phase {
	case phaseStartup, phaseSecuring, phaseCancelling, phaseVerifier, phaseAuth:
		s.log.Debug("login took too long")
		s.fatal(loginTimeout())
	case phaseLogin:
		s.fatal(notHeldLonger(s.whyHeld(), s.proxy.now().Sub(s.waited).Round(time.Millisecond)))
	case phaseIdle:
		s.idleExpired()
	case phaseHeld:
		s.holdOver()
	case phaseParked:
		s.turn.unproved = s.turn.unproved[:0]
		s.seek()
		s.proceed()
	case phaseWaiting:
		s.wait.Leave()
		if closed := s.cluster.closed(); closed != "" && s.turn.node == s.cluster.view.Primary {
			s.holdTurn(closed) // there may be connections enough: what they say waits for the lease
			return
		}
		s.refuse(waitedTooLong(s.proxy.now().Sub(s.waited).Round(time.Millisecond)))
	case phaseTurn, phaseCopyIn, phasePreparing:
		s.proxy.cancelQuery(s.held, s.cluster)
	}
}

func (s *session) idleExpired() {
	if s.status != 'I' {
		s.fatal(idleInTransaction())
		return
	}
	s.fatal(idleTooLong())
}

func (s *session) armIdle() {
	d := s.proxy.cfg.ClientIdleTimeout
	if s.status != 'I' {
		d = s.proxy.cfg.IdleTransactionTimeout
	}
	s.disarm()
	if d > 0 {
		s.arm(d)
	}
}

func (s *session) arm(d time.Duration) {
	s.alarmed = true
	s.timer.Set(d)
}

func (s *session) disarm() {
	if s.alarmed {
		s.alarmed = false
		s.timer.Stop()
	}
}

// keptFor is the connection that session pooling keeps to a node.
func (s *session) keptFor(node topology.NodeID) *backend.Server {
	for _, srv := range s.kept {
		if srv != nil && srv.Key.Node == node && !srv.Doomed() {
			return srv
		}
	}
	return nil
}

// keptStandby is the standby connection that session pooling keeps, if it may serve this read: it
// stays with its node instead of taking turns.
func (s *session) keptStandby() *backend.Server {
	srv, t, v := s.kept[router.Standby], s.turn, s.cluster.view
	if srv == nil || srv.Doomed() || t.route.Target != router.Standby || slices.Contains(t.tried, srv.Key.Node) {
		return nil
	}
	n := v.Node(srv.Key.Node)
	if n == nil || !n.TakesReads() || !v.Rounds.Satisfied(n.Slot, s.ticket, v.Epoch) {
		return nil
	}
	return srv
}

// keepServer makes srv one of the connections that session pooling keeps: the first to a primary,
// the second to a standby.
func (s *session) keepServer(srv *backend.Server) {
	slot := router.Primary
	if srv.Key.Node != s.cluster.view.Primary {
		slot = router.Standby
	}
	s.unkeep(srv) // a standby that was promoted stands in the other place
	if old := s.kept[slot]; old != nil {
		old.Release(backend.Reset)
	}
	s.kept[slot] = srv
}
