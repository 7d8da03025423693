package consensus

import (
	"context"
	"io"
	"net"
	"sync"
	"time"
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

// relay passes on what comes to a member's front, unless its pair is cut: then bytes vanish, and
// the connection ends when the cut does, as one would whose host was away for long.
func (n *node) relay(ctx context.Context, behind string) {
	var wg sync.WaitGroup
	defer wg.Wait()
	if err := n.front.(*net.TCPListener).SetDeadline(time.Time{}); err != nil {
		return
	}
	stop := context.AfterFunc(ctx, func() { n.front.(*net.TCPListener).SetDeadline(time.Unix(1, 0)) })
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

func (n *node) pass(ctx context.Context, in net.Conn, behind string) {
	defer in.Close()
	out, err := net.Dial("tcp", behind)
	if err != nil {
		return
	}
	defer out.Close()
	from := int(in.RemoteAddr().(*net.TCPAddr).IP.To4()[3]) - 1
	blocked := func() bool { return n.fleet.cuts.cut(from, n.at) }
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
		if err != nil && !blocked() {
			return
		}
		for lost := false; blocked(); lost = true {
			if ctx.Err() != nil {
				return
			}
			time.Sleep(5 * time.Millisecond)
			if lost && !blocked() {
				return
			}
		}
		if err != nil {
			return
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}
