package sim

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/lease"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// leadership is what a leader keeps from its election until its end: the Picture, the Grantor and
// the actions that it has begun.
type leadership struct {
	m         *member
	grantor   *lease.Grantor
	picture   decide.Picture
	members   map[*member]*decide.Member
	step      stepSeen
	tasks     map[topology.NodeID]stepSeen
	epoch     topology.Epoch
	proposing bool
	woken     bool
	why       string // of the last plan, without its numbers, for the trace
}

// stepSeen is a step of an operation, to notice that it is a new one.
type stepSeen struct {
	operation record.OperationID
	step      record.Step
}

// lead begins a leadership: the barrier has passed.
func (m *member) lead() {
	w := m.w
	l := &leadership{m: m, grantor: lease.NewGrantor(w.plan.terms(), m.now()), members: map[*member]*decide.Member{}, tasks: map[topology.NodeID]stepSeen{}}
	l.picture = decide.Picture{
		Cluster: clusterName, Self: m.name, LeaderSince: m.now(), Alone: len(w.members) == 1,
		Policy: w.plan.policy, StepSince: m.now(), TaskSince: map[topology.NodeID]time.Duration{},
	}
	switch w.plan.without {
	case LeaseWait:
		l.picture.Weakness = decide.NoLeaseWait
	case Recruit:
		l.picture.Weakness = decide.NoRecruit
	}
	for _, other := range w.members {
		l.members[other] = &decide.Member{Name: other.name, Voter: true, Witness: other.witness}
	}
	for _, n := range w.nodes {
		l.picture.Nodes = append(l.picture.Nodes, n.conf)
	}
	c := m.cluster()
	l.epoch, l.picture.EpochSince = c.Epoch.Number, m.begun
	if c.Operation != nil {
		l.step = stepSeen{c.Operation.ID, c.Operation.Step}
		l.picture.LastRecruit = m.now()
	}
	m.leading = l
	l.found()
	l.wake()
	l.keepAddress()
}

// keepAddress takes the write VIP off the hosts where it does not belong, in quiet times, as
// operation.VIPs does: under a ratchet of the address's own.
func (l *leadership) keepAddress() {
	w, c := l.m.w, l.m.cluster()
	if !l.present() {
		return
	}
	for _, n := range w.nodes {
		if w.plan.policy.WriteVIP == "" || c.Operation != nil || c.Epoch.Number == 0 || n.id == c.Epoch.Primary {
			continue
		}
		epoch := c.Epoch.Number
		w.net.command(l.m.host, n.host, n.host.sshd, func() {
			if n.host.addressed <= epoch {
				n.host.addressed, n.host.vip = epoch, false
			}
		})
	}
	w.schedule(l.m.waits(time.Second), l.m.process, l.keepAddress)
}

// found proposes the fleet's name, once.
func (l *leadership) found() {
	if l.m.voter.state.Fleet == "" {
		l.propose(&record.Entry{Proposer: l.m.name, Found: &record.Found{Fleet: "f"}})
	}
}

func (l *leadership) present() bool { return l.m.leading == l }

// wake decides soon; several things that happen at once are decided on once.
func (l *leadership) wake() {
	if l.woken {
		return
	}
	l.woken = true
	l.m.w.schedule(time.Millisecond, l.m.process, func() {
		l.woken = false
		if l.present() {
			l.decide()
		}
	})
}

// heard takes a member's report and, when it asks for a lease, gives one after a quorum round.
func (l *leadership) heard(r report) {
	now := l.m.now()
	k := l.members[r.from]
	k.Heard, k.Frozen, k.Drains, k.Open, k.Known = now, r.frozen, r.drains, r.open, r.known
	k.Sights = map[topology.NodeID]decide.Sight{}
	for _, g := range r.looks {
		k.Sights[g.node] = g.sight
		if g.aged {
			f := g.fact
			f.At = now - g.age
			f.PrimaryAt = 0
			if g.asked >= 0 {
				f.PrimaryAt = now - g.asked
			}
			l.learn(g.node, f)
		}
	}
	if r.asks {
		l.grant(r, now)
	}
	l.wake()
}

func (l *leadership) grant(r report, now time.Duration) {
	ticket := l.grantor.Arrived(r.from.name, r.request, now)
	l.m.voter.verify(func() {
		if !l.present() {
			return
		}
		c := l.m.cluster()
		answer, ok := l.grantor.Grant(ticket, c)
		if !ok {
			return
		}
		l.m.w.net.tell(l.m.host, r.from.host, r.from.process, func() { r.from.holder.Granted(answer) })
	})
}

func (l *leadership) learn(id topology.NodeID, f decide.Fact) {
	for i := range l.picture.Nodes {
		if n := &l.picture.Nodes[i]; n.ID == id {
			n.Learn(f, l.m.now())
		}
	}
}

// advanced looks at what the log has come to.
func (l *leadership) advanced() {
	c, p, now := l.m.cluster(), &l.picture, l.m.now()
	if c.Epoch.Number != l.epoch {
		l.epoch, p.EpochSince = c.Epoch.Number, now
	}
	seen := stepSeen{}
	if c.Operation != nil {
		seen = stepSeen{c.Operation.ID, c.Operation.Step}
	}
	if seen != l.step {
		p.StepSince = now
		if seen.operation != l.step.operation {
			p.LastRecruit = 0
		}
		l.step = seen
		if c.Frozen(c.Epoch.Number) != 0 {
			l.orderFreeze(c.Operation)
		}
	}
	tasks := map[topology.NodeID]stepSeen{}
	for id, t := range c.Tasks {
		tasks[id] = stepSeen{t.ID, t.Step}
		if l.tasks[id] != tasks[id] {
			p.TaskSince[id] = now
		}
	}
	l.tasks = tasks
	p.Finished = slices.DeleteFunc(p.Finished, func(r decide.Result) bool { return c.Find(r.Action.Operation) == nil })
	l.wake()
}

func (l *leadership) orderFreeze(o *record.Operation) {
	id, from := o.ID, o.From
	for _, other := range l.m.w.members {
		l.m.w.net.tell(l.m.host, other.host, other.process, func() { other.freeze(id, from) })
	}
}

// decide asks the decision core, and does what it says.
func (l *leadership) decide() {
	if l.proposing || !l.m.voter.established() {
		return
	}
	p := l.look()
	plan := decide.Decide(p)
	l.explain(plan.Why)
	l.m.w.alarm = plan.Alarm
	if plan.Entry != nil {
		l.m.w.deciding(l, &p, plan.Entry)
		l.propose(plan.Entry)
	}
	for _, a := range plan.Actions {
		if !slices.Contains(l.picture.Running, a) {
			l.begin(a)
		}
	}
	if plan.Again > 0 {
		l.m.w.schedule(l.m.waits(plan.Again), l.m.process, l.wakeIfPresent)
	}
}

// explain traces why a plan is what it is, unless only numbers have changed.
func (l *leadership) explain(why string) {
	if l.m.w.out == nil {
		return
	}
	bare := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r == '.' || r == 'm' || r == 's' {
			return -1
		}
		return r
	}, why)
	if bare != l.why {
		l.why = bare
		l.m.w.trace("%s: %s", l.m.name, why)
	}
}

func (l *leadership) wakeIfPresent() {
	if l.present() {
		l.wake()
	}
}

// look is the Picture of now; what Decide gets shares nothing that changes later.
func (l *leadership) look() decide.Picture {
	p := l.picture
	p.Now, p.Record = l.m.now(), *l.m.cluster()
	p.Members = nil
	for _, other := range l.m.w.members {
		k := *l.members[other]
		k.LeaseUntil = l.grantor.Until(k.Name)
		p.Members = append(p.Members, k)
	}
	return p
}

func (l *leadership) propose(e *record.Entry) {
	l.proposing = true
	l.m.voter.propose(e, func(error) {
		l.proposing = false
		l.wakeIfPresent()
	})
}

const connectTimeout = 1500 * time.Millisecond

// begin sends an action to its node's host, and waits for its end.
func (l *leadership) begin(a decide.Action) {
	w, n := l.m.w, l.m.w.node(a.Node)
	l.picture.Running = append(slices.Clone(l.picture.Running), a)
	over := false
	finish := func(r decide.Result) {
		if over {
			return
		}
		over = true
		if l.present() {
			l.finished(r)
		}
	}
	j := &job{n: n, action: a, token: token{a.Epoch, a.Step}}
	j.answer = func(r decide.Result) {
		w.net.command(n.host, l.m.host, l.m.process, func() { l.readFact(n, func() { finish(r) }) })
	}
	timeout := cmp.Or(a.Timeout, defaultTimeout)
	if !w.net.bothWays(l.m.host, n.host) && w.chance(0.7) {
		timeout = min(timeout, connectTimeout)
	} else {
		w.net.command(l.m.host, n.host, n.host.sshd, func() { n.ratchet.arrive(j) })
	}
	w.schedule(l.m.waits(timeout), l.m.process, func() { finish(decide.Result{Action: a, Err: "no answer in time"}) })
	life, silent := n.host.sshd.life, 0
	var keepalive func()
	keepalive = func() {
		silent++
		switch reached := w.net.bothWays(l.m.host, n.host) && !n.host.sshd.stopped; {
		case over:
			return
		case reached && n.host.sshd.life != life, silent > 3:
			finish(decide.Result{Action: a, Err: "the connection was lost"})
			return
		case reached:
			silent = 0
		}
		w.schedule(l.m.waits(probeInterval), l.m.process, keepalive)
	}
	w.schedule(l.m.waits(probeInterval), l.m.process, keepalive)
}

// readFact asks the node how it is once an action has ended there; done is called in any case.
func (l *leadership) readFact(n *node, done func()) {
	w, asked := l.m.w, l.m.now()
	w.net.send(l.m.host, n.host, n.host.sshd, func() {
		f := n.fact(asked)
		w.net.send(n.host, l.m.host, l.m.process, func() {
			if l.present() {
				l.learn(n.id, f)
			}
			done()
		})
	})
	w.schedule(l.m.waits(probeInterval), l.m.process, done)
}

const defaultTimeout = 5 * time.Second

func (l *leadership) finished(r decide.Result) {
	p, now := &l.picture, l.m.now()
	r.At = now
	p.Running = slices.DeleteFunc(slices.Clone(p.Running), func(a decide.Action) bool { return a == r.Action })
	p.Finished = append(slices.Clone(p.Finished), r)
	if r.Action.Verb == decide.Recruit && r.Action.Operation == l.step.operation {
		p.LastRecruit = now
	}
	if r.Err != "" {
		l.m.w.trace("%s: %s of node %d: %s", l.m.name, r.Action.Verb, r.Action.Node, r.Err)
	}
	l.wake()
}
