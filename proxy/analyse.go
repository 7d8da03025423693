package proxy

import (
	"hash/maphash"

	"github.com/cstproxy/cstproxy/proxy/backend"
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
// the same part find them; undo takes them back if the server never gets to them. The part ends
// early behind an Execute of COPY … FROM STDIN: what follows is read as the server will read it.
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
		if o.typ == 'E' && t.copying == copyAsked {
			t.msgs, t.open = t.msgs[:end], true
			return
		}
	}
}

func (s *session) analyseMessage(o *op, cut cutKind) bool {
	t := s.turn
	body := t.body(o)
	partial := cut == cutLarge && t.rest > 0
	switch o.typ {
	case 'Q':
		return s.analyseQuery(o, body, partial)
	case 'P':
		if partial {
			return s.analyseLargeParse(o, body)
		}
		return s.analyseParse(o, body)
	case 'B':
		return s.analyseBind(o, body)
	case 'D':
		return s.analyseDescribe(o, body)
	case 'C':
		return s.analyseClose(o, body)
	case 'E':
		return s.analyseExecute(o, body)
	case 'F':
		t.runs(functionCall)
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

// names notes a verdict on a text that the turn parses, describes or binds.
func (t *turn) names(v *router.Verdict) {
	if n := len(t.verdicts); n == 0 || t.verdicts[n-1] != v {
		t.verdicts = append(t.verdicts, v)
	}
}

// runs notes a verdict on a text that the turn executes.
func (t *turn) runs(v *router.Verdict) {
	t.names(v)
	if n := len(t.executed); n == 0 || t.executed[n-1] != v || v.Effects != nil {
		t.executed = append(t.executed, v)
	}
}

func (s *session) analyseQuery(o *op, body []byte, partial bool) bool {
	t := s.turn
	if partial {
		t.soils = true
		t.runs(tooLong)
		return true
	}
	text, ok := wire.ReadQuery(body)
	if !ok {
		return false
	}
	o.unnamed, o.prev = true, s.unnamed
	s.dropUnnamed() // as a simple Query does
	v := s.classify(text)
	t.runs(v)
	for i := range v.Effects {
		e := &v.Effects[i]
		t.plain = t.plain && (e.Kind != router.EffectDeallocate || s.stmts[e.Name] == nil)
	}
	return true
}

// analyseLargeParse lets a statement through that is too long to be kept: the session then has to
// stay with the server that has it, under the client's own name.
func (s *session) analyseLargeParse(o *op, body []byte) bool {
	name, _, ok := wire.CString(body)
	if !ok {
		return false
	}
	s.turn.soils = true
	s.turn.runs(largeParse)
	o.stmt = &statement{Prepared: &backend.Prepared{Name: string(name)}, name: string(name), verdict: largeParse, raw: true}
	s.define(o)
	return true
}

func (s *session) analyseParse(o *op, body []byte) bool {
	p, ok := wire.ReadParse(body)
	if !ok {
		return false
	}
	shared := s.proxy.statements.Intern(p.Text, p.Types, s.schema())
	if len(p.Name) == 0 {
		o.stmt = s.newUnnamed(shared)
	} else {
		o.stmt = &statement{Prepared: shared, name: string(p.Name)}
	}
	s.judge(o.stmt, p.Text)
	s.turn.names(o.stmt.verdict)
	s.define(o)
	return true
}

// define makes the statement of a Parse the one of its name, unless the name is taken: then the
// server is made to say so (sendParse).
func (s *session) define(o *op) {
	if o.stmt.name == "" {
		o.unnamed, o.prev = true, s.unnamed
		s.dropUnnamed()
		s.unnamed = o.stmt
		return
	}
	s.turn.plain = false
	o.name = o.stmt.name
	if o.prev = s.stmts[o.name]; o.prev != nil {
		o.stmt.Drop()
		return
	}
	s.know(o.name, o.stmt)
}

func (s *session) know(name string, st *statement) {
	if s.stmts == nil {
		s.stmts = map[string]*statement{}
	}
	s.stmts[name] = st
}

// named finds the statement that a Bind or Describe means.
func (s *session) named(o *op, name []byte) {
	if len(name) == 0 {
		o.unnamed, o.stmt = true, s.unnamed
	} else {
		s.turn.plain = false
		o.stmt = s.stmts[string(name)]
	}
	if o.stmt == nil {
		s.turn.names(unknownName)
		return
	}
	s.judge(o.stmt, nil)
	s.turn.names(o.stmt.verdict)
}

func (s *session) analyseBind(o *op, body []byte) bool {
	b, ok := wire.ReadBind(body)
	if !ok {
		return false
	}
	s.named(o, b.Statement)
	s.bound(b.Portal, o.stmt)
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

func (s *session) analyseExecute(o *op, body []byte) bool {
	portal, ok := wire.ReadExecute(body)
	if !ok {
		return false
	}
	t := s.turn
	st := s.portal
	if len(portal) > 0 {
		st = s.portals[string(portal)]
	}
	v := unknownName
	if st != nil && st.verdict != nil {
		v = st.verdict
	}
	t.runs(v)
	if v.Effects != nil {
		o.verdict = v
	}
	if v.Copy&router.CopyIn != 0 {
		t.copying = copyAsked
	}
	for i := range v.Effects {
		switch e := &v.Effects[i]; e.Kind {
		case router.EffectDeallocateAll, router.EffectDiscardAll:
			o.drops, o.dropped, s.stmts = true, s.stmts, nil
			t.plain = false
		case router.EffectDeallocate:
			t.plain = false
			o.name = e.Name
			if o.prev = s.stmts[o.name]; o.prev != nil {
				delete(s.stmts, o.name)
			}
		}
	}
	return true
}

func (s *session) analyseDescribe(o *op, body []byte) bool {
	kind, name, ok := wire.ReadTarget(body)
	if ok && kind == 'S' {
		s.named(o, name)
	}
	return ok
}

func (s *session) analyseClose(o *op, body []byte) bool {
	kind, name, ok := wire.ReadTarget(body)
	switch {
	case !ok:
		return false
	case kind == 'P' && len(name) == 0:
		s.portal = nil
	case kind == 'P':
		delete(s.portals, string(name))
	case len(name) == 0:
		o.unnamed, o.prev = true, s.unnamed
		s.dropUnnamed()
	default:
		s.turn.plain = false
		o.name = string(name)
		if o.prev = s.stmts[o.name]; o.prev != nil {
			delete(s.stmts, o.name)
		}
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
	case o.unnamed && o.typ == 'P':
		if s.unnamed == o.stmt {
			s.unnamed = o.prev
		}
	case o.unnamed:
		if s.unnamed == nil && (o.typ == 'C' || o.typ == 'Q') {
			s.unnamed = o.prev
		}
	case o.typ == 'P' && o.prev == nil:
		if s.stmts[o.name] == o.stmt {
			delete(s.stmts, o.name)
			o.stmt.Drop()
		}
	case o.drops:
		s.stmts = o.dropped
	case (o.typ == 'C' || o.typ == 'E') && o.prev != nil:
		s.know(o.name, o.prev)
	}
}

// settled follows a Close, DEALLOCATE or DISCARD ALL that was executed: what it dropped is gone.
func (o *op) settled() {
	if o.prev != nil && !o.unnamed {
		o.prev.Drop()
	}
	for _, st := range o.dropped {
		st.Drop()
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
// of reading SQL has changed since. text is the statement's where it is at hand as bytes.
func (s *session) judge(st *statement, text []byte) {
	now := classified{s.cluster.catalog.Knowledge(s.database), s.sql}
	if st.raw || st.verdict != nil && st.stamp == now {
		return
	}
	if text == nil {
		text = []byte(st.Text)
	}
	st.verdict, st.stamp = s.classify(text), now
}

// schema tells apart texts that mean different things: those parsed before and after DDL, and under
// different search paths.
func (s *session) schema() uint64 {
	if s.pathOf != s.want {
		s.pathOf, s.pathSum = s.want, 0
		if v, ok := s.want.Get("search_path"); ok {
			s.pathSum = maphash.String(s.proxy.seed, v.Text)
		}
	}
	return s.pathSum + s.cluster.schema
}
