package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cstproxy/cstproxy/ha/pglocal"
)

// The servers are those of CST_VERSIONS, which scripts/postgres-versions prints.
func TestServersOfEveryVersionShareReads(t *testing.T) {
	list := os.Getenv("CST_VERSIONS")
	if list == "" {
		t.Skip("CST_VERSIONS names no servers of other versions: `make versions` fetches them")
	}
	for _, dir := range filepath.SplitList(list) {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			w := newWorld(t, setup{servers: pglocal.Options{Standbys: 1, Programs: filepath.Join(dir, "bin")}})
			sharesReads(t, w)
		})
	}
}

// sharesReads: functions run where what they are declared to be allows, also after that has changed.
func sharesReads(t *testing.T, w *world) {
	primary, standby := w.cluster.Primary().Name, w.cluster.Standbys()[0].Name
	conn := connect(t, w.through())
	node := func(read string) (name string) {
		if err := conn.QueryRow(t.Context(), read).Scan(&name); err != nil {
			t.Fatal(err)
		}
		return name
	}
	const here, reading, writing = "SELECT current_setting('pglocal.node')", "SELECT reading()", "SELECT writing()"
	mustExec(t, conn, `CREATE TABLE log (x int);
		CREATE FUNCTION reading() RETURNS text LANGUAGE sql AS $$ `+here+` $$;
		CREATE FUNCTION writing() RETURNS text LANGUAGE sql AS $$ INSERT INTO log VALUES (1); `+here+` $$`)
	w.warm(t, w.through())
	await(t, "its own write to be no reason for the primary any more", func() bool { return node(here) == standby })
	for _, volatile := range []string{reading, writing} {
		if got := node(volatile); got != primary {
			t.Errorf("%s ran on %s", volatile, got)
		}
	}
	mustExec(t, conn, "ALTER FUNCTION reading() STABLE")
	await(t, "a function that is stable by now to run on the standby", func() bool { return node(reading) == standby })
	if got := node(writing); got != primary {
		t.Errorf("%s ran on %s", writing, got)
	}
	if n := w.refusals(t); n > 0 {
		t.Errorf("standbys refused %d statements: that these write was not known", n)
	}
}
