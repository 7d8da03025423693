package e2e

import (
	"context"
	"testing"
	"time"
)

// A voter's vote was on the disk that it lost. It must not vote as if it had never done so before an
// operator has said that the old disk is gone for good.
func TestAVoterThatLostItsDiskDoesNotVote(t *testing.T) {
	_, f := three(t, Layout{})
	primary := f.awaitWhole(t, patience)
	leader := f.elsewhere(primary)
	f.awaitLeader(t, leader)
	var loser, other *Member
	for _, m := range f.members {
		switch {
		case m == leader:
		case loser == nil:
			loser = m
		default:
			other = m
		}
	}
	s := enact(t, f, usual(f.way(leader)))
	s.happens(func() {
		loser.Kill()
		loser.Host.must("lose the disk", "rm -rf /home/cstproxy/state")
		loser.Start()
	})
	s.awaitSaid(patience, "in no fleet")
	// Two voters have a majority only together.
	t.Run("until then it counts for nobody", func(t *testing.T) {
		other.Kill()
		began := time.Now()
		await(t, "the leader to know that it has no majority", func(context.Context) bool { return f.leads() == nil })
		pause(t.Context(), 5*time.Second) // ten elections
		for _, l := range f.log(began) {
			if l.Msg == "leads" {
				t.Errorf("%s was elected: %s", l.Member.Name, l.Raw)
			}
		}
		other.Start()
		await(t, "a leader", func(context.Context) bool { return f.leads() != nil })
	})
	t.Run("and it does when it was readmitted", func(t *testing.T) {
		f.orders(t, leader, "voter", "readmit", loser.Name, loser.at(peerPort), "--yes")
		loser.AwaitReady()
		others := []*Member{leader, other}
		if f.leads() == other {
			others[0], others[1] = other, leader
		}
		others[0].Kill()
		await(t, "a leader by the vote that was given back", func(context.Context) bool {
			now := f.leads()
			return now != nil && now != others[0]
		})
		others[0].Start()
		others[0].AwaitReady()
	})
	s.awaitWrites("writes in the end", time.Now())
	s.ends(epochUnchanged, nothingIsLost, operationsEnd)
}

// The leader cannot write its log any more. Somebody else leads, and a crash of the primary is dealt with.
func TestALeaderWhoseDiskIsFullIsSucceeded(t *testing.T) {
	slow(t)
	_, f := three(t, Layout{Operation: map[string]string{"on_crash": `"failover"`}})
	primary := f.awaitWhole(t, patience)
	leader := f.elsewhere(primary)
	leader.Kill()
	leader.Host.must("make a disk", `cd /home/cstproxy && cp -a state /run/state && mount -t tmpfs -o size=8M tmpfs state && cp -a /run/state/. state/`)
	leader.Start()
	leader.AwaitReady()
	f.awaitLeader(t, leader)
	s := enact(t, f, usual(f.way(f.memberOn(primary.Host))))
	s.happens(func() {
		leader.Host.must("fill the disk", `! dd if=/dev/zero of=/home/cstproxy/state/ballast bs=64k 2>/dev/null`)
		s.former.Kill()
	})
	now := s.awaitSuccessor()
	leader.Host.must("empty the disk", "rm /home/cstproxy/state/ballast")
	if whole := f.awaitWhole(t, 3*patience); whole != now {
		t.Errorf("%s is the primary, after %s", whole.Name, now.Name)
	}
	s.ends(oneEpochMore, operationsEnd)
}
