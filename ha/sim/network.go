package sim

import "time"

// host is a machine: it has an address, may carry a node and a member, and can lose power.
type host struct {
	id      int
	name    string
	up      bool
	outages int  // faults that keep its power off
	paused  bool // its virtual machine is
	vip     bool // holds the write VIP
	sshd    *process
	node    *node
	members []*member
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

// heldMessage is one that a sender's kernel goes on repeating until the way is open again.
type heldMessage struct {
	from, to *host
	until    time.Duration
	arrive   func()
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

// command is send over a kept connection: while the way is cut the sender's kernel repeats, and what
// was sent arrives late, sometimes long after the sender has given it up.
func (n *network) command(from, to *host, p *process, f func()) {
	arrive := func() { n.w.deliver(p, f) }
	hold := func() {
		d := brokenAfter
		if n.w.chance(0.5) {
			d = retransmits
		}
		if from.up {
			n.held = append(n.held, heldMessage{from, to, n.w.now + d, arrive})
		}
	}
	if !n.passes(from, to) {
		hold()
		return
	}
	n.w.schedule(n.latency(from, to), nil, func() {
		if n.passes(from, to) {
			arrive()
		} else {
			hold()
		}
	})
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
			n.w.schedule(n.latency(m.from, m.to), nil, m.arrive)
		default:
			kept = append(kept, m)
		}
	}
	n.held = kept
}
