package oracle

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/cstproxy/cstproxy/ha/pglocal"
	"github.com/cstproxy/cstproxy/router"
)

// leastStatements is how many statements the corpus must have at least.
const leastStatements = 20_000

// mostNeedless is how many of the true reads may go to the primary without need.
const mostNeedless = 0.02

// side is one way to know a database: what the classifier is told, and what is true.
type side struct {
	name      string
	knowledge *router.Knowledge // nil: the classifier works offline
	truth     *Catalogue
}

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
	loaded := side{"with the regression database", r.knowledge(t), truth}
	offline := side{"offline", nil, builtin.WithoutRelations()}
	for _, s := range []side{loaded, offline} {
		t.Run(s.name, func(t *testing.T) { s.statements(t, corpus) })
		t.Run(s.name+", several statements at once", func(t *testing.T) { s.together(t, corpus) })
	}
}

// classify asks the classifier.
func (s side) classify(c *router.Classifier, x Text) *router.Verdict {
	env := router.Env{Knowledge: s.knowledge}
	if x.Strings == Escape {
		env.Strings = router.EscapeStrings
	}
	return c.Classify([]byte(x.SQL), env)
}

// statements judges every statement of the corpus by itself.
func (s side) statements(t *testing.T, corpus []Statement) {
	c := router.New(router.Config{})
	wrong, needless := tally{}, tally{}
	var refused, reads int
	for _, st := range corpus {
		v := s.classify(c, st.Text)
		if st.Tree == nil {
			refused++
			continue
		}
		j := merge(s.truth.Judge(st.Tree))
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

// together judges texts of several statements: the scripts as a whole, and all neighbours in twos
// and threes.
func (s side) together(t *testing.T, corpus []Statement) {
	c := router.New(router.Config{})
	wrong := tally{}
	var texts, reads int
	judge := func(group []Statement) {
		var sql []string
		var reasons []Reason
		for _, st := range group {
			sql = append(sql, st.SQL)
			reasons = append(reasons, merge(s.truth.Judge(st.Tree)).Reasons...)
		}
		texts++
		v := s.classify(c, Text{strings.Join(sql, ";\n"), Standard})
		if v.Statements != len(group) {
			wrong.add(fmt.Sprintf("%d statements for %d", v.Statements, len(group)), Statement{Text: Text{SQL: strings.Join(sql, ";\n")}})
		}
		if v.Route.Target != router.Standby {
			return
		}
		reads++
		for _, reason := range reasons {
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

// merge is the judgement of several statements as one.
func merge(js []Judgement) Judgement {
	var out Judgement
	for _, j := range js {
		out.Reasons = append(out.Reasons, j.Reasons...)
		out.Query = out.Query || j.Query
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
