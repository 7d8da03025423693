package proxy

import "github.com/jackc/pgproto3/v2"

// say appends a message of the proxy's own. pgproto3 v2 is used here only, and only to encode: its
// decoders trust what they read. Encode fails on a field that does not fit its length prefix; the
// messages built here are bounded, so that cannot happen, and nothing is sent if it does.
func say(dst []byte, m pgproto3.BackendMessage) []byte {
	out, err := m.Encode(dst)
	if err != nil {
		return dst
	}
	return out
}

func sayError(dst []byte, r *refusal) []byte {
	return say(dst, &pgproto3.ErrorResponse{Severity: r.severity, SeverityUnlocalized: r.severity, Code: r.code,
		Message: r.message, Detail: r.detail, Hint: r.hint})
}

func sayOK(dst []byte) []byte { return say(dst, &pgproto3.AuthenticationOk{}) }

func sayMechanisms(dst []byte, names ...string) []byte {
	return say(dst, &pgproto3.AuthenticationSASL{AuthMechanisms: names})
}

func sayContinue(dst, data []byte) []byte {
	return say(dst, &pgproto3.AuthenticationSASLContinue{Data: data})
}

func sayFinal(dst, data []byte) []byte {
	return say(dst, &pgproto3.AuthenticationSASLFinal{Data: data})
}
