package fleet

import (
	"testing"
	"time"
)

func TestOneMemberAtATimeHoldsTheMembersAddress(t *testing.T) {
	const wait = 1515 * time.Millisecond
	for name, c := range map[string]struct {
		front  front
		member string
		held   bool
		now    time.Duration
		want   bool
	}{
		"a new leader waits for what another gave":     {front{since: 10}, "m1", false, 9, false},
		"and gives it when that has lapsed":            {front{since: 10}, "m1", false, 10, true},
		"who holds it goes on under a new leader":      {front{since: 10}, "m1", true, 5, true},
		"the holder goes on":                           {front{holder: "m1", until: 20, since: 10}, "m1", true, 15, true},
		"nobody else while it may hold it":             {front{holder: "m1", until: 20, since: 10}, "m2", true, 19, false},
		"somebody else when it has certainly given up": {front{holder: "m1", until: 20, since: 10}, "m2", false, 20, true},
	} {
		got := c.front.choose(claim{c.member, c.held}, c.now, wait)
		if got != c.want {
			t.Errorf("%s: %v", name, got)
		}
		if got && (c.front.holder != c.member || c.front.until != c.now+wait) {
			t.Errorf("%s: %+v", name, c.front)
		}
	}
}
