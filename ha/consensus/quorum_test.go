package consensus

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"
)

func TestARoundThatHadBegunDoesNotServeWhoAsksDuringIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rounds{turn: make(chan struct{}, 1)}
		began, release := 0, make(chan error)
		round := func(context.Context) error { began++; return <-release }
		results := make(chan error, 4)
		ask := func() { results <- r.after(t.Context(), round) }
		go ask()
		synctest.Wait() // the first round has begun
		go ask()
		go ask()
		synctest.Wait()
		release <- nil
		synctest.Wait()
		if began != 2 || len(results) != 1 {
			t.Fatalf("%d rounds, %d answers", began, len(results))
		}
		release <- nil // serves both of those who asked during the first
		synctest.Wait()
		if began != 2 || len(results) != 3 {
			t.Fatalf("%d rounds, %d answers", began, len(results))
		}
		go ask()
		synctest.Wait()
		go ask()
		synctest.Wait()
		release <- errNoQuorum // serves nobody but its own
		synctest.Wait()
		release <- nil
		synctest.Wait()
		var failed int
		for range 5 {
			if err := <-results; err != nil {
				failed++
			}
		}
		if failed != 1 || began != 4 {
			t.Errorf("%d failed in %d rounds", failed, began)
		}
		go ask()
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := r.after(ctx, round); !errors.Is(err, errNoQuorum) {
			t.Errorf("nobody waits any more: %v", err)
		}
		release <- nil
	})
}

func TestAMajorityIsOfVoters(t *testing.T) {
	server := func(id raft.ServerID, s raft.ServerSuffrage) raft.Server { return raft.Server{ID: id, Suffrage: s} }
	for _, c := range []struct {
		name                string
		all                 []raft.Server
		others, votes, need int
	}{
		{"alone", []raft.Server{server("a", raft.Voter)}, 0, 1, 1},
		{"two", []raft.Server{server("a", raft.Voter), server("b", raft.Voter)}, 1, 1, 2},
		{"two and a follower", []raft.Server{server("a", raft.Voter), server("b", raft.Voter), server("c", raft.Nonvoter)}, 1, 1, 2},
		{"three", []raft.Server{server("a", raft.Voter), server("b", raft.Voter), server("c", raft.Voter)}, 2, 1, 2},
		{"not in it", []raft.Server{server("b", raft.Voter), server("c", raft.Voter), server("d", raft.Voter)}, 3, 0, 2},
		{"a follower itself", []raft.Server{server("a", raft.Nonvoter), server("b", raft.Voter)}, 1, 0, 1},
	} {
		others, votes, need := electorate(c.all, "a")
		if len(others) != c.others || votes != c.votes || need != c.need {
			t.Errorf("%s: %d others, %d of %d votes", c.name, len(others), votes, need)
		}
	}
}

func TestAVoterConfirmsUnderItsOwnIdentityOnly(t *testing.T) {
	f := newFleet(t, "m1", "m2", "m3")
	f.start()
	leader := f.leader(f.members...)
	voter := f.others(leader)[0]
	for name, c := range map[string]struct{ body, want string }{
		"another disk": {`{"term":1,"you":"` + voter.name + `/0"}`, "not " + voter.name + "/0"},
		"garbage":      {`{`, "unexpected end"},
	} {
		if _, err := leader.link.Call(within(t), voter.member(), confirmMethod, []byte(c.body)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	body, err := json.Marshal(question{1, voter.log.up.Load().store.id})
	must(t, err)
	answer, err := leader.link.Call(within(t), voter.member(), confirmMethod, body)
	must(t, err)
	var c confirmation
	if err := json.Unmarshal(answer, &c); err != nil || c.Term == 0 || c.Term > voter.log.Term() {
		t.Errorf("%s, %v", answer, err)
	}
	if _, err := leader.link.Call(within(t), voter.member(), meetMethod, []byte(`{"id":"m9/1"}`)); err == nil || !strings.Contains(err.Error(), "says that it is m9") {
		t.Errorf("under another's name: %v", err)
	}
}

// One voter away costs nothing, and nothing is waited for: the round ends with the majority.
func TestAMajorityConfirmsWhileOneVoterIsSilent(t *testing.T) {
	f := newFleet(t, "m1", "m2", "m3")
	f.start()
	leader := f.leader(f.members...)
	silent := f.others(leader)[0]
	f.isolate(silent)
	for range 20 {
		f.do(func(l *Log) error { return l.VerifyQuorum(within(t)) }, f.others(silent)...)
	}
	f.heal()
}
