package oracle

import (
	"slices"

	pg_query "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/reflect/protoreflect"
)

func (w *walker) node(n *pg_query.Node) {
	if n != nil {
		w.walk(n.ProtoReflect())
	}
}

// walk judges a message and all below it. What needs no attention of its own is passed through, so
// that no place where a query or a name can stand is forgotten.
func (w *walker) walk(m protoreflect.Message) {
	switch x := m.Interface().(type) {
	case *pg_query.SelectStmt:
		w.selects(x)
		return
	case *pg_query.InsertStmt, *pg_query.UpdateStmt, *pg_query.DeleteStmt, *pg_query.MergeStmt:
		w.because(Writes, "%s in a query", m.Descriptor().Name())
	case *pg_query.IntoClause:
		w.because(Writes, "select into")
	case *pg_query.LockingClause:
		w.because(Writes, "row locks")
		return // its relations are names of FROM items
	case *pg_query.RangeVar:
		w.relation(x)
	case *pg_query.FuncCall:
		w.call(x)
	case *pg_query.TypeName:
		w.typeName(x)
		return // a server refuses modifiers that are no constants (typenameTypeMod in parse_type.c)
	case *pg_query.A_Expr:
		w.operator(x.GetName())
	case *pg_query.SubLink:
		w.operator(x.GetOperName())
	case *pg_query.SortBy:
		w.operator(x.GetUseOp())
	case *pg_query.ColumnRef:
		if f := x.GetFields(); len(f) > 1 {
			w.attribute(f[len(f)-1])
		}
	case *pg_query.A_Indirection:
		for _, i := range x.GetIndirection() {
			w.attribute(i)
		}
	case *pg_query.RangeTableSample:
		w.sample(x)
	}
	children(m, w.walk)
}

// selects keeps track of which names are CTEs: those of a WITH are visible in the rest of its
// query; in each other only to the later ones, unless it is RECURSIVE.
func (w *walker) selects(s *pg_query.SelectStmt) {
	outer := len(w.ctes)
	defer func() { w.ctes = w.ctes[:outer] }()
	if with := s.GetWithClause(); with != nil {
		var own []string
		for _, n := range with.GetCtes() {
			own = append(own, n.GetCommonTableExpr().GetCtename())
		}
		if with.GetRecursive() {
			w.ctes = append(w.ctes, own...)
		}
		for i, n := range with.GetCtes() {
			w.subquery(n.GetCommonTableExpr().GetCtequery())
			w.cteClauses(n.GetCommonTableExpr())
			if !with.GetRecursive() {
				w.ctes = append(w.ctes, own[i])
			}
		}
	}
	children(s.ProtoReflect(), func(m protoreflect.Message) {
		if _, done := m.Interface().(*pg_query.WithClause); !done {
			w.walk(m)
		}
	})
}

// cteClauses judges what a CTE has besides its query: SEARCH and CYCLE.
func (w *walker) cteClauses(c *pg_query.CommonTableExpr) {
	if s := c.GetSearchClause(); s != nil {
		w.walk(s.ProtoReflect())
	}
	if s := c.GetCycleClause(); s != nil {
		w.walk(s.ProtoReflect())
	}
}

func (w *walker) relation(r *pg_query.RangeVar) {
	name := r.GetRelname()
	if r.GetSchemaname() == "" && slices.Contains(w.ctes, name) {
		return
	}
	if isTemporary(r.GetSchemaname()) {
		w.because(Local, "temporary relation %s", name)
		return
	}
	w.reasons = append(w.reasons, w.catalogue.relation(name)...)
}

func (w *walker) call(f *pg_query.FuncCall) {
	parts := f.GetFuncname()
	if len(parts) == 0 {
		return
	}
	name := parts[len(parts)-1].GetString_().GetSval()
	if len(parts) > 1 && isTemporary(parts[0].GetString_().GetSval()) {
		w.because(Local, "temporary function %s", name)
	}
	if name == "current_setting" && len(f.GetArgs()) > 0 {
		if !sameEverywhere(word(f.GetArgs()[0])) {
			w.because(Local, "current_setting of a node's setting")
		}
		return
	}
	w.reasons = append(w.reasons, w.catalogue.call(name, len(f.GetArgs()))...)
}

// attribute judges the name in x.name, which calls name(x) when x has no such column.
func (w *walker) attribute(n *pg_query.Node) {
	if s := n.GetString_(); s != nil {
		w.reasons = append(w.reasons, w.catalogue.attribute(s.GetSval())...)
	}
}

func (w *walker) typeName(t *pg_query.TypeName) {
	if parts := t.GetNames(); len(parts) > 0 {
		w.reasons = append(w.reasons, w.catalogue.typeOf(parts[len(parts)-1].GetString_().GetSval())...)
	}
}

func (w *walker) operator(parts []*pg_query.Node) {
	if len(parts) > 0 {
		w.reasons = append(w.reasons, w.catalogue.operator(parts[len(parts)-1].GetString_().GetSval())...)
	}
}

func (w *walker) sample(s *pg_query.RangeTableSample) {
	parts := s.GetMethod()
	switch name := parts[len(parts)-1].GetString_().GetSval(); name {
	case "bernoulli", "system":
	default:
		w.because(Unknown, "sampling method %s", name)
	}
}
