package sim

import (
	"time"

	"github.com/cstproxy/cstproxy/ha/topology"
)

// client writes one transaction after the other through its member, each with a number of its own.
type client struct {
	m    *member
	busy bool // a write was sent and has no outcome yet
}

const (
	clientPatience = 5 * time.Second  // of a client for an answer
	holdAnswers    = 15 * time.Second // how long a member holds one
)

// turn is one write on its way.
type turn struct {
	id    int
	epoch topology.Epoch
	node  *node
	over  bool
}

func (c *client) boot() {
	c.busy = false
	c.m.w.schedule(c.m.w.upTo(100*time.Millisecond), c.m.process, c.next)
}

func (c *client) next() {
	m := c.m
	e := m.cluster().Epoch
	n := m.w.node(e.Primary)
	if n == nil || m.holder.Epoch() != e.Number || !m.holder.Held(m.now()) {
		m.w.schedule(20*time.Millisecond, m.process, c.next) // held: no lease, frozen, or no primary
		return
	}
	m.w.writes++
	t := &turn{id: m.w.writes, epoch: e.Number, node: n}
	c.busy = true
	m.w.net.command(m.host, n.host, n.postmaster, func() {
		if !n.taking() || !n.primary {
			m.w.net.send(n.host, m.host, m.process, func() { c.end(t) })
			return
		}
		n.commitWrite(t.id, func() {
			m.w.net.send(n.host, m.host, m.process, func() { c.answered(t, holdAnswers) })
		})
	})
	m.w.schedule(clientPatience, m.process, func() { c.giveUp(t) })
}

// answered is the gate: the server's success is passed on only under the lease of its epoch.
func (c *client) answered(t *turn, patience time.Duration) {
	m := c.m
	if t.over {
		return
	}
	if m.w.plan.without == AnswerGate || m.holder.Epoch() == t.epoch && m.holder.Held(m.now()) {
		m.w.acknowledged(m, t)
		m.looks[t.node.id].served = m.now()
		c.end(t)
		return
	}
	if m.holder.Epoch() != t.epoch || patience <= 0 {
		c.end(t) // 08007
		return
	}
	m.w.schedule(20*time.Millisecond, m.process, func() { c.answered(t, patience-20*time.Millisecond) })
}

// giveUp is the client's end of patience: it takes the outcome as unknown. While the answer is held,
// or the server is only slow, a client may be more patient than that.
func (c *client) giveUp(t *turn) {
	if c.m.w.chance(0.5) {
		c.m.w.schedule(3*clientPatience, c.m.process, func() { c.end(t) })
		return
	}
	c.end(t)
}

func (c *client) end(t *turn) {
	if t.over {
		return
	}
	t.over, c.busy = true, false
	c.m.w.schedule(c.m.w.between(10*time.Millisecond, c.m.w.plan.pause), c.m.process, c.next)
}
