package sim

import (
	"time"

	"github.com/cstproxy/cstproxy/ha/topology"
)

// host is a machine: it has an address, may carry a node and a member, and can lose power.
type host struct {
	id      int
	name    string
	up      bool
	outages int  // faults that keep its power off
	paused  bool // its virtual machine is
	vip     bool // holds the write VIP
	// addressed is the highest epoch that somebody moved the write VIP here for.
	addressed topology.Epoch
	sshd      *process
	node      *node
	members   []*member
}

// network connects the hosts. What one host sends itself always arrives.
type network struct {
	w     *world
	cuts  map[[2]int]int // from, to: how many faults cut that way
	loss  float64
	delay time.Duration
	extra time.Duration // jitter on top
	held  []heldMessage
}

// heldMessage is one that waits for the way to open again, until its sender's kernel gives up.
type heldMessage struct {
	message
	until time.Duration
}

func (n *network) passes(from, to *host) bool {
	return from == to || from.up && to.up && n.cuts[[2]int{from.id, to.id}] == 0
}

func (n *network) bothWays(a, b *host) bool { return n.passes(a, b) && n.passes(b, a) }

func (n *network) latency(from, to *host) time.Duration {
	if from == to {
		return 20 * time.Microsecond
	}
	d := n.delay + n.w.upTo(n.extra+n.delay)
	for i := 0; i < 6 && n.w.chance(n.loss); i++ {
		d += 200 * time.Millisecond << i // TCP repeats
	}
	return d
}

// send lets f happen in p, on the host to, unless the way is cut when it leaves or when it would
// arrive. What is lost is lost: the sender has a timeout.
func (n *network) send(from, to *host, p *process, f func()) {
	if !n.passes(from, to) {
		return
	}
	n.w.schedule(n.latency(from, to), nil, func() {
		if n.passes(from, to) {
			n.w.deliver(p, f)
		}
	})
}

// brokenAfter is when the sender of a command takes its connection for broken, and retransmits how
// long some kernels go on repeating what the other side has not confirmed.
const (
	brokenAfter = 2500 * time.Millisecond
	retransmits = 20 * time.Second
)

// message is something sent over a kept connection: while the way is cut the sender's kernel repeats
// it, so that it may arrive late.
type message struct {
	from, to *host
	proc     *process
	arrive   func()
	patience time.Duration // of the sender's kernel
}

// command sends an order to a host; it may arrive long after the sender has given it up.
func (n *network) command(from, to *host, p *process, f func()) {
	patience := brokenAfter
	if n.w.chance(0.5) {
		patience = retransmits
	}
	n.dispatch(message{from, to, p, f, patience})
}

// tell sends what a broken connection takes with it.
func (n *network) tell(from, to *host, p *process, f func()) {
	n.dispatch(message{from, to, p, f, brokenAfter})
}

func (n *network) dispatch(m message) {
	if !n.passes(m.from, m.to) {
		n.hold(m)
		return
	}
	n.w.schedule(n.latency(m.from, m.to), nil, func() {
		if n.passes(m.from, m.to) {
			n.w.deliver(m.proc, m.arrive)
		} else {
			n.hold(m)
		}
	})
}

func (n *network) hold(m message) {
	if m.from.up {
		n.held = append(n.held, heldMessage{m, n.w.now + m.patience})
	}
}

// cut closes the way from each of a to each of b.
func (n *network) cut(a, b []*host) {
	for _, from := range a {
		for _, to := range b {
			n.cuts[[2]int{from.id, to.id}]++
		}
	}
}

func (n *network) heal(a, b []*host) {
	for _, from := range a {
		for _, to := range b {
			n.cuts[[2]int{from.id, to.id}]--
		}
	}
	n.release()
}

// release sends on what was held for ways that are open again.
func (n *network) release() {
	kept := n.held[:0]
	for _, m := range n.held {
		switch {
		case n.w.now > m.until || !m.from.up:
		case n.passes(m.from, m.to):
			n.dispatch(m.message)
		default:
			kept = append(kept, m)
		}
	}
	n.held = kept
}
