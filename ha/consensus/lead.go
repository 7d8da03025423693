package consensus

import (
	"context"
	"sync"
	"time"
)

// reign is one time of leading.
type reign struct {
	mu    sync.Mutex
	term  uint64 // 0: this member does not lead
	count uint64 // of those that have begun
	stops map[int]context.CancelFunc
	next  int
}

func (r *reign) begin(term uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.term, r.stops = term, map[int]context.CancelFunc{}
	r.count++
}

// end stops whoever acts as leader.
func (r *reign) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, stop := range r.stops {
		stop()
	}
	r.term, r.stops = 0, nil
}

// now is the term of the present reign; 0 when there is none.
func (r *reign) now() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.term
}

// crowned is which reign it is: one may end and another begin in the same term.
type crowned struct{ number, term uint64 }

// during derives a context that ends with the present reign; leave is nil when there is none.
func (r *reign) during(ctx context.Context) (during context.Context, is crowned, leave context.CancelFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.term == 0 {
		return nil, crowned{}, nil
	}
	ctx, stop := context.WithCancel(ctx)
	id := r.next
	r.next++
	r.stops[id] = stop
	return ctx, crowned{r.count, r.term}, func() {
		stop()
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.stops, id)
	}
}

// barrierRetry is the pause after a barrier failed although this member still leads.
const barrierRetry = 100 * time.Millisecond

// Lead runs rule each time that this member has become leader and knows all that was committed
// before. The ctx of rule ends with the leadership (a little later than that was lost: nothing may
// depend on it); term is not below any in which a member led before, and the same only when this one did,
// its disk hung, and nobody was elected meanwhile. Lead waits for rule, and returns its error unless
// leadership ended meanwhile, or nil when ctx has ended. When rule returns nil, it is run again when this
// member leads again.
func (l *Log) Lead(ctx context.Context, rule func(ctx context.Context, term uint64) error) error {
	var last uint64 // reign
	for {
		changed := l.changed.wait()
		var again <-chan time.Time
		during, reign, leave := l.reign.during(ctx)
		switch {
		case leave == nil:
		case reign.number == last:
			leave()
		default:
			if l.Barrier(during) != nil {
				leave()
				again = time.After(barrierRetry)
				break
			}
			last = reign.number
			err := rule(during, reign.term)
			lost := during.Err() != nil
			leave()
			if err != nil && !lost {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-again:
		}
	}
}
