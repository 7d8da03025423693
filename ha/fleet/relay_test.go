package fleet

import (
	"context"
	"errors"
	"net"
	"sync"

	"github.com/cstproxy/cstproxy/ha/peer/peerlocal"
)

// cuts are the members whose bytes neither leave nor arrive.
type cuts struct {
	mu   sync.Mutex
	away map[int]bool
}

func (c *cuts) set(at int, away bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away[at] = away
}

func (c *cuts) cut(from, to int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.away[from] || c.away[to]
}

// relay is the network in front of the member.
func (n *member) relay(ctx context.Context, behind string) {
	r := peerlocal.Relay{Front: n.front.(*net.TCPListener), Behind: behind, Blocked: func(from int) bool { return n.world.cuts.cut(from, n.at) }}
	if err := r.Run(ctx); err != nil && !errors.Is(err, net.ErrClosed) {
		n.world.t.Errorf("relay to %s: %v", n.name, err)
	}
}
