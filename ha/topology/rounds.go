package topology

import (
	"runtime"
	"sync/atomic"
	"time"
)

// MaxSlots is how many nodes of one cluster Rounds has room for.
const MaxSlots = 64

// resetting is the epoch that Rounds shows while a Reset is under way; no real epoch reaches it.
const resetting = ^uint64(0)

// Round numbers one question "how far is the primary, how far is everybody", within an epoch.
type Round uint64

// Ticket is what a session's last write left behind: a node has replayed that write once its safe
// round of the same epoch has reached Round. The zero Ticket is satisfied by every node.
type Ticket struct {
	Epoch Epoch
	Round Round
}

// Newer says whether t asks for more than u does.
func (t Ticket) Newer(u Ticket) bool {
	return t.Epoch > u.Epoch || t.Epoch == u.Epoch && t.Round > u.Round
}

// Rounds tells how far each node has certainly replayed, as round numbers. The monitor opens
// round k (Open) before it asks the primary for its WAL insert position P_k, then reads each
// node's replay position and marks node.safe = the largest k with replay >= P_k. So a write that
// is stamped with "last opened round + 1" before its answer is forwarded lies before P of that
// round: a node whose safe round has reached the stamp has the write. It lives in atomics instead
// of the View because it changes all the time and must wake nobody.
//
// The monitor calls Reset, Open, Mark and Clear, one after the other; Stamp, Satisfied and Want may
// be called by any goroutine at any time. Readers that race with Reset stay on the safe side: epochs strictly rise, Reset
// shows an impossible epoch before it touches a counter and the new one only after the last, and
// Satisfied looks at the epoch before and after it reads a mark. So an answer "has replayed it"
// comes only from marks of the asked epoch. Stamp needs the epoch only before it reads the counter:
// when it finds another epoch than its own, round 1 of its own epoch either is not open yet (the
// View was published before the Reset), so that the first round is the right stamp, or that epoch
// is over, so that any number of it means "the first round of the next".
type Rounds struct {
	base   time.Time // wanted counts from here, so that it is monotonic
	epoch  atomic.Uint64
	opened atomic.Uint64
	wanted atomic.Int64  // when a session last waited for a round, ns since base; 0 never
	round  atomic.Uint64 // the round that would have satisfied it
	wake   chan struct{}
	safe   [MaxSlots]atomic.Uint64
}

// NewRounds returns rounds of epoch 0 in which no node has proved anything.
func NewRounds() *Rounds {
	return &Rounds{base: time.Now(), wake: make(chan struct{}, 1)}
}

// Reset starts epoch at round 0 with no node proved. An epoch that is not higher than the present
// one changes nothing.
func (r *Rounds) Reset(epoch Epoch) {
	if uint64(epoch) <= r.epoch.Load() {
		return
	}
	r.epoch.Store(resetting)
	r.opened.Store(0)
	r.round.Store(0)
	for i := range r.safe {
		r.safe[i].Store(0)
	}
	r.epoch.Store(uint64(epoch))
}

// Epoch is the epoch that the rounds are of.
func (r *Rounds) Epoch() Epoch {
	e := r.epoch.Load()
	if e == resetting {
		return 0
	}
	return Epoch(e)
}

// Open numbers the next round. Call it before the primary is asked for its position: whatever was
// acknowledged before Open returns is stamped with this round or an earlier one, so the position
// that is read afterwards covers it. 0 means that the rounds are of another epoch.
func (r *Rounds) Open(epoch Epoch) Round {
	if r.epoch.Load() != uint64(epoch) {
		return 0
	}
	return Round(r.opened.Add(1))
}

// Opened is the number of the round opened last.
func (r *Rounds) Opened() Round { return Round(r.opened.Load()) }

// Mark notes that the node in slot has replayed everything up to round's position. Marks rise;
// only Clear and Reset take them back.
func (r *Rounds) Mark(slot int, round Round) {
	if slot < 0 || slot >= MaxSlots {
		return
	}
	if uint64(round) > r.safe[slot].Load() {
		r.safe[slot].Store(uint64(round))
	}
}

// Clear forgets what the node in slot has proved: a server that restarts can begin to answer
// before it has replayed again all that it had replayed before the restart.
func (r *Rounds) Clear(slot int) {
	if slot >= 0 && slot < MaxSlots {
		r.safe[slot].Store(0)
	}
}

// Safe is the largest round that the node in slot is known to have replayed.
func (r *Rounds) Safe(slot int) Round {
	if slot < 0 || slot >= MaxSlots {
		return 0
	}
	return Round(r.safe[slot].Load())
}

// Stamp is the ticket of a write that the primary of epoch has acknowledged. Call it after the
// server's ReadyForQuery was read and before it is forwarded to the client.
func (r *Rounds) Stamp(epoch Epoch) Ticket {
	if r.epoch.Load() != uint64(epoch) {
		return Ticket{Epoch: epoch, Round: 1}
	}
	return Ticket{Epoch: epoch, Round: Round(r.opened.Load()) + 1}
}

// Satisfied says whether the node in slot has certainly replayed the write that left the ticket.
// epoch is that of the View in which the caller found the slot. A ticket of an earlier epoch asks
// for the first round of this one: every node that takes part in the rounds descends from the
// promoted primary's history, and round 1 lies after the promotion.
func (r *Rounds) Satisfied(slot int, t Ticket, epoch Epoch) bool {
	if t == (Ticket{}) {
		return true
	}
	if slot < 0 || slot >= MaxSlots || t.Epoch > epoch {
		return false
	}
	need := uint64(t.Round)
	if t.Epoch < epoch {
		need = 1
	}
	if r.epoch.Load() != uint64(epoch) {
		return false
	}
	safe := r.safe[slot].Load()
	return safe >= need && r.epoch.Load() == uint64(epoch)
}

// Moment is a place in the rounds.
type Moment struct{ epoch, round uint64 }

// Now is the present moment.
func (r *Rounds) Now() Moment {
	for {
		epoch := r.epoch.Load()
		m := Moment{epoch, r.opened.Load()}
		if epoch != resetting && r.epoch.Load() == epoch {
			return m
		}
		runtime.Gosched() // a Reset is a few stores long
	}
}

// ProvedSince says whether the node in slot has been asked after the moment, and has answered, how far it
// has replayed: what it proved earlier it may have lost by a restart.
func (r *Rounds) ProvedSince(slot int, m Moment) bool {
	if slot < 0 || slot >= MaxSlots {
		return false
	}
	epoch := r.epoch.Load()
	safe := r.safe[slot].Load()
	return epoch != resetting && safe > 0 && (epoch > m.epoch || epoch == m.epoch && safe > m.round) && r.epoch.Load() == epoch
}

// Want tells the monitor that a session waits for a round, or had to read from the primary because
// no standby had proved its ticket. It costs two or three atomics and never blocks.
func (r *Rounds) Want(now time.Time) {
	at := max(int64(now.Sub(r.base)), 1)
	r.round.Store(r.opened.Load() + 1)
	r.wanted.Store(at)
	if len(r.wake) == 0 {
		select {
		case r.wake <- struct{}{}:
		default:
		}
	}
}

// Wanted is the round that was wanted last and when; the zero time when none ever was.
func (r *Rounds) Wanted() (Round, time.Time) {
	at := r.wanted.Load()
	if at == 0 {
		return 0, time.Time{}
	}
	return Round(r.round.Load()), r.base.Add(time.Duration(at))
}

// Wake receives something after a Want, so that an idle monitor need not look at a clock.
func (r *Rounds) Wake() <-chan struct{} { return r.wake }
