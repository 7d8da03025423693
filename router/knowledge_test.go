package router

import (
	"testing"
)

// shop is the catalogue of a small database with everything in it that can deceive.
func shop() Source {
	f := func(name string) Function { return Function{Schema: "public", Name: name} }
	volatile := func(name string) Function {
		return Function{Schema: "public", Name: name, Volatile: true, OneArgument: true}
	}
	r := func(oid uint32, name string, kind RelationKind) Relation {
		return Relation{OID: oid, Schema: "public", Name: name, Kind: kind, Persistence: 'p'}
	}
	view := func(oid uint32, name, definition string) Relation {
		return Relation{OID: oid, Schema: "public", Name: name, Kind: 'v', Persistence: 'p', Definition: definition}
	}
	src := Source{
		Functions: []Function{
			{Schema: "pg_catalog", Name: "nextval", Volatile: true, OneArgument: true},
			{Schema: "pg_catalog", Name: "random", Volatile: true},
			{Schema: "pg_catalog", Name: "pg_stat_get_activity", OneArgument: true},
			{Schema: "pg_catalog", Name: "count", OneArgument: true},
			{Schema: "pg_catalog", Name: "lower", OneArgument: true},
			f("total"), f("mixed"), {Schema: "other", Name: "mixed", Volatile: true},
			volatile("ship"), volatile("random_user"), {Schema: "public", Name: "random", OneArgument: true},
			{Schema: "public", Name: "fetch_url", ActsOutside: true},
			{Schema: "public", Name: "gen_random_bytes", Volatile: true, Extension: "pgcrypto"},
			{Schema: "public", Name: "gen_salt", Volatile: true},
			{Schema: "public", Name: "with_default", Defaults: "nextval('orders_id_seq'::regclass)"},
			{Schema: "public", Name: "with_constant", Defaults: "1, 'x'::text"},
			{Schema: "public", Name: "Quoted"},
			{Schema: "public", Name: "dblink", Volatile: true},
		},
		Relations: []Relation{
			r(1, "orders", 'r'), r(2, "orders_id_seq", 'S'), r(3, "remote", 'f'), r(4, "totals", 'm'),
			{OID: 5, Schema: "public", Name: "scratch", Kind: 'r', Persistence: 'u'},
			view(6, "open_orders", " SELECT orders.id FROM orders WHERE (NOT orders.done);"),
			view(7, "numbered", " SELECT nextval('orders_id_seq'::regclass) AS n;"),
			view(8, "numbered_again", " SELECT numbered.n FROM numbered;"),
			view(9, "numbered_thrice", " SELECT x.n FROM (SELECT numbered_again.n FROM numbered_again) x;"),
			view(10, "activity", " SELECT s.pid FROM pg_stat_get_activity(NULL::integer) s(pid);"),
			view(11, "of_scratch", " SELECT scratch.a FROM scratch;"),
			view(12, "of_remote", " SELECT remote.a FROM remote;"),
			r(20, "parted", 'p'), r(21, "part_1", 'r'), r(22, "part_2", 'f'),
			r(30, "grandparent", 'r'), r(31, "parent", 'r'), {OID: 32, Schema: "public", Name: "child", Kind: 'r', Persistence: 'u'},
			r(40, "guarded", 'r'), r(41, "watched", 'r'),
			r(50, "Mixed Case", 'r'), r(51, "twice", 'r'), {OID: 52, Schema: "other", Name: "twice", Kind: 'S', Persistence: 'p'},
			r(60, "coins", 'r'),
		},
		Inherits:  []Inherit{{20, 21}, {20, 22}, {30, 31}, {31, 32}},
		Operators: []string{"~>~"},
		Casts:     []Cast{{Target: "coin"}, {Target: "token", Source: "ticket", Implicit: true, Users: []string{"coins", "total"}}},
		Types: []Type{
			{Name: "email", Check: "(lower(VALUE) = VALUE)"}, {Name: "tracked_text", Check: "ship(VALUE)"},
			{Name: "tracked_again", Base: "tracked_text"}, {Name: "raw", VolatileInput: true},
		},
		Policies: []Policy{{40, "(owner = lower('x'))"}, {41, "ship(id)"}},
	}
	return src
}

func TestTheCatalogueDecidesAboutNames(t *testing.T) {
	k := NewKnowledge(shop())
	c := New(DefaultConfig())
	for _, tc := range []struct{ want, sql string }{
		{"primary volatile function", "SELECT total()"}, // which takes a type of the implicit cast
		{"standby select", "SELECT lower(a), count(*), random() FROM orders"},
		{"standby select", "SELECT * FROM open_orders o JOIN totals USING (id)"},
		{"standby select", `SELECT "Quoted"() FROM "Mixed Case"`},
		{"primary unknown function", "SELECT Quoted()"},
		{"primary unknown relation", "SELECT * FROM Mixed_Case"},
		{"primary unknown relation", "SELECT * FROM fresh"},
		{"primary unknown function", "SELECT fresh(1)"},
		{"primary volatile function", "SELECT mixed()"},
		{"primary volatile function", "SELECT ship(1)"},
		{"primary volatile function", "SELECT o.ship FROM orders o"},
		{"primary volatile function", "SELECT (o).ship FROM orders o"},
		{"primary volatile function", "SELECT (SELECT o FROM orders o).ship"},
		{"primary volatile function", "SELECT (ARRAY[1])[1].ship"},
		{"standby select", "SELECT ship FROM orders"},
		{"standby select", "SELECT o.random FROM orders o"},
		{"primary volatile function", "SELECT * FROM orders o, ship(o.id)"},
		{"primary volatile function", "SELECT * FROM orders ship(a, b)"}, // no call, but who knows
		{"primary function acts outside", "SELECT fetch_url('x')"},
		{"primary function acts outside", "SELECT dblink('x')"},
		{"standby select", "SELECT gen_random_bytes(4)"},
		{"primary volatile function", "SELECT gen_salt('md5')"},
		{"primary volatile function", "SELECT with_default()"},
		{"standby select", "SELECT with_constant()"},
		{"primary sequence", "SELECT last_value FROM orders_id_seq"},
		{"primary sequence", "SELECT * FROM twice"},
		{"primary unlogged table", "SELECT * FROM scratch"},
		{"primary foreign table", "SELECT * FROM remote"},
		{"primary view that may write", "SELECT * FROM numbered"},
		{"primary view that may write", "SELECT * FROM numbered_again"},
		{"primary view that may write", "TABLE numbered_thrice"},
		{"primary node-local relation", "SELECT * FROM activity"},
		{"primary unlogged table", "SELECT * FROM of_scratch"},
		{"primary foreign table", "SELECT * FROM of_remote"},
		{"primary foreign table", "SELECT * FROM parted"},
		{"standby select", "SELECT * FROM part_1"},
		{"primary unlogged table", "SELECT * FROM grandparent"},
		{"standby select", "SELECT * FROM guarded"},
		{"primary view that may write", "SELECT * FROM watched"},
		{"primary volatile operator", "SELECT 1 ~>~ 2"},
		{"primary volatile operator", "SELECT 1 OPERATOR(public.~>~) 2"},
		{"standby select", "SELECT 1 ~> 2"},
		{"primary volatile cast", "SELECT '1'::coin"},
		{"primary volatile cast", "SELECT CAST('1' AS public.coin)"},
		{"primary volatile cast", "SELECT coin '1'"},
		{"primary volatile cast", "SELECT x::ticket FROM orders"},
		{"primary view that may write", "SELECT * FROM coins"},
		{"standby select", "SELECT 'x'::email"},
		{"primary volatile type", "SELECT 'x'::tracked_text[]"},
		{"primary volatile type", "SELECT tracked_again 'x'"},
		{"primary volatile type", "SELECT CAST('x' AS raw)"},
		{"standby select", "WITH fresh AS (SELECT 1) SELECT * FROM fresh"},
		{"standby select", "WITH scratch AS (SELECT 1) SELECT * FROM scratch"},
		{"primary unlogged table", "WITH scratch AS (SELECT * FROM scratch) SELECT * FROM scratch"},
		{"standby copy to", "COPY orders TO STDOUT"},
		{"primary sequence", "COPY orders_id_seq TO STDOUT"},
	} {
		v := c.Classify([]byte(tc.sql), Env{Knowledge: k})
		if got := v.Route.Target.String() + " " + v.Route.Why; got != tc.want {
			t.Errorf("%s\n got %s\nwant %s", tc.sql, got, tc.want)
		}
		unknown := tc.want == "primary unknown function" || tc.want == "primary unknown relation"
		if v.UnknownName != unknown {
			t.Errorf("%s: UnknownName %v", tc.sql, v.UnknownName)
		}
	}
}

func TestAnImplicitVolatileCastOfUnknownUsersPutsAllInDoubt(t *testing.T) {
	src := shop()
	src.Casts = []Cast{{Target: "coin", Implicit: true}}
	v := New(Config{}).Classify([]byte("SELECT 1"), Env{Knowledge: NewKnowledge(src)})
	if v.Route != (Route{Primary, whyVolatileCast}) {
		t.Errorf("got %v", v.Route)
	}
}

func TestWhatMayRunAgainDependsOnWhatIsCalled(t *testing.T) {
	k := NewKnowledge(shop())
	c := New(DefaultConfig())
	for _, tc := range []struct {
		want RetryClass
		sql  string
	}{
		{RetrySafe, "SELECT count(*) FROM orders"},
		{RetrySafe, "SELECT 1; SELECT random()"},
		{RetrySafe, "SET timezone = 'utc'; SELECT 1"},
		{RetrySafe, ""},
		{RetryRefused, "COPY orders TO STDOUT"},
		{RetryRefused, "SELECT fresh()"},
		{RetryRefused, "/* cstproxy: standby */ SELECT ship(1)"},
		{RetryNever, "/* cstproxy: standby */ SELECT fetch_url('x')"},
		{RetryNever, "/* cstproxy: standby */ SELECT * FROM remote"},
		{RetryNever, "SELECT fetch_url('x'), ship(1)"},
		{RetryNever, "INSERT INTO orders VALUES (1)"},
		{RetryNever, "BEGIN READ ONLY"},
		{RetryNever, "BEGIN READ ONLY; SELECT 1; COMMIT"},
		{RetryNever, "FETCH 1 FROM c"},
		{RetryNever, "SELECT 1; DELETE FROM orders"},
		{RetryNever, "SELECT 1 FOR UPDATE"},
		{RetryNever, "SELECT 'unterminated"},
	} {
		if got := c.Classify([]byte(tc.sql), Env{Knowledge: k}).Retry; got != tc.want {
			t.Errorf("%s: got %d, want %d", tc.sql, got, tc.want)
		}
	}
}

func TestExplainSaysWhatItLookedAt(t *testing.T) {
	out := Explain("BEGIN; /* cstproxy: standby */ SELECT lower(a), ship(1) FROM orders -- x\n ; SELECT 'open", Env{Knowledge: NewKnowledge(shop())})
	if len(out) != 3 {
		t.Fatalf("%d statements", len(out))
	}
	if s := out[0]; s.Text != "BEGIN" || s.Route.Why != whyBegin || len(s.Effects) != 1 {
		t.Errorf("%+v", s)
	}
	s := out[1]
	if s.Text != "SELECT lower(a), ship(1) FROM orders -- x" || s.Hint != ChooseStandby || s.Route != (Route{Standby, WhyHint}) || len(s.Effects) != 0 {
		t.Errorf("%+v", s)
	}
	if len(s.Looked) != 3 || s.Looked[0] != "function lower" || s.Looked[1] != "function ship" || s.Looked[2] != "relation orders" {
		t.Errorf("looked at %q", s.Looked)
	}
	if out[2].Route != (Route{Primary, whyUnreadable}) {
		t.Errorf("%+v", out[2])
	}
}
