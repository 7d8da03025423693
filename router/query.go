package router

// place is where in a query the parser stands, within the innermost parentheses.
type place uint8

const (
	atInner    place = iota // an expression in parentheses: FROM, FOR … are words of a construct
	atFresh                 // behind a parenthesis in an expression: a query may begin
	atExpr                  // an expression of a query: FROM and the other clauses may follow
	atOn                    // the condition of a join
	atStart                 // SELECT, VALUES, TABLE, WITH or a parenthesis must follow
	atItem                  // an item of FROM must follow
	atFromOpen              // as atItem, just behind a parenthesis: a query may begin
	atAfter                 // behind an item of FROM
	atRows                  // inside ROWS FROM ( )
	atSkip                  // column names, column definitions or type modifiers
	atWithName
	atWithHead // behind the name of a CTE
	atWithBody // behind its AS
	atWithNext // behind its body
	atWithTail // in SEARCH or CYCLE, before SET
	atWithLast // in SEARCH or CYCLE, behind SET
)

// frame is one level of parentheses.
type frame struct {
	place     place
	bracket   bool // opened by [
	recursive bool // WITH RECURSIVE
	grouping  bool // in GROUP BY, where CUBE and ROLLUP are no functions
	waiting   bool // name is a CTE that counts once its body is closed
	ctes      uint8
	name      token
}

// push opens a level; false when there are too many.
func (p *parser) push(at place) bool {
	if p.depth+1 >= maxDepth {
		p.raise(proofWrite, whyTooDeep)
		return false
	}
	grouping := at == atFresh && p.frames[p.depth].grouping
	p.depth++
	p.frames[p.depth] = frame{place: at, ctes: uint8(p.nctes), grouping: grouping}
	return true
}

// query reads a query whose first token is the current one, up to the statement's end or to the
// parenthesis that the caller opened. It reports whether it understood all of it; if not, the
// statement is not a proven read.
func (p *parser) query() bool {
	base := p.depth
	p.frames[base] = frame{place: atStart, ctes: uint8(p.nctes)}
	for {
		ok := true
		switch p.cur.kind {
		case tokEnd, tokSemicolon, tokBad:
			if p.depth != base || !p.complete() {
				return p.lost()
			}
			return true
		case tokClose:
			if p.depth == base {
				return p.complete() || p.lost()
			}
			ok = p.closeLevel()
		case tokOpen:
			ok = p.open()
		case tokWord:
			ok = p.word()
		case tokQuoted, tokUnicode:
			ok = p.quotedName()
		case tokComma:
			ok = p.comma()
		default:
			ok = p.other()
		}
		if !ok {
			return p.lost()
		}
	}
}

// complete says whether the innermost level may end here.
func (p *parser) complete() bool {
	switch p.frames[p.depth].place {
	case atExpr, atOn, atAfter, atInner, atFresh, atRows, atSkip:
		return true
	}
	return false
}

// lost gives up on a query.
func (p *parser) lost() bool {
	p.raise(proofWrite, whyUnreadable)
	p.depth, p.lostIn = 0, true
	return false
}

func (p *parser) closeLevel() bool {
	f := &p.frames[p.depth]
	if f.bracket || !p.complete() {
		return false
	}
	p.leave()
	p.advance()
	return true
}

// leave goes back to the level outside, where the CTEs of this one are not visible.
func (p *parser) leave() {
	p.nctes = int(p.frames[p.depth].ctes)
	p.depth--
	f := &p.frames[p.depth]
	if f.place == atWithNext && f.waiting {
		f.waiting = false
		p.addCTE(f.name)
	}
}

func (p *parser) addCTE(t token) {
	if p.nctes >= maxCTEs {
		p.raise(proofWrite, whyManyCTEs)
		return
	}
	p.ctes[p.nctes].tok = t
	p.nctes++
}

// open reads a parenthesis.
func (p *parser) open() bool {
	f := &p.frames[p.depth]
	at := atFresh
	switch f.place {
	case atWithNext, atWithLast:
		f.place = atExpr
		at = atStart
	case atStart:
		f.place = atExpr
		at = atStart
	case atFresh:
		f.place = atInner
	case atItem, atFromOpen:
		f.place = atAfter
		at = atFromOpen
	case atRows:
		if p.prev == kwAs {
			at = atSkip
		}
	case atSkip, atWithHead:
		at = atSkip
	case atWithBody:
		f.place = atWithNext
		at = atStart
	case atAfter, atWithName, atWithTail:
		return false
	}
	p.advance()
	return p.push(at)
}

func (p *parser) comma() bool {
	f := &p.frames[p.depth]
	switch f.place {
	case atAfter, atOn:
		f.place = atItem
	case atWithNext, atWithLast:
		f.place = atWithName
	case atFresh, atStart, atItem, atFromOpen, atWithName, atWithHead, atWithBody:
		return false
	}
	p.advance()
	return true
}

// other reads constants, operators and the like.
func (p *parser) other() bool {
	f := &p.frames[p.depth]
	switch f.place {
	case atFresh:
		f.place = atInner
	case atInner, atExpr, atOn, atRows, atSkip, atWithTail, atWithLast:
	case atAfter:
		if p.isStar() { // FROM t *
			p.advance()
			return true
		}
		return false
	default:
		return false
	}
	switch p.cur.kind {
	case tokBracket:
		p.advance()
		if !p.push(atInner) {
			return false
		}
		p.frames[p.depth].bracket = true
		return true
	case tokUnbracket:
		if !f.bracket {
			return false
		}
		p.leave()
	case tokDot:
		return p.attribute()
	case tokCast:
		p.advance()
		return p.typeName()
	case tokOperator:
		p.operatorName(p.cur)
	}
	p.advance()
	return true
}

func (p *parser) isStar() bool {
	return p.cur.kind == tokOperator && p.cur.end-p.cur.start == 1 && p.lex.text[p.cur.start] == '*'
}

// word reads an unquoted word.
func (p *parser) word() bool {
	f := &p.frames[p.depth]
	switch f.place {
	case atFresh:
		if p.startsQuery() {
			f.place = atStart
			return true // read again as a query's first word
		}
		f.place = atInner
		return p.exprWord()
	case atFromOpen:
		if p.startsQuery() {
			f.place = atStart
			return true
		}
		f.place = atItem
		return p.itemWord()
	case atInner, atExpr, atOn, atRows:
		return p.exprWord()
	case atStart:
		return p.startWord()
	case atItem:
		return p.itemWord()
	case atAfter:
		return p.afterWord()
	case atSkip:
		return p.skipWord()
	}
	return p.withWord()
}

// startsQuery says whether the word is the first of a query, or of a write in its place.
func (p *parser) startsQuery() bool {
	switch p.cur.kw {
	case kwSelect, kwValues, kwTable, kwWith, kwInsert, kwUpdate, kwDelete, kwMerge:
		return true
	}
	return false
}

func (p *parser) startWord() bool {
	f := &p.frames[p.depth]
	switch p.cur.kw {
	case kwSelect, kwValues:
		f.place = atExpr
	case kwTable:
		f.place = atItem
	case kwWith:
		f.place = atWithName
	case kwAll, kwDistinct: // behind UNION
	case kwInsert, kwUpdate, kwDelete, kwMerge:
		p.raise(proofWrite, whyWriteInWith)
		return false
	default:
		return false
	}
	p.advance()
	return true
}

// skipWord reads a word among column names or type modifiers. No call and no query can stand
// there; should it be one after all, it is seen.
func (p *parser) skipWord() bool {
	if p.cur.kw == kwSelect || p.cur.kw == kwInto {
		return false
	}
	if p.peek.kind == tokOpen {
		p.call(p.cur, 1, calledOrNot)
	}
	p.advance()
	return true
}

func (p *parser) quotedName() bool {
	f := &p.frames[p.depth]
	switch f.place {
	case atFresh:
		f.place = atInner
		return p.chain()
	case atInner, atExpr, atOn, atRows:
		if p.prev == kwAs {
			return p.label()
		}
		return p.chain()
	case atItem, atFromOpen:
		f.place = atItem
		return p.item()
	case atAfter:
		return p.alias()
	case atWithName:
		return p.cteName()
	case atSkip:
		if p.peek.kind == tokOpen {
			p.call(p.cur, 1, calledOrNot)
		}
	case atWithTail, atWithLast:
	default:
		return false
	}
	p.advance()
	return true
}

// withWord reads a word of a WITH clause.
func (p *parser) withWord() bool {
	f := &p.frames[p.depth]
	k := p.cur.kw
	switch f.place {
	case atWithName:
		if k == kwRecursive && p.prev == kwWith {
			f.recursive = true
			break
		}
		return p.cteName()
	case atWithHead:
		if k != kwAs {
			return false
		}
		f.place = atWithBody
	case atWithBody:
		if k != kwNot && k != kwMaterialized {
			return false
		}
	case atWithNext, atWithTail, atWithLast:
		return p.withTailWord()
	}
	p.advance()
	return true
}

// withTailWord reads a word behind the body of a CTE.
func (p *parser) withTailWord() bool {
	f := &p.frames[p.depth]
	switch k := p.cur.kw; {
	case f.place == atWithTail:
		if k == kwSet {
			f.place = atWithLast
		}
	case k == kwSearch || k == kwCycle:
		f.place = atWithTail
	case p.startsQuery() && k != kwWith:
		f.place = atStart
		return true
	case f.place == atWithNext:
		return false
	}
	p.advance()
	return true
}

// cteName reads the name of a CTE. It is visible to what follows its body; with RECURSIVE to
// its body, too.
func (p *parser) cteName() bool {
	f := &p.frames[p.depth]
	if p.cur.kw.reserved() {
		return false
	}
	if f.recursive {
		p.addCTE(p.cur)
	} else {
		f.name, f.waiting = p.cur, true
	}
	f.place = atWithHead
	p.advance()
	return true
}

// isCTE says whether the name is that of a visible CTE.
func (p *parser) isCTE(t token) bool {
	if p.nctes == 0 {
		return false
	}
	var a, b folded
	name, ok := p.name(t, &a)
	if !ok {
		return false
	}
	for i := p.nctes - 1; i >= 0; i-- {
		if other, ok := p.name(p.ctes[i].tok, &b); ok && string(name) == string(other) {
			return true
		}
	}
	return false
}
