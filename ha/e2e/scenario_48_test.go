package e2e

import (
	"context"
	"testing"
	"time"
)

// An operator has said that nothing may happen by itself, and the primary crashes. He is told, clients
// wait and are told; what he allows again is done.
func TestNothingIsDoneAboutACrashWhileAClusterIsFroze(t *testing.T) {
	_, f := three(t, Layout{})
	primary := f.awaitWhole(t, patience)
	member := f.elsewhere(primary)
	f.orders(t, member, "froze", "--why", "works on the network")
	s := enact(t, f, usual(f.way(member)))
	s.happens(s.former.Kill)
	s.awaitSaid(patience, `"alarm"`, "froze")
	awaitFor(t, time.Minute, "clients to be told that there is no primary", func(context.Context) bool {
		writes, _ := s.run.ledger.entries()
		for _, a := range writes {
			if _, code := judge(a.Err); a.Err != nil && code == "57P03" {
				return true
			}
		}
		return false
	})
	if acted := s.said("action"); len(acted) > 0 {
		t.Errorf("%s acted: %s", acted[0].Member.Name, acted[0].Raw)
	}
	thawed := time.Now()
	f.orders(t, member, "unfroze")
	s.awaitWrites("writes after the cluster was unfroze", thawed)
	f.awaitWhole(t, 2*patience)
	s.ends(atMostOneEpochMore, operationsEnd)
}

// orders is ctl for what must succeed.
func (f *Fleet) orders(t *testing.T, m *Member, args ...string) string {
	t.Helper()
	said, err := m.ctl(t.Context(), args...)
	if err != nil {
		t.Fatalf("ctl %v: %v\n%s", args, err, said)
	}
	return said
}
