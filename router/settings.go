package router

import "strings"

// showStatement reads SHOW. The client believes that it talks to one server, whose name is the
// primary: what may be configured differently on each node is asked of the primary. What the
// session set itself is repeated on each server that it gets, and what all nodes of a cluster
// have in common needs no particular one.
func (p *parser) showStatement() {
	p.advance()
	var name string
	switch {
	case p.cur.kw == kwTime && p.peek.kw == kwZone:
		name = "timezone"
		p.advance()
		p.advance()
	case p.cur.kw == kwTransaction && p.peek.kw == kwIsolation:
		name = "transaction_isolation"
		p.skipRest()
	case p.cur.kw == kwSession && p.peek.kw == kwAuthorization:
		name = "session_authorization"
		p.skipRest()
	case p.cur.isName():
		name = p.parameterName()
	}
	if !p.atEnd() {
		p.raise(proofWrite, whyUnreadable)
		return
	}
	switch {
	case name == routeParameter:
		p.raise(proofNeutral, whySetting)
		p.effect(Effect{Kind: EffectShowRoute})
	case plainSetting([]byte(name)):
		p.raise(proofNeutral, whySetting)
	default:
		p.raise(proofLocal, whyLocalSetting)
	}
}

// plainSetting says whether a parameter (lower-case name) has the same value on whichever server
// the session is: it is tracked, or a property of the cluster, or made up by an application
// ("app.tenant": SET of it pins, so that here it is unset everywhere).
func plainSetting(name []byte) bool {
	switch string(name) {
	case "server_version", "server_version_num", "server_encoding", "integer_datetimes", "is_superuser",
		"session_authorization", "role", "lc_collate", "lc_ctype", "block_size", "wal_block_size", "segment_size",
		"max_identifier_length", "max_index_keys", "max_function_args", "data_checksums", "transaction_isolation":
		return true
	}
	for _, c := range name {
		if c == '.' {
			return true
		}
	}
	return tracked(name) != ""
}

// literal is the value of a simple SQL constant: a string without its quotes, or the word itself.
// What is not that simple comes back unchanged and matches nothing.
func literal(value string) string {
	value = strings.TrimSpace(value)
	if n := len(value); n >= 2 && value[0] == value[n-1] && (value[0] == '\'' || value[0] == '"') {
		if inner := value[1 : n-1]; !strings.ContainsAny(inner, `'"\`) {
			return inner
		}
	}
	return value
}

// isTrue reads a boolean parameter's value: any unambiguous beginning of true, yes, on, or 1.
// Everything else counts as false, which here is the careful answer.
func isTrue(v string) bool {
	v = foldString(v)
	switch {
	case v == "":
		return false
	case v == "on", v == "1":
		return true
	}
	return strings.HasPrefix("true", v) || strings.HasPrefix("yes", v)
}

// isWeakIsolation says whether the isolation level is one that a standby offers.
func isWeakIsolation(v string) bool {
	switch foldString(v) {
	case "read committed", "read uncommitted", "repeatable read":
		return true
	}
	return false
}
