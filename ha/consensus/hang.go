package consensus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
)

// A disk that hangs does not refuse a write, it does not answer. Raft's main loop stands in that write, while its
// heartbeats, which come from goroutines of their own, keep the others from an election for as long as it lasts.
//
// So a member with a write under way for longer than Config.hangs is mute. It says nothing in raft that it was not
// asked for, so that the others elect another leader among those whose disks answer; it ends its own reign, proposes
// nothing and confirms nothing, so that it grants no lease; and it takes no new stream, of which each would be stuck
// until the write returns. On the streams that it has it goes on to hear its leader.
//
// What is right does not depend on it, nor on the bound: a leader is mute late, or by mistake, as one is cut off late,
// or by mistake. If it dies there, the entry under way is on its disk or not, and on nobody else's: raft sends an
// entry when it is on the leader's. If it wakes an hour later, that entry is one of an old term at the end of its
// log, behind which it asks for votes in vain, and which the new leader replaces. A majority still decides whether it
// counts: if nobody was elected meanwhile, it may, and whoever proposed it was told ErrUnknownOutcome.

var errHangs = errors.New("this member's disk does not answer")

// hangs is how long a write may take. A member whose disk is slower could not be elected: within Election it has to
// keep a term and a vote. A follower is given messageTime for one.
func (c *Config) hangs() time.Duration { return max(messageTime, 3*c.Election) }

// watched notices when the write that begins hangs; ended is called when it has returned.
func (s *store) watched() (ended func()) {
	if s.bound == 0 {
		return func() {}
	}
	began, noticed := time.Now(), make(chan struct{})
	timer := time.AfterFunc(s.bound, func() {
		defer close(noticed)
		text := fmt.Sprintf("a write has not returned for %s", s.bound)
		s.trouble.Store(&text)
		s.hung.Store(true)
		s.log.Error("the fleet's log hangs; this member neither leads nor votes until its disk answers", zap.Duration("lasted", s.bound))
		s.turned.fire()
	})
	return func() {
		if timer.Stop() {
			return
		}
		<-noticed
		s.trouble.Store(nil)
		s.hung.Store(false)
		s.log.Info("the disk of the fleet's log answers again", zap.Duration("lasted", time.Since(began)))
		s.turned.fire()
	}
}

// mute says that this member's disk hangs and that there are others. One that is alone has nobody who could lead.
func (l *Log) mute(st *store) bool { return l.link != nil && st.hung.Load() }

// end waits for run, but not for a disk that hangs: when ctx has ended, nothing is said any more that would depend on
// what is under way, and nobody can end a goroutine that stands in the kernel. The end of the process does.
func (l *Log) end(ctx context.Context, st *store, ran <-chan error) error {
	select {
	case err := <-ran:
		return err
	case <-ctx.Done():
	}
	for {
		turned := st.turned.wait()
		if st.hung.Load() {
			return fmt.Errorf("end the fleet's log: %w", errHangs)
		}
		select {
		case err := <-ran:
			return err
		case <-turned:
		}
	}
}
