// Package peerlocal is the network between the members of a fleet on one machine, for tests: the others
// reach a member by a Relay, which can lose what it is given.
package peerlocal

import (
	"context"
	"io"
	"net"
	"sync"
	"time"
)

// Relay passes on what comes to a member's front. While a dialer is blocked its bytes vanish, in both
// directions, and the connection ends when that is over, as one would whose host was away for long.
type Relay struct {
	// Front is where the others dial; it stays open, and another Run may follow.
	Front *net.TCPListener
	// Behind is where the member itself listens.
	Behind string
	// Blocked says whether bytes of the member that dials from 127.0.0.(from+1) are lost now.
	Blocked func(from int) bool
}

// blockedLook is how often it is looked whether a block is over.
const blockedLook = 5 * time.Millisecond

// Run relays until ctx ends; it returns when all connections have.
func (r Relay) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	if err := r.Front.SetDeadline(time.Time{}); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = r.Front.SetDeadline(time.Unix(1, 0)) }) // it may have been closed
	defer stop()
	for {
		in, err := r.Front.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		wg.Add(1)
		go func() { defer wg.Done(); r.pass(ctx, in) }()
	}
}

func (r Relay) pass(ctx context.Context, in net.Conn) {
	defer in.Close()
	out, err := net.Dial("tcp", r.Behind)
	if err != nil {
		return
	}
	defer out.Close()
	from := int(in.RemoteAddr().(*net.TCPAddr).IP.To4()[3]) - 1
	blocked := func() bool { return r.Blocked(from) }
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
			case <-time.After(blockedLook):
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
