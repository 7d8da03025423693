package catalog

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cstproxy/cstproxy/ha/pglocal"
	"github.com/cstproxy/cstproxy/router"
)

// The servers are those of CST_VERSIONS, which scripts/postgres-versions prints.
func TestServersOfEveryVersionTellTheirCatalogue(t *testing.T) {
	list := os.Getenv("CST_VERSIONS")
	if list == "" {
		t.Skip("CST_VERSIONS names no servers of other versions: `make versions` fetches them")
	}
	for _, dir := range filepath.SplitList(list) {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			pg := pglocal.ForTest(t, pglocal.Options{Standbys: 1, Programs: filepath.Join(dir, "bin")})
			openShop(t, pg.Primary())
			if !strings.HasPrefix(filepath.Base(dir), "10.") { // there are none before 11
				sql(t, pg.Primary(), "CREATE PROCEDURE s.proc() LANGUAGE sql AS 'SELECT 1'")
			}
			r := newRig(t, pg, nil)
			r.readsTheShop(t)
			r.judges(t)
			r.changes(t)
		})
	}
}

// judges compares where the knowledge of the shop sends statements with what a standby makes of them.
func (r *rig) judges(t *testing.T) {
	sql(t, r.pg.Primary(), "CREATE TABLE s.log (id int)",
		"CREATE FUNCTION s.writes(int) RETURNS int LANGUAGE sql VOLATILE AS 'INSERT INTO s.log VALUES ($1) RETURNING id'",
		"CREATE FUNCTION s.note(a int, b int) RETURNS int LANGUAGE sql VOLATILE AS 'INSERT INTO s.log VALUES (b) RETURNING id'",
		"CREATE AGGREGATE s.notes(int) (SFUNC = s.note, STYPE = int, INITCOND = 0)")
	if err := r.pg.CatchUp(context.Background()); err != nil {
		t.Fatal(err)
	}
	known, standby := r.known(t, "postgres"), r.pg.Standbys()[0]
	for _, c := range []struct {
		sql     string
		target  router.Target
		refused bool // by a standby
	}{
		{"SELECT count(*) FROM s.child", router.Standby, false},
		{"SELECT s.r(1, 2), s.pureagg(id), max(id), now() FROM s.child", router.Standby, false},
		{"SELECT row_number() OVER () FROM generate_series(1, 3)", router.Standby, false},
		{"SELECT typname, pg_get_viewdef('s.v'::regclass), random() FROM pg_type", router.Standby, false},
		{"SELECT count(*) FROM information_schema.columns", router.Standby, false},
		{"SELECT timezone('UTC', now()), now() AT TIME ZONE 'UTC'", router.Standby, false},
		{"SELECT s.writes(1)", router.Primary, true},
		{"SELECT s.notes(1)", router.Primary, true},
		{"SELECT nextval('s.seq')", router.Primary, true},
		{"SELECT count(*) FROM s.u", router.Primary, true},
		{"SELECT txid_current()", router.Primary, true},
		{"SELECT last_value FROM s.seq", router.Primary, false}, // shows another value there
		{"SELECT pid FROM pg_stat_activity", router.Primary, false},
		{"SELECT s.agg(1)", router.Primary, false}, // these could write, and do not
		{"SELECT 1 OPERATOR(s.###) 2", router.Primary, false},
		{"SELECT 1::s.d", router.Primary, false},
		{"SELECT x FROM s.v", router.Primary, false},
		{"SELECT id FROM s.t", router.Primary, false},
	} {
		got := router.New(router.DefaultConfig()).Classify([]byte(c.sql), router.Env{Knowledge: known}).Route
		_, err := standby.Psql(context.Background(), c.sql)
		refused := err != nil && (strings.Contains(err.Error(), "read-only") || strings.Contains(err.Error(), "recovery"))
		if got.Target != c.target || refused != c.refused || (err != nil) != refused {
			t.Errorf("%s: goes to %v (%s), a standby says %v", c.sql, got.Target, got.Why, err)
		}
	}
}

func TestTheVersionIsReadAsServersTellIt(t *testing.T) {
	for version, want := range map[string]int{"10.23": 10, "10.23 (Debian 10.23-1.pgdg110+1)": 10, "11devel": 11, "9.6.24": 9, "19beta1": 19, "15.4": 15} {
		if got, known := major(version); got != want || !known {
			t.Errorf("%s: %d, %v", version, got, known)
		}
	}
	for _, version := range []string{"", "devel", "PostgreSQL 10", strings.Repeat("9", 30)} {
		if got, known := major(version); known {
			t.Errorf("%s: %d", version, got)
		}
	}
}
