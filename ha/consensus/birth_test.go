package consensus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/cstproxy/cstproxy/ha/peer"
)

// lose empties a member's directory while it is down.
func (n *node) lose() {
	n.fleet.t.Helper()
	must(n.fleet.t, os.RemoveAll(n.cfg.Dir))
}

// waits waits until a member says why it has no part, with the given words.
func (n *node) waits(words string) {
	n.fleet.t.Helper()
	n.fleet.await(func() error {
		if why := n.log.Waiting(); !strings.Contains(why, words) {
			return fmt.Errorf("%s says %q", n.name, why)
		}
		return nil
	})
}

func TestAFleetBeginsWhenAllOfItsVotersHaveMet(t *testing.T) {
	f := newFleet(t, "m3", "m1", "m2")
	f.members[0].start()
	f.members[1].start()
	f.members[0].waits("begins when all its voters have met, and m2")
	f.members[1].waits("begins when all its voters have met, and m2")
	f.members[2].start()
	f.leader(f.members...)
	f.await(func() error {
		for _, n := range f.members {
			if why := n.log.Waiting(); why != "" {
				return fmt.Errorf("%s waits: %s", n.name, why)
			}
		}
		return nil
	})
}

// With one member's disk gone and the only other one that knows away, the two that are left have a
// majority of names and no memory of what was agreed. They must not go on.
func TestAMemberThatLostItsDiskDoesNotVoteUntilAnOperatorSaysSo(t *testing.T) {
	f := newFleet(t, "m1", "m2", "m3")
	f.start()
	f.leader(f.members...)
	m1, m2, m3 := f.members[0], f.members[1], f.members[2]
	m3.down() // knows nothing of what follows
	f.propose(founding("f"), m1, m2)
	f.propose(froze("agreed by m1 and m2"), m1, m2)
	m1.down()
	m2.down()
	m2.lose()
	m2.start()
	m3.start()
	m2.waits("the fleet knows this member by a disk that it has no more")
	standForElection(m3) // it asks m2, and is refused
	if l := m3.log.Leader(); l.Name != "" {
		t.Fatalf("%s leads with the vote of a member that has lost its memory", l)
	}
	m1.start()
	f.leader(m1, m3)
	f.holds("agreed by m1 and m2", m1, m3)
	m2.waits("the fleet knows this member by a disk that it has no more")
	if got := frozenBy(m2.log); got != "" {
		t.Errorf("what was meant for the old disk was taken by the new one: %q", got)
	}

	f.do(func(l *Log) error {
		err := l.Add(within(t), m2.member(), Voter)
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "readmit") {
			return fmt.Errorf("added without an operator's word: %w", err)
		}
		if err := l.Readmit(within(t), m1.member()); !errors.Is(err, ErrRefused) {
			return fmt.Errorf("a member that lost nothing is readmitted: %w", err)
		}
		return nil
	}, m1, m3)
	f.readmit(m2, m1, m3)
	f.holds("agreed by m1 and m2", m2)
	m1.down()
	f.leader(m2, m3) // now its vote counts
}

// readmit goes on where an attempt ended that lost its leader.
func (f *fleet) readmit(n *node, by ...*node) {
	f.t.Helper()
	f.do(func(l *Log) error {
		for _, known := range l.Members() {
			if known.Name == n.name {
				if known.Identity == string(n.log.up.Load().store.id) {
					return nil
				}
				return l.Readmit(within(f.t), n.member())
			}
		}
		return l.Add(within(f.t), n.member(), Voter)
	}, by...)
}

// standForElection lets a member ask for votes a few times.
func standForElection(n *node) {
	t := n.fleet.t
	t.Helper()
	n.fleet.await(func() error {
		if state := n.log.up.Load().node.State(); state != raft.Candidate {
			return fmt.Errorf("%s is a %s", n.name, state)
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(context.Background(), 6*n.cfg.Election)
	defer cancel()
	<-ctx.Done()
}

func TestAFounderThatLostItsDiskFoundsNothing(t *testing.T) {
	f := newFleet(t, "m1", "m2", "m3")
	f.start()
	f.propose(founding("f"), f.members...)
	m1, m2, m3 := f.members[0], f.members[1], f.members[2]
	m1.down()
	m1.lose()
	m1.start()
	m1.waits("by a disk that it has no more")
	f.propose(froze("without m1"), m2, m3)
	f.readmit(m1, m2, m3)
	f.holds("without m1", f.members...)
}

func TestMembersComeAndGoOneAtATime(t *testing.T) {
	f := newFleet(t, "m1", "m2", "m3")
	f.start()
	three := f.members[:3:3]
	f.propose(founding("f"), three...)
	m4 := f.add("m4")
	m4.start()
	m4.waits("is to be added")
	add := func(role Role) {
		t.Helper()
		f.do(func(l *Log) error { return l.Add(within(t), m4.member(), role) }, three...)
	}
	add(Follower)
	f.propose(froze("four"), three...)
	f.holds("four", m4)
	add(Voter)
	f.do(func(l *Log) error { return l.VerifyQuorum(within(t)) }, f.members...)
	f.do(func(l *Log) error {
		if l == m4.log { // it would have to take its own vote
			return errors.Join(ErrNotLeader, m4.log.up.Load().node.LeadershipTransfer().Error())
		}
		return l.Add(within(t), m4.member(), Follower)
	}, f.members...)
	leader := f.leader(three...)
	if members := leader.log.Members(); len(members) != 4 || members[3].Role != Follower || members[3].Name != "m4" {
		t.Errorf("%+v", members)
	}
	taken := m4.member()
	taken.Name = "m5"
	if err := leader.log.Add(within(t), taken, Voter); err == nil {
		t.Error("two members at one address")
	}
	f.do(func(l *Log) error {
		if err := l.Remove(within(t), "m4"); !errors.Is(err, ErrNoMember) { // the attempt before did it
			return err
		}
		return nil
	}, three...)
	f.do(func(l *Log) error {
		if err := l.Add(within(t), m4.member(), Voter); !errors.Is(err, ErrRefused) {
			return fmt.Errorf("added with a log of its own: %w", err)
		}
		for what, err := range map[string]error{
			"removed twice": l.Remove(within(t), "m4"), "readmitted although nobody knows it": l.Readmit(within(t), m4.member()),
		} {
			if !errors.Is(err, ErrNoMember) {
				return fmt.Errorf("%s: %w", what, err)
			}
		}
		return nil
	}, three...)
	gone := f.do(func(l *Log) error { return l.Remove(within(t), l.cfg.Name) }, three...)
	var rest []*node
	for _, n := range three {
		if n != gone {
			rest = append(rest, n)
		}
	}
	f.propose(froze("two"), rest...)
}

func TestAMemberThatWasAloneBecomesTheFirstOfAFleet(t *testing.T) {
	f := newFleet(t, "m1")
	m1 := f.members[0]
	cfg := m1.cfg
	cfg.Address, cfg.Voters = "", nil
	l, stop := run(t, cfg)
	awaitLeader(t, l)
	must(t, l.Propose(within(t), founding("f")))
	must(t, l.Propose(within(t), froze("from before")))
	must(t, stop())

	m2 := f.add("m2")
	f.voters = append(f.voters, m2.member())
	m1.cfg.Voters, m2.cfg.Voters = f.voters, f.voters
	m1.start()
	m2.start()
	m2.waits("is to be added to it")
	f.await(func() error {
		if got := m1.log.Members(); len(got) != 1 || got[0].Address != m1.cfg.Address {
			return fmt.Errorf("%+v", got)
		}
		return nil
	})
	f.do(func(l *Log) error { return l.Add(within(t), m2.member(), Voter) }, m1)
	f.holds("from before", m2)
}

func TestTheLastVoterStays(t *testing.T) {
	l := alone(t, DefaultConfig("m1"))
	awaitLeader(t, l)
	if err := l.Remove(within(t), "m1"); !errors.Is(err, ErrRefused) {
		t.Error(err)
	}
	if err := l.Add(within(t), peer.Member{Name: "m2", Address: "x"}, Voter); !errors.Is(err, ErrNotLeader) {
		t.Error(err)
	}
}

func TestWhatAMemberWithAnEmptyDiskWaitsFor(t *testing.T) {
	all := []peer.Member{{Name: "m1", Address: "1"}, {Name: "m2", Address: "2"}, {Name: "m3", Address: "3"}}
	empty := func(at int, promised raft.ServerID) answer {
		id := raft.ServerID(all[at].Name + "/x")
		return answer{voter: all[at], greeting: greeting{ID: id, Empty: true, Voters: all, Promised: promised}}
	}
	silent := answer{voter: all[2], err: errors.New("no route")}
	voted := empty(1, "m1/x")
	voted.Empty = false
	born := func(ids ...raft.ServerID) answer {
		a := empty(1, "")
		a.Empty, a.Fleet = false, ids
		return a
	}
	elsewhere := empty(2, "m1/x")
	elsewhere.Voters = all[:2]
	for _, c := range []struct {
		name, self string
		answers    []answer
		want       string // "" founds
	}{
		{"all have promised", "m1", []answer{empty(1, "m1/x"), empty(2, "m1/x")}, ""},
		{"one is silent", "m1", []answer{empty(1, "m1/x"), silent}, "m3 (3) does not answer: no route"},
		{"one has promised itself before", "m1", []answer{empty(1, "m1/y"), empty(2, "m1/x")}, "empty the directory of m2"},
		{"one has not promised", "m1", []answer{empty(1, ""), empty(2, "m1/x")}, "empty the directory of m2"},
		{"one has voted", "m1", []answer{voted, empty(2, "m1/x")}, "m2 has taken part in a fleet"},
		{"one has other voters", "m1", []answer{empty(1, "m1/x"), elsewhere}, "m3 is configured with other voters"},
		{"not the founder", "m2", []answer{empty(0, ""), empty(2, "m1/x")}, "m1 begins the fleet"},
		{"a fleet that knows it", "m1", []answer{born("m1/x", "m2/x"), silent}, "its leader has not written yet"},
		{"a fleet that knew it", "m1", []answer{born("m1/old", "m2/x"), silent}, "until an operator readmits it"},
		{"a fleet that does not", "m1", []answer{silent, born("m2/x")}, "is to be added to it"},
	} {
		l := &Log{cfg: Config{Name: c.self}}
		mine := greeting{ID: raft.ServerID(c.self + "/x"), Empty: true, Voters: all}
		if got := l.judgeBirth(mine, c.answers); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
