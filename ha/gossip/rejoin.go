package gossip

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/hashicorp/memberlist"
	"go.uber.org/zap"
)

// rejoin looks for members that are missing, until ctx ends: those of Join, and those that were
// there before, at their last address. memberlist forgets a dead member after a while, so that two
// halves of a fleet would stay apart for good after a long partition.
func (g *Gossip) rejoin(ctx context.Context, list *memberlist.Memberlist) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		for _, target := range g.missing(ctx) {
			if ctx.Err() != nil {
				return
			}
			if _, err := list.Join([]string{target.String()}); err != nil {
				g.log.Debug("look for a member", zap.String("address", target.String()), zap.Error(err))
			}
		}
		timer.Reset(g.pause())
	}
}

// pause is until the next search: shorter while nobody else is there. Up to a quarter of it is
// random, so that members which started together do not search together.
func (g *Gossip) pause() time.Duration {
	base := 10 * g.config.ProbeInterval
	if g.roster.size() == 1 {
		base = 2 * g.config.ProbeInterval
	}
	return base + rand.N(base/4)
}

// missing are the addresses where a member may be that is not present.
func (g *Gossip) missing(ctx context.Context) []address {
	there := map[string]bool{}
	var targets []address
	add := func(a address) {
		if !there[a.String()] {
			there[a.String()] = true
			targets = append(targets, a)
		}
	}
	known := g.roster.all(Meta{})
	for _, m := range known {
		if m.Presence == Present {
			there[m.Address] = true
		}
	}
	for _, hostPort := range g.config.Join {
		found, err := lookUp(ctx, hostPort)
		if err != nil {
			g.log.Debug("look for a member", zap.Error(err))
		}
		for _, a := range found {
			add(a)
		}
	}
	for _, m := range known {
		if m.Presence != Gone {
			continue
		}
		if found, err := lookUp(ctx, m.Address); err == nil {
			add(found[0])
		}
	}
	return targets
}
