package proxy

import (
	"cmp"
	"slices"
	"sort"
	"time"

	"github.com/cstproxy/cstproxy/ha/topology"
	"github.com/cstproxy/cstproxy/proxy/backend"
	"github.com/cstproxy/cstproxy/router"
)

// A member may use a primary only while it holds the lease of the primary's epoch. This file is about
// the question: a new transaction goes to the primary only while the lease is held and the View is not
// frozen; a transaction that is open goes on while the lease is held. gate.go is about the answer.
// When the epoch ends, whatever was going on at its primary is cut off.

// grant is under what a session was given the server that it holds.
type grant struct {
	primary bool            // the node was the primary of the View
	lease   *topology.Lease // of that epoch; nil when none is needed
}

func (c *cluster) grantFor(node topology.NodeID) grant {
	if node == 0 || node != c.view.Primary {
		return grant{}
	}
	return grant{primary: true, lease: c.view.Lease}
}

// closed says why no new transaction may go to the primary now; empty when one may. The newest View is
// asked, which may be on its way to this loop: whoever publishes one that is frozen, and then finds no
// open write (OpenWrites), can rely on it that none follows.
func (c *cluster) closed() string {
	if why := c.Board.View().Frozen; why != "" {
		return why
	}
	if l := c.view.Lease; l != nil && !l.Held(c.proxy.batchTime()) {
		return noLease
	}
	return ""
}

const noLease = "this member's lease of the primary has run out"

// leaseDecided says that a lease for which somebody waits has been renewed, or has ended.
func (c *cluster) leaseDecided() bool {
	l := c.view.Lease
	return c.unleased && (l == nil || l.Ended() || l.Held(c.proxy.boottime()))
}

// batchTime is the lease's clock as of the loop's present batch of events: exact enough for questions,
// whose answers are checked against the clock itself.
func (p *Proxy) batchTime() int64 {
	if now := p.now(); !now.Equal(p.batch) {
		p.batch, p.batchBoot = now, p.boottime()
	}
	return p.batchBoot
}

// blocked says why the turn, of which nothing has been sent, may not go to the server that the session
// holds now; empty when it may.
func (s *session) blocked() string {
	g := &s.grant
	if !g.primary {
		return ""
	}
	if s.status == 'I' {
		if why := s.cluster.Board.View().Frozen; why != "" {
			return why
		}
	}
	if g.lease != nil && !g.lease.Held(s.proxy.batchTime()) {
		return noLease
	}
	return ""
}

// goOn sends the turn to the server that the session holds.
func (s *session) goOn() {
	if l := s.grant.lease; l != nil && l.Ended() {
		s.cutOff(primaryReplaced)
		return
	}
	s.send(s.held)
}

// withoutPrimary finds another node for a read while the primary may not be used; 0: there is none.
func (s *session) withoutPrimary() topology.NodeID {
	if s.turn.route.Target != router.Standby {
		return 0
	}
	tried := s.turn.tried
	s.turn.tried = append(slices.Clip(tried), s.cluster.view.Primary)
	node, _ := s.chooseNode()
	s.turn.tried = tried
	return node
}

// account keeps count of the sessions that have a transaction open on the primary, or a turn. One that
// waits to be sent is none: a switchover would wait for it, and it for the switchover.
func (s *session) account() {
	open := s.held != nil && s.grant.primary && (s.turn != nil && s.phase != phaseHeld || s.status != 'I')
	if open == s.counted {
		return
	}
	s.counted = open
	if open {
		s.cluster.writes.Add(1)
	} else {
		s.cluster.writes.Add(-1)
	}
}

// OpenWrites counts the sessions of a cluster that have a transaction open on its primary, or a turn
// under way there, a lone read included. Any goroutine may call it, at any time. 0 when there is no
// such cluster. After a frozen View was published it only falls.
func (p *Proxy) OpenWrites(cluster string) int {
	for _, c := range p.clusters {
		if c.Name == cluster {
			return int(c.writes.Load())
		}
	}
	return 0
}

// PrimaryUse is how a member uses the primary of a cluster at one moment.
type PrimaryUse struct {
	Cluster    string
	OpenWrites int
	// Leased says that the primary may be used only under a lease, and Remaining for how long from now
	// on this member holds it, to the millisecond and at most a minute; 0 when it does not.
	Leased    bool
	Remaining time.Duration
}

// Primaries lists how the clusters' primaries are used. Any goroutine may call it.
func (p *Proxy) Primaries() []PrimaryUse {
	list := make([]PrimaryUse, len(p.clusters))
	for i, c := range p.clusters {
		list[i] = PrimaryUse{Cluster: c.Name, OpenWrites: int(c.writes.Load())}
		if l := c.Board.View().Lease; l != nil {
			now := p.boottime()
			ms := sort.Search(int(time.Minute/time.Millisecond), func(ms int) bool { return !l.Held(now + int64(ms)*int64(time.Millisecond)) })
			list[i].Leased, list[i].Remaining = true, time.Duration(ms)*time.Millisecond
		}
	}
	return list
}

// regrant follows a View of another epoch, primary or lease: sessions that hold the primary of an epoch
// that is over are cut off, and those that hold a node which is the primary now need its lease.
func (c *cluster) regrant(old *topology.View) {
	v := c.view
	if v.Epoch == old.Epoch && v.Primary == old.Primary && v.Lease == old.Lease {
		return
	}
	var holders []*session
	for s := range c.proxy.sessions {
		if s.cluster == c && s.held != nil {
			holders = append(holders, s)
		}
	}
	slices.SortFunc(holders, func(a, b *session) int { return cmp.Compare(a.id, b.id) })
	for _, s := range holders {
		if s.held == nil {
			continue
		}
		node := s.held.Key.Node
		switch {
		case s.grant.primary && v.Epoch != old.Epoch && (node != v.Primary || s.grant.lease != nil):
			s.cutOff(primaryReplaced)
		case node == v.Primary && (v.Lease != nil || !s.grant.primary) && s.phase != phaseLogin:
			s.grant = c.grantFor(node)
			s.account()
		}
	}
}

// loss says why a session is without the server that it held.
type loss uint8

const (
	serverGone      loss = iota // its connection ended
	primaryReplaced             // the epoch of the primary is over
	leaseOver                   // there was no lease for longer than requests are held
)

// cutOff gives up the server that the session holds, because its word does not count any more, and
// tells the client what is known of what was sent.
func (s *session) cutOff(why loss) {
	srv, t := s.held, s.turn
	s.leaveHold()
	if t != nil {
		s.waited = s.proxy.now()
		if !s.gate.since.IsZero() {
			s.waited = s.gate.since
		}
		if t.rest > 0 {
			srv.Link.Close() // no Terminate into the middle of a message
		}
	}
	s.openGate()
	s.unkeep(srv)
	srv.Release(backend.Close)
	s.serverLost(srv, why)
	s.proceed()
}
