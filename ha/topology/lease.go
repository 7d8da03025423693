package topology

import "sync/atomic"

// Lease is a member's permission to route writes of one epoch. There is one Lease per epoch: when
// the epoch ends its Lease ends for good, and the next epoch's View brings another. Any goroutine
// may read it without a lock; the agent renews it. The zero Lease is not held.
//
// Times are nanoseconds of CLOCK_BOOTTIME, which goes on while the machine sleeps.
type Lease struct {
	until atomic.Int64
	ended atomic.Bool
}

// Held says whether writes may be routed, and their answers forwarded, at the time now.
func (l *Lease) Held(now int64) bool { return now < l.until.Load() }

// Ended says that the epoch is over: the lease will never be held again, and what was sent to the
// primary and not answered has an unknown outcome.
func (l *Lease) Ended() bool { return l.ended.Load() }

// Renew moves the end to until; it never moves it back and does nothing after End.
func (l *Lease) Renew(until int64) {
	for {
		old := l.until.Load()
		if until <= old || l.ended.Load() {
			return
		}
		if l.until.CompareAndSwap(old, until) {
			if l.ended.Load() {
				l.until.Store(0)
			}
			return
		}
	}
}

// Suspend ends the permission now, and leaves it to a later Renew to give it back.
func (l *Lease) Suspend() { l.until.Store(0) }

// End ends the permission for good.
func (l *Lease) End() {
	l.ended.Store(true)
	l.until.Store(0)
}
