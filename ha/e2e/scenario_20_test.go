package e2e

import (
	"context"
	"testing"
	"time"
)

// A third of what the leader's host sends is lost, on the way to everybody. Whoever leads then: the
// primary is fine, and a majority reaches it.
func TestAHostThatSendsWithLossesCostsNoEpoch(t *testing.T) {
	slow(t)
	l, f := three(t, Layout{})
	primary := f.awaitWhole(t, patience)
	leader := f.elsewhere(primary)
	f.awaitLeader(t, leader)
	load := usual(f.way(f.memberOn(primary.Host)))
	load.Readers = 2
	s := enact(t, f, load)
	s.happens(func() {
		for _, h := range l.hosts {
			if h != leader.Host {
				l.Lose(30, leader.Host, h)
			}
		}
	})
	awaitFor(t, time.Minute, "commits beside the losses", func(context.Context) bool {
		return time.Since(s.event) > 15*time.Second && s.run.ledger.acknowledged(s.event) > 100
	})
	l.Heal()
	f.awaitWhole(t, 2*patience)
	s.ends(epochUnchanged, nothingIsLost, idleClientsStay, operationsEnd)
}

// The primary's cable is out for less than it takes to give a server up, again and again.
func TestAPrimaryWhoseLinkFlapsIsNotReplacedEachTime(t *testing.T) {
	slow(t)
	_, f := three(t, Layout{})
	primary := f.awaitWhole(t, patience)
	s := enact(t, f, usual(f.way(f.elsewhere(primary))))
	s.happens(func() {
		for range 12 {
			primary.Unplug()
			pause(t.Context(), 400*time.Millisecond)
			primary.Plug()
			pause(t.Context(), 1100*time.Millisecond)
		}
	})
	f.awaitWhole(t, 3*patience)
	s.awaitWrites("writes after the last of the interruptions", s.event)
	s.ends(idleClientsStay, operationsEnd, atMostOneEpochMore)
}
