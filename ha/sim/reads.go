package sim

import (
	"slices"
	"time"

	"github.com/cstproxy/cstproxy/balancer"
	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// Who reads is chosen by the real balancer from real rounds. What feeds these, the monitor of a member,
// is modelled here: what it knows of nodes is as old as its probes, and it learns of a crash by the end
// of a connection, if that reaches it.

const (
	roundIdle   = time.Second            // between two rounds, at most
	roundWanted = 100 * time.Millisecond // while a session waits for one; the product's are shorter
	readWithin  = 30 * time.Millisecond  // of a success, its session reads for the first time
	readPause   = 400 * time.Millisecond
	remembered  = 32 // writes of a session that are looked for
)

// library is how one member lets its clients read.
type library struct {
	m        *member
	last     *topology.View // nil: something has changed since
	rounds   *topology.Rounds
	balancer *balancer.Balancer
	marks    []mark
	lanes    map[topology.NodeID]*lane
	pool     map[*node]int // the postmaster's life to which there are connections for reads; none: 0
	told     []int         // the newest writes that any client was told are committed
	began    time.Duration // the last round, in true time
	wished   time.Duration // when a read last found no standby
	busy     bool          // a round is under way
	due      int           // counts appointments for a round; only the last one is kept
}

// mark is the primary's position in a round.
type mark struct {
	round  topology.Round
	insert topology.LSN
}

// lane asks one node how far it has replayed. What is asked on a connection that was made in an
// earlier life, as the member counts them, proves nothing.
type lane struct {
	node *node
	life int
	conn *laneConn // nil: none
	busy bool
	wake bool
}

type laneConn struct {
	life   int // the lane's when it was made
	server int // the postmaster's; 0: not there yet
}

// replayed is a node's answer.
type replayed struct {
	standby  bool
	replay   topology.LSN
	received topology.Timeline // 0: it streams from nobody
}

func newLibrary(m *member) *library {
	b := &library{m: m, rounds: topology.NewRounds(), balancer: balancer.New(balancer.Config{Ban: time.Second, BanMax: 10 * time.Second}), lanes: map[topology.NodeID]*lane{}, pool: map[*node]int{}}
	for _, n := range m.w.nodes {
		b.lanes[n.id] = &lane{node: n}
	}
	return b
}

// aside runs what only looks at the world: what it draws, it draws from a source of its own, so that
// no world becomes another one because somebody reads.
func (w *world) aside(f func()) {
	was := w.rng
	w.rng = w.readers
	f()
	w.rng = was
}

func (w *world) scheduleAside(d time.Duration, p *process, f func()) {
	w.schedule(d, p, func() { w.aside(f) })
}

func (w *world) sendAside(from, to *host, p *process, f func()) {
	w.aside(func() { w.net.send(from, to, p, func() { w.aside(f) }) })
}

// view is what the member's agent publishes.
func (b *library) view() *topology.View {
	if b.last == nil {
		b.last = b.look()
	}
	return b.last
}

func (b *library) look() *topology.View {
	e := b.m.cluster().Epoch
	if b.rounds.Epoch() < e.Number {
		b.rounds.Reset(e.Number)
		b.marks = nil
	}
	v := &topology.View{Cluster: clusterName, Epoch: e.Number, SystemID: e.SystemID, Rounds: b.rounds}
	base := e.History
	if l := b.m.looks[e.Primary]; l != nil && l.speaks() && l.fact.Role == topology.RolePrimary && l.fact.History.Timeline == e.History.Timeline {
		v.Primary, base = e.Primary, l.fact.History
	}
	for _, n := range b.m.w.nodes {
		l := b.m.looks[n.id]
		part := topology.NodeView{Node: n.conf.Node, Slot: int(n.id), Role: l.fact.Role, Health: topology.Down}
		switch at := max(l.fact.Receive, l.fact.Replay); {
		case !l.speaks():
		case l.fact.SystemID != e.SystemID, n.id != v.Primary && (l.fact.Role != topology.RoleStandby || !l.fact.History.IsPrefixOf(base, at)):
			part.Role, part.Health = topology.RoleUnknown, topology.Foreign
		default:
			part.Health = topology.Healthy
		}
		v.Nodes = append(v.Nodes, part)
	}
	return v
}

// speaks says whether the last observation still holds.
func (l *look) speaks() bool {
	return (l.class == decide.Answers || l.class == decide.Full) && l.fact.Role != topology.RoleUnknown
}

// run has rounds begin; it is called when the member starts.
func (b *library) run() { b.appoint(b.m.w.upTo(roundIdle)) }

func (b *library) appoint(d time.Duration) {
	b.due++
	due := b.due
	b.m.w.scheduleAside(d, b.m.process, func() {
		if due == b.due {
			b.round()
		}
	})
}

// round opens one and asks the primary; then the standbys are asked.
func (b *library) round() {
	m, w := b.m, b.m.w
	if b.busy {
		return
	}
	b.busy, b.began = true, w.now
	v, k := b.view(), topology.Round(0)
	n := w.node(v.Primary)
	if n != nil {
		k = b.rounds.Open(v.Epoch)
	}
	if k == 0 {
		b.ended()
		return
	}
	current := func() bool { return b.busy && b.rounds.Opened() == k && b.rounds.Epoch() == v.Epoch }
	w.sendAside(m.host, n.host, n.postmaster, func() {
		if !n.taking() || !n.primary {
			return
		}
		at, timeline := n.end(), n.history.Timeline
		w.sendAside(n.host, m.host, m.process, func() {
			if current() && timeline == m.cluster().Epoch.History.Timeline {
				b.marks = append(b.marks, mark{k, at})
				b.ended()
			}
		})
	})
	began := b.began
	w.scheduleAside(m.waits(probeTimeout), m.process, func() {
		if b.busy && b.began == began {
			b.ended()
		}
	})
}

// ended asks everybody how far he is, and sees to the next round.
func (b *library) ended() {
	b.busy = false
	for _, n := range b.m.w.nodes {
		b.ask(b.lanes[n.id])
	}
	pause := roundIdle
	if b.hurry() {
		pause = roundWanted
	}
	b.appoint(b.began + pause - b.m.w.now)
}

// hurry says whether somebody has wished for a round lately that a standby has not proved.
func (b *library) hurry() bool {
	round, at := b.rounds.Wanted()
	if at.IsZero() || b.m.w.now-b.wished > roundIdle {
		return false
	}
	return slices.ContainsFunc(b.view().Nodes, func(n topology.NodeView) bool {
		return n.TakesReads() && b.rounds.Safe(n.Slot) < round
	})
}

// safe is the largest round whose position is not beyond replay.
func (b *library) safe(replay topology.LSN) topology.Round {
	for i := len(b.marks) - 1; i >= 0; i-- {
		if b.marks[i].insert <= replay {
			return b.marks[i].round
		}
	}
	return 0
}

// lost takes back what a node has proved: it may have restarted, and may have yet to replay again
// what it had replayed.
func (b *library) lost(n *node) {
	if b.m.w.plan.without == Forgetting {
		return
	}
	b.lanes[n.id].life++
	b.rounds.Clear(int(n.id))
}

// ask reads a node's replay position, over a connection that is kept.
func (b *library) ask(l *lane) {
	if l.busy {
		l.wake = true
		return
	}
	m, n, w := b.m, l.node, b.m.w
	if l.conn == nil {
		l.conn = &laneConn{life: l.life}
	}
	l.busy, l.wake = true, false
	conn := l.conn
	answer := func(r *replayed) {
		w.sendAside(n.host, m.host, m.process, func() { b.asked(l, conn, r) })
	}
	w.sendAside(m.host, n.host, nil, func() {
		if !n.postmaster.alive && n.host.up {
			answer(nil)
			return
		}
		w.deliver(n.postmaster, func() {
			w.aside(func() { answer(conn.read(n)) })
		})
	})
	w.scheduleAside(m.waits(probeTimeout), m.process, func() {
		if l.busy {
			b.asked(l, conn, nil)
		}
	})
}

// read is what a server says to a connection; nil: nothing, it was not made or has ended.
func (c *laneConn) read(n *node) *replayed {
	if c.server == 0 && n.taking() {
		c.server = n.postmaster.life
	}
	if !n.taking() || c.server != n.postmaster.life {
		return nil
	}
	r := &replayed{standby: !n.primary, replay: position(n.replayed)}
	if n.receiver != nil {
		r.received = n.history.Timeline
	}
	return r
}

// asked ends a question. Who had a connection and gets no answer may have to do with a restart.
func (b *library) asked(l *lane, conn *laneConn, r *replayed) {
	if l.conn != conn {
		return
	}
	l.busy = false
	switch {
	case r == nil && conn.server != 0:
		b.lost(l.node)
		l.conn = nil
	case r == nil, conn.life != l.life:
		l.conn = nil
	default:
		b.take(l, r)
	}
	if l.wake {
		b.ask(l)
	}
}

// take takes in how far a standby is. Without the primary's timeline a position proves nothing.
func (b *library) take(l *lane, r *replayed) {
	part := b.view().Node(l.node.id)
	timeline := b.m.cluster().Epoch.History.Timeline
	if part.Health != topology.Healthy || part.Role != topology.RoleStandby || !r.standby {
		return
	}
	if r.received == timeline || b.m.looks[l.node.id].fact.History.Timeline == timeline {
		b.rounds.Mark(part.Slot, b.safe(r.replay))
	}
}
