package oracle

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	pg_query "github.com/pganalyze/pg_query_go/v6"

	"github.com/cstproxy/cstproxy/ha/pglocal"
	"github.com/cstproxy/cstproxy/router"
)

// leastStatements is how many statements the corpus must have at least.
const leastStatements = 20_000

// mostNeedless is how many of the true reads may go to the primary without need.
const mostNeedless = 0.02

func TestReadsOfTheRegressionSuiteAreReads(t *testing.T) {
	suite, err := Obtain(t.Context(), t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	corpus, err := suite.Corpus()
	if err != nil {
		t.Fatal(err)
	}
	if len(corpus) < leastStatements {
		t.Errorf("%d statements, want at least %d", len(corpus), leastStatements)
	}
	r := &regression{suite: suite, cluster: pglocal.ForTest(t, pglocal.Options{})}
	r.load(t)
	truth, err := Read(t.Context(), r.cluster.Primary().URL(database))
	if err != nil {
		t.Fatal(err)
	}
	builtin, err := Read(t.Context(), r.cluster.Primary().URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	checkFunctions(t, r.cluster.Primary())
	for _, s := range []Side{
		{"with the regression database", r.knowledge(t), truth},
		{"offline", nil, builtin.Partial()},
	} {
		t.Run(s.Name, func(t *testing.T) { statements(t, s, corpus) })
		t.Run(s.Name+", several statements at once", func(t *testing.T) { together(t, s, corpus) })
		t.Run(s.Name+", mutated", func(t *testing.T) {
			x := newTrial(s)
			x.mutate(NewMutator(3, basesOf(s, corpus)), mutations)
			x.report(t, 2_500)
		})
	}
	t.Run("with a hint", func(t *testing.T) { hinted(t, corpus) })
}

// hinted: a hint answers doubts about names and about what a transaction will do; it does not send a
// write to a standby.
func hinted(t *testing.T, corpus []Statement) {
	c, nothing, wrong := router.New(router.Config{}), &Catalogue{partial: true}, tally{}
	reads := 0
	for _, st := range corpus {
		if st.Tree == nil {
			continue
		}
		v := Side{}.Classify(c, Text{"/* cstproxy: standby */ " + st.SQL, st.Strings})
		if v.Route.Target != router.Standby {
			continue
		}
		reads++
		if why := nothing.JudgeText(st.Tree).Writes(); why != "" && why != beginsUnsaid {
			wrong.add(why, st)
		}
	}
	t.Logf("%d texts called reads", reads)
	wrong.log(t.Errorf)
}

var update = flag.Bool("update", false, "rewrite testdata/functions15.txt")

// checkFunctions compares the list that offline tests use with the server's.
func checkFunctions(t *testing.T, p *pglocal.Node) {
	t.Helper()
	const file = "testdata/functions15.txt"
	got, err := p.Psql(t.Context(), `SELECT proname || ' ' || CASE WHEN bool_or(provolatile = 'v') THEN 'v' ELSE '' END
		|| CASE WHEN bool_or(pronargs >= 1 AND pronargs - pronargdefaults <= 1) THEN '1' ELSE '' END
		FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind <> 'p' GROUP BY proname ORDER BY proname COLLATE "C"`)
	if err != nil {
		t.Fatal(err)
	}
	got = strings.TrimSpace(got) + "\n"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != functions15 {
		t.Errorf("%s differs from the server's functions: run this test with -update", file)
	}
}

// statements judges every statement of the corpus by itself.
func statements(t *testing.T, s Side, corpus []Statement) {
	c := router.New(router.Config{})
	wrong, needless := tally{}, tally{}
	var refused, reads int
	for _, st := range corpus {
		v := s.Classify(c, st.Text)
		if st.Tree == nil {
			refused++
			continue
		}
		for _, what := range lacking(v, st.Tree) {
			wrong.add(what, st)
		}
		j := s.Truth.JudgeText(st.Tree)
		if v.Route.Target == router.Standby {
			for _, reason := range j.Reasons {
				wrong.add(reason.String(), st)
			}
		}
		if j.Read() {
			reads++
			if v.Route.Target != router.Standby {
				needless.add(v.Route.Why, st)
			}
		}
	}
	t.Logf("%d statements, %d of them refused by the grammar; %d true reads, %d (%.2f %%) to the primary without need",
		len(corpus), refused, reads, needless.total(), 100*float64(needless.total())/float64(reads))
	needless.log(t.Logf)
	wrong.log(t.Errorf)
	if float64(needless.total()) > mostNeedless*float64(reads) {
		t.Errorf("more than %.0f %% of the true reads go to the primary without need", 100*mostNeedless)
	}
}

// lacking is what a verdict does not tell of a text with one statement.
func lacking(v *router.Verdict, tree *pg_query.ParseResult) []string {
	if v.Statements != len(tree.Stmts) {
		return []string{"wrong number of statements"}
	}
	if len(tree.Stmts) != 1 {
		return nil
	}
	var out []string
	for _, what := range Missing(v, tree.Stmts[0].GetStmt()) {
		out = append(out, "no "+what)
	}
	return out
}

// together judges texts of several statements: the scripts as a whole, and all neighbours in twos
// and threes.
func together(t *testing.T, s Side, corpus []Statement) {
	c := router.New(router.Config{})
	wrong := tally{}
	var texts, reads int
	judge := func(group []Statement) {
		var sql []string
		all := &pg_query.ParseResult{}
		for _, st := range group {
			sql = append(sql, st.SQL)
			all.Stmts = append(all.Stmts, st.Tree.Stmts...)
		}
		texts++
		v := s.Classify(c, Text{strings.Join(sql, ";\n"), Standard})
		if v.Statements != len(group) {
			wrong.add(fmt.Sprintf("%d statements for %d", v.Statements, len(group)), Statement{Text: Text{SQL: strings.Join(sql, ";\n")}})
		}
		if v.Route.Target != router.Standby {
			return
		}
		reads++
		for _, reason := range s.Truth.JudgeText(all).Reasons {
			wrong.add(reason.String(), Statement{Text: Text{SQL: strings.Join(sql, ";\n")}})
		}
	}
	var file []Statement
	for i, st := range corpus {
		if len(file) > 0 && file[0].File != st.File {
			judge(file)
			file = nil
		}
		if st.Tree == nil || len(st.Tree.Stmts) != 1 || st.Strings == Escape {
			continue
		}
		file = append(file, st)
		for n := 2; n <= 3 && n <= len(file) && i > 0; n++ {
			judge(file[len(file)-n:])
		}
	}
	judge(file)
	t.Logf("%d texts of several statements, %d of them reads", texts, reads)
	wrong.log(t.Errorf)
}

// basesOf are the reads of the corpus, as bases for mutations.
func basesOf(s Side, corpus []Statement) []string {
	var out []string
	for _, st := range corpus {
		if st.Tree != nil && st.Strings == Standard && len(st.SQL) < 400 && s.Truth.JudgeText(st.Tree).Read() {
			out = append(out, st.SQL)
		}
	}
	return out
}

// tally counts by a phrase and keeps some examples.
type tally map[string]*entry

type entry struct {
	count    int
	examples []string
}

func (y tally) add(what string, st Statement) {
	e := y[what]
	if e == nil {
		e = &entry{}
		y[what] = e
	}
	e.count++
	if len(e.examples) < 5 {
		sql := st.SQL
		if len(sql) > 400 {
			sql = sql[:200] + " … " + sql[len(sql)-200:]
		}
		e.examples = append(e.examples, fmt.Sprintf("%s: %s", st.File, sql))
	}
}

func (y tally) total() (n int) {
	for _, e := range y {
		n += e.count
	}
	return n
}

// log prints the counts, the highest first.
func (y tally) log(print func(format string, args ...any)) {
	for _, what := range slices.SortedFunc(maps.Keys(y), func(a, b string) int { return y[b].count - y[a].count }) {
		print("%6d %s\n\t%s", y[what].count, what, strings.Join(y[what].examples, "\n\t"))
	}
}
