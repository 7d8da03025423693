package e2e

import (
	"testing"
	"time"
)

// Hosts can be reached by SQL only: nothing can be stopped or started there, but promoted it can be.
func TestAFailoverNeedsNoSSH(t *testing.T) {
	slow(t)
	_, f := three(t, Layout{})
	s := enact(t, f, usual(f.way(f.members[1])))
	s.happens(func() {
		for _, n := range f.nodes {
			n.Block(22)
		}
		s.former.Kill()
	})
	now := s.awaitSuccessor()
	for _, n := range f.nodes {
		n.Unblock()
	}
	if whole := f.awaitWhole(t, 3*time.Minute); whole != now {
		t.Errorf("%s is the primary, after %s", whole.Name, now.Name)
	}
	s.ends(idleClientsStay, operationsEnd, nobodyWasAhead, oneEpochMore)
}
