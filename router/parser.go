package router

// maxDepth bounds how deeply parentheses may be nested in what is called a read. Generated SQL
// stays far below; a deeper text goes to the primary.
const maxDepth = 200

// maxCTEs bounds how many CTE names are visible at one place.
const maxCTEs = 64

// parser reads the statements of one text. It is no full parser: it follows the structure of
// queries as far as it takes to know every name that is called and every relation that is read,
// and gives up (Primary) on what it does not understand. It is reused; nothing of it is shared.
type parser struct {
	lex  lexer
	raw  []byte // the text as it came; lex.text may be a masked copy (Env.Encoding)
	env  Env
	know *Knowledge // env.Knowledge, or the built-in functions

	prev2, prev keyword // the words before cur; kwNone for other tokens
	prevKind    tokenKind
	cur, peek   token
	words       int // tokens of the statement read so far, for statements that must be exactly so

	frames [maxDepth]frame
	depth  int
	ctes   [maxCTEs]cte
	nctes  int

	lostIn  bool    // a query of the statement was not understood to its end
	stmt    finding // of the statement that is being read
	text    finding // of the whole text
	effects []Effect
	trace   *trace
}

// finding is what is known so far of a statement, or of the statements before it.
type finding struct {
	proof      proof
	why        string
	retry      RetryClass
	copy       CopyFlags
	unknown    bool
	hinted     bool
	rule       RouteChoice
	ruled      int // relations that a rule spoke of
	statements int
}

type cte struct {
	tok token
}

// begin makes the parser ready for a text.
func (p *parser) begin(text, raw []byte, env Env) {
	p.lex = lexer{text: text, strings: env.Strings, hinting: true}
	p.raw, p.env, p.know = raw, env, env.Knowledge
	if p.know == nil {
		p.know = builtins()
	}
	p.prev, p.prev2, p.prevKind, p.depth, p.nctes = kwNone, kwNone, tokEnd, 0, 0
	p.text = finding{proof: proofUnread, retry: RetrySafe, hinted: true}
	p.effects = nil
}

// advance makes the next token the current one.
func (p *parser) advance() {
	p.prev2, p.prev, p.prevKind = p.prev, p.cur.kw, p.cur.kind
	p.cur = p.peek
	if p.cur.kind != tokBad && p.cur.kind != tokEnd && p.cur.kind != tokSemicolon {
		p.peek = p.lex.next()
	}
	p.words++
}

// statementsOf reads all statements of the text.
func (p *parser) statementsOf() {
	for {
		p.lex.hinting, p.lex.hint = true, ChooseAuto
		p.cur = p.lex.next()
		if p.cur.kind == tokSemicolon {
			continue
		}
		if p.cur.kind == tokEnd {
			break
		}
		hint := p.lex.hint
		if p.cur.kind != tokBad {
			p.peek = p.lex.next()
		}
		p.prev, p.prev2, p.prevKind, p.words, p.depth, p.nctes = kwNone, kwNone, tokEnd, 1, 0, 0
		p.stmt, p.lostIn = finding{retry: RetrySafe}, false
		if p.trace != nil {
			p.trace.begin(int(p.cur.start))
		}
		p.statement()
		p.skipRest()
		p.endStatement(hint)
		if p.cur.kind == tokBad {
			p.unreadable()
			break
		}
		if p.cur.kind == tokEnd {
			break
		}
	}
	if p.text.statements == 0 && p.text.proof == proofUnread {
		p.text.proof, p.text.why = proofNeutral, whyEmpty
	}
}

// unreadable says that the text cannot be cut into tokens. A server refuses it as a whole; should
// it take it nevertheless, it knew better, and the session's state is in doubt.
func (p *parser) unreadable() {
	p.text.proof, p.text.why, p.text.retry = proofWrite, whyUnreadable, RetryNever
	p.effects = append(p.effects, Effect{Kind: EffectPin, Name: PinUncertain})
}

// endStatement adds the statement's finding to the text's.
func (p *parser) endStatement(hint RouteChoice) {
	s, t := &p.stmt, &p.text
	if s.proof == proofUnread {
		s.proof, s.why = proofWrite, whyStatement
	}
	switch {
	case hint == ChoosePrimary:
		s.proof, s.why = proofWrite, WhyHint
	case hint == ChooseStandby && (s.proof == proofDoubt || s.proof == proofLocal):
		s.proof, s.why, s.retry = proofRead, WhyHint, min(s.retry, RetryRefused)
	}
	if p.trace != nil {
		p.trace.end(s, int(p.cur.start), hint)
	}
	if s.proof > t.proof {
		t.proof, t.why = s.proof, s.why
	}
	if s.proof > proofRead {
		s.retry = min(s.retry, RetryRefused)
	}
	t.retry = min(t.retry, s.retry)
	t.copy |= s.copy
	t.unknown = t.unknown || s.unknown
	t.hinted = t.hinted && hint == ChooseStandby
	t.rule = joinRule(t, s)
	t.statements++
}

// joinRule folds the table rules of one more statement into those of the text: primary wins, and
// standby holds when it holds for every statement.
func joinRule(t, s *finding) RouteChoice {
	switch {
	case t.rule == ChoosePrimary || s.rule == ChoosePrimary:
		return ChoosePrimary
	case s.rule == ChooseStandby && (t.statements == 0 || t.rule == ChooseStandby):
		return ChooseStandby
	}
	return ChooseAuto
}

// raise notes that the statement is at least as doubtful as pr. A proof that stays at proofUnread
// until the end becomes a write.
func (p *parser) raise(pr proof, why string) {
	if pr > p.stmt.proof {
		p.stmt.proof, p.stmt.why = pr, why
	}
	if pr == proofWrite {
		p.stmt.retry = RetryNever
	}
}

// doubt is raise(proofDoubt) for what a standby would refuse and the primary may then run.
func (p *parser) doubt(why string) {
	p.raise(proofDoubt, why)
	p.stmt.retry = min(p.stmt.retry, RetryRefused)
}

func (p *parser) effect(e Effect) { p.effects = append(p.effects, e) }

// atEnd says whether the statement is over.
func (p *parser) atEnd() bool {
	return p.cur.kind == tokEnd || p.cur.kind == tokSemicolon || p.cur.kind == tokBad
}

// accept advances over a key word.
func (p *parser) accept(k keyword) bool {
	if p.cur.kw != k {
		return false
	}
	p.advance()
	return true
}

// skipRest goes to the statement's end. What stands there is not understood, but calls that tie
// the session to its server are seen in any statement. Only CREATE may have a semicolon inside
// parentheses, and create reads that itself.
func (p *parser) skipRest() {
	depth := 0
	for ; !p.atEnd(); p.advance() {
		switch p.cur.kind {
		case tokOpen:
			depth++
		case tokClose:
			depth--
		case tokWord, tokQuoted, tokUnicode:
			if p.lostIn && p.cur.kw == kwInto && p.mayBeTemporary(p.peek) {
				p.pin(PinTemporary, "")
			}
			if p.peek.kind == tokOpen {
				p.sessionCall(p.cur)
			}
		}
	}
	if depth != 0 {
		p.raise(proofWrite, whyUnreadable)
	}
}

// mayBeTemporary says whether what begins with the token, behind INTO, may be a temporary table.
func (p *parser) mayBeTemporary(t token) bool {
	switch t.kw {
	case kwTemp, kwTemporary, kwLocal, kwGlobal:
		return true
	}
	return p.isTempSchema(t)
}

// isName says whether the token can be (a part of) a name.
func (t token) isName() bool {
	return t.kind == tokWord || t.kind == tokQuoted || t.kind == tokUnicode
}

// name folds the token's name; false when it cannot be known.
func (p *parser) name(t token, buf *folded) ([]byte, bool) {
	if p.env.Encoding != ASCIISafe && !ascii(p.raw[t.start:t.end]) {
		return nil, false
	}
	return fold(p.raw, t, buf)
}

// string is the token's name for an Effect: folded, or as written when that cannot be done. What a
// name in U& notation means to the session is not worked out: it keeps its server.
func (p *parser) string(t token) string {
	if t.kind == tokUnicode {
		p.pin(PinUncertain, "")
	}
	var buf folded
	if b, ok := p.name(t, &buf); ok {
		return string(b)
	}
	return string(p.raw[t.start:t.end])
}

func ascii(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 {
			return false
		}
	}
	return true
}
