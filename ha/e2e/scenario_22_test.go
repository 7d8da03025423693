package e2e

import (
	"context"
	"strings"
	"testing"
	"time"
)

// survivor is a member that does not lead, and not on the primary's host.
func (f *Fleet) survivor(former *Node) *Member {
	leader := f.leads()
	var left *Member
	for _, m := range f.members {
		if m != leader && (left == nil || left.Host == former.Host) {
			left = m
		}
	}
	return left
}

// bereave kills the others.
func (m *Member) bereave() {
	m.lab.t.Helper()
	for _, other := range m.fleet.members {
		if other != m {
			other.Kill()
		}
	}
}

// A majority of the members is gone. Servers do not need members to work.
func TestClientsWriteOnWhenTheMembersHaveLostTheirMajority(t *testing.T) {
	_, f := three(t, Layout{Cluster: virtual})
	primary := f.awaitWhole(t, patience)
	left := f.survivor(primary)
	load := usual(Way{Addrs: f.way(left).Addrs[:1]})
	load.Readers = 2
	s := enact(t, f, load)
	s.happens(left.bereave)
	s.awaitWrites("writes without a majority", s.event.Add(8*time.Second))
	for _, m := range f.members {
		if m != left {
			m.Start()
		}
	}
	back := time.Now()
	await(t, "a leader", func(context.Context) bool { return f.leads() != nil })
	s.awaitWrites("writes with a majority again", back.Add(2*time.Second))
	for _, m := range f.members {
		m.AwaitReady()
	}
	s.ends(epochUnchanged, nothingIsLost, operationsEnd, noClientWasTold)
}

// Nobody may promote without a majority, not even an operator: who could tell him from his rival on the
// other side? He is told what to do.
func TestNobodyIsPromotedWithoutAMajorityOfTheMembers(t *testing.T) {
	slow(t)
	_, f := three(t, Layout{Cluster: virtual, Operation: map[string]string{"on_crash": `"failover"`}})
	primary := f.awaitWhole(t, patience)
	left := f.survivor(primary)
	s := enact(t, f, usual(Way{Addrs: f.way(left).Addrs[:1]}))
	s.happens(left.bereave)
	s.former.Kill()
	said, err := left.ctl(t.Context(), "failover", "--yes")
	if err == nil {
		t.Errorf("a failover was begun: %s", said)
	} else if text := err.Error() + said; !strings.Contains(text, "majority") {
		t.Errorf("the operator is told: %s", text)
	} else {
		t.Logf("the operator is told: %s", text)
	}
	// As long as a failover takes, several times over.
	awaitFor(t, time.Minute, "time to pass", func(context.Context) bool { return time.Since(s.event) > 8*time.Second })
	if at, ok := s.run.watch.promoted(s.former, s.event); ok {
		t.Errorf("another primary was seen %s after the event", at.Sub(s.event))
	}
	for _, m := range f.members {
		if m != left {
			m.Start()
		}
	}
	s.awaitSuccessor()
	f.awaitWhole(t, 2*time.Minute)
	s.ends(operationsEnd, nobodyWasAhead, oneEpochMore)
}
