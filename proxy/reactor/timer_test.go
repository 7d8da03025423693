package reactor

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// stopped is a loop of which only the clock and the timers are used.
func stopped() *Loop { return &Loop{clock: 1} }

// advance moves the clock and fires what is due.
func (l *Loop) advance(d time.Duration) {
	l.clock += int64(d)
	l.expire()
}

func TestTimersFireInOrderAndOnce(t *testing.T) {
	l := stopped()
	var got []int
	timers := make([]Timer, 100)
	for _, i := range rand.Perm(len(timers)) {
		timers[i].Init(l, func() { got = append(got, i) })
		timers[i].Set(time.Duration(i+1) * time.Millisecond)
	}
	l.advance(50 * time.Millisecond)
	if len(got) != 50 || !slices.IsSorted(got) {
		t.Fatalf("fired %v", got)
	}
	l.advance(time.Hour)
	l.advance(time.Hour)
	if len(got) != 100 || !slices.IsSorted(got) {
		t.Fatalf("fired %v", got)
	}
}

func TestATimerMovedLaterStaysWhereItIsInTheHeap(t *testing.T) {
	l := stopped()
	fired := 0
	var tm Timer
	tm.Init(l, func() { fired++ })
	tm.Set(time.Second)
	for range 10 {
		l.advance(900 * time.Millisecond)
		tm.Set(time.Second)
		if n := len(l.timers.entries); n != 1 {
			t.Fatalf("%d entries for one timer", n)
		}
	}
	if fired != 0 {
		t.Fatal("fired although it was moved later each time")
	}
	l.advance(999 * time.Millisecond)
	if fired != 0 {
		t.Fatal("fired early")
	}
	l.advance(time.Millisecond)
	if fired != 1 || tm.Active() {
		t.Fatalf("fired %d times, active %v", fired, tm.Active())
	}
}

func TestATimerMovedEarlierFiresEarlier(t *testing.T) {
	l := stopped()
	var got []string
	var a, b Timer
	a.Init(l, func() { got = append(got, "a") })
	b.Init(l, func() { got = append(got, "b") })
	a.Set(time.Second)
	b.Set(2 * time.Second)
	b.Set(time.Millisecond)
	l.advance(time.Minute)
	if !slices.Equal(got, []string{"b", "a"}) {
		t.Fatalf("fired %v", got)
	}
}

func TestAStoppedTimerDoesNotFireAndCanBeSetAgain(t *testing.T) {
	l := stopped()
	fired := 0
	var tm Timer
	tm.Init(l, func() { fired++ })
	tm.Stop()
	tm.Set(time.Second)
	tm.Stop()
	tm.Stop()
	l.advance(time.Minute)
	if fired != 0 {
		t.Fatal("fired although stopped")
	}
	tm.Set(time.Second)
	tm.Stop()
	tm.Set(3 * time.Second)
	l.advance(2 * time.Second)
	if fired != 0 {
		t.Fatal("fired at the earlier moment")
	}
	l.advance(2 * time.Second)
	if fired != 1 || l.timers.stopped != 0 {
		t.Fatalf("fired %d times, %d counted as stopped", fired, l.timers.stopped)
	}
}

func TestATimerSetInItsOwnFunctionFiresInTheNextCycle(t *testing.T) {
	l := stopped()
	fired := 0
	var tm Timer
	tm.Init(l, func() { fired++; tm.Set(0) })
	tm.Set(time.Millisecond)
	for i := range 3 {
		l.advance(time.Millisecond)
		if fired != i+1 {
			t.Fatalf("fired %d times in %d cycles", fired, i+1)
		}
	}
}

func TestStoppedTimersDoNotPileUp(t *testing.T) {
	l := stopped()
	for range 10_000 {
		tm := new(Timer)
		tm.Init(l, func() {})
		tm.Set(time.Hour)
		tm.Stop()
	}
	if n := len(l.timers.entries); n > 64 {
		t.Fatalf("%d entries of stopped timers are kept", n)
	}
}

// TestTimersAgreeWithASortedList compares the heap with the obvious implementation.
func TestTimersAgreeWithASortedList(t *testing.T) {
	l := stopped()
	const n = 200
	timers, deadlines, fired := make([]Timer, n), make([]int64, n), make([]bool, n)
	for i := range timers {
		timers[i].Init(l, func() {
			if fired[i] || deadlines[i] == 0 || deadlines[i] > l.clock {
				t.Errorf("timer %d fired at %d, deadline %d", i, l.clock, deadlines[i])
			}
			fired[i], deadlines[i] = true, 0
		})
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		i := rng.IntN(n)
		switch rng.IntN(4) {
		case 0:
			timers[i].Stop()
			deadlines[i] = 0
		case 1:
			l.advance(time.Duration(rng.IntN(50)))
			for i, d := range deadlines {
				if d != 0 && d <= l.clock {
					t.Fatalf("timer %d did not fire", i)
				}
			}
		default:
			d := rng.Int64N(1000) + 1
			timers[i].Set(time.Duration(d))
			deadlines[i], fired[i] = l.clock+d, false
		}
	}
}

func TestALoopSleepsUntilItsNextTimer(t *testing.T) {
	l := running(t, quick())
	fired := make(chan time.Time, 1)
	var tm Timer
	var set time.Time
	on(t, l, func() {
		set = l.Now()
		tm.Init(l, func() { fired <- l.Now() })
		tm.Set(30 * time.Millisecond)
	})
	before := l.Stats().Cycles
	if d := (<-fired).Sub(set); d < 30*time.Millisecond {
		t.Errorf("fired %v after it was set, before its time", d)
	}
	if n := l.Stats().Cycles - before; n > 10 {
		t.Errorf("%d cycles to wait for one timer", n)
	}
}
