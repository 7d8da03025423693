package router

// transactionStatement reads what begins, ends or divides a transaction.
func (p *parser) transactionStatement() {
	first := p.cur.kw
	p.stmt.retry = RetryNever
	p.advance()
	switch first {
	case kwBegin, kwStart:
		if !p.accept(kwTransaction) && first == kwBegin {
			p.accept(kwWork)
		}
		modes := p.modes()
		p.raise(proofStart, whyBegin)
		p.effect(Effect{Kind: EffectBegin, Modes: modes})
	case kwSavepoint:
		p.savepoint(EffectSavepoint)
	case kwRelease:
		p.accept(kwSavepoint)
		p.savepoint(EffectRelease)
	default:
		p.endTransaction(first)
	}
	if !p.atEnd() {
		p.raise(proofWrite, whyUnreadable)
	}
}

// endTransaction reads COMMIT, END, ROLLBACK and ABORT with what may follow.
func (p *parser) endTransaction(first keyword) {
	if p.cur.kw == kwPrepared {
		p.raise(proofWrite, whyStatement) // COMMIT PREPARED has no effect on this session
		p.skipRest()
		return
	}
	p.raise(proofNeutral, whyTxControl)
	if !p.accept(kwWork) {
		p.accept(kwTransaction)
	}
	kind := EffectCommit
	if first == kwRollback || first == kwAbort {
		kind = EffectRollback
		if p.accept(kwTo) {
			p.accept(kwSavepoint)
			p.savepoint(EffectRollbackTo)
			return
		}
	}
	e := Effect{Kind: kind}
	if p.accept(kwAnd) {
		if !p.accept(kwNo) {
			e.Modes = ModeChain
		}
		p.accept(kwChain)
	}
	p.effect(e)
}

func (p *parser) savepoint(kind EffectKind) {
	p.raise(proofNeutral, whyTxControl)
	switch {
	case p.cur.isName():
		p.effect(Effect{Kind: kind, Name: p.string(p.cur)})
		p.advance()
	case kind != EffectSavepoint: // ROLLBACK TO savepoint: it is its name
		p.effect(Effect{Kind: kind, Name: "savepoint"})
	}
}

// modes reads transaction modes. Of two that contradict each other the last counts for the server,
// but a standby refuses READ WRITE and SERIALIZABLE even when they are taken back: those stay.
func (p *parser) modes() Modes {
	const access, isolation, deferral = ModeReadOnly | ModeReadWrite,
		ModeRepeatableRead | ModeReadCommitted, ModeDeferrable | ModeNotDeferrable
	var m Modes
	set := func(group, mode Modes) { m = m&^group | mode }
	for {
		switch p.cur.kw {
		case kwRead:
			p.advance()
			switch {
			case p.accept(kwOnly):
				m |= ModeReadOnly
			case p.accept(kwWrite):
				set(access, ModeReadWrite)
			default:
				return m
			}
		case kwIsolation:
			p.advance()
			p.accept(kwLevel)
			switch {
			case p.accept(kwSerializable):
				set(isolation, ModeSerializable)
			case p.accept(kwRepeatable):
				set(isolation, ModeRepeatableRead)
				p.accept(kwRead)
			case p.accept(kwRead):
				set(isolation, ModeReadCommitted)
				_ = p.accept(kwCommitted) || p.accept(kwUncommitted)
			default:
				set(isolation, ModeSerializable) // unknown: the one that a standby refuses
				return m
			}
		case kwDeferrable:
			p.advance()
			set(deferral, ModeDeferrable)
		case kwNot:
			p.advance()
			p.accept(kwDeferrable)
			set(deferral, ModeNotDeferrable)
		default:
			if p.cur.kind != tokComma {
				return m
			}
			p.advance()
		}
	}
}

// preparedStatement reads PREPARE, EXECUTE and DEALLOCATE.
func (p *parser) preparedStatement() {
	first := p.cur.kw
	p.advance()
	switch first {
	case kwExecute:
		p.raise(proofWrite, whyExecute)
		return
	case kwPrepare:
		if p.cur.kw == kwTransaction && p.peek.kind == tokString {
			p.raise(proofWrite, whyTxControl)
			p.effect(Effect{Kind: EffectPrepareTransaction})
			return
		}
		about := ""
		if p.cur.isName() {
			about = p.string(p.cur)
		}
		p.pin(PinPrepared, about)
		return
	}
	p.stmt.retry = RetryNever
	if p.cur.kw == kwPrepare && p.peek.isName() {
		p.advance()
	}
	p.raise(proofNeutral, whySetting)
	switch {
	case p.cur.kw == kwAll:
		p.effect(Effect{Kind: EffectDeallocateAll})
		p.advance()
	case p.cur.isName():
		p.effect(Effect{Kind: EffectDeallocate, Name: p.string(p.cur)})
		p.advance()
	}
}
