package consensus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/cstproxy/cstproxy/ha/peer"
	"github.com/cstproxy/cstproxy/ha/record"
)

var (
	// ErrNotLeader is what every NotLeaderError is.
	ErrNotLeader = errors.New("this member does not lead")
	// ErrUnknownOutcome: the proposal may have been committed, or may be yet, or never. A later
	// State says so; what it takes for granted keeps it from counting twice.
	ErrUnknownOutcome = errors.New("nobody knows whether it was committed")
	errTooLong        = errors.New("entry too long")
)

// NotLeaderError says that nothing was proposed, and who leads as far as is known.
type NotLeaderError struct{ Leader peer.Member }

func (e *NotLeaderError) Error() string {
	if e.Leader.Name == "" {
		return ErrNotLeader.Error() + ", and knows nobody who does"
	}
	return ErrNotLeader.Error() + "; " + e.Leader.String() + " does"
}

// Is makes it ErrNotLeader.
func (e *NotLeaderError) Is(target error) bool { return target == ErrNotLeader }

// enqueueTime bounds the handing over to raft's main loop, which a slow disk may hold up.
const enqueueTime = 2 * time.Second

// job is something asked of raft. Its futures cannot be given up, so Run's goroutine waits for them
// while the caller may leave.
type job struct {
	state atomic.Int32 // waiting, begun or given up
	do    func(*raft.Raft) error
	done  chan error
}

const (
	jobWaits = iota
	jobBegun
	jobGivenUp
)

// serve does the jobs, one after the other, until ctx ends.
func (l *Log) serve(ctx context.Context, node *raft.Raft) {
	for {
		select {
		case <-ctx.Done():
			return
		case j := <-l.jobs:
			if j.state.CompareAndSwap(jobWaits, jobBegun) {
				j.done <- j.do(node)
			}
		}
	}
}

// ask has a job done. When ctx ends before it has begun, it never will; after that its outcome is
// unknown.
func (l *Log) ask(ctx context.Context, do func(*raft.Raft) error) error {
	up := l.up.Load()
	if up == nil || up.node.State() != raft.Leader || l.mute(up.store) {
		return l.notLeader()
	}
	j := &job{do: do, done: make(chan error, 1)}
	select {
	case l.jobs <- j:
	case <-up.over:
		return l.notLeader()
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-j.done:
		return l.outcome(err)
	case <-ctx.Done():
	}
	if j.state.CompareAndSwap(jobWaits, jobGivenUp) {
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w", ErrUnknownOutcome, ctx.Err())
}

// applied marks an error that the record itself gave: its outcome is known.
type applied struct{ error }

func (l *Log) outcome(err error) error {
	var known applied
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return known.error
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress), errors.Is(err, raft.ErrEnqueueTimeout):
		return l.notLeader()
	}
	return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
}

func (l *Log) notLeader() error {
	leader := l.Leader()
	if leader.Name == l.cfg.Name { // it has just begun, or is about to stop
		leader = peer.Member{}
	}
	return &NotLeaderError{leader}
}

// Propose adds an entry to the log and waits until it is committed and applied here. nil: it counts.
// An error that wraps record.ErrStale or record.ErrMalformed: it is in the log and does not count.
// ErrNotLeader: it was not proposed. ErrUnknownOutcome: any of these.
func (l *Log) Propose(ctx context.Context, e record.Entry) error {
	data, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("propose: %w", err)
	}
	if len(data) > maxEntry {
		return fmt.Errorf("propose: %w: %d bytes", errTooLong, len(data))
	}
	err = l.ask(ctx, func(node *raft.Raft) error {
		future := node.Apply(data, enqueueTime)
		if err := future.Error(); err != nil {
			return err
		}
		// Followers learn that it is committed with the next entry, or 50 to 100 ms later: a barrier is the next
		// entry. Writes of the whole fleet may be held until the members know.
		// It costs one write to this leader's disk, for which only the next entry waits.
		node.Barrier(enqueueTime)
		if refusal, ok := future.Response().(error); ok {
			return applied{refusal}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("propose: %w", err)
	}
	return nil
}

// Barrier waits until everything that was committed before is in this leader's State.
func (l *Log) Barrier(ctx context.Context) error {
	err := l.ask(ctx, func(node *raft.Raft) error { return node.Barrier(enqueueTime).Error() })
	if err != nil {
		return fmt.Errorf("barrier: %w", err)
	}
	return nil
}
