package main

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestAStuckLoopIsNoticedAndARecoveredOneToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		close(release)
		p := pulse{ask: func() { <-release }}
		if why := p.alive(); why != "" {
			t.Errorf("a loop that answers: %q", why)
		}
		release = make(chan struct{})
		began := time.Now()
		if why := p.alive(); why == "" || time.Since(began) != pulseLimit {
			t.Errorf("a stuck loop: %q after %s", why, time.Since(began))
		}
		<-time.After(time.Millisecond) // the bubble's clock
		began = time.Now()
		if why := p.alive(); why == "" || time.Since(began) != 0 {
			t.Errorf("a loop that is still stuck: %q after %s", why, time.Since(began))
		}
		close(release)
		synctest.Wait()
		if why := p.alive(); why != "" {
			t.Errorf("a loop that recovered: %q", why)
		}
	})
}
