package e2e

import (
	"context"
	"testing"
	"time"
)

// m2 is the bridge between the primary's host and the leader's, which do not see each other. A majority
// reaches the primary, so it stays.
func TestAPrimaryBehindABridgeStays(t *testing.T) {
	slow(t)
	l, f := three(t, Layout{})
	primary := f.awaitWhole(t, patience)
	var ends []*Member
	for _, m := range f.members {
		if m.Host != primary.Host {
			ends = append(ends, m)
		}
	}
	bridge, leader := ends[0], ends[1]
	f.awaitLeader(t, leader)
	s := enact(t, f, usual(f.way(bridge)))
	s.happens(func() { l.Partition([]*Host{primary.Host}, []*Host{leader.Host}) })
	awaitFor(t, time.Minute, "commits through the bridge", func(context.Context) bool {
		return time.Since(s.event) > 15*time.Second && s.run.ledger.acknowledged(s.event) > 100
	})
	l.Heal()
	f.awaitWhole(t, 2*patience)
	s.ends(epochUnchanged, nothingIsLost, idleClientsStay, operationsEnd)
}
