package sim

import (
	"time"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/lease"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// clusterName is the one cluster of every world.
const clusterName = "c"

// clock is a member's own: it begins anywhere and runs a little fast or slow.
type clock struct {
	offset time.Duration
	rate   float64
}

// member is one cstproxy process.
type member struct {
	w       *world
	name    string
	host    *host
	witness bool
	clock   clock
	process *process
	voter   *voter

	holder  *lease.Holder
	begun   time.Duration // when the holder's epoch began, in this life; 0: it was there already
	looks   map[topology.NodeID]*look
	proof   *proving
	leading *leadership
	library *library
	clients []*client
}

// now is what the member's clock shows.
func (m *member) now() time.Duration {
	return m.clock.offset + time.Duration(float64(m.w.now)*m.clock.rate)
}

// waits turns a duration on the member's clock into one of true time.
func (m *member) waits(d time.Duration) time.Duration {
	return time.Duration(float64(d)/m.clock.rate) + 1
}

func (m *member) cluster() *record.Cluster { return clusterOf(m.voter.state) }

func clusterOf(s *record.State) *record.Cluster {
	if c := s.Clusters[clusterName]; c != nil {
		return c
	}
	return &record.Cluster{}
}

func (m *member) boot() {
	if m.process.alive || !m.host.up {
		return
	}
	w := m.w
	w.start(m.process)
	m.holder = lease.NewHolder(w.plan.terms(), w.rng.Uint64())
	m.looks, m.proof, m.leading, m.begun = map[topology.NodeID]*look{}, nil, nil, 0
	for _, n := range w.nodes {
		m.looks[n.id] = &look{node: n}
	}
	m.voter.boot()
	w.every(m.waits(probeInterval), m.process, m.probeAll)
	w.every(m.waits(w.plan.policy.Lease/3), m.process, m.renew)
	m.library = newLibrary(m)
	w.aside(m.library.run)
	for _, c := range m.clients {
		c.boot()
	}
}

func (m *member) crash() {
	m.w.kill(m.process)
	m.leading = nil
	m.voter.role, m.voter.leader = follower, nil
}

// applied is called after each entry that this member's log has committed; nil is a leader's first.
func (m *member) applied(e *record.Entry) {
	c := m.cluster()
	m.library.last = nil
	if before := m.holder.Epoch(); before != 0 && before != c.Epoch.Number {
		m.begun = m.now()
	}
	m.holder.Follow(c)
	for _, c := range m.clients {
		c.epochEnded(m.holder.Epoch())
	}
	if m.voter.established() && m.leading == nil {
		m.lead()
	}
	if m.leading != nil {
		m.leading.advanced()
	}
	if e != nil && !m.witness {
		m.w.schedule(m.w.upTo(time.Millisecond), m.process, m.report)
	}
}

// deposed is called when this member's log says that it leads no longer.
func (m *member) deposed() { m.leading = nil }

// report is what a member tells the leader every L/3.
type report struct {
	from    *member
	request lease.Request
	asks    bool // the request is one
	frozen  record.OperationID
	drains  record.OperationID
	known   uint64
	open    int
	looks   []glance
}

// glance is what a report says of one node; ages are at the time of sending.
type glance struct {
	node  topology.NodeID
	sight decide.Sight
	fact  decide.Fact // At counts only when aged is set
	age   time.Duration
	aged  bool
	asked time.Duration // age of fact.PrimaryAt; below 0: never asked
}

// renew asks for a lease and, without an answer, tries to prove that there is no other primary.
func (m *member) renew() {
	m.report()
	if !m.witness {
		m.prove()
	}
}

func (m *member) report() {
	r := report{from: m, frozen: m.holder.Frozen(), open: m.open()}
	if c := m.cluster(); c.Epoch.Number != 0 {
		r.known, r.drains = c.Epoch.Version, c.Drains(c.Epoch.Number)
	}
	if !m.witness {
		r.request, r.asks = m.holder.Ask(m.now()), true
	}
	for _, n := range m.w.nodes {
		r.looks = append(r.looks, m.looks[n.id].glance(m))
	}
	leader := m.voter.leader
	if leader == nil {
		return
	}
	m.w.net.tell(m.host, leader.member.host, leader.member.process, func() {
		if l := leader.member.leading; l != nil {
			l.heard(r)
		}
	})
}

// freeze is a leader's order, which may come before the log's entry or long after it.
func (m *member) freeze(operation record.OperationID, epoch topology.Epoch) {
	if m.holder.Freeze(operation, epoch) {
		m.report()
	}
}

// open counts the write transactions that have begun and not ended.
func (m *member) open() int {
	n := 0
	for _, c := range m.clients {
		if c.busy {
			n++
		}
	}
	return n
}

// proving is an attempt to prove, without a leader, that nobody can have been promoted.
type proving struct{ lease.Proof }

// prove asks the epoch's primary to commit a heartbeat and then, until the next attempt, who has
// flushed it.
func (m *member) prove() {
	e := m.cluster().Epoch
	n := m.w.node(e.Primary)
	if n == nil {
		return
	}
	p := &proving{lease.Proof{Epoch: e.Number, Began: m.now(), Flushed: map[topology.NodeID]topology.LSN{}, Standbys: e.Standbys}}
	if m.w.plan.without == FreshProof {
		p.Weakness = lease.AnyFlush
	}
	m.proof = p
	m.w.net.send(m.host, n.host, n.postmaster, func() {
		if !n.taking() || !n.primary || n.hung || n.system != e.SystemID || n.history.Timeline != e.History.Timeline {
			return
		}
		at := n.write(0)
		m.w.net.send(n.host, m.host, m.process, func() { p.Heartbeat = at })
		m.lookAtSenders(n, p, 4)
	})
}

// lookAtSenders reads the primary's pg_stat_replication a few times.
func (m *member) lookAtSenders(n *node, p *proving, times int) {
	rows := map[topology.NodeID]topology.LSN{}
	for standby, s := range n.senders {
		rows[standby.id] = s.flush
	}
	m.w.net.send(n.host, m.host, m.process, func() {
		if m.proof != p {
			return
		}
		for id, flush := range rows {
			p.Flushed[id] = max(p.Flushed[id], flush)
		}
		m.holder.Proven(p.Proof)
	})
	if times > 1 {
		m.w.schedule(30*time.Millisecond, n.postmaster, func() {
			if n.primary {
				m.lookAtSenders(n, p, times-1)
			}
		})
	}
}
