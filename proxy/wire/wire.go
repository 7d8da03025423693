// Package wire knows PostgreSQL's message framing: where a message begins and ends, how large it
// may be, and where the few fields lie that the proxy reads itself. It works on bytes that the
// caller owns: no sockets, no copies, no allocation per message. Every length is checked before
// it is used; a message that lies about its length is an error, never a panic.
package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// Limits of the protocol, in bytes.
const (
	// HeaderSize is type byte and length.
	HeaderSize = 5
	// MaxMessage is the largest message PostgreSQL itself accepts or sends (1 GiB - 1, its
	// palloc limit MaxAllocSize), type byte not counted.
	MaxMessage = 0x3fffffff
	// MaxStartup is the largest start-up packet (MAX_STARTUP_PACKET_LENGTH of PostgreSQL).
	MaxStartup = 10000
	// MaxBeforeLogin bounds every other message of a client that has not logged in.
	MaxBeforeLogin = 64 << 10
)

// ErrLength is a length field that no message can have.
var ErrLength = errors.New("invalid message length")

// Header reads the type and the size of the message at the start of b, size counting the type
// byte. ok is false while b holds fewer than HeaderSize bytes.
func Header(b []byte) (typ byte, size int, ok bool, err error) {
	if len(b) < HeaderSize {
		return 0, 0, false, nil
	}
	n := binary.BigEndian.Uint32(b[1:])
	if n < 4 || n > MaxMessage {
		return b[0], 0, false, ErrLength
	}
	return b[0], int(n) + 1, true, nil
}

// Body is the content of a complete message.
func Body(msg []byte) []byte { return msg[HeaderSize:] }

// CString cuts the zero-terminated string at the start of b; ok is false when none ends in b.
func CString(b []byte) (s, rest []byte, ok bool) {
	i := bytes.IndexByte(b, 0)
	if i < 0 {
		return nil, nil, false
	}
	return b[:i], b[i+1:], true
}

// Parse is the content of a Parse message; Types is the raw parameter type part (count and OIDs).
type Parse struct{ Name, Text, Types []byte }

// ReadParse reads the body of a Parse message.
func ReadParse(body []byte) (p Parse, ok bool) {
	if p.Name, body, ok = CString(body); !ok {
		return p, false
	}
	if p.Text, body, ok = CString(body); !ok {
		return p, false
	}
	if len(body) < 2 || len(body) != 2+4*int(binary.BigEndian.Uint16(body)) {
		return p, false
	}
	p.Types = body
	return p, true
}

// Bind is the start of a Bind message; Rest is all that follows the two names.
type Bind struct{ Portal, Statement, Rest []byte }

// ReadBind reads the body of a Bind message, or a first part of it that holds both names.
func ReadBind(body []byte) (b Bind, ok bool) {
	if b.Portal, body, ok = CString(body); !ok {
		return b, false
	}
	if b.Statement, b.Rest, ok = CString(body); !ok {
		return b, false
	}
	return b, true
}

// ReadTarget reads the body of a Describe or Close message: 'S' or 'P', and the name.
func ReadTarget(body []byte) (kind byte, name []byte, ok bool) {
	if len(body) < 2 || (body[0] != 'S' && body[0] != 'P') {
		return 0, nil, false
	}
	name, rest, ok := CString(body[1:])
	return body[0], name, ok && len(rest) == 0
}

// ReadExecute reads the portal's name of an Execute message.
func ReadExecute(body []byte) (portal []byte, ok bool) {
	portal, rest, ok := CString(body)
	return portal, ok && len(rest) == 4
}

// ReadQuery reads the text of a Query message.
func ReadQuery(body []byte) (text []byte, ok bool) {
	text, rest, ok := CString(body)
	return text, ok && len(rest) == 0
}

// ErrorField finds one field ('C' SQLSTATE, 'M' message, 'S' severity, 'R' routine …) in the body
// of an ErrorResponse or NoticeResponse; nil when it has none.
func ErrorField(body []byte, field byte) []byte {
	for len(body) > 1 && body[0] != 0 {
		value, rest, ok := CString(body[1:])
		if !ok {
			return nil
		}
		if body[0] == field {
			return value
		}
		body = rest
	}
	return nil
}

// ReadParameterStatus reads the name and the value of a ParameterStatus message.
func ReadParameterStatus(body []byte) (name, value []byte, ok bool) {
	name, rest, ok := CString(body)
	if !ok {
		return nil, nil, false
	}
	value, rest, ok = CString(rest)
	return name, value, ok && len(rest) == 0
}
