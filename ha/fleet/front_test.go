package fleet

import (
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
		got := c.front.choose(claim{c.member, c.held, c.blind}, c.now, wait)
		if got != c.want {
			t.Errorf("%s: %v", name, got)
		}
		if got && (c.front.holder != c.member || c.front.until != c.now+wait) {
			t.Errorf("%s: %+v", name, c.front)
		}
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
