package vip

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

// Guard has the members' VIP on this host exactly while this member is its holder. Who that is the caller
// decides: one member that takes clients' traffic. One goroutine uses it.
type Guard struct {
	local *Local
	vip   VIP
	// taken is when this process has put it on and announced it; zero: it has not, or dropped it since. Again:
	// it is to be announced once more. Asked is when the segment was asked last whether somebody else has it.
	taken, asked time.Time
	again        bool
}

// NewGuard is for one VIP. Nothing is done before Step.
func NewGuard(local *Local, v VIP) *Guard { return &Guard{local: local, vip: v} }

const (
	// askSegment is the pause between two questions who else answers for a VIP, listenFor how long each
	// of them waits.
	askSegment = 10 * time.Second
	listenFor  = 300 * time.Millisecond
	// announceAgain is when a VIP that was taken is announced again: a holder before that was paused within
	// an announcement has sent its last frame by then, or sends none.
	announceAgain = 2500 * time.Millisecond
	// lookWhile is how often it is looked, during what takes time, whether the VIP is held still.
	lookWhile = 20 * time.Millisecond
)

// Step has the VIP where it belongs: off this host at once when holds says no, also one that a process before
// this one has left there; on it when holds says yes, which takes a second for the announcements, or until ctx
// ends or holds says no, and is nothing when it is there. Now and then it asks the segment for a second holder,
// and announces the VIP again when there is one; that is an error. Call it twice a second, at once when holds
// says something else, and with No at the end. holds answers at once, from any goroutine.
//
// When the member dies, the VIP stays on its host until the next Step of a process there; whoever holds it
// then has announced it. When it wakes late, it has it until its next look, and tells nobody: holds is asked
// right before each frame.
func (g *Guard) Step(ctx context.Context, holds func() bool) error {
	if holds() {
		if err := g.hold(ctx, holds); holds() {
			return err
		}
	}
	g.taken, g.again = time.Time{}, false
	return g.local.Drop(g.vip)
}

// No is the holds of who does not hold the VIP.
func No() bool { return false }

func (g *Guard) hold(ctx context.Context, holds func() bool) error {
	list, err := g.local.Addresses()
	if err != nil {
		return fmt.Errorf("hold %s: %w", g.vip, err)
	}
	here := ""
	for _, held := range Held(g.vip, list) {
		if !held.Failed && (g.vip.Interface == "" || g.vip.Interface == held.Interface) {
			here = held.Interface
		}
	}
	ctx, end := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { watch(ctx, end, holds) })
	defer watching.Wait()
	defer end()
	switch now := time.Now(); {
	case here == "" || g.taken.IsZero():
		if err := g.local.Take(ctx, g.vip, holds); err != nil {
			return err
		}
		g.taken, g.asked, g.again = time.Now(), time.Now(), true
	case g.again && now.Sub(g.taken) >= announceAgain:
		g.again = false
		return g.announce(ctx, holds, here)
	case now.Sub(g.asked) >= askSegment:
		g.asked = now
		return g.contest(ctx, holds, here)
	}
	return nil
}

// watch ends ctx when holds says no.
func watch(ctx context.Context, end func(), holds func() bool) {
	for sleep(ctx, lookWhile) == nil {
		if !holds() {
			end()
		}
	}
}

func (g *Guard) announce(ctx context.Context, holds func() bool, iface string) error {
	return Announcement{Addr: g.vip.Addr(), Interface: iface, While: holds}.Send(ctx)
}

// contest tells the segment again where the VIP is when somebody else answers for it.
func (g *Guard) contest(ctx context.Context, holds func() bool, iface string) error {
	others, err := Holders(ctx, g.vip.Addr(), iface, listenFor)
	if err != nil || len(others) == 0 {
		return err
	}
	if err := g.announce(ctx, holds, iface); err != nil {
		return err
	}
	return &Contested{VIP: g.vip, Others: others}
}

// Contested is the error of a VIP for which others answer, too.
type Contested struct {
	VIP    VIP
	Others []net.HardwareAddr
}

func (e *Contested) Error() string {
	return fmt.Sprintf("%s is on this host, and on another one, too: %v; it was announced again", e.VIP, e.Others)
}
