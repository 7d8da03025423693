package operation

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/pglocal"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// A promotion that was to pass timelines over, and came to nothing, must leave a standby that can be started
// again: PostgreSQL looks for log of the highest timeline that has a history file.
func TestATimelinePassedOverInVainIsForgotten(t *testing.T) {
	s := newStage(t, pglocal.Options{Standbys: 1})
	a, b := s.pg.Nodes()[0], s.pg.Nodes()[1]
	passed := func(timeline topology.Timeline) string { return filepath.Join(b.Dir, "pg_wal", timeline.HistoryFile()) }
	pass := func() {
		t.Helper()
		c, err := s.nodes[2].SQL.Connect(s.within())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(t.Context())
		if err := c.PassOver(s.within(), 1, 4); err != nil {
			t.Fatal(err)
		}
		if !exists(t, passed(3)) || exists(t, passed(4)) {
			t.Fatal("2 and 3 should be passed over")
		}
	}

	s.must(action(decide.Recruit, b, 2, record.Fence))
	pass()
	if r := s.must(from(action(decide.Release, b, 2, record.Undo), a)); !r.Fact.Streaming {
		t.Fatalf("after the release: %+v", r.Fact)
	}
	if exists(t, passed(2)) || exists(t, passed(3)) {
		t.Error("a server that was led back would not start again")
	}

	pass()
	b.Kill()
	// A full disk leaves a part of such a file, or an empty one.
	if err := os.Truncate(passed(2), 0); err != nil {
		t.Fatal(err)
	}
	s.must(action(decide.Start, b, 2, record.Done))
	s.sql(a, "CREATE TABLE afterwards (x int)")
	s.reads(b, "SELECT to_regclass('afterwards')", "afterwards")
}
