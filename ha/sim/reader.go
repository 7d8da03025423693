package sim

import (
	"time"

	"github.com/cstproxy/cstproxy/balancer"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// session is what a client's reads need: what it was told, and what the proxy keeps of that.
type session struct {
	ticket      topology.Ticket
	consistency balancer.Consistency
	told        []int // the newest of its writes that it was told are committed, by rising number
}

// stamp is called before the client is told of a success.
func (c *client) stamp(id int) {
	b := c.m.library
	c.session.ticket = b.balancer.Stamp(b.view())
	c.session.told = remember(c.session.told, id)
	b.told = remember(b.told, id)
	c.m.w.aside(func() {
		if c.m.w.chance(0.3) {
			c.m.w.scheduleAside(c.m.w.upTo(readWithin), c.m.process, func() { c.read(c.session) })
		}
	})
}

func remember(told []int, id int) []int {
	if len(told) > 2*remembered {
		told = append([]int(nil), told[len(told)-remembered:]...) // readers hold the old one
	}
	return append(told, id)
}

// reads begins a new session, and has it read now and then, whatever its writes come to.
func (c *client) reads() {
	c.session = session{consistency: balancer.Session}
	if c == c.m.clients[len(c.m.clients)-1] {
		c.session.consistency = balancer.Cluster
	}
	if c.m.w.plan.without == Tickets {
		c.session.consistency = balancer.Eventual
	}
	c.former = c.session
	var again func()
	again = func() {
		switch {
		case c.m.w.chance(0.1):
			c.former = c.session
		case c.m.w.chance(0.5):
			c.read(c.former)
		default:
			c.read(c.session)
		}
		c.m.w.scheduleAside(c.m.w.between(readPause/4, readPause), c.m.process, again)
	}
	c.m.w.aside(func() { c.m.w.scheduleAside(c.m.w.upTo(readPause), c.m.process, again) })
}

// read is one lone read: the balancer chooses, the server answers with what it has replayed.
func (c *client) read(s session) {
	m, w, b := c.m, c.m.w, c.m.library
	must := s.told
	if s.consistency == balancer.Cluster {
		must = b.told
	}
	v, now := b.view(), time.Unix(0, 0).Add(m.now())
	id, _ := b.balancer.Pick(v, balancer.Need{Ticket: s.ticket, Consistency: s.consistency}, now)
	select {
	case <-b.rounds.Wake():
		b.wished = w.now
		b.appoint(b.began + roundWanted - w.now)
	default:
	}
	n := w.node(id)
	if n == nil {
		return
	}
	w.sendAside(m.host, n.host, n.postmaster, func() {
		life := n.postmaster.life
		if kept := b.pool[n]; !n.taking() || n.crowded || kept != 0 && kept != life {
			w.sendAside(n.host, m.host, m.process, func() {
				b.pool[n] = 0
				b.balancer.Failed(id, now)
				b.lost(n)
			})
			return
		}
		log := n.wal[:n.replayed]
		w.sendAside(n.host, m.host, m.process, func() {
			b.pool[n] = life
			b.balancer.Succeeded(id)
			if id == v.Primary && (m.holder.Epoch() != v.Epoch || !m.holder.Held(m.now())) {
				return // what the primary says is passed on only under the lease
			}
			w.judge.read(answer{m, s, n, log, must})
		})
	})
}

func (s *session) name() string {
	if s.consistency == balancer.Cluster {
		return "client that sees all writes"
	}
	return "client"
}
