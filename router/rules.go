package router

import (
	"fmt"
	"regexp"
)

// Rule is one [[routing.rule]]: a session, or statements on certain tables, go where it says. The
// first rule that matches counts. Hints in a statement and cstproxy.route are stronger.
type Rule struct {
	// User, Database and ApplicationName must all match; each is a regular expression (RE2) for
	// the whole name, "" for any.
	User            string `toml:"user"`
	Database        string `toml:"database"`
	ApplicationName string `toml:"application_name"`
	// Table is a regular expression for the whole of a relation's name as the statement wrote it
	// ("orders", "public.orders"; unquoted names in lower case). "" makes the rule hold for every
	// statement of the session.
	Table string `toml:"table"`
	// Route is "primary", "standby" or "auto".
	Route string `toml:"route"`
}

// Rules are compiled rules, immutable.
type Rules struct {
	rules []compiledRule
	memo  map[string]*TableRules // by which rules hold; all subsets that were asked for
}

type compiledRule struct {
	user, database, application, table *regexp.Regexp // nil for any
	choice                             RouteChoice
}

// TableRules are the rules on tables that hold for one session. Classify compares them by
// pointer: equal sets are the same value.
type TableRules struct{ rules []compiledRule }

// Match is what the rules say of one session.
type Match struct {
	// Choice holds for every statement; ChooseAuto when no rule says otherwise.
	Choice RouteChoice
	// Tables goes into Env.Rules; nil when no rule on tables holds.
	Tables *TableRules
}

// CompileRules checks and compiles the rules of a configuration.
func CompileRules(rules []Rule) (*Rules, error) {
	out := &Rules{memo: map[string]*TableRules{}}
	for i, r := range rules {
		c, err := compileRule(r)
		if err != nil {
			return nil, fmt.Errorf("compile routing rule %d: %w", i+1, err)
		}
		out.rules = append(out.rules, c)
	}
	return out, nil
}

func compileRule(r Rule) (compiledRule, error) {
	choice, ok := ParseRouteChoice(r.Route)
	if !ok {
		return compiledRule{}, fmt.Errorf("route %q: want primary, standby or auto", r.Route)
	}
	c := compiledRule{choice: choice}
	for _, f := range []struct {
		expr string
		into **regexp.Regexp
	}{{r.User, &c.user}, {r.Database, &c.database}, {r.ApplicationName, &c.application}, {r.Table, &c.table}} {
		if f.expr == "" {
			continue
		}
		re, err := regexp.Compile("^(?:" + f.expr + ")$")
		if err != nil {
			return compiledRule{}, fmt.Errorf("compile %q: %w", f.expr, err)
		}
		*f.into = re
	}
	return c, nil
}

// Match finds the rules that hold for a session. It may be called from one goroutine only (the
// loop's) and is meant for start-up and for a change of application_name.
func (r *Rules) Match(user, database, application string) Match {
	var m Match
	if r == nil {
		return m
	}
	var held []byte
	var tables []compiledRule
	for i := range r.rules {
		c := &r.rules[i]
		if !matches(c.user, user) || !matches(c.database, database) || !matches(c.application, application) {
			continue
		}
		if c.table == nil {
			m.Choice = c.choice // it is the last word for what no table rule before it caught
			break
		}
		held = fmt.Appendf(held, "%d,", i)
		tables = append(tables, *c)
	}
	if len(tables) == 0 {
		return m
	}
	if r.memo[string(held)] == nil {
		r.memo[string(held)] = &TableRules{rules: tables}
	}
	m.Tables = r.memo[string(held)]
	return m
}

func matches(re *regexp.Regexp, s string) bool { return re == nil || re.MatchString(s) }

// choice is what the rules say of one relation's name.
func (t *TableRules) choice(name string) (RouteChoice, bool) {
	for i := range t.rules {
		if t.rules[i].table.MatchString(name) {
			return t.rules[i].choice, true
		}
	}
	return ChooseAuto, false
}
