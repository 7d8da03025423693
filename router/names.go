package router

// call judges a call of the function named by last.
func (p *parser) call(last token, parts int, sure certainty) {
	var buf folded
	name, ok := p.name(last, &buf)
	if !ok {
		if last.kind == tokUnicode { // maybe set_config
			p.raise(proofWrite, whyUnknownFunction)
			p.effect(Effect{Kind: EffectPin, Name: PinUncertain})
		}
		if sure == called {
			p.doubt(whyUnknownFunction)
			p.stmt.unknown = true
		}
		return
	}
	p.note("function ", name)
	if p.special(name, parts) {
		return
	}
	flags, known := p.know.functions[string(name)]
	if known {
		p.judge(flags)
		return
	}
	if sure == called {
		p.doubt(whyUnknownFunction)
		p.stmt.unknown = true
	}
}

// judge raises the statement by what a function may do.
func (p *parser) judge(flags functionFlags) {
	switch {
	case flags == 0 || flags == oneArgument:
	case flags&actsOutside != 0:
		p.raise(proofDoubt, whyOutside)
		p.stmt.retry = RetryNever
	case flags&nodeLocal != 0:
		p.raise(proofLocal, whyLocalFunction)
	case flags&writes != 0:
		p.doubt(whyVolatile)
	}
}

// attributeCheck judges the last part of "x.name", which may mean name(x).
func (p *parser) attributeCheck(last token) {
	var buf folded
	name, ok := p.name(last, &buf)
	if !ok {
		if len(p.know.fields) > 0 && last.kind == tokUnicode {
			p.doubt(whyUnknownFunction)
		}
		return
	}
	if flags, bad := p.know.fields[string(name)]; bad {
		p.note("function ", name)
		p.judge(flags)
		if ties(name) {
			p.pin(PinSession, "")
		}
	}
}

// relation judges a relation in FROM.
func (p *parser) relation(first, last token, parts int) {
	if parts == 1 && p.isCTE(last) {
		return
	}
	var buf folded
	name, ok := p.name(last, &buf)
	if !ok {
		p.unknownRelation()
		return
	}
	p.note("relation ", name)
	flags, known := p.know.relations[string(name)]
	if !known && !p.know.offline {
		p.unknownRelation()
	}
	switch {
	case flags == 0:
	case flags&isSequence != 0:
		p.raise(proofLocal, whySequence)
	case flags&isForeign != 0:
		p.raise(proofDoubt, whyForeign)
		p.stmt.retry = RetryNever
	case flags&isUnlogged != 0:
		p.doubt(whyUnlogged)
	case flags&isWriting != 0:
		p.doubt(whyWritingView)
	case flags&isLocal != 0:
		p.raise(proofLocal, whyLocalRelation)
	}
	if p.env.Rules != nil {
		p.ruleOn(first, name, parts)
	}
}

func (p *parser) unknownRelation() {
	p.doubt(whyUnknownRelation)
	p.stmt.unknown = true
}

// ruleOn applies the rules on tables: primary wins, standby holds when it holds for every relation
// of the statement.
func (p *parser) ruleOn(first token, name []byte, parts int) {
	bare := string(name) // a copy: regexp makes its argument escape, and name is on the stack
	choice, hit := p.env.Rules.choice(bare)
	if !hit && parts > 1 {
		choice, _ = p.env.Rules.choice(p.string(first) + "." + bare)
	}
	s := &p.stmt
	switch {
	case s.rule == ChoosePrimary || choice == ChoosePrimary:
		s.rule = ChoosePrimary
	case choice == ChooseStandby && (s.ruled == 0 || s.rule == ChooseStandby):
		s.rule = ChooseStandby
	default:
		s.rule = ChooseAuto
	}
	s.ruled++
}

// operatorName judges an operator; ordinary databases have none that may write.
func (p *parser) operatorName(t token) {
	if len(p.know.operators) == 0 {
		return
	}
	if _, bad := p.know.operators[string(p.raw[t.start:t.end])]; bad {
		p.doubt(whyVolatileOperator)
	}
}

// typeCheck judges a type that a value is made of.
func (p *parser) typeCheck(t token) {
	if len(p.know.types) == 0 {
		return
	}
	var buf folded
	name, ok := p.name(t, &buf)
	if !ok {
		p.doubt(whyVolatileType)
		return
	}
	if why, bad := p.know.types[string(name)]; bad {
		p.doubt(why)
	}
}

// note records for explain that a name was looked at.
func (p *parser) note(kind string, name []byte) {
	if p.trace != nil {
		p.trace.look(kind, string(name))
	}
}
