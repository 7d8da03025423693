package consensus

import (
	"context"
	"net"
	"sync"

	"github.com/cstproxy/cstproxy/ha/peer/peerlocal"
)

// cuts are the pairs of members, dialer first, whose bytes do not arrive.
type cuts struct {
	mu    sync.Mutex
	pairs map[[2]int]bool
}

func (c *cuts) cut(from, to int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pairs[[2]int{from, to}] || c.pairs[[2]int{to, from}]
}

// isolate cuts a member off from all others.
func (f *fleet) isolate(n *node) {
	f.cuts.mu.Lock()
	defer f.cuts.mu.Unlock()
	for _, other := range f.members {
		if other != n {
			f.cuts.pairs[[2]int{n.at, other.at}] = true
		}
	}
}

func (f *fleet) heal() {
	f.cuts.mu.Lock()
	defer f.cuts.mu.Unlock()
	clear(f.cuts.pairs)
}

// relay is the network in front of the member.
func (n *node) relay(ctx context.Context, behind string) {
	r := peerlocal.Relay{Front: n.front.(*net.TCPListener), Behind: behind, Blocked: func(from int) bool { return n.fleet.cuts.cut(from, n.at) }}
	if err := r.Run(ctx); err != nil {
		n.fleet.t.Errorf("relay to %s: %v", n.name, err)
	}
}
