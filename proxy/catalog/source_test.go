package catalog

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cstproxy/cstproxy/ha/pglocal"
	"github.com/cstproxy/cstproxy/router"
)

// readNow reads a database as the Store does.
func (r *rig) readNow(t *testing.T, database string) (fingerprint string, src router.Source) {
	t.Helper()
	ctx := context.Background()
	conn, err := r.connect(ctx, database, "UTF8")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.close(ctx)
	rd := &reader{ctx: ctx, conn: conn, timeout: time.Minute, budget: 1 << 30}
	rd.begin()
	fingerprint, src = rd.fingerprint(), rd.source()
	if rd.err != nil {
		t.Fatal(rd.err)
	}
	return fingerprint, src
}

const shop = `
CREATE SCHEMA s;
CREATE FUNCTION s.w(i int DEFAULT nextval('pg_catalog.pg_class'::regclass)) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1';
CREATE FUNCTION s.r(a int, b int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
CREATE FUNCTION s.definer(a int) RETURNS int LANGUAGE sql STABLE SECURITY DEFINER AS 'SELECT 1';
CREATE FUNCTION s.step(a int, b int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1';
CREATE AGGREGATE s.agg(int) (SFUNC = s.step, STYPE = int);
CREATE AGGREGATE s.pureagg(int) (SFUNC = int4pl, STYPE = int);
CREATE OPERATOR s.### (LEFTARG = int, RIGHTARG = int, PROCEDURE = s.step);
CREATE TABLE s.t (id int);
CREATE UNLOGGED TABLE s.u (id int);
CREATE TABLE s.child () INHERITS (s.t);
CREATE TABLE s.parts (id int) PARTITION BY LIST (id);
CREATE TABLE s.part1 PARTITION OF s.parts FOR VALUES IN (1);
CREATE SEQUENCE s.seq;
CREATE VIEW s.v AS SELECT s.w(id) AS x FROM s.t;
CREATE MATERIALIZED VIEW s.m AS SELECT 1 AS x;
CREATE FOREIGN DATA WRAPPER fw; CREATE SERVER fs FOREIGN DATA WRAPPER fw; CREATE FOREIGN TABLE s.f (id int) SERVER fs;
CREATE DOMAIN s.d AS int CHECK (s.w(VALUE) > 0) CHECK (VALUE < 10);
CREATE DOMAIN s.dd AS s.d;
CREATE TYPE s.pair AS (a int, b int);
CREATE FUNCTION s.topair(int) RETURNS s.pair LANGUAGE sql VOLATILE AS 'SELECT ROW(1, 2)::s.pair';
CREATE CAST (int AS s.pair) WITH FUNCTION s.topair(int) AS ASSIGNMENT;
CREATE TYPE s.odd AS ENUM ('a', 'b');
CREATE FUNCTION s.toodd(int) RETURNS s.odd LANGUAGE sql VOLATILE AS 'SELECT ''a''::s.odd';
CREATE CAST (int AS s.odd) WITH FUNCTION s.toodd(int) AS IMPLICIT;
CREATE TABLE s.odds (o s.odd[]);
CREATE FUNCTION s.odder(s.odds) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
CREATE FUNCTION s.sameodd(s.odd, s.odd) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
CREATE OPERATOR s.==== (LEFTARG = s.odd, RIGHTARG = s.odd, PROCEDURE = s.sameodd);
ALTER TABLE s.t ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON s.t USING (s.w(id) > 0);
CREATE POLICY q ON s.t FOR INSERT WITH CHECK (true);`

func TestTheCatalogueIsReadAsTheRouterAsks(t *testing.T) {
	pg := pglocal.ForTest(t, pglocal.Options{})
	openShop(t, pg.Primary())
	sql(t, pg.Primary(), "CREATE PROCEDURE s.proc() LANGUAGE sql AS 'SELECT 1'")
	r := newRig(t, pg, nil)
	r.readsTheShop(t)
	r.changes(t)
}

func openShop(t *testing.T, n *pglocal.Node) {
	t.Helper()
	for stmt := range strings.SplitSeq(shop, ";\n") {
		sql(t, n, stmt)
	}
}

func (r *rig) readsTheShop(t *testing.T) {
	t.Helper()
	print1, src := r.readNow(t, "postgres")
	checkFunctions(t, src)
	checkRelations(t, src)
	if !slices.Equal(src.Operators, []string{"###"}) {
		t.Errorf("operators %v", src.Operators)
	}
	checkCasts(t, src)
	for _, want := range []router.Type{{Name: "dd", Base: "d"}, {Name: "cardinal_number", Base: "int4", Check: "(VALUE >= 0)"}} {
		if !slices.Contains(src.Types, want) {
			t.Errorf("type %v is missing in %v", want, src.Types)
		}
	}
	d := slices.IndexFunc(src.Types, func(t router.Type) bool { return t.Name == "d" })
	if d < 0 || !strings.Contains(src.Types[d].Check, "s.w(VALUE)") || !strings.Contains(src.Types[d].Check, " AND ") {
		t.Errorf("types %v", src.Types)
	}
	if len(src.Policies) != 1 || !strings.Contains(src.Policies[0].Using, "s.w(id)") {
		t.Errorf("policies %v", src.Policies)
	}
	if again, _ := r.readNow(t, "postgres"); again != print1 {
		t.Errorf("two fingerprints of one catalogue:\n%s%s", print1, again)
	}
}

func checkCasts(t *testing.T, src router.Source) {
	t.Helper()
	for _, c := range src.Casts {
		switch c.Target {
		case "pair":
			if c.Implicit || c.Source != "" || c.Users == nil || len(c.Users) > 0 {
				t.Errorf("cast %+v", c)
			}
		case "odd":
			slices.Sort(c.Users)
			if !c.Implicit || !slices.Equal(c.Users, []string{"====", "odder", "odds", "sameodd", "toodd"}) {
				t.Errorf("cast %+v", c)
			}
		default:
			t.Errorf("cast %+v", c)
		}
	}
	if len(src.Casts) != 2 {
		t.Errorf("%d casts", len(src.Casts))
	}
}

func checkFunctions(t *testing.T, src router.Source) {
	t.Helper()
	for _, want := range []router.Function{
		{Schema: "s", Name: "r"},
		{Schema: "s", Name: "definer", ActsOutside: true, OneArgument: true},
		{Schema: "s", Name: "step", Volatile: true},
		{Schema: "s", Name: "agg", Volatile: true, OneArgument: true},
		{Schema: "s", Name: "pureagg", OneArgument: true},
		{Schema: "pg_catalog", Name: "nextval", Volatile: true, OneArgument: true},
		{Schema: "pg_catalog", Name: "now"},
	} {
		if !slices.Contains(src.Functions, want) {
			t.Errorf("function %+v is missing", want)
		}
	}
	w := slices.IndexFunc(src.Functions, func(f router.Function) bool { return f.Schema == "s" && f.Name == "w" })
	if w < 0 || !src.Functions[w].Volatile || !src.Functions[w].OneArgument || !strings.Contains(src.Functions[w].Defaults, "nextval") {
		t.Error("function s.w is missing or wrong")
	}
	if slices.ContainsFunc(src.Functions, func(f router.Function) bool { return f.Name == "proc" }) {
		t.Error("a procedure counts as a function")
	}
}

func checkRelations(t *testing.T, src router.Source) {
	t.Helper()
	oids := map[string]uint32{}
	for want, kind := range map[string]string{"t": "rp", "u": "ru", "child": "rp", "parts": "pp", "part1": "rp", "seq": "Sp", "v": "vp", "m": "mp", "f": "fp", "pg_class": "rp", "tables": "vp"} {
		i := slices.IndexFunc(src.Relations, func(r router.Relation) bool { return r.Name == want })
		if i < 0 {
			t.Errorf("relation %s is missing", want)
			continue
		}
		rel := src.Relations[i]
		oids[want] = rel.OID
		if got := string(rel.Kind) + string(rel.Persistence); got != kind {
			t.Errorf("relation %s is %s, want %s", want, got, kind)
		}
		if (rel.Definition != "") != (rel.Kind == 'v') || want == "v" && !strings.Contains(strings.ReplaceAll(rel.Definition, "t.id", "id"), "s.w(id)") {
			t.Errorf("relation %s has the definition %q", want, rel.Definition)
		}
	}
	for _, want := range []router.Inherit{{Parent: oids["t"], Child: oids["child"]}, {Parent: oids["parts"], Child: oids["part1"]}} {
		if !slices.Contains(src.Inherits, want) {
			t.Errorf("inheritance %v is missing in %v", want, src.Inherits)
		}
	}
}

// changes shows what moves the fingerprint and what must not.
func (r *rig) changes(t *testing.T) {
	p := r.pg.Primary()
	last, _ := r.readNow(t, "postgres")
	for _, c := range []struct {
		sql    string
		differ bool
	}{
		{"INSERT INTO s.u VALUES (1)", false},
		{"TRUNCATE s.u", false},
		{"REFRESH MATERIALIZED VIEW s.m", false},
		{"VACUUM ANALYZE s.t", false},
		{"VACUUM FREEZE pg_catalog.pg_proc", false},
		{"CREATE TEMP TABLE scratch (id int)", false},
		{"CREATE INDEX ON s.t (id)", false},
		{"ALTER FUNCTION s.r(int, int) VOLATILE", true},
		{"CREATE OR REPLACE VIEW s.v AS SELECT id AS x FROM s.t", true},
		{"ALTER TABLE s.t RENAME TO t2", true},
		{"ALTER SCHEMA s RENAME TO s2", true},
		{"ALTER TABLE s2.u SET LOGGED", true},
		{"DROP TABLE s2.child", true},
		{"ALTER DOMAIN s2.d DROP CONSTRAINT d_check", true},
		{"ALTER POLICY p ON s2.t2 USING (true)", true},
		{"DROP CAST (int AS s2.pair)", true},
		{"CREATE ROLE boss SUPERUSER", true},
		{"BEGIN; CREATE TABLE gone (id int); ROLLBACK", false},
		{"BEGIN; DROP FUNCTION s2.r(int, int); CREATE FUNCTION s2.r(int, int) RETURNS int LANGUAGE sql STABLE AS 'SELECT 1'; COMMIT", true},
	} {
		sql(t, p, c.sql)
		now, _ := r.readNow(t, "postgres")
		if (now != last) != c.differ {
			t.Errorf("%s: fingerprint differs = %v\n%s\n%s", c.sql, now != last, last, now)
		}
		last = now
	}
}
