package fleet

import (
	"testing"
	"time"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/topology"
)

func TestWhoIsReachedElsewhere(t *testing.T) {
	sees := func(at time.Duration, class decide.Class) *heard {
		return &heard{Member: decide.Member{Heard: at, Sights: map[topology.NodeID]decide.Sight{2: {Class: class}}}}
	}
	witness := sees(100, decide.Answers)
	witness.Witness = true
	for name, c := range map[string]struct {
		own, other *heard
		leads      time.Duration
		want       bool
	}{
		"another one reaches it":             {sees(100, decide.Silent), sees(100, decide.Answers), 10, true},
		"and it is full":                     {sees(100, decide.Silent), sees(100, decide.Full), 10, true},
		"nobody reaches it":                  {sees(100, decide.Silent), sees(100, decide.Refused), 10, false},
		"only this member does":              {sees(100, decide.Answers), sees(100, decide.Silent), 10, false},
		"the other one was not heard lately": {sees(100, decide.Silent), sees(40, decide.Answers), 10, false},
		"the other one takes no clients":     {sees(100, decide.Silent), witness, 10, false},
		"a new leader has not heard them":    {sees(100, decide.Silent), sees(100, decide.Refused), 60, true},
	} {
		s := &seat{since: c.leads, members: map[string]*heard{"m1": c.own, "m2": c.other}}
		if got := s.elsewhere("m1", 2, 50); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
