package router

import "bytes"

// scope is how long a SET holds.
type scope uint8

const (
	scopeSession scope = iota
	scopeLocal
)

// setStatement reads SET in all its forms.
func (p *parser) setStatement() {
	p.advance()
	sc := scopeSession
	switch {
	case p.namesParameter():
	case p.cur.kw == kwLocal:
		sc = scopeLocal
		p.advance()
	case p.cur.kw == kwSession:
		switch p.peek.kw {
		case kwCharacteristics:
			p.sessionCharacteristics()
			return
		case kwAuthorization:
		default:
			p.advance()
		}
	}
	if p.namesParameter() {
		p.setParameter(sc)
		return
	}
	switch p.cur.kw {
	case kwTransaction:
		p.setTransaction()
	case kwConstraints:
		p.stmt.retry = RetryNever
		p.raise(proofNeutral, whyTxControl)
	case kwSession: // AUTHORIZATION
		p.advance()
		p.advance()
		p.setPinned(sc, PinAuthorization)
	case kwRole:
		p.advance()
		p.setPinned(sc, PinRole)
	case kwXml:
		p.setPinned(sc, PinSetting)
	case kwTime:
		p.advance()
		p.accept(kwZone)
		p.setTimeZone(sc)
	case kwSchema:
		p.advance()
		p.set(sc, "search_path")
	case kwNames:
		p.advance()
		p.set(sc, "client_encoding")
	default:
		p.setParameter(sc)
	}
}

// namesParameter says whether the current word is a parameter's name or its beginning, not a key
// word of SET: applications have parameters like session.user_id.
func (p *parser) namesParameter() bool {
	return p.peek.kind == tokDot || p.peek.kw == kwTo ||
		p.peek.kind == tokOperator && p.peek.end-p.peek.start == 1 && p.raw[p.peek.start] == '='
}

// sessionCharacteristics reads SET SESSION CHARACTERISTICS AS TRANSACTION, which sets the
// parameters default_transaction_….
func (p *parser) sessionCharacteristics() {
	p.advance() // SESSION
	p.advance() // CHARACTERISTICS
	p.accept(kwAs)
	p.accept(kwTransaction)
	m := p.modes()
	if m&(ModeReadOnly|ModeReadWrite) == ModeReadOnly|ModeReadWrite || m&ModeSerializable != 0 && m&(ModeRepeatableRead|ModeReadCommitted) != 0 {
		p.pin(PinSetting, "") // which of the two counts is not kept
		return
	}
	p.raise(proofNeutral, whySetting)
	set := func(mode Modes, name, value string) {
		if m&mode != 0 {
			p.effect(Effect{Kind: EffectSet, Name: name, Value: value})
		}
	}
	set(ModeSerializable, "default_transaction_isolation", "'serializable'")
	set(ModeRepeatableRead, "default_transaction_isolation", "'repeatable read'")
	set(ModeReadCommitted, "default_transaction_isolation", "'read committed'")
	set(ModeReadOnly, "default_transaction_read_only", "on")
	set(ModeReadWrite, "default_transaction_read_only", "off")
	set(ModeDeferrable, "default_transaction_deferrable", "on")
	set(ModeNotDeferrable, "default_transaction_deferrable", "off")
	if !p.atEnd() {
		p.raise(proofWrite, whyUnreadable)
	}
}

func (p *parser) setTransaction() {
	p.stmt.retry = RetryNever
	p.advance()
	m := Modes(0)
	if p.cur.kw == kwSnapshot {
		m = ModeSnapshot
		p.skipRest()
	} else {
		m = p.modes()
	}
	p.raise(proofStart, whyTxControl)
	p.effect(Effect{Kind: EffectSetTransaction, Modes: m})
	if !p.atEnd() {
		p.raise(proofWrite, whyUnreadable)
	}
}

// setPinned reads the value of a setting that pins, behind its name.
func (p *parser) setPinned(sc scope, reason string) {
	_ = p.accept(kwTo) || p.acceptEquals() // SET role TO x is SET ROLE x
	switch {
	case sc == scopeLocal:
		p.stmt.retry = RetryNever
		p.raise(proofNeutral, whySetting)
		p.effect(Effect{Kind: EffectSetLocal})
	case p.cur.kw == kwDefault:
		p.raise(proofNeutral, whySetting)
		p.effect(Effect{Kind: EffectUnpin, Name: reason})
	default:
		p.pin(reason, "")
	}
}

// setTimeZone reads the value of SET TIME ZONE.
func (p *parser) setTimeZone(sc scope) {
	switch {
	case p.cur.kw == kwLocal && sc == scopeSession:
		p.raise(proofNeutral, whySetting)
		p.effect(Effect{Kind: EffectReset, Name: "timezone"})
		p.advance()
	case p.cur.kw == kwInterval && sc == scopeSession:
		p.pin(PinSetting, "timezone") // SET timezone TO cannot repeat it
	default:
		p.set(sc, "timezone")
	}
}

// setParameter reads SET name TO value, the name being one that the grammar does not know.
func (p *parser) setParameter(sc scope) {
	if !p.cur.isName() {
		p.raise(proofWrite, whyUnreadable)
		return
	}
	name := p.parameterName()
	if !p.accept(kwTo) && !p.acceptEquals() {
		p.raise(proofWrite, whyUnreadable)
		return
	}
	p.set(sc, name)
}

// acceptEquals advances over an equals sign.
func (p *parser) acceptEquals() bool {
	if p.cur.kind != tokOperator || p.cur.end-p.cur.start != 1 || p.raw[p.cur.start] != '=' {
		return false
	}
	p.advance()
	return true
}

// parameterName reads a parameter's name, in lower case: names of parameters are compared without
// regard to case, quoted or not. Some are written differently in SET and in SHOW.
func (p *parser) parameterName() string {
	name := foldString(p.string(p.cur))
	p.advance()
	for p.cur.kind == tokDot && p.peek.isName() {
		p.advance()
		name += "." + foldString(p.string(p.cur))
		p.advance()
	}
	return name
}

// set notes a SET whose value begins at the current token.
func (p *parser) set(sc scope, name string) {
	start := p.cur
	from, to := int(p.cur.start), int(p.cur.start)
	for !p.atEnd() {
		to = int(p.cur.end)
		p.advance()
	}
	value := p.raw[from:to]
	isDefault := start.kw == kwDefault || len(value) == 0 // SET NAMES alone
	if m, known := transactionParameter(name, value); known {
		p.stmt.retry = RetryNever
		if isDefault {
			p.raise(proofDoubt, whyTxControl)
			return
		}
		p.raise(proofStart, whyTxControl)
		p.effect(Effect{Kind: EffectSetTransaction, Modes: m})
		return
	}
	switch {
	case sc == scopeLocal:
		p.stmt.retry = RetryNever
		p.raise(proofNeutral, whySetting)
		p.effect(Effect{Kind: EffectSetLocal, Name: name, Value: string(value)})
	case isDefault:
		p.reset(name)
	case name == routeParameter:
		p.setRoute(value)
	case name == "role":
		p.pin(PinRole, "")
	case name == "session_authorization":
		p.pin(PinAuthorization, "")
	case tracked([]byte(name)) == "" || !repeatable(name, value):
		p.pin(PinSetting, name)
	default:
		p.raise(proofNeutral, whySetting)
		p.effect(Effect{Kind: EffectSet, Name: name, Value: string(value)})
	}
}

// routeParameter is the setting that no server knows.
const routeParameter = "cstproxy.route"

func (p *parser) setRoute(value []byte) {
	choice, ok := ParseRouteChoice(literal(string(value)))
	if !ok {
		p.raise(proofNeutral, whySetting)
		p.effect(Effect{Kind: EffectRoute, Value: literal(string(value))}) // the proxy refuses it
		return
	}
	p.raise(proofNeutral, whySetting)
	p.effect(Effect{Kind: EffectRoute, Value: choice.String()})
}

// repeatable says whether "SET name TO value" means the same on another server at another time. A
// backslash depends on standard_conforming_strings; pg_temp in the search path makes plain CREATE
// TABLE temporary.
func repeatable(name string, value []byte) bool {
	if bytes.IndexByte(value, '\\') >= 0 {
		return false
	}
	return name != "search_path" || !bytes.Contains(bytes.ToLower(value), []byte("pg_temp"))
}

// transactionParameter recognises the parameters that are in truth modes of the transaction.
func transactionParameter(name string, value []byte) (Modes, bool) {
	v := literal(string(value))
	switch name {
	case "transaction_read_only":
		if isTrue(v) {
			return ModeReadOnly, true
		}
		return ModeReadWrite, true
	case "transaction_isolation":
		if isWeakIsolation(v) {
			return ModeRepeatableRead, true
		}
		return ModeSerializable, true
	case "transaction_deferrable":
		return ModeDeferrable, true
	}
	return 0, false
}

func (p *parser) resetStatement() {
	p.advance()
	first := p.cur.kw
	if p.peek.kind == tokDot {
		first = kwNone
	}
	switch first {
	case kwAll:
		p.raise(proofNeutral, whySetting)
		p.effect(Effect{Kind: EffectResetAll})
		p.effect(Effect{Kind: EffectUnpin, Name: PinSetting})
		p.advance()
	case kwTime:
		p.advance()
		p.accept(kwZone)
		p.reset("timezone")
	case kwTransaction:
		p.raise(proofDoubt, whyTxControl)
		p.stmt.retry = RetryNever
		p.skipRest()
	case kwSession:
		p.raise(proofNeutral, whySetting)
		p.effect(Effect{Kind: EffectUnpin, Name: PinAuthorization})
		p.skipRest()
	default:
		if !p.cur.isName() {
			p.raise(proofWrite, whyUnreadable)
			return
		}
		p.reset(p.parameterName())
	}
	if !p.atEnd() {
		p.raise(proofWrite, whyUnreadable)
	}
}

// reset notes that a parameter goes back to what the session started with.
func (p *parser) reset(name string) {
	if _, transaction := transactionParameter(name, nil); transaction {
		p.raise(proofDoubt, whyTxControl)
		p.stmt.retry = RetryNever
		return
	}
	p.raise(proofNeutral, whySetting)
	switch {
	case name == routeParameter:
		p.effect(Effect{Kind: EffectRoute})
	case name == "role":
		p.effect(Effect{Kind: EffectUnpin, Name: PinRole})
	case name == "session_authorization":
		p.effect(Effect{Kind: EffectUnpin, Name: PinAuthorization})
	default:
		if tracked([]byte(name)) != "" {
			p.effect(Effect{Kind: EffectReset, Name: name})
		}
		p.effect(Effect{Kind: EffectUnpin, Name: PinSetting, Value: name})
	}
}

func (p *parser) discard() {
	p.stmt.retry = RetryNever
	p.advance()
	switch k := p.cur.kw; k {
	case kwAll:
		p.raise(proofNeutral, whySetting)
		p.effect(Effect{Kind: EffectDiscardAll})
	case kwTemp, kwTemporary:
		p.raise(proofWrite, whySession)
		p.effect(Effect{Kind: EffectDiscard, Name: "temp"})
		p.effect(Effect{Kind: EffectUnpin, Name: PinTemporary})
	case kwPlans, kwSequences:
		p.raise(proofNeutral, whySetting)
		name := "plans"
		if k == kwSequences {
			name = "sequences"
		}
		p.effect(Effect{Kind: EffectDiscard, Name: name})
	default:
		p.raise(proofWrite, whyUnreadable)
		return
	}
	p.advance()
}
