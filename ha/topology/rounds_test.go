package topology

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestATicketIsSatisfiedByTheRoundAfterTheWrite(t *testing.T) {
	r := NewRounds()
	r.Reset(1)
	if !r.Satisfied(0, Ticket{}, 1) {
		t.Error("a session that wrote nothing has to wait")
	}
	first := r.Stamp(1)
	k := r.Open(1)
	second := r.Stamp(1)
	if first.Round != k || second.Round != k+1 {
		t.Errorf("stamps %v and %v around round %d", first, second, k)
	}
	r.Mark(5, k)
	for _, c := range []struct {
		name  string
		slot  int
		t     Ticket
		epoch Epoch
		want  bool
	}{
		{"the write before the round", 5, first, 1, true},
		{"the write after it", 5, second, 1, false},
		{"another node", 6, first, 1, false},
		{"a slot that does not exist", MaxSlots, first, 1, false},
		{"a negative slot", -1, first, 1, false},
		{"a View that is ahead of the rounds", 5, first, 2, false},
		{"a ticket that is ahead of the View", 5, Ticket{2, 1}, 1, false},
	} {
		if got := r.Satisfied(c.slot, c.t, c.epoch); got != c.want {
			t.Errorf("%s: %t, want %t", c.name, got, c.want)
		}
	}
	r.Mark(5, 0)
	if r.Safe(5) != k {
		t.Error("a mark fell")
	}
	r.Clear(5)
	if r.Satisfied(5, first, 1) {
		t.Error("a cleared node still vouches")
	}
}

func TestAnOlderEpochsTicketMeansTheFirstRound(t *testing.T) {
	r := NewRounds()
	r.Reset(3)
	for range 500 {
		r.Open(3)
	}
	old := r.Stamp(3)
	r.Mark(1, 500)
	early := r.Stamp(4) // the View of epoch 4 is out, the rounds are not there yet
	r.Reset(4)
	late := r.Stamp(3) // the reverse
	if r.Reset(3); r.Epoch() != 4 {
		t.Fatalf("epoch %d after an older one was to begin", r.Epoch())
	}
	if r.Open(3) != 0 || r.Opened() != 0 {
		t.Error("a round of an ended epoch was opened")
	}
	for _, ticket := range []Ticket{old, early, late} {
		if r.Satisfied(1, ticket, 4) {
			t.Errorf("%v is satisfied before any round of epoch 4", ticket)
		}
	}
	r.Mark(1, r.Open(4))
	for _, ticket := range []Ticket{old, early, late} {
		if !r.Satisfied(1, ticket, 4) {
			t.Errorf("%v is not satisfied after round 1 of epoch 4", ticket)
		}
	}
	if r.Satisfied(1, old, 3) {
		t.Error("a View of epoch 3 is answered from epoch 4")
	}
}

func TestAWishWakesTheMonitorOnce(t *testing.T) {
	r := NewRounds()
	r.Reset(1)
	if _, at := r.Wanted(); !at.IsZero() {
		t.Error("something is wanted from the start")
	}
	now := time.Now()
	r.Want(now)
	r.Want(now)
	round, at := r.Wanted()
	if round != 1 || at.Sub(now).Abs() > time.Microsecond {
		t.Errorf("wanted round %d at %s, want 1 at %s", round, at, now)
	}
	<-r.Wake()
	select {
	case <-r.Wake():
		t.Error("two wishes woke the monitor twice")
	default:
	}
}

// The monitor counts what is "written" and "replayed" in a model; sessions stamp and check. What
// Satisfied says yes to must be replayed, however Reset interleaves.
func TestSatisfiedIsNeverWrongDuringResets(t *testing.T) {
	r := NewRounds()
	var written, replayed atomic.Int64 // positions; a node that restarts an epoch has replayed all
	var epoch atomic.Uint64
	epoch.Store(1)
	r.Reset(1)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				at := written.Add(1)
				e := Epoch(epoch.Load())
				ticket := r.Stamp(e)
				for range 3 {
					if e := Epoch(epoch.Load()); r.Satisfied(0, ticket, e) && replayed.Load() < at {
						t.Errorf("%v satisfied at epoch %d, write %d, replayed %d", ticket, e, at, replayed.Load())
						return
					}
				}
			}
		})
	}
	for i := range 20000 {
		if i%50 == 49 {
			next := epoch.Load() + 1
			if i%100 == 99 {
				epoch.Store(next) // the View first
				r.Reset(Epoch(next))
			} else {
				r.Reset(Epoch(next))
				epoch.Store(next)
			}
		}
		k := r.Open(Epoch(epoch.Load()))
		p := written.Load()
		replayed.Store(p)
		r.Mark(0, k)
	}
	close(stop)
	wg.Wait()
}

func TestStampsAndChecksAllocateNothing(t *testing.T) {
	r := NewRounds()
	r.Reset(1)
	now := time.Now()
	if n := testing.AllocsPerRun(100, func() {
		ticket := r.Stamp(1)
		r.Satisfied(3, ticket, 1)
		r.Want(now)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
