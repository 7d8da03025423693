package operation

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/pglocal"
	"github.com/cstproxy/cstproxy/ha/pgnode"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// An operator who has no room for two asks that the old directory be removed: not before it is sure that a new
// one can be made.
func TestNothingIsRemovedBeforeACopyIsSure(t *testing.T) {
	s := newStage(t, pglocal.Options{Standbys: 1, Settings: map[string]string{"max_replication_slots": "2"}})
	a, b := s.pg.Nodes()[0], s.pg.Nodes()[1]
	s.sql(a, "CREATE TABLE t AS SELECT 1 AS x")
	if err := s.pg.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	replace := mode(from(action(decide.Rebuild, b, 1, record.Done), a), "replace")
	refused := func(why string) {
		t.Helper()
		replace.Operation++
		s.fails(replace, why)
		if !b.Running() || s.sql(b, "SELECT count(*) FROM t") != "1" || !exists(t, filepath.Join(b.Dir, "PG_VERSION")) {
			t.Fatalf("%s: what was there is gone", why)
		}
		if left := s.sql(a, "SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'cstproxy_trial%'"); left != "0" {
			t.Errorf("%s: %s slots were left", why, left)
		}
	}

	whole := s.Executor
	s.Executor = s.executor(func(*Node) {})
	s.Executor.cfg.Replication = pgnode.Conninfo{{Key: "user", Value: "nobody"}, {Key: "sslmode", Value: "disable"}}
	refused("was left as it is")
	s.Executor = whole

	s.sql(a, "SELECT pg_create_physical_replication_slot('theirs' || i) FROM generate_series(1, 2 - (SELECT count(*) FROM pg_replication_slots)::int) i")
	refused("gives no slot")
	s.sql(a, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name LIKE 'theirs%'")

	words := []string{"source=user=postgres host=127.0.0.1 port=" + strconv.Itoa(a.Port), "source_major=15", "need_kb=99999999999999", "mode=replace",
		"repair=too much", "patience=5"}
	err := s.act(s.within(), replace, script{rebuildScript, words, secrets(pglocal.DefaultPassword)})
	if err == nil || !strings.Contains(err.Error(), "a copy needs") || !b.Running() {
		t.Fatal(err)
	}

	// A copy would find the tablespace's directory in use, on its host.
	place, err := os.MkdirTemp("/tmp", "cst-operation-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(place) })
	if err := os.Chmod(place, 0o777); err != nil { // the standby is on the same host
		t.Fatal(err)
	}
	if out, err := exec.Command("chown", s.nodes[1].OSUser, place).CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	s.sql(a, "CREATE TABLESPACE elsewhere LOCATION '"+place+"'")
	refused("gives no copy")
	s.sql(a, "DROP TABLESPACE elsewhere")

	r := s.must(replace)
	if r.Fact.Role != topology.RoleStandby || !r.Fact.Streaming || exists(t, b.Dir+".cstproxy-old-*") {
		t.Errorf("%+v", r.Fact)
	}
	s.reads(b, "SELECT sum(x) FROM t", "1")
	if strings.Contains(s.said(), "Broken pipe") {
		t.Errorf("a trial is no failure:\n%s", s.said())
	}
}
