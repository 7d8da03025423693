package fleet

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/topology"
)

func TestOneMemberAtATimeHoldsTheMembersAddress(t *testing.T) {
	const wait = 1515 * time.Millisecond
	for name, c := range map[string]struct {
		front  front
		member string
		held   bool
		blind  bool
		now    time.Duration
		want   bool
	}{
		"a new leader waits for what another gave":     {front{since: 10}, "m1", false, false, 9, false},
		"and gives it when that has lapsed":            {front{since: 10}, "m1", false, false, 10, true},
		"who holds it goes on under a new leader":      {front{since: 10}, "m1", true, false, 5, true},
		"the holder goes on":                           {front{holder: "m1", until: 20, since: 10}, "m1", true, false, 15, true},
		"nobody else while it may hold it":             {front{holder: "m1", until: 20, since: 10}, "m2", true, false, 19, false},
		"somebody else when it has certainly given up": {front{holder: "m1", until: 20, since: 10}, "m2", false, false, 20, true},
		"a holder that does not reach the primary":     {front{holder: "m1", until: 20, since: 10}, "m1", true, true, 15, false},
		"nor does such a one get it":                   {front{holder: "m1", until: 20, since: 10}, "m2", false, true, 20, false},
	} {
		got := c.front.choose(claim{member: c.member, held: c.held, blind: c.blind}, c.now, wait)
		if got != c.want {
			t.Errorf("%s: %v", name, got)
		}
		if got && (c.front.holder != c.member || c.front.until != c.now+wait) {
			t.Errorf("%s: %+v", name, c.front)
		}
	}
}

// Elections take longer than a lease now and then: the address comes back to its holder's clients.
func TestTheMembersAddressWaitsForWhoHadItLast(t *testing.T) {
	const wait = 100
	type said struct {
		claim
		now  time.Duration
		want bool
	}
	had := func(member string, ago time.Duration) claim { return claim{member: member, lapsed: ago} }
	for name, all := range map[string][]said{
		"who had it gets it, whoever comes first": {
			{had("m1", 20), 950, false}, {had("m2", 0), 1000, false}, {had("m1", 70), 1001, true}, {had("m2", 0), 1002, false}},
		"who had it last": {
			{had("m1", 60), 950, false}, {had("m2", 20), 950, false}, {had("m3", 200), 960, false},
			{had("m1", 120), 1010, false}, {had("m3", 250), 1010, false}, {had("m2", 80), 1010, true}},
		"unless it is not heard any more": {
			{had("m1", 20), 950, false}, {had("m2", 0), 1049, false}, {had("m2", 0), 1050, true}},
		"or does not reach the primary": {
			{had("m1", 20), 950, false}, {claim{member: "m1", lapsed: 60, blind: true}, 990, false}, {had("m2", 0), 1000, true}},
		"not before what a leader gave has lapsed": {
			{had("m1", 20), 950, false}, {had("m1", 69), 999, false}, {claim{member: "m2", held: true}, 999, true}, {had("m1", 71), 1001, false}},
	} {
		f := front{since: 1000}
		for i, s := range all {
			if got := f.choose(s.claim, s.now, wait); got != s.want {
				t.Errorf("%s: %d: %s: %v", name, i, s.member, got)
			}
		}
	}
}

// holders are the members that hold the members' address.
func (w *world) holders() (list []*member) {
	for _, n := range w.members {
		if n.fleet.Front(0) {
			list = append(list, n)
		}
	}
	return list
}

// holder waits for the one.
func (w *world) holder() *member {
	w.t.Helper()
	var all []*member
	w.await(func() error {
		if all = w.holders(); len(all) == 0 {
			return errors.New("nobody holds it")
		}
		return nil
	})
	if len(all) > 1 {
		w.t.Fatalf("%s and %s hold it", all[0].name, all[1].name)
	}
	return all[0]
}

func TestTheMembersAddressOutlastsItsLeader(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	w.rules(1, w.members...)
	leader, holder := w.leader(w.members...), w.holder()
	if holder == leader { // let it be another's, as if that had been heard first
		holder = w.others(leader)[0]
		leader.fleet.mu.Lock()
		leader.fleet.frontUntil, leader.fleet.reign.front = 0, front{holder: holder.name, until: Now() + patience}
		leader.fleet.mu.Unlock()
		w.await(func() error { // an answer to the leader may have been on its way
			if got := w.holders(); len(got) != 1 || got[0] != holder {
				return fmt.Errorf("%d have it", len(got))
			}
			return nil
		})
	}
	w.await(func() error { // a lease's end and not more than one report before it
		if !holder.fleet.Front(frontLeases*terms.Length - terms.Length/2) {
			return fmt.Errorf("%s has it for less", holder.name)
		}
		return nil
	})
	w.cuts.set(leader.at, true)
	next := w.leader(w.others(leader)...)
	w.await(func() error {
		next.fleet.mu.Lock()
		defer next.fleet.mu.Unlock()
		if r := next.fleet.reign; r == nil || r.front.holder != holder.name {
			return fmt.Errorf("%s has not given it to %s", next.name, holder.name)
		}
		return nil
	})
	if got := w.holder(); got != holder {
		t.Errorf("%s has it, and %s had it", got.name, holder.name)
	}
}

func TestTheMembersAddressComesBackToWhoHadItWhenThereIsAMajorityAgain(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	w.rules(1, w.members...)
	holder := w.holder()
	for at := range w.members {
		w.cuts.set(at, true)
	}
	w.await(func() error {
		if len(w.holders()) > 0 {
			return errors.New("it is held without a majority")
		}
		return nil
	})
	for at := range w.members {
		w.cuts.set(at, false)
	}
	if got := w.holder(); got != holder {
		t.Errorf("%s has it, and %s had it", got.name, holder.name)
	}
}

func TestAMemberThatAloneDoesNotReachThePrimaryIsBlind(t *testing.T) {
	sees := func(at time.Duration, class decide.Class) *heard {
		return &heard{Member: decide.Member{Heard: at, Sights: map[topology.NodeID]decide.Sight{1: {Class: class}, 2: {Class: decide.Answers}}}}
	}
	witness := sees(100, decide.Answers)
	witness.Witness = true
	for name, c := range map[string]struct {
		own, other *heard
		want       bool
	}{
		"only it does not reach it":       {sees(100, decide.Silent), sees(100, decide.Answers), true},
		"nor does it get a login through": {sees(100, decide.Stuck), sees(100, decide.Full), true},
		"nobody reaches it":               {sees(100, decide.Silent), sees(100, decide.Refused), false},
		"it reaches it itself":            {sees(100, decide.Answers), sees(100, decide.Answers), false},
		"it has not probed it yet":        {sees(100, decide.Unprobed), sees(100, decide.Answers), false},
		"the other was not heard lately":  {sees(100, decide.Silent), sees(40, decide.Answers), false},
		"the other takes no clients":      {sees(100, decide.Silent), witness, false},
	} {
		s := &seat{members: map[string]*heard{"m1": c.own, "m2": c.other}}
		if got := s.blind("m1", 1, 50); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
