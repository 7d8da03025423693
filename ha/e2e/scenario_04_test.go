package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// HangPostmaster stops the process that takes connections, and nothing else: sessions that there are go
// on. WakePostmaster ends that.
func (n *Node) HangPostmaster() { n.lab.t.Helper(); n.must("hang", postmaster+`kill -STOP "$pid"`) }

// WakePostmaster ends HangPostmaster.
func (n *Node) WakePostmaster() { n.lab.t.Helper(); n.must("wake", postmaster+`kill -CONT "$pid"`) }

const postmaster = `read -r pid <"$0/postmaster.pid" && `

// Nobody commits, and nobody could connect: the first client that tried would wait for ever.
func TestAServerThatTakesNoConnectionsIsReplacedWhenNobodyCommits(t *testing.T) {
	slow(t)
	l, f := three(t, Layout{})
	s := enact(t, f, Load{Way: f.way(f.members[1]), Idle: 10})
	s.happens(s.former.HangPostmaster)
	awaitFor(t, time.Minute, "another primary", func(context.Context) bool {
		_, ok := s.run.watch.promoted(s.former, s.event)
		return ok
	})
	load := usual(f.way(f.elsewhere(s.former)))
	s.also(l.Host("c1"), load)
	if now := f.awaitWhole(t, 2*patience); now == s.former {
		t.Errorf("%s is the primary again", now.Name)
	}
	s.ends(idleClientsStay, operationsEnd)
}

// The same while clients commit on the connections that there are: they would lose by a failover.
func TestAServerThatTakesNoConnectionsIsAnAlarmWhileClientsCommit(t *testing.T) {
	slow(t)
	_, f := three(t, Layout{})
	s := enact(t, f, usual(f.way(f.members[1])))
	s.happens(s.former.HangPostmaster)
	s.awaitSaid(patience, `"alarm"`, "transactions of clients")
	// As many commits as there are in twice the time after which idle clients would see a failover.
	before := s.run.ledger.acknowledged(s.event)
	awaitFor(t, time.Minute, "many commits", func(context.Context) bool {
		return time.Since(s.event) > 10*time.Second && s.run.ledger.acknowledged(s.event) > 2*before
	})
	s.former.WakePostmaster()
	await(t, "a healthy primary", func(ctx context.Context) bool {
		_, err := PsqlFrom(ctx, s.run.client, s.former.Addr, "SELECT 1")
		return err == nil
	})
	s.ends(epochUnchanged, nothingIsLost, idleClientsStay, operationsEnd, noClientWasTold)
}

// For faults that clients must not notice but by waiting.
var noClientWasTold = invariant{"no client is told of a failure", func(x *trace) error {
	for _, r := range x.all() {
		if r.Refused+r.Unknown+r.Unconnected+r.BusyLost+r.IdleLost+r.PinnedLost > 0 {
			return fmt.Errorf("%v", r.Codes)
		}
	}
	return nil
}}
