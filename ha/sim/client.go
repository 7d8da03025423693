package sim

import (
	"slices"
	"time"

	"github.com/cstproxy/cstproxy/ha/topology"
)

// client writes one transaction after the other through its member, each with a number of its own.
type client struct {
	m       *member
	session session
	former  session // what the session was some time ago: that of a client that has not written since
	busy    bool    // a write was sent and has no outcome yet
	turn    *turn
}

const (
	clientPatience = 5 * time.Second  // of a client for an answer
	holdAnswers    = 15 * time.Second // how long a member holds one
)

// turn is one write on its way.
type turn struct {
	id     int
	epoch  topology.Epoch
	node   *node
	client *client
	over   bool
}

// epochEnded takes the outcome of what is under way for unknown.
func (c *client) epochEnded(now topology.Epoch) {
	if c.busy && c.turn.epoch != now {
		c.end(c.turn)
	}
}

func (c *client) boot() {
	c.busy = false
	c.reads()
	c.m.w.schedule(c.m.w.upTo(100*time.Millisecond), c.m.process, c.next)
}

func (c *client) next() {
	m := c.m
	e := m.cluster().Epoch
	n := m.w.node(e.Primary)
	if n == nil || m.holder.Epoch() != e.Number || !m.holder.Held(m.now()) || m.cluster().Drains(e.Number) != 0 {
		m.w.schedule(20*time.Millisecond, m.process, c.next) // held: no lease, frozen, or no primary
		return
	}
	m.w.writes++
	t := &turn{id: m.w.writes, epoch: e.Number, node: n, client: c}
	c.busy, c.turn = true, t
	m.w.net.command(m.host, n.host, nil, func() {
		if !n.postmaster.alive && !n.host.paused {
			c.refuse(t) // nobody listens
			return
		}
		m.w.deliver(n.postmaster, func() { c.serve(t) })
	})
	m.w.schedule(clientPatience, m.process, func() { c.giveUp(t) })
}

// serve runs a write on its server.
func (c *client) serve(t *turn) {
	n, m := t.node, c.m
	if !n.taking() || !n.primary {
		c.refuse(t)
		return
	}
	n.turns = append(n.turns, t)
	n.commitWrite(t.id, func() {
		n.turns = slices.DeleteFunc(n.turns, func(u *turn) bool { return u == t })
		m.w.net.send(n.host, m.host, m.process, func() { c.answered(t, holdAnswers) })
	})
}

// refuse is an answer that says that nothing was done.
func (c *client) refuse(t *turn) {
	c.m.w.net.send(t.node.host, c.m.host, c.m.process, func() { c.end(t) })
}

// answered is the gate: the server's success is passed on only under the lease of its epoch.
func (c *client) answered(t *turn, patience time.Duration) {
	m := c.m
	if t.over {
		return
	}
	if m.w.plan.without == AnswerGate || m.holder.Epoch() == t.epoch && m.holder.Held(m.now()) {
		c.stamp(t.id)
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
