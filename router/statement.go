package router

// statement reads one statement by its first word.
func (p *parser) statement() {
	switch p.cur.kw {
	case kwSelect, kwWith, kwValues, kwTable:
		p.read(whySelect)
	case kwNone:
		if p.cur.kind == tokOpen {
			p.read(whySelect)
			return
		}
		p.raise(proofWrite, whyUnreadable)
	case kwInsert, kwUpdate, kwDelete, kwMerge, kwTruncate:
		p.raise(proofWrite, whyWrite)
	case kwBegin, kwStart, kwCommit, kwEnd, kwRollback, kwAbort, kwSavepoint, kwRelease:
		p.transactionStatement()
	case kwSet:
		p.setStatement()
	case kwReset:
		p.resetStatement()
	case kwShow:
		p.showStatement()
	case kwDiscard:
		p.discard()
	case kwPrepare, kwExecute, kwDeallocate:
		p.preparedStatement()
	case kwDeclare, kwFetch, kwMove, kwClose:
		p.cursorStatement()
	case kwExplain:
		p.explain()
	case kwCopy:
		p.copyStatement()
	default:
		p.otherStatement()
	}
}

// read reads a query that makes up the rest of the statement.
func (p *parser) read(why string) {
	if p.query() && p.atEnd() {
		p.proved(why)
		return
	}
	p.raise(proofWrite, whyUnreadable)
}

// proved notes that a query was understood to its end.
func (p *parser) proved(why string) {
	if p.know.implicit {
		p.doubt(whyVolatileCast)
	}
	p.raise(proofRead, why)
}

func (p *parser) otherStatement() {
	first := p.cur.kw
	switch first {
	case kwListen, kwUnlisten, kwNotify:
		p.listen()
	case kwLoad:
		p.pin(PinLibrary, "")
	case kwDo:
		p.pin(PinDo, "")
	case kwCall:
		p.raise(proofWrite, whyCall)
	case kwCreate:
		p.create()
	case kwAlter, kwDrop, kwImport, kwReassign:
		p.raise(proofWrite, whyDDL)
		p.effect(Effect{Kind: EffectDDL})
	case kwGrant, kwRevoke, kwComment, kwSecurity:
		p.raise(proofWrite, whyDDL)
	case kwVacuum, kwAnalyze, kwAnalyse, kwCluster, kwReindex, kwCheckpoint, kwRefresh:
		p.raise(proofWrite, whyMaintain)
	case kwLock:
		p.raise(proofWrite, whyStatement)
	default:
		p.raise(proofWrite, whyUnreadable)
	}
}

func (p *parser) listen() {
	first := p.cur.kw
	p.advance()
	channel := ""
	if p.cur.isName() {
		channel = p.string(p.cur)
	}
	switch first {
	case kwListen:
		p.pin(PinListen, channel)
	case kwUnlisten:
		p.raise(proofWrite, whySession)
		p.effect(Effect{Kind: EffectUnpin, Name: PinListen, Value: channel}) // "" is UNLISTEN *
	default:
		p.raise(proofWrite, "notify")
	}
}

// creation is what CREATE shows of itself while it is read.
type creation struct {
	routine   bool // FUNCTION or PROCEDURE
	temporary bool
	dropped   bool // ON COMMIT DROP: a temporary table that leaves nothing behind
	depth     int  // of parentheses
	body      int  // of BEGIN ATOMIC and CASE
}

// create reads CREATE up to the statement's end. Two things in it may deceive: something temporary
// pins the session, and the body of an SQL function (BEGIN ATOMIC … END) has semicolons.
func (p *parser) create() {
	p.raise(proofWrite, whyDDL)
	p.advance()
	var c creation
	for p.cur.kind != tokEnd && p.cur.kind != tokBad {
		if p.cur.kind == tokSemicolon {
			if c.depth <= 0 && c.body == 0 {
				break
			}
			p.peek = p.lex.next()
		}
		p.creating(&c)
		p.advance()
	}
	switch {
	case c.temporary && !c.dropped:
		p.pin(PinTemporary, "")
	case !c.temporary:
		p.effect(Effect{Kind: EffectDDL})
	}
}

// creating looks at one token of CREATE.
func (p *parser) creating(c *creation) {
	switch p.cur.kind {
	case tokOpen:
		c.depth++
	case tokClose:
		c.depth--
	}
	switch p.cur.kw {
	case kwFunction, kwProcedure:
		c.routine = c.routine || p.prev == kwCreate || p.prev == kwReplace
	case kwTemp, kwTemporary:
		c.temporary = c.temporary || p.prev == kwCreate || p.prev == kwReplace || p.prev == kwLocal || p.prev == kwGlobal
	case kwAtomic:
		if c.routine && p.prev == kwBegin && c.body == 0 {
			c.body = 1
		}
	case kwCase:
		if c.body > 0 {
			c.body++
		}
	case kwEnd:
		if c.body > 0 {
			c.body--
		}
	case kwDrop:
		c.dropped = c.dropped || p.prev == kwCommit && p.prev2 == kwOn
	}
	if p.peek.kind == tokDot && p.isTempSchema(p.cur) {
		c.temporary = true
	}
	if p.peek.kind == tokOpen && p.cur.isName() {
		p.sessionCall(p.cur) // CREATE TABLE … AS SELECT pg_advisory_lock(…)
	}
}

// cursorStatement reads DECLARE, FETCH, MOVE and CLOSE. Without WITH HOLD they only work in a
// transaction, whose own route counts.
func (p *parser) cursorStatement() {
	first := p.cur.kw
	p.stmt.retry = RetryNever
	p.advance()
	switch first {
	case kwFetch, kwMove:
		p.raise(proofRead, whyCursor)
		return
	case kwClose:
		p.raise(proofRead, whyCursor)
		about := ""
		if p.cur.isName() && p.cur.kw != kwAll {
			about = p.string(p.cur)
		}
		p.effect(Effect{Kind: EffectUnpin, Name: PinHold, Value: about})
		return
	}
	name := p.cur
	if !name.isName() {
		p.raise(proofWrite, whyUnreadable)
		return
	}
	p.advance()
	for p.cur.kw != kwFor && !p.atEnd() {
		if p.cur.kw == kwHold && p.prev == kwWith {
			p.pin(PinHold, p.string(name))
		}
		p.advance()
	}
	p.advance()
	p.read(whyCursor)
}

// explain reads EXPLAIN of a query; of anything else it goes to the primary, even when it would
// only be planned.
func (p *parser) explain() {
	p.advance()
	if p.cur.kind == tokOpen && !p.opensQuery() {
		for p.cur.kind != tokClose && !p.atEnd() {
			p.advance()
		}
		p.advance()
	}
	for p.cur.kw == kwAnalyze || p.cur.kw == kwAnalyse || p.cur.kw == kwVerbose {
		p.advance()
	}
	switch p.cur.kw {
	case kwSelect, kwWith, kwValues, kwTable:
		p.read(whyExplain)
		return
	case kwDeclare:
		p.raise(proofDoubt, whyExplain)
		return
	case kwNone:
		if p.cur.kind == tokOpen {
			p.read(whyExplain)
			return
		}
	}
	p.raise(proofWrite, whyExplain)
}

// opensQuery says whether the parenthesis at the current token begins a query.
func (p *parser) opensQuery() bool {
	switch p.peek.kw {
	case kwSelect, kwWith, kwValues, kwTable:
		return true
	}
	return p.peek.kind == tokOpen
}

// copyStatement reads COPY (query) TO STDOUT and COPY table [(columns)] TO STDOUT; COPY FROM and
// files on the server are writes.
func (p *parser) copyStatement() {
	p.stmt.retry = min(p.stmt.retry, RetryRefused) // rows may have been sent; the machine knows
	p.advance()
	p.accept(kwBinary)
	understood := false
	if p.cur.kind == tokOpen {
		p.advance()
		understood = p.query() && p.cur.kind == tokClose
		if understood {
			p.advance()
		}
	} else {
		understood = p.copyTable()
	}
	// STDIN and STDOUT may stand for each other; the direction is in TO and FROM.
	client := p.peek.kw == kwStdout || p.peek.kw == kwStdin
	switch {
	case understood && client && p.cur.kw == kwTo:
		p.stmt.copy = CopyOut
		p.proved(whyCopyOut)
	case understood && client && p.cur.kw == kwFrom:
		p.stmt.copy = CopyIn
		p.raise(proofWrite, whyWrite)
	default:
		p.raise(proofWrite, whyWrite)
		p.stmt.copy = p.copyDirection()
	}
}

// copyDirection looks ahead for the direction of a COPY whose query was not understood.
func (p *parser) copyDirection() CopyFlags {
	look, was, is := p.lex, p.cur, p.peek
	for was.kind != tokEnd && was.kind != tokSemicolon && is.kind != tokBad {
		if is.kw == kwStdout || is.kw == kwStdin {
			switch was.kw {
			case kwTo:
				return CopyOut
			case kwFrom:
				return CopyIn
			}
		}
		was = is
		if was.kind != tokEnd && was.kind != tokSemicolon {
			is = look.next()
		}
	}
	return 0
}

// copyTable reads the relation of COPY and its columns.
func (p *parser) copyTable() bool {
	if !p.cur.isName() || p.cur.kw.reserved() {
		return false
	}
	first, parts := p.cur, 1
	for p.peek.kind == tokDot {
		p.advance()
		if !p.peek.isName() {
			return false
		}
		p.advance()
		parts++
	}
	if parts > 1 && p.isTempSchema(first) {
		p.raise(proofLocal, whyTemporary)
	} else {
		p.relation(first, p.cur, parts)
	}
	p.advance()
	if p.cur.kind != tokOpen {
		return true
	}
	for p.cur.kind != tokClose {
		if p.atEnd() {
			return false
		}
		p.advance()
	}
	p.advance()
	return true
}
