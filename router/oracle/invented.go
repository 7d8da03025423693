package oracle

import (
	_ "embed"
	"strings"

	"github.com/cstproxy/cstproxy/router"
)

// functions15 is pg_catalog's functions of PostgreSQL 15: "name flags", v when an overload is
// volatile, 1 when it can be called with one argument. The test with the regression database checks it and rewrites
// it with -update.
//
//go:embed testdata/functions15.txt
var functions15 string

// Side is one way to know a database: what the classifier is told, and what is true.
type Side struct {
	Name      string
	Knowledge *router.Knowledge // nil: the classifier works offline
	Truth     *Catalogue
}

// Classify asks the classifier.
func (s Side) Classify(c *router.Classifier, x Text) *router.Verdict {
	env := router.Env{Knowledge: s.Knowledge}
	if x.Strings == Escape {
		env.Strings = router.EscapeStrings
	}
	return c.Classify([]byte(x.SQL), env)
}

// Offline knows pg_catalog's functions only, and needs no server.
func Offline() Side {
	c := &Catalogue{functions: map[string][]Reason{}, attributes: map[string][]Reason{}, partial: true}
	for _, f := range builtins() {
		c.add(f)
	}
	return Side{"offline", nil, c}
}

// Invented is a database with one of each thing that a read may not touch.
func Invented() Side {
	src := router.Source{Functions: builtins()}
	c := &Catalogue{
		functions: map[string][]Reason{}, attributes: map[string][]Reason{}, relations: map[string][]Reason{}, partial: true,
		operators: map[string][]Reason{"###": {{Writes, "operator ###"}}},
		types:     map[string][]Reason{"written": {{Writes, "domain written"}}},
	}
	for _, name := range []string{"f", "g", "p", "reads", "writes", "xmlattributes"} {
		src.Functions = append(src.Functions, router.Function{Schema: "s", Name: name, Volatile: name == "writes", OneArgument: true})
	}
	for _, f := range src.Functions {
		c.add(f)
	}
	for i, name := range strings.Fields("t u v w x y z r a b c d e g l m k") {
		src.Relations = append(src.Relations, router.Relation{OID: uint32(i + 1), Schema: "s", Name: name, Kind: 'r', Persistence: 'p'})
	}
	for name, r := range map[string]router.Relation{
		"sequence":       {Name: "seq", Kind: 'S', Persistence: 'p'},
		"unlogged table": {Name: "unlogged_table", Kind: 'r', Persistence: 'u'},
		"foreign table":  {Name: "foreign_table", Kind: 'f', Persistence: 'p'},
		"writing view":   {Name: "writing_view", Kind: 'v', Persistence: 'p', Definition: " SELECT s.writes(1) AS writes;"},
	} {
		r.OID, r.Schema = uint32(100+len(src.Relations)), "s"
		src.Relations = append(src.Relations, r)
		c.relations[r.Name] = []Reason{{Writes, name}}
	}
	src.Operators = []string{"###"}
	src.Types = []router.Type{{Name: "written", Base: "int4", Check: "s.writes(VALUE)"}}
	return Side{"with an invented catalogue", router.NewKnowledge(src), c}
}

func builtins() []router.Function {
	var out []router.Function
	for line := range strings.Lines(functions15) {
		name, flags, _ := strings.Cut(strings.TrimSpace(line), " ")
		out = append(out, router.Function{Schema: "pg_catalog", Name: name,
			Volatile: strings.Contains(flags, "v"), OneArgument: strings.Contains(flags, "1")})
	}
	return out
}

// add notes what calling a function does.
func (c *Catalogue) add(f router.Function) {
	builtin := f.Schema == "pg_catalog"
	var why []Reason
	switch {
	case builtin && isLocal(f.Name):
		why = []Reason{{Local, "function " + f.Name}}
	case f.Volatile && !(builtin && (harmless[f.Name] || internal[f.Name])):
		why = []Reason{{Writes, "volatile function " + f.Name}}
	}
	c.functions[f.Name] = why
	if f.OneArgument && why != nil {
		c.attributes[f.Name] = why
	}
}

// Broken is what the classifier's answer to a text gets wrong: the reasons that keep a text that
// it calls a read off a standby. What only the catalogue does not know is not among them.
func (s Side) Broken(v *router.Verdict, tree Judgement) []Reason {
	if v.Route.Target != router.Standby {
		return nil
	}
	var out []Reason
	for _, r := range tree.Reasons {
		if r.Kind != Unknown {
			out = append(out, r)
		}
	}
	return out
}
