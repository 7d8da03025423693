package e2e

import (
	"testing"
	"time"
)

// All members begin anew at the same time, as after an update that was done carelessly.
func TestAllMembersBeginAnewAtOnce(t *testing.T) {
	slow(t)
	_, f := three(t, Layout{Cluster: virtual})
	load := usual(f.way(f.members[0]))
	load.Readers = 2
	s := enact(t, f, load)
	s.happens(func() {
		for _, m := range f.members {
			m.Kill()
		}
		for _, m := range f.members {
			m.Start()
		}
	})
	for _, m := range f.members {
		m.AwaitReady()
	}
	t.Logf("all members take writes %s after they were killed", time.Since(s.event).Round(time.Millisecond))
	s.awaitWrites("writes of all clients", time.Now())
	f.awaitWhole(t, patience)
	s.heldBy(writeVIP, s.former.Host)
	s.ends(epochUnchanged, nothingIsLost, operationsEnd)
}
