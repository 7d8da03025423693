package router

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cstproxy/cstproxy/ha/pglocal"
)

// connect opens a connection to a node of a test cluster.
func connect(t *testing.T, n *pglocal.Node) *pgconn.PgConn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgconn.Connect(ctx, n.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// query returns the first columns of the last statement's rows.
func query(conn *pgconn.PgConn, sql string) ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil || len(results) == 0 {
		return nil, err
	}
	var out []string
	for _, row := range results[len(results)-1].Rows {
		if len(row) > 0 {
			out = append(out, string(row[0]))
		}
	}
	return out, nil
}

func mustQuery(t *testing.T, conn *pgconn.PgConn, sql string) []string {
	t.Helper()
	out, err := query(conn, sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return out
}

// world makes the relations that testdata's statements like to name.
const world = `
CREATE TABLE t (a int, b int, c int, d text, x int, y int, n int, id int, o int, k int, "delete" int, "update" int, "insert" int, last_update int);
CREATE TABLE u (LIKE t); CREATE TABLE a (LIKE t); CREATE TABLE b (LIKE t); CREATE TABLE c (LIKE t); CREATE TABLE d (LIKE t);
CREATE TABLE f (LIKE t); CREATE TABLE rows (LIKE t); CREATE TABLE "T" (LIKE t); CREATE VIEW v AS SELECT * FROM t; CREATE SEQUENCE s;
INSERT INTO t VALUES (1, 1, 1, 'x')`

// TestWithARealServer shares one primary and one standby.
func TestWithARealServer(t *testing.T) {
	cluster := pglocal.ForTest(t, pglocal.Options{Standbys: 1})
	primary, standby := connect(t, cluster.Primary()), connect(t, cluster.Standbys()[0])
	version := mustQuery(t, primary, "SHOW server_version_num")[0]
	mustQuery(t, primary, world)
	if err := cluster.CatchUp(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Run("a standby refuses nothing that is called a read", func(t *testing.T) { refusesNoRead(t, standby) })
	t.Run("tracked settings can be repeated", func(t *testing.T) { repeatsSettings(t, primary, connect(t, cluster.Primary())) })
	t.Run("the built-in functions are the server's", func(t *testing.T) {
		if !strings.HasPrefix(version, "15") {
			t.Skip("the table is that of PostgreSQL 15")
		}
		builtinsAreTheServers(t, primary)
	})
}

func refusesNoRead(t *testing.T, standby *pgconn.PgConn) {
	c := New(Config{})
	ran, worked := 0, 0
	cases(t, "statements.txt", 2, func(l line) []string {
		v := c.Classify([]byte(l.sql), offline)
		hinted := strings.Contains(strings.ToLower(l.sql), "cstproxy: standby")
		if v.Route.Target != Standby || v.Copy&CopyIn != 0 || hinted || strings.Contains(l.sql, "cstproxy.route") {
			return l.want
		}
		_, err := query(standby, l.sql)
		ran++
		var refused *pgconn.PgError
		switch {
		case err == nil:
			worked++
		case !errors.As(err, &refused):
			t.Fatalf("%s: %v", l.sql, err)
		case refused.Code == "25006" || strings.Contains(refused.Message, "recovery") || strings.Contains(refused.Message, "hot standby"):
			t.Errorf("%s: %v", l.sql, err)
		}
		mustQuery(t, standby, "ROLLBACK; DISCARD PLANS; RESET ALL")
		return l.want
	})
	if worked < 150 {
		t.Errorf("only %d of %d statements worked at all", worked, ran)
	}
}

func repeatsSettings(t *testing.T, one, other *pgconn.PgConn) {
	c := New(Config{})
	cases(t, "effects.txt", 1, func(l line) []string {
		effects := c.Classify([]byte(l.sql), offline).Effects
		if len(effects) == 0 || effects[0].Kind != EffectSet {
			return l.want
		}
		mustQuery(t, one, l.sql)
		for _, e := range effects {
			mustQuery(t, other, "SET "+e.Name+" TO "+e.Value)
			a, b := mustQuery(t, one, "SHOW "+e.Name), mustQuery(t, other, "SHOW "+e.Name)
			if a[0] != b[0] {
				t.Errorf("%s: %q, repeated %q", l.sql, a[0], b[0])
			}
		}
		mustQuery(t, one, "RESET ALL")
		mustQuery(t, other, "RESET ALL")
		return l.want
	})
}

// builtinsAreTheServers compares builtin15.txt with pg_proc, and the views in it with what the
// classifier says of the server's definitions.
func builtinsAreTheServers(t *testing.T, conn *pgconn.PgConn) {
	script, err := os.ReadFile("builtin15.sh")
	if err != nil {
		t.Fatal(err)
	}
	_, sql, _ := strings.Cut(string(script), "-c \"")
	sql, _, _ = strings.Cut(sql, "\" > functions.tmp")
	sql = strings.ReplaceAll(sql, `\"`, `"`)
	sql = strings.Replace(sql, "ELSE '' END\nFROM", "ELSE '' END AS flags\nFROM", 1)
	want := mustQuery(t, conn, "SELECT x.proname || ' ' || x.flags FROM ("+sql+") x")
	src := Source{}
	for _, pair := range mustQuery(t, conn, "SELECT relname || '|' || pg_get_viewdef(oid) FROM pg_class WHERE relkind = 'v' AND relnamespace = 'pg_catalog'::regnamespace") {
		name, definition, _ := strings.Cut(pair, "|")
		src.Relations = append(src.Relations, Relation{Name: name, Kind: 'v', Persistence: 'p', Definition: definition})
	}
	for _, name := range mustQuery(t, conn, "SELECT relname FROM pg_class WHERE relkind IN ('r', 'v') AND relpersistence = 'p'") {
		src.Relations = append(src.Relations, Relation{Name: name, Kind: 'r', Persistence: 'p'})
	}
	k := NewKnowledge(src)
	k.functions = builtins().functions
	for name := range k.relations {
		k.relations[name] = 0
	}
	k.settle(&src)
	var local []string
	for name, flags := range k.relations {
		if flags != 0 {
			local = append(local, name+" local")
		}
	}
	slices.Sort(local)
	got := strings.Split(strings.TrimSuffix(builtin15, "\n"), "\n")
	if want = append(want, local...); !slices.Equal(got, want) {
		path := filepath.Join(t.TempDir(), "builtin15.txt")
		if *update {
			path = "builtin15.txt"
		}
		if err := os.WriteFile(path, []byte(strings.Join(want, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		t.Errorf("builtin15.txt has %d lines, the server makes %d (run with -update)", len(got), len(want))
	}
}
