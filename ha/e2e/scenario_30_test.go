package e2e

import (
	"context"
	"testing"
	"time"
)

// A standby that went its own way has more log than anybody, and none of it counts.
func TestTheMostLogOnAStaleBranchIsNotPromoted(t *testing.T) {
	_, f := three(t, Layout{Operation: map[string]string{"on_crash": `"failover"`}})
	f.awaitWhole(t, patience)
	stale := f.nodes[2]
	s := enact(t, f, usual(f.way(f.members[0])))
	stale.Block(22) // nobody is to repair it meanwhile
	stale.must("lead astray", `pg_ctl -D "$0" -w -s -m fast stop &&
		pg_ctl -D "$0" -w -s -o "-p 6000 -c listen_addresses=" -l `+PGLog+` start && pg_ctl -D "$0" -w -s promote &&
		psql -XAtq -p 6000 -h /run/postgresql -c "CREATE TABLE astray AS SELECT repeat('x', 1000) FROM generate_series(1, 20000)" &&
		pg_ctl -D "$0" -w -s -m fast stop && touch "$0/standby.signal"`)
	stale.Start()
	await(t, stale.Name+" to be known as astray", func(ctx context.Context) bool {
		ahead, err := stale.Psql(ctx, "SELECT pg_last_wal_replay_lsn()")
		if err != nil || ahead == "" {
			return false
		}
		got, err := s.former.Psql(ctx, "SELECT pg_current_wal_lsn() < '"+ahead+"'")
		return err == nil && got == "t"
	})
	s.happens(s.former.Kill)
	if now := s.awaitSuccessor(); now == stale {
		t.Errorf("%s was promoted", now.Name)
	}
	stale.Unblock()
	f.awaitWhole(t, 4*patience)
	awaitFor(t, 2*patience, stale.Name+" to have given back what it wrote by itself", func(ctx context.Context) bool {
		got, err := stale.Psql(ctx, "SELECT to_regclass('astray') IS NULL")
		return err == nil && got == "t"
	})
	if sent := s.said(`"action`, `"verb":"follow","node":`+fmtID(stale)+","); len(sent) > 0 {
		t.Errorf("it was sent log of another branch than its own: %s", sent[0].Raw)
	}
	s.ends(oneEpochMore, operationsEnd)
}

// A standby that is being copied has no complete copy, and is nobody's successor; the copy is made again
// from the new primary.
func TestAStandbyThatIsBeingCopiedIsNotPromoted(t *testing.T) {
	slow(t)
	_, f := three(t, Layout{Operation: map[string]string{"on_crash": `"failover"`}})
	primary := f.awaitWhole(t, patience)
	if _, err := primary.Psql(t.Context(), "CREATE TABLE ballast AS SELECT repeat('x', 1000) FROM generate_series(1, 100000)"); err != nil {
		t.Fatal(err)
	}
	s := enact(t, f, usual(f.way(f.memberOn(primary.Host))))
	copied, other := s.others()[1], s.others()[0]
	stopped := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	go func() { // received below
		_, err := copied.Exec(ctx, "sh", "-c", `until pkill -STOP -x pg_basebackup; do sleep 0.01; done`)
		stopped <- err
	}()
	f.orders(t, f.elsewhere(primary), "repair", "-i", fmtID(copied), "--mode", "rebuild", "--no-wait", "--yes")
	if err := <-stopped; err != nil {
		t.Fatalf("stop the copying in the middle: %v", err)
	}
	s.happens(s.former.Kill)
	if now := s.awaitSuccessor(); now != other {
		t.Errorf("%s was promoted", now.Name)
	}
	_, _ = copied.Exec(t.Context(), "pkill", "-CONT", "-x", "pg_basebackup") // it may have been ended
	began := time.Now()
	f.awaitWhole(t, 3*patience)
	t.Logf("the copy was made again within %s", time.Since(began).Round(time.Second))
	s.ends(oneEpochMore, operationsEnd)
}
