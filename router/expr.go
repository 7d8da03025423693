package router

// exprWord reads an unquoted word in an expression or between the clauses of a query.
func (p *parser) exprWord() bool {
	f := &p.frames[p.depth]
	k := p.cur.kw
	if p.prev == kwAs {
		return p.label()
	}
	switch k {
	case kwNone:
		return p.chain()
	case kwSelect, kwTable:
		return false
	case kwInto:
		return p.into()
	case kwUnion, kwIntersect, kwExcept:
		f.place = atStart
	case kwFor:
		p.forClause()
	case kwFrom:
		if f.place == atInner || f.place == atRows || p.prev == kwDistinct && (p.prev2 == kwIs || p.prev2 == kwNot) {
			break
		}
		f.place = atItem
	case kwWhere, kwGroup, kwHaving, kwWindow, kwOrder, kwLimit, kwOffset, kwFetch:
		f.grouping = k == kwGroup
		if f.place == atOn {
			f.place = atExpr
		}
	case kwJoin, kwLeft, kwRight, kwFull, kwInner, kwCross, kwNatural, kwOuter, kwUsing:
		if f.place == atOn && (k == kwJoin || p.peek.kind != tokOpen) || k == kwUsing {
			return p.joinWord()
		}
		return p.chain()
	case kwInsert, kwUpdate, kwDelete, kwMerge:
		if p.looksLikeWrite() {
			p.raise(proofWrite, whyWriteInWith)
			return false
		}
		return p.chain()
	default:
		if !k.reserved() {
			return p.chain()
		}
		if p.peek.kind == tokDot {
			return false // a reserved word begins no qualified name
		}
	}
	p.advance()
	return true
}

// joinWord reads a word of a join behind the condition of another one.
func (p *parser) joinWord() bool {
	f := &p.frames[p.depth]
	k := p.cur.kw
	p.advance()
	switch k {
	case kwJoin:
		f.place = atItem
	case kwUsing:
		if f.place != atOn || p.cur.kind != tokOpen {
			return true // ORDER BY x USING >
		}
		f.place = atAfter
		p.advance()
		return p.push(atSkip)
	}
	return true
}

// looksLikeWrite is a second look at words that begin writes: a column may have such a name, but a
// write that the structure did not show must not slip through.
func (p *parser) looksLikeWrite() bool {
	switch p.cur.kw {
	case kwDelete:
		return p.peek.kw == kwFrom
	case kwInsert, kwMerge:
		return p.peek.kw == kwInto
	}
	return p.peek.isName() && (!p.peek.kw.reserved() || p.peek.kw == kwOnly)
}

// forClause notices FOR UPDATE, FOR NO KEY UPDATE, FOR SHARE and FOR KEY SHARE, at any place:
// substring(x FOR key) is a small price.
func (p *parser) forClause() {
	switch p.peek.kw {
	case kwUpdate, kwNo, kwShare, kwKey:
		p.raise(proofWrite, whyForUpdate)
	}
}

// label reads the name behind AS: a column's label, or the type of a CAST.
func (p *parser) label() bool {
	f := &p.frames[p.depth]
	if f.place == atInner {
		return p.typeName()
	}
	p.advance()
	return true
}

// into reads SELECT … INTO, which creates a table.
func (p *parser) into() bool {
	p.raise(proofWrite, whySelectInto)
	p.advance()
	temporary := false
	for p.cur.kw == kwTemp || p.cur.kw == kwTemporary || p.cur.kw == kwLocal || p.cur.kw == kwGlobal ||
		p.cur.kw == kwUnlogged || p.cur.kw == kwTable {
		temporary = temporary || p.cur.kw == kwTemp || p.cur.kw == kwTemporary
		p.advance()
	}
	if temporary || p.isTempSchema(p.cur) {
		p.pin(PinTemporary, "")
	} else {
		p.effect(Effect{Kind: EffectDDL})
	}
	if p.cur.isName() {
		p.chain()
	}
	return true
}

// chain reads a name, qualified or not, in an expression: a column, a call, or the type before a
// string constant.
func (p *parser) chain() bool {
	first, parts := p.cur, 1
	for p.peek.kind == tokDot {
		p.advance()
		if p.peek.kind == tokOperator { // t.*, or OPERATOR(pg_catalog.+)
			p.advance()
			if !p.isStar() {
				p.operatorName(p.cur)
			}
			p.advance()
			return true
		}
		if !p.peek.isName() {
			return false
		}
		p.advance()
		parts++
	}
	last := p.cur
	switch p.peek.kind {
	case tokOpen:
		if parts > 1 && p.isTempSchema(first) {
			p.raise(proofLocal, whyTemporary)
		}
		p.call(last, parts, p.calling(last, parts))
		p.advance()
		p.advance()
		return p.push(atFresh)
	case tokString:
		p.typeCheck(last)
	default:
		if parts > 1 {
			p.attributeCheck(last)
		}
	}
	p.advance()
	return true
}

// attribute reads a dot behind a parenthesis or bracket: (row).name may call name(row).
func (p *parser) attribute() bool {
	for p.cur.kind == tokDot {
		p.advance()
		switch {
		case p.cur.isName():
			p.attributeCheck(p.cur)
		case !p.isStar():
			return false
		}
		p.advance()
	}
	return true
}

// certainty is how sure it is that a name before a parenthesis is called.
type certainty uint8

const (
	called      certainty = iota // it is, so an unknown name is a doubt
	calledOrNot                  // more likely a construct, an alias or a type: only a known writer counts
)

// calling judges a name before a parenthesis in an expression.
func (p *parser) calling(last token, parts int) certainty {
	if parts == 1 && last.kind == tokWord && p.constructs(last.kw) {
		return calledOrNot
	}
	return called
}

// constructs says whether a word before a parenthesis belongs to a construct of the grammar there.
// The word is the current token, so p.prev is the word before it.
func (p *parser) constructs(k keyword) bool {
	switch {
	case k == kwNone, k == kwTreat: // TREAT calls the function that is named like the type
		return false
	case k.construct():
		return true
	case k == kwBy:
		return p.prev == kwGroup || p.prev == kwOrder || p.prev == kwPartition
	case k == kwFirst, k == kwNext:
		return p.prev == kwFetch
	case k == kwOperator: // ORDER BY x USING OPERATOR(s.<)
		return p.prev == kwUsing || p.afterOperand()
	case k == kwCube, k == kwRollup:
		return p.frames[p.depth].grouping
	}
	// OVER, FILTER, WITHIN, ESCAPE, ZONE, SETS …: no call stands behind an operand.
	return p.afterOperand()
}

// afterOperand says whether the token before the current one ended an operand.
func (p *parser) afterOperand() bool {
	switch p.prevKind {
	case tokClose, tokUnbracket, tokString, tokNumber, tokParam, tokQuoted, tokUnicode:
		return true
	case tokWord:
		return !p.prev.reserved() || p.prev == kwNull || p.prev == kwTrue || p.prev == kwFalse || p.prev == kwEnd
	}
	return false
}

// typeName reads a type behind :: or AS, with its modifiers.
func (p *parser) typeName() bool {
	if !p.cur.isName() {
		return true
	}
	for p.peek.kind == tokDot {
		p.advance()
		if !p.peek.isName() {
			return false
		}
		p.advance()
	}
	p.typeCheck(p.cur)
	switch p.cur.kw {
	case kwCharacter, kwChar, kwNchar, kwNational, kwBit:
		for p.peek.kw == kwVarying || p.peek.kw == kwCharacter || p.peek.kw == kwChar {
			p.advance()
		}
	case kwSetof:
		p.advance()
		return p.typeName()
	}
	p.advance()
	if p.cur.kind == tokOpen {
		p.advance()
		return p.push(atSkip)
	}
	return true
}
