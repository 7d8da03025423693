package e2e

import (
	"context"
	"testing"
	"time"
)

// The host goes on after its address has moved: it still has it, and nobody could tell it otherwise.
func TestAHostThatWasPausedGivesItsAddressUpWhenItGoesOn(t *testing.T) {
	l, f := three(t, Layout{Cluster: virtual})
	primary := f.awaitWhole(t, patience)
	f.awaitLeader(t, f.elsewhere(primary))
	s := enact(t, f, usual(f.way(f.elsewhere(primary))))
	direct := s.direct(writeVIP)
	s.happens(s.former.Freeze)
	now := s.awaitSuccessor()
	await(t, "writes by the address", func(context.Context) bool {
		return direct.ledger.acknowledged(time.Now().Add(-time.Second)) > 20
	})
	thawed := time.Now()
	s.former.Thaw()
	if both := l.holders(writeVIP); len(both) != 2 {
		t.Logf("the address was on %v when that was asked: no two had it any more", both)
	}
	s.heldBy(writeVIP, now.Host)
	t.Logf("one host has the address %s after the thaw", time.Since(thawed).Round(time.Millisecond))
	if whole := f.awaitWhole(t, 2*time.Minute); whole != now {
		t.Errorf("%s is the primary, after %s", whole.Name, now.Name)
	}
	s.ends(idleClientsStay, operationsEnd, nobodyWasAhead, oneEpochMore)
}
