package oracle

import (
	"fmt"
	"slices"
	"strings"

	pg_query "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/cstproxy/cstproxy/router"
)

// Missing says what the tree of one statement does to its session, or asks of the client, that the
// verdict does not tell. An effect too many costs a pin; one too few leaks a session's state.
func Missing(v *router.Verdict, n *pg_query.Node) []string {
	m := &missing{v: v}
	m.statement(n)
	return m.out
}

type missing struct {
	v   *router.Verdict
	out []string
}

func (m *missing) has(kind router.EffectKind, match func(e router.Effect) bool) bool {
	return slices.ContainsFunc(m.v.Effects, func(e router.Effect) bool { return e.Kind == kind && match(e) })
}

// want notes an effect that is not there. An empty name or value is any.
func (m *missing) want(kind router.EffectKind, name, value string) {
	if len(name) >= 63 { // cut off by NAMEDATALEN
		name = ""
	}
	ok := m.has(kind, func(e router.Effect) bool {
		return (name == "" || e.Name == name) && (value == "" || e.Value == value)
	})
	if !ok && !m.uncertain() {
		m.out = append(m.out, fmt.Sprintf("effect %d %q %q, has %+v", kind, name, value, m.v.Effects))
	}
}

// pinned wants any pin: with several reasons in a statement each of them will do.
func (m *missing) pinned(why string) {
	if !m.has(router.EffectPin, func(router.Effect) bool { return true }) {
		m.out = append(m.out, fmt.Sprintf("pin for %s, has %+v", why, m.v.Effects))
	}
}

// uncertain says whether the session keeps its server because the classifier is not sure.
func (m *missing) uncertain() bool {
	return m.has(router.EffectPin, func(e router.Effect) bool { return e.Name == router.PinUncertain })
}

func (m *missing) statement(n *pg_query.Node) {
	switch s := n.GetNode().(type) {
	case *pg_query.Node_VariableSetStmt:
		m.set(s.VariableSetStmt)
	case *pg_query.Node_TransactionStmt:
		m.transaction(s.TransactionStmt)
	case *pg_query.Node_CopyStmt:
		m.copy(s.CopyStmt)
	case *pg_query.Node_DiscardStmt:
		switch s.DiscardStmt.GetTarget() {
		case pg_query.DiscardMode_DISCARD_ALL:
			m.want(router.EffectDiscardAll, "", "")
		case pg_query.DiscardMode_DISCARD_TEMP:
			m.want(router.EffectDiscard, "temp", "")
		}
	case *pg_query.Node_DeallocateStmt:
		if name := s.DeallocateStmt.GetName(); name != "" {
			m.want(router.EffectDeallocate, name, "")
		} else {
			m.want(router.EffectDeallocateAll, "", "")
		}
	case *pg_query.Node_PrepareStmt, *pg_query.Node_ListenStmt, *pg_query.Node_LoadStmt, *pg_query.Node_DoStmt:
		m.pinned(kindOf(n))
	case *pg_query.Node_DeclareCursorStmt:
		if s.DeclareCursorStmt.GetOptions()&holdOption != 0 {
			m.pinned("cursor with hold")
		}
	}
	m.temporary(n)
	if !definesCode(n) {
		m.calls(n.ProtoReflect())
	}
}

func (m *missing) set(s *pg_query.VariableSetStmt) {
	name := strings.ToLower(s.GetName())
	if s.GetIsLocal() || strings.HasPrefix(name, "transaction_") || name == "cstproxy.route" || keyWords[name] {
		return
	}
	switch s.GetKind() {
	case pg_query.VariableSetKind_VAR_SET_VALUE:
		if m.has(router.EffectSet, func(e router.Effect) bool { return e.Name == name && repeats(e, s) }) {
			return
		}
		m.pinned("set " + name)
	case pg_query.VariableSetKind_VAR_RESET_ALL:
		m.want(router.EffectResetAll, "", "")
	case pg_query.VariableSetKind_VAR_SET_DEFAULT, pg_query.VariableSetKind_VAR_RESET:
		if tracked(name) {
			m.want(router.EffectReset, name, "")
		}
	case pg_query.VariableSetKind_VAR_SET_MULTI:
		if name == "session characteristics" {
			for _, a := range s.GetArgs() {
				d := "default_" + a.GetDefElem().GetDefname()
				if !m.has(router.EffectPin, func(router.Effect) bool { return true }) {
					m.want(router.EffectSet, d, "")
				}
			}
		}
	}
}

// keyWords are words of SET that the grammar takes for parameters, too, which no server has.
var keyWords = set("local session transaction time names schema xml constraints")

// repeats says whether the effect, sent as a statement, sets the same value again.
func repeats(e router.Effect, s *pg_query.VariableSetStmt) bool {
	tree, err := Parse("SET "+e.Name+" TO "+e.Value, Standard)
	if err != nil || len(tree.Stmts) != 1 {
		return false
	}
	again := tree.Stmts[0].GetStmt().GetVariableSetStmt()
	a, b := &pg_query.VariableSetStmt{Args: again.GetArgs()}, proto.Clone(&pg_query.VariableSetStmt{Args: s.GetArgs()})
	forgetPlaces(a.ProtoReflect())
	forgetPlaces(b.ProtoReflect())
	return proto.Equal(a, b)
}

// forgetPlaces clears where in the text things stood.
func forgetPlaces(m protoreflect.Message) {
	if f := m.Descriptor().Fields().ByName("location"); f != nil {
		m.Clear(f)
	}
	children(m, forgetPlaces)
}

func (m *missing) transaction(s *pg_query.TransactionStmt) {
	name := s.GetSavepointName()
	switch s.GetKind() {
	case pg_query.TransactionStmtKind_TRANS_STMT_BEGIN, pg_query.TransactionStmtKind_TRANS_STMT_START:
		m.want(router.EffectBegin, "", "")
	case pg_query.TransactionStmtKind_TRANS_STMT_COMMIT, pg_query.TransactionStmtKind_TRANS_STMT_ROLLBACK:
		kind := router.EffectCommit
		if s.GetKind() == pg_query.TransactionStmtKind_TRANS_STMT_ROLLBACK {
			kind = router.EffectRollback
		}
		if !m.has(kind, func(e router.Effect) bool { return (e.Modes&router.ModeChain != 0) == s.GetChain() }) {
			m.out = append(m.out, fmt.Sprintf("end of the transaction, chain %v, has %+v", s.GetChain(), m.v.Effects))
		}
	case pg_query.TransactionStmtKind_TRANS_STMT_SAVEPOINT:
		m.want(router.EffectSavepoint, name, "")
	case pg_query.TransactionStmtKind_TRANS_STMT_RELEASE:
		m.want(router.EffectRelease, name, "")
	case pg_query.TransactionStmtKind_TRANS_STMT_ROLLBACK_TO:
		m.want(router.EffectRollbackTo, name, "")
	case pg_query.TransactionStmtKind_TRANS_STMT_PREPARE:
		m.want(router.EffectPrepareTransaction, "", "")
	}
}

func (m *missing) copy(s *pg_query.CopyStmt) {
	flag := router.CopyOut
	if s.GetIsFrom() {
		flag = router.CopyIn
	}
	if s.GetFilename() == "" && m.v.Copy&flag == 0 {
		m.out = append(m.out, fmt.Sprintf("copy flag %d, has %d", flag, m.v.Copy))
	}
}

// temporary wants a pin for what creates something in the session's temporary schema.
func (m *missing) temporary(n *pg_query.Node) {
	var r *pg_query.RangeVar
	drops := false
	switch s := n.GetNode().(type) {
	case *pg_query.Node_CreateStmt:
		r, drops = s.CreateStmt.GetRelation(), s.CreateStmt.GetOncommit() == pg_query.OnCommitAction_ONCOMMIT_DROP
	case *pg_query.Node_CreateTableAsStmt:
		into := s.CreateTableAsStmt.GetInto()
		r, drops = into.GetRel(), into.GetOnCommit() == pg_query.OnCommitAction_ONCOMMIT_DROP
	case *pg_query.Node_SelectStmt:
		r = s.SelectStmt.GetIntoClause().GetRel()
	case *pg_query.Node_ViewStmt:
		r = s.ViewStmt.GetView()
	case *pg_query.Node_CreateSeqStmt:
		r = s.CreateSeqStmt.GetSequence()
	case *pg_query.Node_CreateFunctionStmt:
		if f := s.CreateFunctionStmt.GetFuncname(); len(f) > 1 && isTemporary(f[0].GetString_().GetSval()) {
			m.pinned("temporary function")
		}
	}
	if r != nil && !drops && (r.GetRelpersistence() == "t" || isTemporary(r.GetSchemaname())) {
		m.pinned("temporary relation")
	}
}

// definesCode says whether calls in the statement are stored, not made.
func definesCode(n *pg_query.Node) bool {
	switch n.GetNode().(type) {
	case *pg_query.Node_CreateFunctionStmt, *pg_query.Node_ViewStmt, *pg_query.Node_RuleStmt, *pg_query.Node_CreateTrigStmt,
		*pg_query.Node_CreatePolicyStmt, *pg_query.Node_AlterPolicyStmt, *pg_query.Node_PrepareStmt:
		return true
	}
	return false
}

// keepers are functions that leave something with the session.
var keepers = set(`
	pg_advisory_lock pg_advisory_lock_shared pg_try_advisory_lock pg_try_advisory_lock_shared
	setseed dblink_connect dblink_connect_u pg_create_logical_replication_slot pg_create_physical_replication_slot
	pg_replication_origin_session_setup`)

func (m *missing) calls(x protoreflect.Message) {
	if f, ok := x.Interface().(*pg_query.FuncCall); ok && len(f.GetFuncname()) > 0 {
		parts := f.GetFuncname()
		name := parts[len(parts)-1].GetString_().GetSval()
		if keepers[name] || name == "set_config" && !localConfig(f) {
			m.pinned(name)
		}
	}
	children(x, m.calls)
}

// localConfig says whether set_config's last argument is the constant true.
func localConfig(f *pg_query.FuncCall) bool {
	args := f.GetArgs()
	return len(args) == 3 && args[2].GetAConst().GetBoolval().GetBoolval()
}
