package ha

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cstproxy/cstproxy/ha/topology"
)

var epochStart = time.Unix(1_700_000_000, 0)

func at(seconds float64) time.Time {
	return epochStart.Add(time.Duration(seconds * float64(time.Second)))
}

func TestANodeIsSafeUpToTheLastRoundItHasReplayed(t *testing.T) {
	var k track
	if k.safe(1000) != 0 || k.lag(1000).known {
		t.Error("a track without rounds proves something")
	}
	k.add(mark{1, 100, at(0)}, 90, time.Second)
	k.add(mark{2, 200, at(0.1)}, 190, time.Second)
	k.add(mark{3, 200, at(0.2)}, 200, time.Second)
	k.add(mark{4, 300, at(0.3)}, 300, time.Second)
	for _, c := range []struct {
		replay topology.LSN
		safe   topology.Round
		lag    lag
	}{
		{99, 0, lag{true, 201, 300 * time.Millisecond}},
		{100, 1, lag{true, 200, 200 * time.Millisecond}},
		{199, 1, lag{true, 101, 200 * time.Millisecond}},
		{200, 3, lag{true, 100, 0}},
		{300, 4, lag{true, 0, 0}},
		{999, 4, lag{true, 0, 0}},
	} {
		if safe, l := k.safe(c.replay), k.lag(c.replay); safe != c.safe || l != c.lag {
			t.Errorf("replay %d: safe %d, lag %+v; want %d, %+v", c.replay, safe, l, c.safe, c.lag)
		}
	}
}

func TestAnIdlePrimarysRoundsCountOnceTheFlushPositionIsOldEnough(t *testing.T) {
	var k track
	for i := range 4 {
		k.add(mark{topology.Round(i + 1), 140, at(float64(i) * 0.5)}, 100, time.Second)
	}
	if safe := k.safe(100); safe != 2 {
		t.Errorf("safe %d, want 2: round 2 began 1 s before the newest", safe)
	}
	if safe := k.safe(99); safe != 0 {
		t.Errorf("safe %d below the flush position", safe)
	}
}

func TestAPositionThatFellBoundsTheOlderRounds(t *testing.T) {
	var k track
	k.add(mark{1, 100, at(0)}, 100, time.Second)
	k.add(mark{2, 500, at(0.1)}, 100, time.Second)
	k.add(mark{3, 300, at(0.2)}, 300, time.Second)
	if safe := k.safe(300); safe != 3 {
		t.Errorf("safe %d, want 3", safe)
	}
	if safe := k.safe(299); safe != 1 {
		t.Errorf("safe %d, want 1", safe)
	}
}

// A track is compared with the definition: round k is safe when replay has reached P_k, or what was
// flushed at least 1 s after k began.
func TestATrackNeverPromisesMoreThanTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type round struct {
			mark
			flush topology.LSN
		}
		var k track
		var all []round
		now, insert, flush := epochStart, topology.LSN(100), topology.LSN(100)
		for i := range rapid.IntRange(1, 3*trackSize).Draw(t, "rounds") {
			now = now.Add(time.Duration(rapid.IntRange(1, 400).Draw(t, "ms")) * time.Millisecond)
			insert += topology.LSN(rapid.IntRange(0, 3).Draw(t, "wal"))
			flush = max(flush, insert-topology.LSN(rapid.IntRange(0, 5).Draw(t, "unflushed")))
			m := mark{topology.Round(i + 1), insert, now}
			all = append(all, round{m, flush})
			k.add(m, flush, time.Second)
			if len(k.marks) > trackSize {
				t.Fatalf("%d marks", len(k.marks))
			}
		}
		replay := topology.LSN(rapid.IntRange(90, int(insert)+5).Draw(t, "replay"))
		var want topology.Round
		for i, r := range all {
			ok := replay >= r.insert
			for _, later := range all[i:] {
				ok = ok || later.began.Sub(r.began) >= time.Second && replay >= later.flush
			}
			if ok {
				want = r.round
			}
		}
		got := k.safe(replay)
		if got > want {
			t.Fatalf("replay %d: safe %d, by definition %d", replay, got, want)
		}
		if len(all) <= trackSize && got != want {
			t.Fatalf("replay %d: safe %d, by definition %d, and nothing was thinned", replay, got, want)
		}
		if l := k.lag(replay); !l.known || l.bytes < 0 || l.time < 0 {
			t.Fatalf("lag %+v", l)
		}
	})
}
