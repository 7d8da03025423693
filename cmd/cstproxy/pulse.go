package main

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"go.uber.org/zap"
)

// pulseLimit is how long the event loop may take to answer before the process counts as stuck. An
// event takes microseconds; on a machine without a free core it may wait for its turn.
const pulseLimit = 5 * time.Second

// pulse asks a part that can be stuck whether it still answers.
type pulse struct {
	// ask returns when the part has answered. Of a stuck part it never does, so one question at a
	// time is under way, on a goroutine that is given up together with the process.
	ask   func()
	since atomic.Int64 // when the question under way was asked, ns since the epoch; 0: none is
}

// alive waits for an answer and says what is wrong when none came.
func (p *pulse) alive() string {
	const stuck = "the event loop does not answer"
	now := time.Now().UnixNano()
	if !p.since.CompareAndSwap(0, now) {
		if asked := p.since.Load(); asked != 0 && time.Duration(now-asked) > pulseLimit {
			return stuck
		}
		return "" // somebody else is asking; there will be an answer, or there will have been none
	}
	answered := make(chan struct{})
	go func() {
		p.ask()
		p.since.Store(0)
		close(answered)
	}()
	limit := time.NewTimer(pulseLimit)
	defer limit.Stop()
	select {
	case <-answered:
		return ""
	case <-limit.C:
		return stuck
	}
}

// feedWatchdog tells systemd that the process is alive as long as its event loop is, when the unit
// has WatchdogSec.
func (s *service) feedWatchdog(ctx context.Context) error {
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil || every == 0 {
		return err
	}
	tick := time.NewTicker(every / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if why := s.data.pulse.alive(); why != "" {
			s.log.Error("systemd will not be told that we live", zap.String("why", why))
			continue
		}
		s.notify(daemon.SdNotifyWatchdog)
	}
}
