package router

// itemWord reads a word where an item of FROM must begin.
func (p *parser) itemWord() bool {
	f := &p.frames[p.depth]
	switch k := p.cur.kw; k {
	case kwLateral, kwOnly:
		p.advance()
		return true
	case kwRows:
		if p.peek.kw != kwFrom {
			return p.item()
		}
		p.advance()
		p.advance()
		if p.cur.kind != tokOpen {
			return false
		}
		f.place = atAfter
		p.advance()
		return p.push(atRows)
	case kwCurrentDate, kwCurrentTime, kwCurrentTimestamp, kwLocaltime, kwLocaltimestamp, kwCurrentRole,
		kwCurrentUser, kwSessionUser, kwSystemUser, kwUser, kwCurrentCatalog, kwCast:
		f.place = atAfter
		p.advance()
		if p.cur.kind != tokOpen {
			return k != kwCast
		}
		p.advance()
		return p.push(atFresh)
	case kwCurrentSchema:
		if p.peek.kind == tokOpen {
			return p.item()
		}
		f.place = atAfter
		p.advance()
		return true
	case kwInto, kwSelect:
		return false
	default:
		if k.reserved() {
			return false
		}
		return p.item()
	}
}

// item reads a relation or a function call in FROM.
func (p *parser) item() bool {
	f := &p.frames[p.depth]
	first, parts := p.cur, 1
	for p.peek.kind == tokDot {
		p.advance()
		if !p.peek.isName() {
			return false
		}
		p.advance()
		parts++
	}
	last := p.cur
	f.place = atAfter
	temporary := parts > 1 && p.isTempSchema(first)
	if temporary {
		p.raise(proofLocal, whyTemporary)
	}
	if p.peek.kind == tokOpen {
		c := called
		if parts == 1 && last.kind == tokWord && last.kw.construct() {
			c = calledOrNot
		}
		p.call(last, parts, c)
		p.advance()
		p.advance()
		return p.push(atFresh)
	}
	if !temporary {
		p.relation(first, last, parts)
	}
	p.advance()
	return true
}

// afterWord reads a word behind an item of FROM.
func (p *parser) afterWord() bool {
	f := &p.frames[p.depth]
	switch k := p.cur.kw; k {
	case kwAs:
		p.advance()
		if p.cur.kind == tokOpen {
			p.advance()
			return p.push(atSkip)
		}
		if !p.cur.isName() {
			return false
		}
		return p.alias()
	case kwLeft, kwRight, kwFull, kwInner, kwCross, kwNatural, kwOuter:
	case kwJoin:
		f.place = atItem
	case kwOn:
		f.place = atOn
	case kwUsing:
		p.advance()
		if p.cur.kind != tokOpen {
			return false
		}
		p.advance()
		return p.push(atSkip)
	case kwTablesample:
		return p.tableSample()
	case kwRepeatable: // behind TABLESAMPLE; as an alias of a function its columns are read alike
		if p.prevKind != tokClose || p.peek.kind != tokOpen {
			return p.alias()
		}
		p.advance()
		p.advance()
		return p.push(atFresh)
	case kwWith:
		if p.peek.kw != kwOrdinality {
			return false
		}
		p.advance()
	case kwWhere, kwGroup, kwHaving, kwWindow, kwOrder, kwLimit, kwOffset, kwFetch:
		f.grouping = k == kwGroup
		f.place = atExpr
	case kwFor:
		p.forClause()
		f.place = atExpr
	case kwUnion, kwIntersect, kwExcept:
		f.place = atStart
	case kwInto:
		f.place = atExpr
		return p.into()
	default:
		if !k.alias() {
			return false
		}
		return p.alias()
	}
	p.advance()
	return true
}

// alias reads an alias and the column names that may follow it.
func (p *parser) alias() bool {
	if p.peek.kind == tokOpen {
		p.call(p.cur, 1, calledOrNot)
	}
	p.advance()
	if p.cur.kind == tokOpen {
		p.advance()
		return p.push(atSkip)
	}
	return true
}

// tableSample reads TABLESAMPLE method (…); only the built-in methods are known.
func (p *parser) tableSample() bool {
	p.advance()
	if !p.cur.isName() {
		return false
	}
	var buf folded
	name, ok := p.name(p.cur, &buf)
	if !ok || string(name) != "bernoulli" && string(name) != "system" || p.peek.kind != tokOpen {
		p.doubt(whyUnknownFunction)
	}
	p.advance()
	if p.cur.kind != tokOpen {
		return false
	}
	p.advance()
	return p.push(atFresh)
}

// isTempSchema says whether the token is pg_temp or pg_temp_3.
func (p *parser) isTempSchema(t token) bool {
	if !t.isName() {
		return false
	}
	var buf folded
	name, ok := p.name(t, &buf)
	return ok && len(name) >= 7 && string(name[:7]) == "pg_temp" || t.kind == tokUnicode
}
