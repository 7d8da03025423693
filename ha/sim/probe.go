package sim

import (
	"time"

	"github.com/cstproxy/cstproxy/ha/decide"
)

const (
	probeInterval = 500 * time.Millisecond
	probeTimeout  = time.Second
)

// look is what one member knows of one node by its own probes.
type look struct {
	node   *node
	class  decide.Class
	since  time.Duration // of the class, on the member's clock
	failed int           // probes in a row
	asking bool
	host   string
	fact   decide.Fact // times are the member's
	served time.Duration
}

func (l *look) glance(m *member) glance {
	g := glance{node: l.node.id, fact: l.fact, asked: -1}
	g.sight = decide.Sight{Class: l.class, Since: m.now() - l.since, Host: l.host}
	g.sight.Traffic = l.served != 0 && m.now()-l.served <= probeInterval
	if l.fact.At != 0 {
		g.age, g.aged = m.now()-l.fact.At, true
	}
	if l.fact.PrimaryAt != 0 {
		g.asked = m.now() - l.fact.PrimaryAt
	}
	return g
}

func (m *member) probeAll() {
	for _, n := range m.w.nodes {
		if l := m.looks[n.id]; !l.asking {
			m.probe(l)
		}
	}
}

// probe asks the server for its state and, of a primary, for a heartbeat that is written.
func (m *member) probe(l *look) {
	n, asked, answered := l.node, m.now(), false
	l.asking = true
	touched := false // somebody accepted the connection
	end := func(class decide.Class, fact decide.Fact) {
		if answered {
			return
		}
		answered, l.asking = true, false
		if class == decide.Answers {
			l.host = "up"
			l.learn(fact)
		}
		m.conclude(l, class)
	}
	answer := func(class decide.Class, fact decide.Fact) {
		m.w.net.send(n.host, m.host, m.process, func() { end(class, fact) })
	}
	m.w.net.send(m.host, n.host, nil, func() {
		switch {
		case n.host.sshd.stopped: // the whole machine is
		case !n.postmaster.alive:
			answer(decide.Refused, decide.Fact{})
		case n.postmaster.stopped:
			m.w.net.send(n.host, m.host, m.process, func() { touched = true })
		case !n.ready || n.closing:
			answer(decide.Starting, decide.Fact{})
		case n.crowded:
			answer(decide.Full, decide.Fact{})
		case n.hung && n.primary:
			answer(decide.Stuck, decide.Fact{})
		default:
			if n.primary {
				n.write(0)
			}
			answer(decide.Answers, n.fact(asked))
		}
	})
	m.w.schedule(m.waits(probeTimeout), m.process, func() {
		if touched {
			end(decide.Stuck, decide.Fact{})
		} else {
			end(decide.Silent, decide.Fact{})
		}
	})
}

// learn takes a newer fact; what only the host's side tells stays.
func (l *look) learn(f decide.Fact) {
	f.Primary, f.PrimaryAt = l.fact.Primary, l.fact.PrimaryAt
	l.fact = f
}

// conclude sets the class: nobody is given up, or known to be lost, before two failures in a row.
func (m *member) conclude(l *look, class decide.Class) {
	was := l.class
	m.library.last = nil
	if class != decide.Answers && class != decide.Full && class != decide.Stuck {
		m.library.lost(l.node)
	}
	switch {
	case class == decide.Answers:
		l.failed = 0
	default:
		l.failed++
		m.askHost(l)
		if l.failed == 1 && (was == decide.Answers || was == decide.Unprobed) {
			if class == decide.Refused {
				m.w.schedule(m.waits(20*time.Millisecond), m.process, func() {
					if !l.asking {
						m.probe(l)
					}
				})
			}
			return
		}
	}
	if l.class != class {
		l.class, l.since = class, m.now()
		m.report()
	}
	if l.node.id == m.cluster().Epoch.Primary && class != decide.Answers {
		for _, n := range m.w.nodes {
			if n != l.node {
				m.askHost(m.looks[n.id])
			}
		}
	}
}

// askHost asks a node's host over SSH: whether the server runs, and whether the primary of the epoch
// takes connections from there.
func (m *member) askHost(l *look) {
	n, asked, answered := l.node, m.now(), false
	primary := m.w.node(m.cluster().Epoch.Primary)
	m.w.net.send(m.host, n.host, n.host.sshd, func() {
		outside, seen := n.fromOutside(asked), decide.Unprobed
		if primary != nil && primary != n {
			seen = n.listens(primary)
		}
		m.w.net.send(n.host, m.host, m.process, func() {
			answered, l.host = true, "up"
			if outside.Stopped && asked >= l.fact.At {
				l.learn(outside)
				m.library.last = nil
			}
			if seen != decide.Unprobed {
				l.fact.Primary, l.fact.PrimaryAt = seen, asked
			}
		})
	})
	m.w.schedule(m.waits(probeTimeout), m.process, func() {
		if !answered {
			l.host = "down"
		}
	})
}

// listens is what n's host finds when it connects to another server.
func (n *node) listens(to *node) decide.Class {
	switch {
	case !n.w.net.bothWays(n.host, to.host) || to.host.sshd.stopped:
		return decide.Silent
	case !to.postmaster.alive:
		return decide.Refused
	}
	return decide.Answers
}
