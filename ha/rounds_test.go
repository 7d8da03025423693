package ha

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cstproxy/cstproxy/ha/pglocal"
	"github.com/cstproxy/cstproxy/ha/topology"
)

func (f *fixture) connect(n *pglocal.Node) *pgconn.PgConn {
	f.t.Helper()
	conn, err := pgconn.Connect(f.t.Context(), n.URL("postgres"))
	f.must(err)
	f.t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func count(ctx context.Context, conn *pgconn.PgConn, sql string) (string, error) {
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return "", err
	}
	return string(results[0].Rows[0][0]), nil
}

// writeAndRead writes on the primary, stamps, and as soon as a standby has proved the ticket reads
// there; it returns how many reads missed the write.
func writeAndRead(ctx context.Context, f *fixture, writer int, writes int) (stale int, err error) {
	nodes := f.pg.Nodes()
	conns := make([]*pgconn.PgConn, len(nodes))
	for i, n := range nodes {
		if conns[i], err = pgconn.Connect(ctx, n.URL("postgres")); err != nil {
			return 0, err
		}
		defer conns[i].Close(ctx)
	}
	for k := range writes {
		// Asynchronous commits: what is acknowledged may not even be flushed yet.
		if _, err := conns[0].Exec(ctx, fmt.Sprintf("SET synchronous_commit = off; INSERT INTO t VALUES (%d, %d)", writer, k)).ReadAll(); err != nil {
			return stale, err
		}
		v := f.board.View()
		ticket := v.Rounds.Stamp(v.Epoch)
		for i := 1; i < len(nodes); i++ {
			if err := awaitTicket(ctx, v, v.Nodes[i].Slot, ticket); err != nil {
				return stale, err
			}
			got, err := count(ctx, conns[i], fmt.Sprintf("SELECT count(*) FROM t WHERE w = %d", writer))
			if err != nil {
				return stale, err
			}
			if got != fmt.Sprint(k+1) {
				stale++
			}
		}
	}
	return stale, nil
}

func awaitTicket(ctx context.Context, v *topology.View, slot int, ticket topology.Ticket) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !v.Rounds.Satisfied(slot, ticket, v.Epoch) {
		v.Rounds.Want(time.Now())
		select {
		case <-ctx.Done():
			return fmt.Errorf("ticket %v of slot %d: %w", ticket, slot, ctx.Err())
		case <-tick.C:
		}
	}
	return nil
}

func TestAStandbyThatProvedATicketHasTheWrite(t *testing.T) {
	f := newFixture(t, pglocal.Options{Standbys: 2, StandbySettings: map[string]string{"recovery_min_apply_delay": "'200ms'"}})
	f.run()
	f.settled()
	f.psql(f.pg.Nodes()[0], "CREATE TABLE t (w int, k int)")
	f.must(f.pg.CatchUp(t.Context()))
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			stale, err := writeAndRead(t.Context(), f, w, 10)
			if err != nil || stale > 0 {
				t.Errorf("writer %d: %d stale reads, %v", w, stale, err)
			}
		})
	}
	wg.Wait()
	if v := f.board.View(); !v.Node(2).TakesReads() || !v.Node(3).TakesReads() {
		t.Errorf("standbys with an apply delay left the reads: %s", describe(v))
	}
	s, err := f.agent.Snapshot("c1")
	f.must(err)
	if d := s.Node(2).Observation.Settings.MinApplyDelay; d != 200*time.Millisecond {
		t.Errorf("recovery_min_apply_delay is read as %s", d)
	}
}

// An idle primary's insert position may stand behind a page header that is never sent; and right
// after a quiet time the age of the last replayed transaction says nothing about lag.
func TestAnIdlePrimaryDoesNotKeepATicketOpen(t *testing.T) {
	f := newFixture(t, pglocal.Options{Standbys: 1, StandbySettings: map[string]string{"recovery_min_apply_delay": "'200ms'"}})
	f.cluster().MaxLag = 3 * time.Second
	f.run()
	f.settled()
	a := f.connect(f.pg.Nodes()[0])
	// An empty segment: the insert position now stands behind the header of its first page.
	for range 2 {
		if _, err := a.Exec(t.Context(), "SELECT pg_switch_wal()").ReadAll(); err != nil {
			t.Fatal(err)
		}
	}
	v := f.board.View()
	ticket := v.Rounds.Stamp(v.Epoch)
	f.must(awaitTicket(t.Context(), v, v.Node(2).Slot, ticket))
	if v = f.board.View(); !v.Node(2).TakesReads() {
		t.Errorf("the standby of an idle primary left the reads: %s", describe(v))
	}
}

func TestARestartedStandbyHasToProveAgain(t *testing.T) {
	f := newFixture(t, pglocal.Options{Standbys: 1})
	f.run()
	v := f.settled()
	b := f.pg.Nodes()[1]
	slot := v.Node(2).Slot
	f.must(awaitTicket(t.Context(), v, slot, v.Rounds.Stamp(v.Epoch)))
	f.psql(b, "SELECT pg_wal_replay_pause()")
	b.Kill()
	f.await("node 2 down", has(2, topology.Down))
	if safe := v.Rounds.Safe(slot); safe != 0 {
		t.Errorf("a killed standby still vouches for round %d", safe)
	}
	f.start(b)
	v = f.settled()
	f.must(awaitTicket(t.Context(), v, slot, v.Rounds.Stamp(v.Epoch)))

	f.agent.ReportFailure("c1", 2)
	f.must(awaitTicket(t.Context(), v, slot, v.Rounds.Stamp(v.Epoch)))
	f.agent.ReportFailure("c1", 77)
	f.agent.ReportFailure("nowhere", 1)
}
