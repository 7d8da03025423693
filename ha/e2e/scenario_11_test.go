package e2e

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"
)

// What clients do to a primary that works is no reason to replace it: each of these lasts for more than
// twice as long as a primary may take no writes.
func TestAPrimaryThatOnlyHasMuchToDoIsLeftAlone(t *testing.T) {
	l, f := three(t, Layout{})
	goOn := func(s *scene) {
		s.t.Helper()
		awaitFor(s.t, time.Minute, "many commits", func(context.Context) bool {
			return time.Since(s.event) > 12*time.Second && s.run.ledger.acknowledged(s.event) > 100
		})
	}
	t.Run("when nobody else can connect", func(t *testing.T) {
		s := enact(t, f, usual(f.way(f.members[1])))
		crowd := &crowd{from: l.Host("c1"), at: s.former}
		s.happens(func() { crowd.fill(t) })
		goOn(s)
		crowd.leave()
		s.ends(epochUnchanged, nothingIsLost, idleClientsStay, operationsEnd)
	})
	t.Run("when somebody holds the table of the heartbeats", func(t *testing.T) {
		s := enact(t, f, usual(f.way(f.members[1])))
		ctx, cancel := context.WithCancel(t.Context())
		held := make(chan struct{})
		s.happens(func() {
			go func() { // the line after cancel waits
				defer close(held)
				_, _ = output(s.former.Command(ctx, "postgres", "psql", "-Xq", "-h", "/run/postgresql", "cs_sys_ha", "-c",
					"SET client_connection_check_interval = 100; BEGIN; LOCK TABLE cs_sys_heartbeat IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(60)"))
			}()
		})
		await(t, "the lock", func(ctx context.Context) bool {
			got, err := s.former.Psql(ctx, "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted AND relation <> 0")
			return err == nil && got != "0"
		})
		goOn(s)
		cancel()
		<-held
		s.ends(epochUnchanged, nothingIsLost, noClientWasTold, operationsEnd)
	})
	t.Run("when its host's processors are overloaded", func(t *testing.T) {
		s := enact(t, f, usual(f.way(f.members[1])))
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		s.happens(func() {
			for range 24 {
				all.Go(func() {
					for ctx.Err() == nil {
						_, _ = s.former.Psql(ctx, "SET client_connection_check_interval = 100; SELECT sum(sqrt(i)) FROM generate_series(1, 3000000) i")
					}
				})
			}
		})
		goOn(s)
		cancel()
		all.Wait()
		s.ends(epochUnchanged, nothingIsLost, idleClientsStay, operationsEnd)
	})
}

// Each of these sessions ends with its client, which a server that works on a statement does not notice by
// itself: client_connection_check_interval.

// crowd is clients past the proxy that leave no connection for anybody else.
type crowd struct {
	from *Host
	at   *Node

	all    sync.WaitGroup
	cancel context.CancelFunc
}

// fill returns when the server refuses one more.
func (c *crowd) fill(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c.cancel = cancel
	t.Cleanup(c.leave)
	for range 100 {
		c.all.Go(func() {
			for ctx.Err() == nil { // whoever is refused tries again: a place that becomes free is taken
				_, _ = PsqlFrom(ctx, c.from, c.at.Addr, "SET client_connection_check_interval = 100; SELECT pg_sleep(120)")
				pause(ctx, retryPause)
			}
		})
	}
	await(t, c.at.Name+" to be full", func(ctx context.Context) bool {
		_, err := PsqlFrom(ctx, c.from, c.at.Addr, "SELECT 1")
		return err != nil && strings.Contains(err.Error(), "too many clients")
	})
}

func (c *crowd) leave() {
	c.cancel()
	c.all.Wait()
}
