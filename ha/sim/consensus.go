package sim

import (
	"errors"
	"fmt"
	"time"

	"github.com/cstproxy/cstproxy/ha/record"
)

// The consensus log is modelled as a plain Raft with fixed voters: terms, votes and entries survive a
// crash; a leader that was deposed goes on believing until it hears of a higher term or has not
// reached a quorum for its lease; a proposer may never learn that its entry was committed.

const (
	raftHeartbeat = 100 * time.Millisecond
	raftElection  = 700 * time.Millisecond // at least; at most twice that
	raftLease     = 350 * time.Millisecond
)

var errUnknownOutcome = errors.New("leadership was lost before the entry was known to be committed")

type logEntry struct {
	term  uint64
	entry *record.Entry // nil: a new leader's first
}

type raftRole int

const (
	follower raftRole = iota
	candidate
	raftLeader
)

// voter is one member's part of the log.
type voter struct {
	w      *world
	member *member

	// On disk.
	term  uint64
	voted *voter
	log   []logEntry

	// In memory.
	role     raftRole
	leader   *voter
	votes    map[*voter]struct{}
	commit   int
	applied  int
	state    *record.State
	next     map[*voter]int
	match    map[*voter]int
	contact  map[*voter]time.Duration // when a message that was answered had been sent
	deadline time.Duration            // of the next election
	won      time.Duration
	pending  map[int]func(error) // by index
	quorums  []quorumRound
	barrier  int // index of this leadership's first entry
}

// quorumRound waits for answers to messages that were sent after it began.
type quorumRound struct {
	began time.Duration
	done  func()
}

func (v *voter) boot() {
	v.role, v.leader, v.commit, v.applied = follower, nil, 0, 0
	v.pending, v.quorums = map[int]func(error){}, nil
	v.state = v.w.states[0]
	v.postpone()
	v.w.every(raftHeartbeat, v.member.process, v.tick)
}

func (v *voter) postpone() {
	v.deadline = v.w.now + v.w.between(raftElection, 2*raftElection)
}

// established says that this voter leads and has applied everything that was committed before.
func (v *voter) established() bool { return v.role == raftLeader && v.applied >= v.barrier }

func (v *voter) tick() {
	switch {
	case v.role == raftLeader:
		if len(v.w.voters) > 1 && v.w.now-max(v.reached(), v.won) > raftLease {
			v.follow(v.term, nil)
			return
		}
		v.broadcast()
	case v.w.now >= v.deadline:
		v.campaign()
	}
}

// reached is the newest time at which messages were sent that a quorum has answered.
func (v *voter) reached() time.Duration {
	best := time.Duration(0)
	for _, at := range v.contact {
		n := 1 // itself
		for _, other := range v.contact {
			if other >= at {
				n++
			}
		}
		if n >= v.w.quorum() {
			best = max(best, at)
		}
	}
	return best
}

func (v *voter) campaign() {
	v.term++
	v.role, v.leader, v.voted = candidate, nil, v
	v.votes = map[*voter]struct{}{v: {}}
	v.postpone()
	term, index, lastTerm := v.term, len(v.log), v.lastTerm()
	for _, other := range v.w.voters {
		if other == v {
			continue
		}
		v.to(other, func() {
			granted := other.ballot(v, term, index, lastTerm)
			seen := other.term
			other.to(v, func() {
				if seen > v.term {
					v.follow(seen, nil)
				} else if granted && v.role == candidate && v.term == term {
					v.votes[other] = struct{}{}
					v.tally()
				}
			})
		})
	}
	v.tally()
}

func (v *voter) lastTerm() uint64 {
	if len(v.log) == 0 {
		return 0
	}
	return v.log[len(v.log)-1].term
}

// ballot is a voter's answer to a candidate. Who hears a leader disturbs nobody (pre-vote, in effect).
func (v *voter) ballot(from *voter, term uint64, index int, lastTerm uint64) bool {
	if term < v.term || v.role == raftLeader && term == v.term {
		return false
	}
	if v.leader != nil && v.w.now < v.deadline-raftElection {
		return false
	}
	if term > v.term {
		v.follow(term, nil)
	}
	behind := lastTerm < v.lastTerm() || lastTerm == v.lastTerm() && index < len(v.log)
	if behind || v.voted != nil && v.voted != from {
		return false
	}
	v.voted = from
	v.postpone()
	return true
}

func (v *voter) tally() {
	if len(v.votes) < v.w.quorum() || v.role != candidate {
		return
	}
	v.role, v.leader, v.won = raftLeader, v, v.w.now
	v.next, v.match, v.contact = map[*voter]int{}, map[*voter]int{}, map[*voter]time.Duration{}
	for _, other := range v.w.voters {
		if other != v {
			v.next[other], v.contact[other] = len(v.log), 0
		}
	}
	v.log = append(v.log, logEntry{term: v.term})
	v.barrier = len(v.log)
	v.w.trace("%s leads in term %d", v.member.name, v.term)
	v.advance()
	v.broadcast()
}

// follow makes v a follower of a term; what it had proposed has an unknown outcome.
func (v *voter) follow(term uint64, leader *voter) {
	if term > v.term {
		v.term, v.voted = term, nil
	}
	was := v.role
	v.role, v.leader = follower, leader
	v.postpone()
	if was != raftLeader {
		return
	}
	v.w.trace("%s leads no longer", v.member.name)
	v.quorums = nil
	pending := v.pending
	v.pending = map[int]func(error){}
	for i := 0; i <= len(v.log); i++ {
		if done := pending[i]; done != nil {
			done(errUnknownOutcome)
		}
	}
	v.member.deposed()
}

func (v *voter) to(other *voter, f func()) {
	v.w.net.send(v.member.host, other.member.host, other.member.process, f)
}

func (v *voter) broadcast() {
	for _, other := range v.w.voters {
		if other != v {
			v.replicate(other)
		}
	}
}

func (v *voter) replicate(other *voter) {
	from := v.next[other]
	a := appendix{leader: v, term: v.term, from: from, commit: v.commit, sent: v.w.now}
	if from > 0 {
		a.prevTerm = v.log[from-1].term
	}
	a.entries = v.log[from:len(v.log):len(v.log)]
	v.to(other, func() {
		r := other.take(a)
		other.to(v, func() { v.taken(other, a, r) })
	})
}

// appendix is what a leader sends a follower: entries that come after index from.
type appendix struct {
	leader   *voter
	term     uint64
	from     int
	prevTerm uint64
	entries  []logEntry
	commit   int
	sent     time.Duration
}

// reply is the follower's answer; have is up to where the logs are the same or, with refused, where
// to try next.
type reply struct {
	term    uint64
	have    int
	refused bool
}

func (v *voter) take(a appendix) reply {
	if a.term < v.term {
		return reply{term: v.term, refused: true}
	}
	if a.term > v.term || v.role != follower || v.leader != a.leader {
		v.follow(a.term, a.leader)
	}
	v.postpone()
	if a.from > len(v.log) || a.from > 0 && v.log[a.from-1].term != a.prevTerm {
		return reply{term: v.term, have: max(0, min(a.from-1, len(v.log))), refused: true}
	}
	for i, e := range a.entries {
		if at := a.from + i; at == len(v.log) || v.log[at].term != e.term {
			v.log = append(v.log[:at:at], a.entries[i:]...)
			break
		}
	}
	have := a.from + len(a.entries)
	v.learn(min(a.commit, have))
	return reply{term: v.term, have: have}
}

func (v *voter) taken(other *voter, a appendix, r reply) {
	if r.term > v.term {
		v.follow(r.term, nil)
		return
	}
	if v.role != raftLeader || v.term != a.term {
		return
	}
	v.contact[other] = max(v.contact[other], a.sent)
	if r.refused {
		if r.have < v.next[other] {
			v.next[other] = r.have
			v.replicate(other)
		}
		return
	}
	v.match[other] = max(v.match[other], r.have)
	v.next[other] = max(v.next[other], r.have)
	v.advance()
	v.finishRounds()
}

// advance commits what a quorum has, if it is of this term.
func (v *voter) advance() {
	for n := len(v.log); n > v.commit && v.log[n-1].term == v.term; n-- {
		have := 1
		for _, m := range v.match {
			if m >= n {
				have++
			}
		}
		if have >= v.w.quorum() {
			v.learn(n)
			return
		}
	}
}

// learn applies what is known to be committed.
func (v *voter) learn(commit int) {
	v.commit = max(v.commit, commit)
	for v.applied < v.commit {
		e := v.log[v.applied]
		v.applied++
		state, err := v.w.apply(v.applied, e)
		v.state = state
		if done := v.pending[v.applied]; done != nil {
			delete(v.pending, v.applied)
			done(err)
		}
		v.member.applied(e.entry)
	}
}

// propose appends an entry; done is told whether it counted, or that nobody knows.
func (v *voter) propose(e *record.Entry, done func(error)) {
	if v.role != raftLeader {
		done(errors.New("not the leader"))
		return
	}
	v.log = append(v.log, logEntry{term: v.term, entry: e})
	v.pending[len(v.log)] = done
	v.advance()
	v.broadcast()
}

// verify calls done when a quorum has answered messages that were sent after now.
func (v *voter) verify(done func()) {
	if v.w.quorum() == 1 {
		done()
		return
	}
	v.quorums = append(v.quorums, quorumRound{v.w.now, done})
	v.broadcast()
}

func (v *voter) finishRounds() {
	reached := v.reached()
	for len(v.quorums) > 0 && v.quorums[0].began <= reached {
		done := v.quorums[0].done
		v.quorums = v.quorums[1:]
		done()
	}
}

// applied is one entry of the log that some voter knows to be committed, and what came of it.
type applied struct {
	term uint64
	err  error
}

// apply gives the state after the entry at index (from 1). The states are shared by all voters, as
// they are immutable; that two voters never apply different entries at one index is checked here.
func (w *world) apply(index int, e logEntry) (*record.State, error) {
	if index < len(w.states) {
		if a := w.log[index]; a.term != e.term {
			w.fail("model", fmt.Sprintf("entry %d is of term %d and of term %d", index, a.term, e.term))
		}
		return w.states[index], w.log[index].err
	}
	before := w.states[index-1]
	state, err := before, error(nil)
	if e.entry != nil {
		state, err = before.Apply(*e.entry)
	}
	w.states = append(w.states, state)
	w.log = append(w.log, applied{term: e.term, err: err})
	if e.entry != nil {
		w.committed(stateChange{before, state, e.entry, err})
	}
	return state, err
}

func (w *world) quorum() int { return len(w.voters)/2 + 1 }
