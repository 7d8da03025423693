package ha

import (
	"slices"
	"time"

	"github.com/cstproxy/cstproxy/ha/topology"
)

// track remembers the primary's positions of the rounds of one epoch, by rising round; positions
// never fall. Pure.
type track struct {
	marks []mark
	flush topology.LSN // of the newest round
}

// mark says that whoever has replayed up to insert has everything that was stamped with round or
// earlier.
type mark struct {
	round  topology.Round
	insert topology.LSN
	began  time.Time // when the round was numbered
}

// trackSize bounds the memory: ten seconds of rounds at 10 ms. Beyond it old marks lose their
// neighbours, so that a standby hours behind is still told from one minutes behind.
const trackSize = 1024

// flushDelay is the time after which the WAL writer of a primary has flushed every asynchronous
// commit that was acknowledged before: three times wal_writer_delay (PostgreSQL, "Asynchronous
// Commit"), and at least 1 s because a busy host is late.
func flushDelay(walWriterDelay time.Duration) time.Duration {
	return max(time.Second, 4*walWriterDelay)
}

// add notes a round. An idle primary's insert position can stay ahead of all that will ever be
// flushed and replayed (page headers, a tail that nobody waits for): so what was flushed at the
// time of this round suffices for every round that began flushed ago or longer. A position that
// fell means that the primary lost its unflushed tail in a crash; what is left of the writes of
// older rounds lies before the new position.
func (t *track) add(m mark, flush topology.LSN, flushed time.Duration) {
	t.flush = flush
	for i := len(t.marks) - 1; i >= 0; i-- {
		old := &t.marks[i]
		bound := m.insert
		if m.began.Sub(old.began) >= flushed {
			bound = min(bound, flush)
			if old.insert <= bound {
				break // and all before it, because positions rise
			}
		}
		old.insert = min(old.insert, bound)
	}
	if len(t.marks) == trackSize {
		t.thin()
	}
	t.marks = append(t.marks, m)
}

// thin drops every second mark of the older half. Taking a mark out only makes safe smaller.
func (t *track) thin() {
	kept := t.marks[:0]
	for i, m := range t.marks {
		if i >= trackSize/2 || i%2 == 1 {
			kept = append(kept, m)
		}
	}
	t.marks = kept
}

// behind is the index of the first mark that lies beyond replay.
func (t *track) behind(replay topology.LSN) int {
	i, _ := slices.BinarySearchFunc(t.marks, replay, func(m mark, at topology.LSN) int {
		if m.insert <= at {
			return -1
		}
		return 1
	})
	return i
}

// safe is the largest round that a node which has replayed up to replay has all of, 0 for none.
func (t *track) safe(replay topology.LSN) topology.Round {
	if i := t.behind(replay); i > 0 {
		return t.marks[i-1].round
	}
	return 0
}

// lag is how far a node at replay is behind. Time counts from the first round whose position it
// lacks to the newest round, by this host's clock alone: neither the servers' clocks nor an idle
// primary nor recovery_min_apply_delay can distort it, and while no primary answers it stands
// still, because then there is nothing newer to lack.
func (t *track) lag(replay topology.LSN) lag {
	if len(t.marks) == 0 {
		return lag{}
	}
	l := lag{known: true}
	if t.flush > replay {
		l.bytes = int64(t.flush - replay)
	}
	if i := t.behind(replay); i < len(t.marks) {
		l.time = t.marks[len(t.marks)-1].began.Sub(t.marks[i].began)
	}
	return l
}
