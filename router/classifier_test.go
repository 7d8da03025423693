package router

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// plain is an ordinary query of 100 bytes.
const plain = "SELECT abalance, filler, bid FROM pgbench_accounts a WHERE a.aid = 123456 AND a.bid > 12 ORDER BY aid"

func TestAPlainQueryCostsNoAllocation(t *testing.T) {
	uncached, cached := New(Config{}), New(DefaultConfig())
	fresh := New(DefaultConfig())
	query, text := []byte(plain), []byte(plain+" /* 00000000 */")
	n := 0
	for name, classify := range map[string]func(){
		"without a cache": func() { uncached.Classify(text, offline) },
		"from the cache":  func() { cached.Classify(query, offline) },
		"into the cache": func() {
			n++
			for i, v := len(text)-4, n; v > 0; i, v = i-1, v/10 {
				text[i] = byte('0' + v%10)
			}
			fresh.Classify(text, offline)
		},
	} {
		classify()
		if a := testing.AllocsPerRun(2000, classify); a != 0 {
			t.Errorf("%s: %v allocations", name, a)
		}
	}
}

func TestOtherTextsCostNoAllocationEither(t *testing.T) {
	c := New(Config{})
	for _, text := range []string{
		"INSERT INTO t (a, b) VALUES (1, 'x') RETURNING id",
		"UPDATE t SET a = a + 1 WHERE id = 5",
		`SELECT t."Id", count(*), coalesce(sum(x), 0) FROM "T" t LEFT JOIN u ON u.id = t.id AND u.k IN (SELECT k FROM v) GROUP BY 1`,
		"WITH a AS (SELECT 1), b AS (SELECT * FROM a) SELECT * FROM a, b WHERE EXISTS (SELECT 1 FROM c FOR UPDATE)",
		"SELECT nextval('s')",
		"",
	} {
		b := []byte(text)
		c.Classify(b, offline)
		if a := testing.AllocsPerRun(100, func() { c.Classify(b, offline) }); a != 0 {
			t.Errorf("%s: %v allocations", text, a)
		}
	}
}

func BenchmarkUncachedSelectOf100Bytes(b *testing.B) {
	c, text := New(Config{}), []byte(plain)
	b.ReportAllocs()
	for b.Loop() {
		c.Classify(text, offline)
	}
}

func BenchmarkCachedSelectOf100Bytes(b *testing.B) {
	c, text := New(DefaultConfig()), []byte(plain)
	b.ReportAllocs()
	for b.Loop() {
		c.Classify(text, offline)
	}
}

func BenchmarkUncachedSelectWithKnowledge(b *testing.B) {
	c := New(Config{})
	env := Env{Knowledge: NewKnowledge(shop())}
	text := []byte("SELECT o.id, lower(o.name), count(*) FROM orders o JOIN open_orders x ON x.id = o.id WHERE o.a = $1")
	b.ReportAllocs()
	for b.Loop() {
		c.Classify(text, env)
	}
}

func TestTheSameTextIsJudgedAnewInOtherCircumstances(t *testing.T) {
	c := New(DefaultConfig())
	text := []byte(`SELECT 'a\' , ship(1); DELETE FROM t; --'`)
	known := Env{Knowledge: NewKnowledge(shop())}
	escapes := Env{Strings: EscapeStrings}
	for range 2 {
		if v := c.Classify(text, offline); v.Statements != 2 || v.Route.Why != whyWrite {
			t.Errorf("standard strings: %+v", v)
		}
		if v := c.Classify(text, escapes); v.Statements != 1 || v.Route.Target != Standby {
			t.Errorf("escape strings: %+v", v)
		}
		if v := c.Classify([]byte("SELECT ship(1)"), offline); v.Route.Why != whyUnknownFunction {
			t.Errorf("offline: %+v", v)
		}
		if v := c.Classify([]byte("SELECT ship(1)"), known); v.Route.Why != whyVolatile {
			t.Errorf("with a catalogue: %+v", v)
		}
	}
	if a, b := c.Classify(text, escapes), c.Classify(text, escapes); a != b {
		t.Error("not cached")
	}
}

func TestASmallCacheForgetsAndStaysRight(t *testing.T) {
	c := New(Config{CacheBytes: 4096, CacheEntries: 8})
	want := New(Config{})
	for i := range 5000 {
		text := []byte(fmt.Sprintf("SELECT %d FROM t", i*7%61))
		if i%3 == 0 {
			text = []byte(fmt.Sprintf("DELETE FROM t WHERE a = %d", i*5%53))
		}
		if i%5 == 0 {
			text = []byte(fmt.Sprintf("SET timezone = '%d'", i%17))
		}
		got, exp := c.Classify(text, offline), want.Classify(text, offline)
		if got.Route != exp.Route || show(got.Effects) != show(exp.Effects) {
			t.Fatalf("%s: %+v, want %+v", text, got, exp)
		}
	}
}

func TestACacheEntryIsNeverTakenForAnotherText(t *testing.T) {
	c := New(DefaultConfig())
	text := []byte("SELECT 1")
	c.Classify(text, offline)
	// As if another text had the same hash.
	key := c.cache.key([]byte("DELETE 1"))
	set := &c.cache.sets[uint64(key)&uint64(len(c.cache.sets)-1)]
	from := c.cache.sets[uint64(c.cache.key(text))&uint64(len(c.cache.sets)-1)]
	for _, e := range from {
		if e.verdict != nil {
			e.key = key
			set[1] = e
		}
	}
	if v := c.Classify([]byte("DELETE 1"), offline); v.Route.Target != Primary {
		t.Errorf("got the decision of another text: %+v", v)
	}
}

func TestLearnedTextsAreWrites(t *testing.T) {
	c := New(Config{CacheBytes: 1 << 16, CacheEntries: 64, Learned: 2})
	text := func(i int) []byte { return []byte(fmt.Sprintf("SELECT %d", i)) }
	c.Classify(text(1), offline)
	for i := range 3 {
		c.Learn(text(i + 1))
	}
	c.Learn(text(3))
	if got := strings.Join(c.Learned(), "; "); got != "SELECT 2; SELECT 3" {
		t.Errorf("learned %s", got)
	}
	if v := c.Classify(text(1), offline); v.Route.Target != Standby {
		t.Errorf("forgotten text: %+v", v)
	}
	if v := c.Classify(text(2), offline); v.Route != (Route{Primary, whyLearned}) || v.Retry != RetryNever {
		t.Errorf("learned text: %+v", v)
	}
}

func TestDoubleByteCharactersDoNotDeceive(t *testing.T) {
	c := New(DefaultConfig())
	for _, tc := range []struct {
		encoding, text string
		statements     int
	}{
		{"SJIS", "SELECT E'\x95\\'; DELETE FROM t; --'", 2}, // the backslash is half a character
		{"SJIS", "SELECT E'\xb1\\'; DELETE FROM t; --'", 1}, // half-width katakana: it is not
		{"GBK", "SELECT E'\xd5\\'; DELETE FROM t; --'", 2},
		{"win936", "SELECT '\xd5\x5c', 1; DELETE FROM t", 2},
		{"BIG5", "SELECT E'\xa5\\'; DELETE FROM t; --'", 2},
		{"UHC", "SELECT \x81a\x81b FROM t; DELETE FROM t", 2},
		{"GB18030", "SELECT E'\x81\\'; DELETE FROM t; --'", 2},
		{"GB18030", "SELECT E'\x815\x815\\'; DELETE FROM t; --'", 1},
		{"GB18030", "SELECT '\x810\x810'; DELETE FROM t", 2},
		{"JOHAB", "SELECT E'\x88\\'; DELETE FROM t; --'", 2},
		{"UTF8", "SELECT E'表\\'; DELETE FROM t; --'", 1},
		{"LATIN1", "SELECT E'\x95\\'; DELETE FROM t; --'", 1},
	} {
		if v := c.Classify([]byte(tc.text), Env{Encoding: EncodingOf(tc.encoding)}); v.Statements != tc.statements {
			t.Errorf("%s %q: %d statements, %s", tc.encoding, tc.text, v.Statements, v.Route.Why)
		}
	}
	// Names that the classifier cannot compare are unknown.
	env := Env{Encoding: EncodingOf("GBK"), Knowledge: NewKnowledge(shop())}
	v := c.Classify([]byte("WITH \xd5\x5c AS (SELECT 1) SELECT * FROM \xd5\x5d"), env)
	if v.Route.Why != whyUnknownRelation {
		t.Errorf("%+v", v)
	}
	if e := EncodingOf("shift_jis_2004"); e != ShiftJIS {
		t.Errorf("shift_jis_2004 is %d", e)
	}
}

func TestRulesChooseForSessionsAndTables(t *testing.T) {
	rules, err := CompileRules([]Rule{
		{User: "report.*", Route: "standby"},
		{Table: `audit_.*|public\.ledger`, Route: "primary"},
		{Table: "archive", Route: "standby"},
		{Database: "shop", ApplicationName: "batch", Route: "primary"},
		{User: "report.*", Route: "primary"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if m := rules.Match("reporting", "shop", "batch"); m.Choice != ChooseStandby || m.Tables != nil {
		t.Errorf("reporting: %+v", m)
	}
	m := rules.Match("app", "shop", "batch")
	if m.Choice != ChoosePrimary || m.Tables == nil {
		t.Errorf("batch: %+v", m)
	}
	if again := rules.Match("other", "x", ""); again.Tables != m.Tables || again.Choice != ChooseAuto {
		t.Error("the same table rules are another value")
	}
	c := New(DefaultConfig())
	env := Env{Rules: m.Tables}
	for _, tc := range []struct{ want, sql string }{
		{"standby select", "SELECT * FROM orders"},
		{"primary routing rule", "SELECT * FROM audit_log"},
		{"primary routing rule", "SELECT * FROM orders, audit_log"},
		{"primary routing rule", "SELECT * FROM public.ledger"},
		{"standby select", "SELECT * FROM other.ledger"},
		{"primary routing rule", "SELECT * FROM archive; SELECT * FROM audit_log"},
		{"standby routing rule", "SELECT archive_me() FROM archive"},
		{"primary unknown function", "SELECT archive_me() FROM archive, orders"},
		{"primary unknown function", "SELECT archive_me() FROM archive; SELECT 1"},
		{"primary write", "INSERT INTO t SELECT * FROM archive"},
	} {
		s := NewSession(SessionConfig{})
		r := s.Route([]*Verdict{c.Classify([]byte(tc.sql), env)})
		if got := r.Target.String() + " " + r.Why; got != tc.want {
			t.Errorf("%s\n got %s\nwant %s", tc.sql, got, tc.want)
		}
	}
	s := NewSession(SessionConfig{Rule: ChooseStandby})
	doubt := c.Classify([]byte("SELECT my_function()"), offline)
	if r := s.Route([]*Verdict{doubt}); r != (Route{Standby, WhyRule}) {
		t.Errorf("session rule: %v", r)
	}
	for _, bad := range []Rule{{Route: "nowhere"}, {Route: "primary", Table: "("}} {
		if _, err := CompileRules([]Rule{bad}); err == nil {
			t.Errorf("%+v compiled", bad)
		}
	}
}

func TestAStandbyOnlyPortSendsAllToStandbys(t *testing.T) {
	c := New(DefaultConfig())
	s := NewSession(SessionConfig{StandbyOnly: true})
	if r := s.Route([]*Verdict{c.Classify([]byte("DELETE FROM t"), offline)}); r != (Route{Standby, WhyReadOnlyPort}) {
		t.Errorf("%v", r)
	}
}

func TestAVerdictThatWasNotClassifiedProvesNothing(t *testing.T) {
	c := New(DefaultConfig())
	read := c.Classify([]byte("SELECT 1"), offline)
	foreign := &Verdict{Route: Route{Why: "elsewhere"}, Statements: 1}
	if r := NewSession(SessionConfig{}).Route([]*Verdict{read, foreign, read}); r != (Route{Primary, "elsewhere"}) {
		t.Errorf("%v", r)
	}
}

// TestLayoutDoesNotMatter: comments, white space and the case of words change no decision.
func TestLayoutDoesNotMatter(t *testing.T) {
	var texts []string
	cases(t, "statements.txt", 2, func(l line) []string {
		if !strings.ContainsAny(l.sql, `'"$\-/`) {
			texts = append(texts, l.sql)
		}
		return l.want
	})
	c := New(Config{})
	gaps := []string{" ", "\t", "\n", "\r\n", " /* x */ ", "/* /* ' */ */", " -- it's\n", "\f "}
	rapid.Check(t, func(r *rapid.T) {
		text := rapid.SampledFrom(texts).Draw(r, "text")
		var b strings.Builder
		for _, word := range strings.Fields(text) {
			b.WriteString(rapid.SampledFrom(gaps).Draw(r, "gap"))
			if rapid.Bool().Draw(r, "upper") {
				word = strings.ToUpper(word)
			} else {
				word = strings.ToLower(word)
			}
			b.WriteString(word)
		}
		got, want := c.Classify([]byte(b.String()), offline), c.Classify([]byte(text), offline)
		if got.Route != want.Route || got.Statements != want.Statements {
			r.Fatalf("%q: %v, want %v", b.String(), got.Route, want.Route)
		}
	})
}

// TestAWriteAnywhereMakesAWrite: of several statements the worst counts, wherever it stands.
func TestAWriteAnywhereMakesAWrite(t *testing.T) {
	reads := []string{"SELECT 1", "TABLE t", "SET timezone = 'x;y'", "", "SELECT ';' /* ; */", "WITH a AS (SELECT 1) TABLE a"}
	writes := []string{"DELETE FROM t", "SELECT nextval('s')", "SELECT 1 INTO t", "DROP TABLE t", "SELECT (1", "SELECT 1 FOR SHARE"}
	c := New(Config{})
	rapid.Check(t, func(r *rapid.T) {
		list := rapid.SliceOfN(rapid.SampledFrom(reads), 0, 5).Draw(r, "reads")
		if v := c.Classify([]byte(strings.Join(list, ";")), offline); v.Route.Target != Standby {
			r.Fatalf("%q: %v", list, v.Route)
		}
		at := rapid.IntRange(0, len(list)).Draw(r, "at")
		list = append(list[:at:at], append([]string{rapid.SampledFrom(writes).Draw(r, "write")}, list[at:]...)...)
		if v := c.Classify([]byte(strings.Join(list, ";")), offline); v.Route.Target != Primary {
			r.Fatalf("%q: %v", list, v.Route)
		}
	})
}

func TestConfigurationsAreChecked(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	for _, bad := range []Config{{CacheBytes: -1}, {CacheEntries: 1 << 30}, {Learned: -1}} {
		if bad.Validate() == nil {
			t.Errorf("%+v is valid", bad)
		}
	}
}

func TestTheDirectionOfACopyIsKnown(t *testing.T) {
	c := New(Config{})
	for sql, want := range map[string]CopyFlags{
		"COPY t FROM STDIN": CopyIn, "COPY t (a) FROM STDIN CSV": CopyIn, "COPY t FROM STDOUT": CopyIn,
		"COPY t TO STDOUT": CopyOut, "COPY t TO STDIN": CopyOut, "COPY (SELECT 1) TO STDOUT": CopyOut,
		"COPY (DELETE FROM t RETURNING a) TO STDOUT": CopyOut, "COPY (SELECT a FROM stdin) TO '/x'": 0,
		"COPY t FROM '/x'": 0, "COPY t TO PROGRAM 'x'": 0, "SELECT 1; COPY t FROM STDIN; COPY u TO STDOUT": CopyIn | CopyOut,
		"COPY (DELETE FROM t RETURNING a) TO '/x'; SELECT 1": 0, "COPY (DELETE": 0, "COPY": 0, "COPY 'x": 0,
	} {
		if v := c.Classify([]byte(sql), offline); v.Copy != want {
			t.Errorf("%s: %d, want %d", sql, v.Copy, want)
		}
	}
}
