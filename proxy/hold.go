package proxy

import (
	"cmp"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/proxy/backend"
	"github.com/cstproxy/cstproxy/router"
)

// holdQueue is who waits for a node to exist, or for the permission to use the primary, oldest first.
type holdQueue struct {
	first, last  *session
	count, bytes int
}

// holdPlace is a session's place in it.
type holdPlace struct {
	in         *holdQueue // nil: the session does not wait there
	prev, next *session
	bytes      int // of its request
}

func (q *holdQueue) push(s *session, bytes int) {
	s.hold = holdPlace{in: q, prev: q.last, bytes: bytes}
	if q.last != nil {
		q.last.hold.next = s
	} else {
		q.first = s
	}
	q.last = s
	q.count++
	q.bytes += bytes
}

// leaveHold gives the place up, if there is one.
func (s *session) leaveHold() {
	h := s.hold
	q := h.in
	if q == nil {
		return
	}
	if h.prev != nil {
		h.prev.hold.next = h.next
	} else {
		q.first = h.next
	}
	if h.next != nil {
		h.next.hold.prev = h.prev
	} else {
		q.last = h.prev
	}
	q.count--
	q.bytes -= h.bytes
	s.hold = holdPlace{}
	s.proxy.stats.HeldTurns.Add(-1)
}

// enqueue lets a session wait for a node; false when too many wait already, or too many bytes of what
// they ask. One request is always taken, however long it is.
func (c *cluster) enqueue(s *session) bool {
	if s.hold.in != nil {
		return true
	}
	bytes := len(s.in) // the request may still be among them
	if s.turn != nil {
		bytes = max(bytes, len(s.turn.msgs))
	}
	cfg := &c.proxy.cfg
	if c.queue.count >= cfg.MaxWaiting || c.queue.count > 0 && c.queue.bytes+bytes > cfg.HoldBytes {
		return false
	}
	if c.queue.count == 0 {
		c.asked = c.proxy.now()
	}
	c.queue.push(s, bytes)
	c.proxy.stats.HeldTurns.Add(1)
	c.proxy.watch()
	return true
}

// holdTurn lets the turn wait until there is a node for it, at most hold_writes. closed is why the
// primary may not be used, if there is one.
func (s *session) holdTurn(closed string) {
	c := s.cluster
	s.account()
	left := s.proxy.cfg.HoldWrites - s.proxy.now().Sub(s.waited)
	switch {
	case left <= 0:
		s.holdOver()
		return
	case !c.enqueue(s):
		s.phase = phaseHeld
		s.endHold(holdFull(s.whyHeld()))
		return
	}
	c.unleased = c.unleased || closed == noLease
	c.noteHeld(s.whyHeld())
	s.waitFor(phaseHeld, left)
	s.account()
}

// holdWaiters lets those who wait for a connection to the primary wait for the View to thaw instead,
// in their order: hold_writes is their bound from now on.
func (c *cluster) holdWaiters() {
	var waiters []*session
	for s := range c.proxy.sessions {
		if s.cluster == c && s.phase == phaseWaiting && s.turn.node == c.view.Primary {
			waiters = append(waiters, s)
		}
	}
	slices.SortFunc(waiters, func(a, b *session) int { return cmp.Or(a.wait.Since.Compare(b.wait.Since), cmp.Compare(a.id, b.id)) })
	for _, s := range waiters {
		if s.phase != phaseWaiting {
			continue // it went with another one
		}
		s.wait.Leave()
		s.disarm()
		s.waited = c.proxy.now()
		s.seek()
		s.proceed()
	}
}

// holdOver ends a wait that has lasted hold_writes.
func (s *session) holdOver() {
	s.phase = phaseHeld
	if s.held == nil && s.turn.route.Target == router.Standby && s.mode == ListenStandby {
		s.endHold(noStandby())
		return
	}
	s.endHold(notHeldLonger(s.whyHeld(), s.proxy.now().Sub(s.waited).Round(time.Millisecond)))
}

// endHold ends a wait with an error of ours. A transaction whose statement could not be sent is over.
func (s *session) endHold(r *refusal) {
	s.leaveHold()
	if s.held == nil || s.status == 'I' {
		s.refuse(r)
		return
	}
	s.cutOff(leaseOver)
}

// cancelHeld ends a wait at the client's wish. A transaction fails as it does by any error: its server,
// which cannot be told now, is given up with what it has of it.
func (s *session) cancelHeld() {
	s.leaveHold()
	if s.held == nil || s.status == 'I' {
		s.refuse(cancelled())
		return
	}
	if _, pinned := s.rs.Pinned(); pinned {
		s.cutOff(leaseOver)
		return
	}
	srv := s.held
	s.openGate()
	s.unkeep(srv)
	srv.Release(backend.Close)
	s.held, s.dirty, s.stand = nil, false, s.stand[:0]
	s.lost, s.status = lostSaid, 'E'
	s.refuse(cancelled())
}

// whyHeld is what a held client reads.
func (s *session) whyHeld() string {
	c := s.cluster
	if c.view.Primary == 0 {
		return whyNoPrimary(c.view.WhyNoPrimary)
	}
	why := ""
	if s.held != nil {
		why = s.blocked()
	} else {
		why = c.closed()
	}
	if why == "" {
		return whyNoPrimary("")
	}
	return "the cluster's primary takes no requests now: " + why
}

// While anything is held on a loop it looks every watchStep whether that can go on: a lease that is
// renewed tells nobody. New Views wake at once.
const watchStep = 25 * time.Millisecond

// retryHeldAfter is how often those who wait for a node ask again while neither a View nor a lease
// tells them to: the node may be in the View and still refuse connections for a moment.
const retryHeldAfter = 100 * time.Millisecond

func (p *Proxy) watch() {
	if !p.watching {
		p.watching = true
		p.retry.Set(watchStep)
	}
}

func (p *Proxy) lookAgain() {
	p.watching = false
	for _, c := range p.clusters {
		c.lookAgain()
	}
}

func (c *cluster) lookAgain() {
	c.reconsiderAnswers()
	if c.queue.count > 0 {
		now := c.proxy.now()
		if c.leaseDecided() || now.Sub(c.asked) >= retryHeldAfter {
			c.asked = now
			c.wakeHeld()
		}
	}
	c.welcome()
	if c.queue.count > 0 || len(c.gated) > 0 {
		c.proxy.watch()
		return
	}
	c.endEpisode()
}

// wakeHeld lets all who wait for a node ask again, in their order.
func (c *cluster) wakeHeld() {
	c.unleased = false
	for n := c.queue.count; n > 0 && c.queue.first != nil; n-- {
		s := c.queue.first
		s.leaveHold()
		s.again()
	}
}

// welcome opens connections to the node that is about to be promoted, one for each request that waits: a
// login costs a server the start of a process, and all would want it at the moment when it becomes primary.
func (c *cluster) welcome() {
	heir := c.view.Heir
	if heir == 0 {
		return
	}
	waiting := map[backend.Key]int{}
	for s := c.queue.first; s != nil; s = s.hold.next {
		waiting[c.key(s, heir)]++
	}
	for key, n := range waiting {
		c.pools.Warm(key, n)
	}
}

// episode is a time in which something is held, for the log: one line when it begins and one when it
// is over, however many sessions there are.
type episode struct {
	began          time.Time // zero: nothing is held
	turns, answers int       // the most that was held at one time
}

func (c *cluster) noteHeld(why string) {
	e := &c.episode
	e.turns, e.answers = max(e.turns, c.queue.count), max(e.answers, len(c.gated))
	if !e.began.IsZero() {
		return
	}
	e.began = c.proxy.now()
	c.proxy.log.Info("requests for the primary are held", zap.String("cluster", c.Name), zap.Uint64("epoch", uint64(c.view.Epoch)), zap.String("why", why))
}

func (c *cluster) endEpisode() {
	e := c.episode
	if e.began.IsZero() {
		return
	}
	c.episode = episode{}
	c.proxy.log.Info("nothing is held any more", zap.String("cluster", c.Name), zap.Uint64("epoch", uint64(c.view.Epoch)),
		zap.Duration("lasted", c.proxy.now().Sub(e.began)), zap.Int("most_requests", e.turns), zap.Int("most_answers", e.answers))
}
