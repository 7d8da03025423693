package e2e

import (
	"context"
	"testing"
	"time"
)

// Three parts of the way back at once: the primary, the leader that has to decide, and the address that
// has to move.
func TestTheHostOfPrimaryLeaderAndAddressLosesItsPower(t *testing.T) {
	slow(t)
	_, f := three(t, Layout{Cluster: virtual})
	primary := f.awaitWhole(t, patience)
	f.awaitLeader(t, f.memberOn(primary.Host))
	load := usual(f.way(f.elsewhere(primary)))
	load.Readers, load.Pinned = 2, 2
	s := enact(t, f, load)
	direct := s.direct(writeVIP)
	s.happens(s.former.PowerOff)
	now := s.awaitSuccessor()
	await(t, "writes by the address", func(context.Context) bool {
		return direct.ledger.acknowledged(time.Now().Add(-time.Second)) > 20
	})
	s.heldBy(writeVIP, now.Host)
	s.former.PowerOn()
	f.memberOn(s.former.Host).Start()
	if whole := f.awaitWhole(t, 4*patience); whole != now {
		t.Errorf("%s is the primary, after %s", whole.Name, now.Name)
	}
	s.ends(idleClientsStay, operationsEnd, nobodyWasAhead)
}
