package e2e

import (
	"context"
	"testing"
)

// A promoted server takes minutes over its first checkpoint when much is to be written, and pg_rewind before
// version 16 knows nothing of the promotion until it ends.
func TestANewPrimaryHasItsFirstCheckpointSoon(t *testing.T) {
	slow(t)
	_, f := three(t, Layout{})
	primary := f.awaitWhole(t, patience)
	if _, err := primary.Psql(t.Context(), "CREATE TABLE dirty AS SELECT repeat('x', 4000) FROM generate_series(1, 8000)"); err != nil {
		t.Fatal(err)
	}
	s := enact(t, f, usual(f.way(f.elsewhere(primary))))
	s.happens(primary.PowerOff)
	now := s.awaitSuccessor()
	awaitFor(t, patience, "a checkpoint on the new timeline", func(ctx context.Context) bool {
		got, err := now.Psql(ctx, "SELECT timeline_id = ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int FROM pg_control_checkpoint()")
		return err == nil && got == "t"
	})
	s.ends(oneEpochMore)
}
