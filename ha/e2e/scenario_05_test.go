package e2e

import "testing"

// Every process of the server stands still: its host answers, its kernel takes connections, nobody
// speaks. SSH is away, so it cannot be ended either. When it goes on after somebody else was promoted,
// it is a second primary for a moment, with statements of clients in its hands.
func TestAFrozenServerIsReplacedAndAcknowledgesNothingWhenItGoesOn(t *testing.T) {
	slow(t)
	_, f := three(t, Layout{Cluster: virtual})
	load := usual(f.way(f.members[1]))
	load.Readers, load.Pinned = 2, 2
	s := enact(t, f, load)
	s.happens(func() {
		s.former.Block(22)
		s.former.Hang()
	})
	now := s.awaitSuccessor()
	s.former.Unblock()
	s.former.Wake()
	if whole := f.awaitWhole(t, 2*patience); whole != now {
		t.Errorf("%s is the primary, after %s", whole.Name, now.Name)
	}
	s.heldBy(writeVIP, now.Host)
	s.ends(idleClientsStay, operationsEnd)
}

// With SSH the hosts do away with it.
func TestAFrozenServerIsEndedByItsHostAndRepaired(t *testing.T) {
	slow(t)
	_, f := three(t, Layout{Cluster: virtual})
	s := enact(t, f, usual(f.way(f.members[1])))
	s.happens(s.former.Hang)
	now := s.awaitSuccessor()
	if whole := f.awaitWhole(t, 2*patience); whole != now {
		t.Errorf("%s is the primary, after %s", whole.Name, now.Name)
	}
	s.heldBy(writeVIP, now.Host)
	s.ends(idleClientsStay, operationsEnd)
}
