package fleet

import (
	"context"
	"io"
	"net"
	"sync"
	"time"
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

// relay passes on what comes to a member's front, unless one of the two is away: then bytes vanish,
// and the connection ends when both are back, as one would whose host was away for long.
func (n *member) relay(ctx context.Context, behind string) {
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := context.AfterFunc(ctx, func() { n.front.Close() })
	defer stop()
	for {
		in, err := n.front.Accept()
		if err != nil {
			return
		}
		wg.Add(1)
		go func() { defer wg.Done(); n.pass(ctx, in, behind) }()
	}
}

func (n *member) pass(ctx context.Context, in net.Conn, behind string) {
	defer in.Close()
	out, err := net.Dial("tcp", behind)
	if err != nil {
		return
	}
	defer out.Close()
	from := int(in.RemoteAddr().(*net.TCPAddr).IP.To4()[3]) - 1
	blocked := func() bool { return n.world.cuts.cut(from, n.at) }
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { in.Close(); out.Close() })
	defer stop()
	var wg sync.WaitGroup
	wg.Add(2)
	go func() { defer wg.Done(); defer cancel(); carry(ctx, out, in, blocked) }()
	go func() { defer wg.Done(); defer cancel(); carry(ctx, in, out, blocked) }()
	wg.Wait()
}

func carry(ctx context.Context, to io.Writer, from io.Reader, blocked func() bool) {
	buffer := make([]byte, 16<<10)
	for {
		n, err := from.Read(buffer)
		lost := false
		for blocked() {
			lost = true
			select {
			case <-ctx.Done():
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
		if err != nil || lost {
			return
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}
