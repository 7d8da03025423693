package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cstproxy/cstproxy/ha/pglocal"
)

// rest pauses a load; false when ctx ended.
func rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// witness is one session that writes a counter and reads it back.
type witness struct {
	id       int
	wrote    int64
	stale    int
	standby  int // reads that a standby answered
	reads    int
	examples string
}

// live writes, reads at once, and reads again after a pause that may be shorter or longer than the
// standbys' delay.
func (w *witness) live(ctx context.Context, conn *pgx.Conn, primary string) error {
	for ctx.Err() == nil {
		if err := w.write(ctx, conn); err != nil {
			return err
		}
		for _, pause := range []time.Duration{0, time.Duration(rand.IntN(500)) * time.Millisecond} {
			if !rest(ctx, pause) {
				return nil
			}
			var saw int64
			var node string
			err := conn.QueryRow(ctx, "SELECT n, current_setting('pglocal.node') FROM witness WHERE id = $1", w.id).Scan(&saw, &node)
			if err != nil {
				return fmt.Errorf("read: %w", err)
			}
			w.reads++
			if node != primary {
				w.standby++
			}
			if saw < w.wrote {
				w.stale++
				w.examples = fmt.Sprintf("wrote %d, %s showed %d", w.wrote, node, saw)
			}
		}
	}
	return nil
}

// write is an autocommitted statement or a transaction, by turns.
func (w *witness) write(ctx context.Context, conn *pgx.Conn) error {
	w.wrote++
	const sql = "UPDATE witness SET n = $2 WHERE id = $1"
	var err error
	if w.wrote%2 == 0 {
		_, err = conn.Exec(ctx, sql, w.id, w.wrote)
	} else {
		err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, sql, w.id, w.wrote)
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

func TestASessionSeesItsOwnWritesThoughStandbysLag(t *testing.T) {
	w := newWorld(t, setup{servers: pglocal.Options{
		Standbys: 2, StandbySettings: map[string]string{"recovery_min_apply_delay": "'200ms'"},
	}})
	const sessions = 32
	setup := connect(t, w.through())
	mustExec(t, setup, fmt.Sprintf("CREATE TABLE witness (id int PRIMARY KEY, n bigint NOT NULL); INSERT INTO witness SELECT i, 0 FROM generate_series(1, %d) i", sessions))
	if err := w.cluster.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), span(8*time.Second, time.Minute))
	defer cancel()
	witnesses := make([]witness, sessions)
	var wg sync.WaitGroup
	for i := range witnesses {
		witnesses[i].id = i + 1
		conn := connect(t, w.through())
		wg.Go(func() {
			if err := witnesses[i].live(ctx, conn, w.cluster.Primary().Name); err != nil && ctx.Err() == nil {
				t.Errorf("session %d: %v", i+1, err)
			}
		})
	}
	wg.Wait()
	var all witness
	for _, one := range witnesses {
		all.stale += one.stale
		all.reads += one.reads
		all.standby += one.standby
		if one.stale > 0 {
			all.examples = one.examples
		}
	}
	t.Logf("%d reads, %d of them by standbys, %d stale", all.reads, all.standby, all.stale)
	if all.stale > 0 {
		t.Errorf("%d of %d reads were older than the session's own write: %s", all.stale, all.reads, all.examples)
	}
	if all.standby == 0 {
		t.Errorf("none of %d reads reached a standby", all.reads)
	}
}

// A table that one session has just made is unknown to a standby that lags: the read of another
// session, which the standby refuses, is repeated on the primary.
func TestARelationThatAStandbyDoesNotKnowYetIsReadOnThePrimary(t *testing.T) {
	w := newWorld(t, setup{servers: pglocal.Options{
		Standbys: 1, StandbySettings: map[string]string{"recovery_min_apply_delay": "'1500ms'"},
	}})
	maker, reader := connect(t, w.through()), connect(t, w.through())
	for i := range 5 {
		mustExec(t, maker, fmt.Sprintf("CREATE TABLE fresh%d AS SELECT 1 AS one", i))
		var one int
		if err := reader.QueryRow(t.Context(), fmt.Sprintf("SELECT one FROM fresh%d", i), pgx.QueryExecModeSimpleProtocol).Scan(&one); err != nil {
			t.Errorf("simple protocol: %v", err)
		}
		mustExec(t, maker, fmt.Sprintf("ALTER TABLE fresh%d ADD COLUMN two int DEFAULT 2", i))
		if err := reader.QueryRow(t.Context(), fmt.Sprintf("SELECT two FROM fresh%d", i), pgx.QueryExecModeExec).Scan(&one); err != nil {
			t.Errorf("extended protocol: %v", err)
		}
	}
}

// What a read must see is the commit, which may come long after the last statement of the
// transaction: by then the standbys have replayed that statement.
func TestAReadAfterASlowTransactionSeesItsCommit(t *testing.T) {
	w := newWorld(t, setup{servers: pglocal.Options{
		Standbys: 2, StandbySettings: map[string]string{"recovery_min_apply_delay": "'300ms'"},
	}})
	conn := connect(t, w.through())
	mustExec(t, conn, "CREATE TABLE slow (n int); INSERT INTO slow VALUES (0)")
	if err := w.cluster.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.warm(t, w.through())
	for i, end := range []string{"COMMIT", "END", "COMMIT AND CHAIN; ROLLBACK", "PREPARE TRANSACTION 'slow'; COMMIT PREPARED 'slow'"} {
		mustExec(t, conn, "BEGIN")
		mustExec(t, conn, fmt.Sprintf("UPDATE slow SET n = %d", i+1))
		// Long enough for a round at the idle pace, and for the standbys to get past the update.
		rest(t.Context(), 1500*time.Millisecond)
		for _, sql := range strings.Split(end, "; ") {
			mustExec(t, conn, sql)
		}
		for range 20 {
			var n int
			if err := conn.QueryRow(t.Context(), "SELECT n FROM slow").Scan(&n); err != nil || n != i+1 {
				t.Errorf("after %s: read %d, %v; want %d", end, n, err, i+1)
				break
			}
		}
	}
}
