package router

// Everything that ties a session to its server is decided in this file: which reasons there are,
// whether they outlive a rollback, and what ends them.

// Reasons of EffectPin; constants for SHOW PINS and metrics.
const (
	PinSetting       = "setting"               // SET of a parameter that is not tracked
	PinRole          = "role"                  // SET ROLE
	PinAuthorization = "session authorization" // SET SESSION AUTHORIZATION
	PinPrepared      = "sql prepare"           // PREPARE
	PinTemporary     = "temporary object"      // CREATE TEMP …, SELECT INTO TEMP
	PinListen        = "listen"                // LISTEN
	PinLock          = "advisory lock"         // pg_advisory_lock and the other session-level ones
	PinHold          = "cursor with hold"      // DECLARE … WITH HOLD
	PinLibrary       = "load"                  // LOAD; the server cannot be made clean again
	PinDo            = "do"                    // DO: its code may have done anything to the session
	PinSetConfig     = "set_config"            // set_config(…, false)
	PinSession       = "session function"      // dblink_connect, setseed, replication slots …
	PinUncertain     = "uncertain state"       // a turn failed half-way and left settings in doubt
)

// survivesRollback says whether what the pin is about stays when its transaction is rolled back.
func survivesRollback(reason string) bool {
	switch reason {
	case PinSetting, PinRole, PinAuthorization, PinTemporary, PinListen, PinHold, PinSetConfig:
		return false
	}
	return true
}

// survivesDiscardAll says whether DISCARD ALL leaves the pin in force.
func survivesDiscardAll(reason string) bool { return reason == PinLibrary }

// TrackedParameter says whether SET of the parameter (canonical lower-case name) is tracked by the
// session and repeated on its next server instead of pinning it. These are the parameters that
// drivers and ORMs set when they connect.
func TrackedParameter(name string) bool { return tracked([]byte(name)) != "" }

// tracked returns the canonical name of a tracked parameter, "" for any other.
func tracked(name []byte) string {
	switch string(name) {
	case "application_name":
		return "application_name"
	case "client_encoding":
		return "client_encoding"
	case "datestyle":
		return "datestyle"
	case "timezone":
		return "timezone"
	case "intervalstyle":
		return "intervalstyle"
	case "search_path":
		return "search_path"
	case "extra_float_digits":
		return "extra_float_digits"
	case "statement_timeout":
		return "statement_timeout"
	case "lock_timeout":
		return "lock_timeout"
	case "idle_in_transaction_session_timeout":
		return "idle_in_transaction_session_timeout"
	case "default_transaction_isolation":
		return "default_transaction_isolation"
	case "default_transaction_read_only":
		return "default_transaction_read_only"
	case "default_transaction_deferrable":
		return "default_transaction_deferrable"
	case "standard_conforming_strings":
		return "standard_conforming_strings"
	case "bytea_output":
		return "bytea_output"
	case "jit":
		return "jit"
	case "client_min_messages":
		return "client_min_messages"
	}
	return ""
}

// special judges the functions that act on the session itself, and says whether it knew the name.
// The name's token is the current one, its parenthesis the next.
func (p *parser) special(name []byte, parts int) bool {
	switch string(name) {
	case "pg_advisory_lock", "pg_try_advisory_lock":
		p.takeLock("exclusive", parts)
	case "pg_advisory_lock_shared", "pg_try_advisory_lock_shared":
		p.takeLock("shared", parts)
	case "pg_advisory_unlock":
		p.releaseLock("exclusive", parts)
	case "pg_advisory_unlock_shared":
		p.releaseLock("shared", parts)
	case "pg_advisory_unlock_all":
		p.raise(proofWrite, whyLock)
		if p.alone(parts) {
			p.effect(Effect{Kind: EffectUnpin, Name: PinLock})
		}
	case "set_config":
		if p.lastArgumentIsTrue() {
			p.doubt(whySetConfig) // ends with the transaction
			break
		}
		p.pin(PinSetConfig, "")
	case "setseed", "dblink_connect", "dblink_connect_u", "dblink_open", "pg_create_physical_replication_slot",
		"pg_create_logical_replication_slot", "pg_copy_physical_replication_slot", "pg_copy_logical_replication_slot",
		"pg_replication_origin_session_setup":
		p.pin(PinSession, "")
	case "current_setting":
		p.currentSetting()
	default:
		return false
	}
	return true
}

// ties says whether a function with one argument ties the session to its server, for (x).name.
func ties(name []byte) bool {
	switch string(name) {
	case "pg_advisory_lock", "pg_try_advisory_lock", "pg_advisory_lock_shared", "pg_try_advisory_lock_shared",
		"setseed", "dblink_connect", "dblink_connect_u", "pg_create_physical_replication_slot",
		"pg_replication_origin_session_setup":
		return true
	}
	return false
}

// sessionCall looks for those functions in a statement that is not otherwise understood.
func (p *parser) sessionCall(t token) {
	if t.kind == tokUnicode {
		p.effect(Effect{Kind: EffectPin, Name: PinUncertain})
	}
	var buf folded
	if name, ok := p.name(t, &buf); ok && len(name) >= len("setseed") {
		p.words = 0 // the call is not alone in its statement
		p.special(name, 1)
	}
}

// pin ties the session to its server; what does so goes to the primary, because whatever follows
// must find the same server.
func (p *parser) pin(reason, about string) {
	p.raise(proofWrite, whySession)
	p.effect(Effect{Kind: EffectPin, Name: reason, Value: about})
}

// takeLock pins for a session-level advisory lock. When the statement is nothing but the one call
// with constants, the pin says which lock, so that the same unlock can end it.
func (p *parser) takeLock(mode string, parts int) {
	p.raise(proofWrite, whyLock)
	about := ""
	if key := p.constantArguments(); key != "" && p.alone(parts) {
		about = mode + " " + key
	}
	p.effect(Effect{Kind: EffectPin, Name: PinLock, Value: about})
}

func (p *parser) releaseLock(mode string, parts int) {
	p.raise(proofWrite, whyLock)
	if key := p.constantArguments(); key != "" && p.alone(parts) {
		p.effect(Effect{Kind: EffectUnpin, Name: PinLock, Value: mode + " " + key})
	}
}

// alone says whether the statement is SELECT and this one call, so that it is executed exactly
// once if the statement succeeds.
func (p *parser) alone(parts int) bool {
	if p.words != 2*parts {
		return false
	}
	look, depth := p.lex, 1
	for depth > 0 {
		switch look.next().kind {
		case tokOpen:
			depth++
		case tokClose:
			depth--
		case tokEnd, tokBad:
			return false
		}
	}
	t := look.next()
	if t.kw == kwAs {
		t = look.next()
	}
	if t.isName() && !t.kw.reserved() {
		t = look.next()
	}
	return t.kind == tokEnd || t.kind == tokSemicolon
}

// constantArguments is the arguments of the call without blanks and casts, when they are numbers
// only; "" otherwise.
func (p *parser) constantArguments() string {
	look := p.lex
	key := make([]byte, 0, 48)
	for len(key) < 44 {
		t := look.next()
		switch t.kind {
		case tokClose:
			return string(key)
		case tokNumber, tokComma:
			key = append(key, p.raw[t.start:t.end]...)
		case tokOperator:
			if p.raw[t.start] != '-' {
				return ""
			}
			key = append(key, '-')
		case tokCast:
			if !look.next().isName() {
				return ""
			}
		default:
			return ""
		}
	}
	return ""
}

// lastArgumentIsTrue says whether the call's last argument is the word TRUE and nothing else.
func (p *parser) lastArgumentIsTrue() bool {
	look, depth := p.lex, 1
	var last [2]token // of the current argument: its first token, and how many as kind
	n := 0
	for range 512 { // nested calls are looked at again and again
		t := look.next()
		switch t.kind {
		case tokOpen, tokBracket:
			depth++
		case tokClose, tokUnbracket:
			depth--
			if depth == 0 {
				return n == 1 && last[0].kw == kwTrue
			}
		case tokEnd, tokBad:
			return false
		case tokComma:
			if depth == 1 {
				n = 0
				continue
			}
		}
		if n == 0 {
			last[0] = t
		}
		n++
	}
	return false
}

// currentSetting judges current_setting('name'): like SHOW, when the name is a constant.
func (p *parser) currentSetting() {
	look := p.lex
	t, next := look.next(), look.next()
	b := p.raw[t.start:t.end]
	if t.kind != tokString || b[0] != '\'' || next.kind != tokClose && next.kind != tokComma {
		p.raise(proofLocal, whyLocalSetting)
		return
	}
	var buf folded
	name, ok := fold(p.raw, token{kind: tokWord, start: t.start + 1, end: t.end - 1}, &buf)
	if !ok || !plainSetting(name) {
		p.raise(proofLocal, whyLocalSetting)
	}
}
