package record

import (
	"testing"
	"time"
)

func TestTheRecordRemembersWhenEachEpochBegan(t *testing.T) {
	first, second := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC), time.Date(2026, 1, 3, 0, 0, 0, 0, time.FixedZone("there", 3600))
	timed := func(e Entry, at time.Time) Entry { e.At = at; return e }
	s := log(t, &State{}, timed(found(), first), timed(adopt(), first), timed(begin(failover()), second))
	for _, step := range []Step{Freeze, Fence} {
		s = log(t, s, timed(to(s, step, nil), second))
	}
	s = log(t, s, timed(to(s, Promote, promote), second))
	if n := len(s.Clusters[cluster].Starts); n != 1 {
		t.Fatalf("%d starts before the second epoch", n)
	}
	s = log(t, s, timed(to(s, After, cross), second.Add(time.Second)))
	c := s.Clusters[cluster]
	one, ok := c.StartOf(1)
	if !ok || one.Epoch != 7 || one.Primary != 1 || !one.Time().Equal(first) {
		t.Errorf("timeline 1: %+v, %v", one, ok)
	}
	two, ok := c.StartOf(2)
	if !ok || two.Epoch != 8 || two.Primary != 2 || !two.Time().Equal(second.Add(time.Second)) {
		t.Errorf("timeline 2: %+v, %v", two, ok)
	}
	if _, ok := c.StartOf(3); ok {
		t.Error("timeline 3 has begun")
	}
	if untimed := log(t, &State{}, found(), adopt()); len(untimed.Clusters[cluster].Starts) != 0 {
		t.Error("a time was made up")
	}
}
