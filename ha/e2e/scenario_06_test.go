package e2e

import (
	"context"
	"testing"
	"time"
)

// A member stands still with commits of its clients in its hands, and goes on in another epoch. The
// server that it asked has answered long ago; nobody else may have gone by that answer.
func TestAMemberThatSleepsThroughAFailoverVouchesForNothing(t *testing.T) {
	l, f := three(t, Layout{Operation: map[string]string{"on_crash": `"failover"`}})
	primary := f.awaitWhole(t, patience)
	leader := f.elsewhere(primary)
	f.awaitLeader(t, leader)
	var sleeper *Member
	for _, m := range f.members {
		if m != leader && m.Host != primary.Host {
			sleeper = m
		}
	}
	s := enact(t, f, usual(f.way(leader)))
	dreams := s.also(l.Host("c1"), Load{Way: Way{Addrs: f.way(sleeper).Addrs[:1]}, Writers: 8, Idle: 5})
	s.happens(func() {
		sleeper.Pause()
		s.former.Kill()
	})
	s.awaitSuccessor()
	woken := time.Now()
	sleeper.Resume()
	await(t, "clients of the member that slept to write", func(context.Context) bool { return dreams.ledger.acknowledged(woken) > 100 })
	f.awaitWhole(t, 2*patience)
	s.ends(idleClientsStay, operationsEnd, nobodyWasAhead)
	if n := s.reports[0].Unknown; n == 0 {
		t.Errorf("the member that slept has left nobody in doubt: it had no commit in its hands, or vouched for it: %v", s.reports[0].Codes)
	}
	if n := s.reports[0].Codes["connection lost"]; n > 0 {
		t.Errorf("%d of its clients lost their connection instead of being told", n)
	}
}
