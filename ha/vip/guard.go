package vip

import (
	"context"
	"fmt"
	"net"
	"time"
)

// Duty is what a member has to do about the members' VIP.
type Duty string

const (
	Leave Duty = "leave" // it is another member's, or nobody's
	Hold  Duty = "hold"
)

// Guard has the members' VIP on this host exactly while this member is its holder. Who that is the caller
// decides: one member that takes clients' traffic. One goroutine uses it.
type Guard struct {
	local *Local
	vip   VIP
	// taken: this process has put it on or announced it, and not dropped it since; asked is when the
	// segment was asked last whether somebody else has it.
	taken bool
	asked time.Time
}

// NewGuard is for one VIP. Nothing is done before Step.
func NewGuard(local *Local, v VIP) *Guard { return &Guard{local: local, vip: v} }

const (
	// askSegment is the pause between two questions who else answers for a VIP, listenFor how long each
	// of them waits.
	askSegment = 10 * time.Second
	listenFor  = 300 * time.Millisecond
)

// Step does a member's duty: Leave takes the VIP off this host at once, also one that a process before this
// one has left there; Hold puts it there, which takes a second for the announcements, or until ctx ends,
// and is nothing when it is there. Now and then Hold asks the segment for a second holder, and announces the
// VIP again when there is one; that is an error. Call it twice a second, at once when the duty changed, and
// with Leave at the end.
func (g *Guard) Step(ctx context.Context, d Duty) error {
	if d != Hold {
		g.taken = false
		return g.local.Drop(g.vip)
	}
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
	if here == "" || !g.taken {
		if err := g.local.Take(ctx, g.vip); err != nil {
			return err
		}
		g.taken, g.asked = true, time.Now()
		return nil
	}
	if time.Since(g.asked) < askSegment {
		return nil
	}
	g.asked = time.Now()
	return g.contest(ctx, here)
}

// contest tells the segment again where the VIP is when somebody else answers for it.
func (g *Guard) contest(ctx context.Context, iface string) error {
	others, err := Holders(ctx, g.vip.Addr(), iface, listenFor)
	if err != nil || len(others) == 0 {
		return err
	}
	if err := (Announcement{Addr: g.vip.Addr(), Interface: iface}).Send(ctx); err != nil {
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
