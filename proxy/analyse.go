package proxy

import (
	"github.com/cstproxy/cstproxy/proxy/wire"
	"github.com/cstproxy/cstproxy/router"
)

// classified says under which circumstances a verdict was made; when they change it is made anew.
type classified struct {
	knowledge *router.Knowledge
	env       envKey
}

type envKey struct {
	strings  router.StringSyntax
	encoding router.Encoding
}

// analyse reads the messages of the turn's current part: which statements it defines and names,
// and what the router says of each. Definitions take effect at once, so that later messages of
// the same part find them; undo takes them back if the server never gets to them.
func (s *session) analyse(cut cutKind) {
	t := s.turn
	t.ops = t.ops[:0]
	t.plain = true
	for off := 0; off < len(t.msgs); {
		typ, size, _, _ := wire.Header(t.msgs[off:])
		end := off + size
		if end > len(t.msgs) {
			t.rest = end - len(t.msgs)
			end = len(t.msgs)
		}
		o := op{typ: typ, off: off, end: end}
		if !s.analyseMessage(&o, cut) {
			s.fatal(protocolViolation("invalid message format"))
			return
		}
		t.ops = append(t.ops, o)
		off = end
	}
}

func (s *session) analyseMessage(o *op, cut cutKind) bool {
	t := s.turn
	body := t.body(o)
	partial := cut == cutLarge && t.rest > 0
	switch o.typ {
	case 'Q':
		text, ok := wire.ReadQuery(body)
		if partial {
			t.verdicts = append(t.verdicts, tooLong)
			t.executed = append(t.executed, tooLong)
			return true
		}
		if !ok {
			return false
		}
		s.dropUnnamed() // as a simple Query does
		v := s.classify(text)
		t.verdicts = append(t.verdicts, v)
		t.executed = append(t.executed, v)
	case 'P':
		if partial {
			return s.analyseLargeParse(body)
		}
		return s.analyseParse(o, body)
	case 'B':
		return s.analyseBind(o, body)
	case 'D', 'C':
		return s.analyseTarget(o, body)
	case 'E':
		return s.analyseExecute(body)
	case 'F':
		t.verdicts = append(t.verdicts, functionCall)
		t.executed = append(t.executed, functionCall)
	}
	return true
}

// Verdicts on what is not SQL that can be read.
var (
	tooLong      = &router.Verdict{Route: router.Route{Why: "too long to look at"}, Statements: 1}
	functionCall = &router.Verdict{Route: router.Route{Why: "function call message"}, Statements: 1}
	unknownName  = &router.Verdict{Route: router.Route{Why: "unknown prepared statement"}, Statements: 1}
	largeParse   = &router.Verdict{Route: router.Route{Why: "too long to look at"}, Statements: 1,
		Effects: []router.Effect{{Kind: router.EffectPin, Name: "statement too long to keep"}}}
)

// analyseLargeParse lets a statement through that is too long to be kept: the session then has to
// stay with the server that has it.
func (s *session) analyseLargeParse([]byte) bool {
	s.turn.verdicts = append(s.turn.verdicts, largeParse)
	s.turn.executed = append(s.turn.executed, largeParse)
	return true
}

func (s *session) analyseParse(o *op, body []byte) bool {
	p, ok := wire.ReadParse(body)
	if !ok {
		return false
	}
	t := s.turn
	shared := s.proxy.statements.Intern(p.Text, p.Types, s.cluster.schema)
	if len(p.Name) == 0 {
		o.prev = s.unnamed
		o.stmt = s.newUnnamed(shared)
		s.judge(o.stmt)
		s.redirectDeallocate(o.stmt)
		t.verdicts = append(t.verdicts, o.stmt.verdict)
		s.unnamed = o.stmt
		return true
	}
	st := &statement{Prepared: shared}
	s.judge(st)
	s.redirectDeallocate(st)
	o.stmt = st
	t.verdicts = append(t.verdicts, st.verdict)
	t.plain = false
	o.name = string(p.Name)
	if prev := s.stmts[o.name]; prev != nil {
		// Taken: the server is made to say so (sendParse).
		o.prev = prev
		st.Drop()
		return true
	}
	if s.stmts == nil {
		s.stmts = map[string]*statement{}
	}
	s.stmts[o.name] = st
	return true
}

// redirectDeallocate makes a DEALLOCATE of one of the protocol's statements drop it under the name
// that servers know.
func (s *session) redirectDeallocate(st *statement) {
	v := st.verdict
	if v.Statements != 1 || len(v.Effects) != 1 || v.Effects[0].Kind != router.EffectDeallocate {
		return
	}
	target := s.stmts[v.Effects[0].Name]
	if target == nil {
		return
	}
	other := s.proxy.statements.Intern([]byte("DEALLOCATE "+target.Name), nil, s.cluster.schema)
	other.Types = []byte{0, 0}
	st.Drop()
	st.Prepared, st.needs = other, target
	s.turn.plain = false
}

func (s *session) analyseBind(o *op, body []byte) bool {
	b, ok := wire.ReadBind(body)
	if !ok {
		return false
	}
	t := s.turn
	if len(b.Statement) > 0 {
		t.plain = false
		o.stmt = s.stmts[string(b.Statement)]
	} else {
		o.stmt = s.unnamed
	}
	s.bound(b.Portal, o.stmt)
	if o.stmt == nil {
		t.verdicts = append(t.verdicts, unknownName)
		return true
	}
	s.judge(o.stmt)
	t.plain = t.plain && o.stmt.needs == nil
	t.copyIn = t.copyIn || o.stmt.verdict.Copy&router.CopyIn != 0
	t.verdicts = append(t.verdicts, o.stmt.verdict)
	return true
}

// bound notes which statement a portal runs.
func (s *session) bound(portal []byte, st *statement) {
	if len(portal) == 0 {
		s.portal = st
		return
	}
	if s.portals == nil {
		s.portals = map[string]*statement{}
	}
	s.portals[string(portal)] = st
}

func (s *session) analyseExecute(body []byte) bool {
	portal, ok := wire.ReadExecute(body)
	if !ok {
		return false
	}
	st := s.portal
	if len(portal) > 0 {
		st = s.portals[string(portal)]
	}
	v := unknownName
	if st != nil && st.verdict != nil {
		v = st.verdict
	}
	s.turn.verdicts = append(s.turn.verdicts, v)
	s.turn.executed = append(s.turn.executed, v)
	return true
}

func (s *session) analyseTarget(o *op, body []byte) bool {
	kind, name, ok := wire.ReadTarget(body)
	if !ok {
		return false
	}
	if kind == 'P' {
		return true
	}
	t := s.turn
	if o.typ == 'D' {
		if len(name) > 0 {
			t.plain = false
			o.stmt = s.stmts[string(name)]
		} else {
			o.stmt = s.unnamed
		}
		if o.stmt != nil {
			s.judge(o.stmt)
			t.verdicts = append(t.verdicts, o.stmt.verdict)
		}
		return true
	}
	if len(name) == 0 {
		o.prev = s.unnamed
		s.dropUnnamed()
		return true
	}
	t.plain = false
	o.name = string(name)
	if o.prev = s.stmts[o.name]; o.prev != nil {
		delete(s.stmts, o.name)
	}
	return true
}

// undo takes back what the messages would have defined or closed.
func (s *session) undo(ops []op) {
	for i := len(ops) - 1; i >= 0; i-- {
		s.undoOne(&ops[i])
	}
}

func (s *session) undoOne(o *op) {
	switch {
	case o.typ == 'P' && o.stmt != nil && o.name == "":
		if s.unnamed == o.stmt {
			s.unnamed = o.prev
		}
	case o.typ == 'P' && o.stmt != nil && o.prev == nil:
		if s.stmts[o.name] == o.stmt {
			delete(s.stmts, o.name)
			o.stmt.Drop()
		}
	case o.typ == 'C' && o.prev != nil && o.name != "":
		s.stmts[o.name] = o.prev
	case o.typ == 'C' && o.prev != nil && s.unnamed == nil:
		s.unnamed = o.prev
	}
}

// classify asks the router about a text in this session's circumstances.
func (s *session) classify(text []byte) *router.Verdict {
	v := s.cluster.classifier.Classify(text, s.env())
	if v.UnknownName {
		s.cluster.catalog.Changed(s.database)
	}
	return v
}

func (s *session) env() router.Env {
	return router.Env{Knowledge: s.cluster.catalog.Knowledge(s.database), Strings: s.sql.strings, Encoding: s.sql.encoding, Rules: s.rules.Tables}
}

// judge makes the statement's verdict, or makes it anew when the catalogue or the session's way
// of reading SQL has changed since.
func (s *session) judge(st *statement) {
	now := classified{s.cluster.catalog.Knowledge(s.database), s.sql}
	if st.needs == nil && (st.verdict == nil || st.stamp != now) {
		st.verdict, st.stamp = s.classify([]byte(st.Text)), now
	}
}
