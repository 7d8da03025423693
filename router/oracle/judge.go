package oracle

import (
	"fmt"
	"strings"

	pg_query "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Kind says why a statement may not run on a standby.
type Kind int

const (
	// Writes: it changes data, the catalogue or locks, or a standby refuses it.
	Writes Kind = iota
	// Local: its answer is that of one node or one connection.
	Local
	// Unknown: it names a function or relation that the catalogue does not have.
	Unknown
	// Session: it changes the session in a way that ties it to its server.
	Session
)

func (k Kind) String() string {
	return [...]string{"writes", "local", "unknown", "session"}[k]
}

// Reason is one thing in a statement that keeps it off a standby.
type Reason struct {
	Kind Kind
	What string
}

func (r Reason) String() string { return r.Kind.String() + ": " + r.What }

// Judgement is what the tree of one statement says.
type Judgement struct {
	// Reasons is empty for what may run on a standby.
	Reasons []Reason
	// Query is set for SELECT, VALUES, TABLE, and for EXPLAIN, COPY TO and DECLARE of them: with
	// no Reasons, a true read. What only manages a session or transaction is no Query.
	Query bool

	begins   bool // a transaction whose modes do not say read only
	readOnly bool // SET TRANSACTION or BEGIN with READ ONLY
}

// Read says whether the statement is a query that a standby may answer.
func (j Judgement) Read() bool { return j.Query && len(j.Reasons) == 0 }

// Writes is the first reason of kind Writes, "" when there is none.
func (j Judgement) Writes() string {
	for _, r := range j.Reasons {
		if r.Kind == Writes {
			return r.What
		}
	}
	return ""
}

// beginsUnsaid is the reason of a BEGIN that does not say what the transaction will do.
const beginsUnsaid = "begin without read only"

// Judge judges every statement of a tree by itself, but for BEGIN: JudgeText.
func (c *Catalogue) Judge(tree *pg_query.ParseResult) []Judgement {
	var out []Judgement
	for _, raw := range tree.GetStmts() {
		w := &walker{catalogue: c}
		w.statement(raw.GetStmt())
		out = append(out, Judgement{Reasons: w.reasons, Query: w.query, begins: w.begins, readOnly: w.readOnly})
	}
	return out
}

// JudgeText judges all statements of a text as one. BEGIN is read only, too, when the next statement
// makes it so.
func (c *Catalogue) JudgeText(tree *pg_query.ParseResult) Judgement {
	var out Judgement
	js := c.Judge(tree)
	for i, j := range js {
		out.Query = out.Query || j.Query
		out.Reasons = append(out.Reasons, j.Reasons...)
		if j.begins && (i+1 == len(js) || !js[i+1].readOnly) {
			out.Reasons = append(out.Reasons, Reason{Writes, beginsUnsaid})
		}
	}
	return out
}

// walker collects the reasons of one statement.
type walker struct {
	catalogue *Catalogue
	reasons   []Reason
	query     bool
	begins    bool
	readOnly  bool
	ctes      []string // visible names
}

func (w *walker) because(k Kind, format string, args ...any) {
	w.reasons = append(w.reasons, Reason{k, fmt.Sprintf(format, args...)})
}

// statement judges a top-level statement. Every kind that is not named here writes.
func (w *walker) statement(n *pg_query.Node) {
	switch s := n.GetNode().(type) {
	case *pg_query.Node_SelectStmt:
		w.query = true
		w.node(n)
	case *pg_query.Node_ExplainStmt:
		w.explain(s.ExplainStmt)
	case *pg_query.Node_CopyStmt:
		w.copy(s.CopyStmt)
	case *pg_query.Node_DeclareCursorStmt:
		w.declare(s.DeclareCursorStmt)
	case *pg_query.Node_VariableSetStmt:
		w.set(s.VariableSetStmt)
	case *pg_query.Node_VariableShowStmt:
		w.show(s.VariableShowStmt)
	case *pg_query.Node_TransactionStmt:
		w.transaction(s.TransactionStmt)
	case *pg_query.Node_PrepareStmt, *pg_query.Node_ListenStmt, *pg_query.Node_UnlistenStmt, *pg_query.Node_LoadStmt:
		w.because(Session, "%s", kindOf(n))
	case *pg_query.Node_FetchStmt, *pg_query.Node_ClosePortalStmt, *pg_query.Node_ConstraintsSetStmt,
		*pg_query.Node_DeallocateStmt, *pg_query.Node_DiscardStmt:
	default:
		w.because(Writes, "%s", kindOf(n))
	}
}

// explain judges EXPLAIN by what it explains, ANALYZE or not: the plan of a write is asked of the
// server that would run it.
func (w *walker) explain(s *pg_query.ExplainStmt) {
	for _, o := range s.GetOptions() {
		w.node(o)
	}
	q := s.GetQuery()
	switch q.GetNode().(type) {
	case *pg_query.Node_SelectStmt:
		w.query = true
		w.node(q)
	case *pg_query.Node_DeclareCursorStmt:
		w.because(Session, "explain of a cursor")
		w.node(q)
	default:
		w.because(Writes, "explain of %s", kindOf(q))
	}
}

func (w *walker) copy(s *pg_query.CopyStmt) {
	switch {
	case s.GetIsFrom():
		w.because(Writes, "copy from")
	case s.GetIsProgram() || s.GetFilename() != "":
		w.because(Writes, "copy to a file or program")
	}
	w.query = true
	if r := s.GetRelation(); r != nil {
		w.relation(r)
	}
	if q := s.GetQuery(); q != nil {
		w.subquery(q)
	}
	for _, o := range s.GetOptions() {
		w.node(o)
	}
	w.node(s.GetWhereClause())
}

// holdOption is CURSOR_OPT_HOLD of PostgreSQL's parsenodes.h.
const holdOption = 0x0020

func (w *walker) declare(s *pg_query.DeclareCursorStmt) {
	w.query = true
	if s.GetOptions()&holdOption != 0 {
		w.because(Session, "cursor with hold")
	}
	w.subquery(s.GetQuery())
}

// subquery judges a query in a place where the grammar takes writes, too.
func (w *walker) subquery(n *pg_query.Node) {
	if _, ok := n.GetNode().(*pg_query.Node_SelectStmt); !ok {
		w.because(Writes, "%s", kindOf(n))
	}
	w.node(n)
}

func (w *walker) transaction(s *pg_query.TransactionStmt) {
	switch s.GetKind() {
	case pg_query.TransactionStmtKind_TRANS_STMT_BEGIN, pg_query.TransactionStmtKind_TRANS_STMT_START:
		w.readOnly = w.modes(s.GetOptions()) // inside a transaction its modes still count
		w.begins = !w.readOnly
	case pg_query.TransactionStmtKind_TRANS_STMT_PREPARE, pg_query.TransactionStmtKind_TRANS_STMT_COMMIT_PREPARED,
		pg_query.TransactionStmtKind_TRANS_STMT_ROLLBACK_PREPARED:
		w.because(Writes, "two-phase commit")
	}
}

// modes judges transaction modes and says whether they end as read only.
func (w *walker) modes(options []*pg_query.Node) (readOnly bool) {
	serializable := false
	for _, o := range options {
		d := o.GetDefElem()
		v := d.GetArg().GetAConst()
		switch d.GetDefname() {
		case "transaction_read_only":
			readOnly = v.GetIval().GetIval() != 0
			if !readOnly {
				w.because(Writes, "read write")
			}
		case "transaction_isolation":
			serializable = v.GetSval().GetSval() == "serializable"
		}
	}
	if serializable {
		w.because(Writes, "serializable")
	}
	return readOnly
}

func (w *walker) set(s *pg_query.VariableSetStmt) {
	name := strings.ToLower(s.GetName())
	switch {
	case s.GetKind() == pg_query.VariableSetKind_VAR_SET_MULTI && name == "transaction":
		w.readOnly = w.modes(s.GetArgs())
	case s.GetKind() == pg_query.VariableSetKind_VAR_SET_MULTI && name == "transaction snapshot":
		w.because(Local, "set transaction snapshot")
	case s.GetKind() == pg_query.VariableSetKind_VAR_SET_MULTI:
	case s.GetKind() == pg_query.VariableSetKind_VAR_RESET_ALL:
	case name == "transaction_read_only":
		w.readOnly = len(s.GetArgs()) == 1 && truth(s.GetArgs()[0])
		if !w.readOnly {
			w.because(Writes, "set transaction_read_only")
		}
	case name == "transaction_isolation" && (len(s.GetArgs()) != 1 || word(s.GetArgs()[0]) == "serializable"):
		w.because(Writes, "set transaction_isolation")
	case s.GetKind() == pg_query.VariableSetKind_VAR_SET_VALUE && !s.GetIsLocal() && !tracked(name) &&
		!strings.HasPrefix(name, "transaction_") && name != "cstproxy.route":
		w.because(Session, "set %s", name)
	}
}

// word is the text of a constant, in lower case.
func word(n *pg_query.Node) string {
	return strings.ToLower(n.GetAConst().GetSval().GetSval())
}

// truth says whether a constant is certainly a true boolean.
func truth(n *pg_query.Node) bool {
	switch word(n) {
	case "on", "true", "yes", "t", "y", "tr", "tru", "ye", "1":
		return true
	}
	c := n.GetAConst()
	return c.GetBoolval().GetBoolval() || c.GetIval().GetIval() != 0
}

func (w *walker) show(s *pg_query.VariableShowStmt) {
	if name := strings.ToLower(s.GetName()); !sameEverywhere(name) {
		w.because(Local, "show %s", name)
	}
}

// kindOf is the name of a node's message.
func kindOf(n *pg_query.Node) string {
	m := n.ProtoReflect()
	if f := m.WhichOneof(m.Descriptor().Oneofs().ByName("node")); f != nil {
		return string(f.Message().Name())
	}
	return "nothing"
}

// children calls fn for each message in a message's fields, in the order of their numbers.
func children(m protoreflect.Message, fn func(protoreflect.Message)) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Message() == nil || f.IsMap():
		case f.IsList():
			for i := range v.List().Len() {
				fn(v.List().Get(i).Message())
			}
		default:
			fn(v.Message())
		}
		return true
	})
}
