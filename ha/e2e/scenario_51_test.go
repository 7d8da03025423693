package e2e

import (
	"context"
	"strconv"
	"testing"
)

// A standby that is away is waited for, within a limit: the primary keeps the log that it needs, and not
// more than its disk can hold. A standby that was away for longer is copied anew.
func TestThePrimaryKeepsLogForAStandbyWithinALimit(t *testing.T) {
	slow(t)
	l := New(t, Options{Hosts: []string{"m1", "m2", "m3", "c1"}})
	hosts := []*Host{l.Host("m1"), l.Host("m2"), l.Host("m3")}
	f := newFleet(l, Layout{Members: hosts, Nodes: l.Postgres(map[string]string{
		"wal_keep_size": "'0'", "max_wal_size": "'64MB'", "min_wal_size": "'32MB'", "max_slot_wal_keep_size": "'128MB'",
	}, hosts...)})
	primary := f.awaitWhole(t, patience)
	away := f.nodes[2]
	awaitFor(t, 2*patience, "slots on the primary", func(ctx context.Context) bool {
		got, err := primary.Psql(ctx, "SELECT count(*) FROM pg_replication_slots WHERE restart_lsn IS NOT NULL")
		return err == nil && got == "2"
	})
	logOf := func() int {
		got, err := primary.Psql(t.Context(), "CHECKPOINT; SELECT sum(size)::bigint / 1048576 FROM pg_ls_waldir()")
		if err != nil {
			t.Fatal(err)
		}
		size, err := strconv.Atoi(got)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s keeps %d MB of log", primary.Name, size)
		return size
	}
	write := func(megabytes int) {
		for range megabytes {
			if _, err := primary.Psql(t.Context(), "SELECT pg_logical_emit_message(true, '', repeat('x', 1048576))"); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Run("so that a short absence needs no copy", func(t *testing.T) {
		s := enact(t, f, usual(f.way(f.members[0])))
		s.happens(away.PowerOff)
		write(80)
		logOf()
		away.PowerOn()
		f.memberOn(away.Host).Start()
		f.awaitWhole(t, 3*patience)
		if copied := s.said(`"verb":"rebuild"`); len(copied) > 0 {
			t.Errorf("it was copied: %s", copied[0].Raw)
		}
		s.ends(epochUnchanged, nothingIsLost, operationsEnd)
	})
	t.Run("and a long one costs no disk", func(t *testing.T) {
		s := enact(t, f, usual(f.way(f.members[0])))
		s.happens(away.PowerOff)
		write(300)
		if size := logOf(); size > 256 {
			t.Errorf("%d MB of log are kept, 128 MB for standbys", size)
		}
		away.PowerOn()
		f.memberOn(away.Host).Start()
		f.awaitWhole(t, 4*patience)
		if copied := s.said(`"action done"`, `"verb":"rebuild"`); len(copied) == 0 {
			t.Errorf("it needed no copy")
		}
		s.ends(epochUnchanged, nothingIsLost, operationsEnd)
	})
}
