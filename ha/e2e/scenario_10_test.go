package e2e

import (
	"context"
	"testing"
	"time"
)

// No server has any space for log. Nobody can take writes, clients are told, and when there is space again
// it goes on without anybody's help.
func TestServersThatAllRanOutOfSpaceGoOnWhenThereIsSome(t *testing.T) {
	slow(t)
	l := New(t, Options{Hosts: []string{"m1", "m2", "m3", "c1"}})
	hosts := []*Host{l.Host("m1"), l.Host("m2"), l.Host("m3")}
	nodes := l.Postgres(smallLog, hosts...)
	for _, n := range nodes {
		n.smallLogDisk()
	}
	f := newFleet(l, Layout{Members: hosts, Nodes: nodes})
	s := enact(t, f, usual(f.way(f.members[1])))
	s.happens(func() {
		for _, n := range []*Node{nodes[2], nodes[1], nodes[0]} {
			n.fillLogDisk()
		}
	})
	s.awaitSaid(time.Minute, `"alarm"`)
	awaitFor(t, time.Minute, "no more writes", func(context.Context) bool {
		return time.Since(s.event) > 5*time.Second && s.run.ledger.acknowledged(time.Now().Add(-5*time.Second)) == 0
	})
	for _, n := range nodes {
		n.emptyLogDisk()
	}
	s.awaitWrites("writes when there is space again", time.Now())
	f.awaitWhole(t, 4*patience)
	s.ends(idleClientsStay, operationsEnd)
}
