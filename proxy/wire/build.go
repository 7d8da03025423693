package wire

import "encoding/binary"

// The builders append a complete message to dst and return it. They stand here, and not in a
// library, because they run on the hot path and write names and parts that lie in client bytes.

// begin appends type byte and an empty length; end fills the length in.
func begin(dst []byte, typ byte) ([]byte, int) {
	dst = append(dst, typ, 0, 0, 0, 0)
	return dst, len(dst) - 4
}

func end(dst []byte, at int) []byte {
	binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at))
	return dst
}

// AppendQuery appends a Query message.
func AppendQuery(dst, text []byte) []byte {
	dst, at := begin(dst, 'Q')
	dst = append(append(dst, text...), 0)
	return end(dst, at)
}

// AppendParse appends a Parse message; types is the raw parameter type part.
func AppendParse(dst []byte, name, text string, types []byte) []byte {
	dst, at := begin(dst, 'P')
	dst = append(append(dst, name...), 0)
	dst = append(append(dst, text...), 0)
	dst = append(dst, types...)
	return end(dst, at)
}

// AppendBind appends a Bind message with another statement name.
func AppendBind(dst []byte, b Bind, statement string) []byte {
	dst, at := begin(dst, 'B')
	dst = append(append(dst, b.Portal...), 0)
	dst = append(append(dst, statement...), 0)
	dst = append(dst, b.Rest...)
	return end(dst, at)
}

// AppendBindHead appends the beginning of a Bind message of which missing bytes will follow later.
func AppendBindHead(dst []byte, b Bind, statement string, missing int) []byte {
	dst, at := begin(dst, 'B')
	dst = append(append(dst, b.Portal...), 0)
	dst = append(append(dst, statement...), 0)
	dst = append(dst, b.Rest...)
	binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at+missing))
	return dst
}

// AppendTarget appends a Describe ('D') or Close ('C') message for a statement or a portal.
func AppendTarget(dst []byte, typ, kind byte, name string) []byte {
	dst, at := begin(dst, typ)
	dst = append(dst, kind)
	dst = append(append(dst, name...), 0)
	return end(dst, at)
}

// AppendEmpty appends a message without content: '1' ParseComplete, '3' CloseComplete, 'S' Sync, 'H' Flush.
func AppendEmpty(dst []byte, typ byte) []byte { return append(dst, typ, 0, 0, 0, 4) }

// AppendReady appends ReadyForQuery.
func AppendReady(dst []byte, status byte) []byte { return append(dst, 'Z', 0, 0, 0, 5, status) }

// AppendParameterStatus appends ParameterStatus.
func AppendParameterStatus(dst []byte, name, value string) []byte {
	dst, at := begin(dst, 'S')
	dst = append(append(dst, name...), 0)
	dst = append(append(dst, value...), 0)
	return end(dst, at)
}

// AppendKey appends BackendKeyData; the secret is 4 bytes in protocol 3.0 and up to 256 in 3.2.
func AppendKey(dst []byte, pid uint32, secret []byte) []byte {
	dst, at := begin(dst, 'K')
	dst = binary.BigEndian.AppendUint32(dst, pid)
	dst = append(dst, secret...)
	return end(dst, at)
}

// AppendNegotiate appends NegotiateProtocolVersion: the newest version that the proxy speaks and
// the protocol options (names beginning with "_pq_.") that it does not know.
func AppendNegotiate(dst []byte, newest uint32, unknown []string) []byte {
	dst, at := begin(dst, 'v')
	dst = binary.BigEndian.AppendUint32(dst, newest)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(unknown)))
	for _, name := range unknown {
		dst = append(append(dst, name...), 0)
	}
	return end(dst, at)
}

// AppendComplete appends CommandComplete.
func AppendComplete(dst []byte, tag string) []byte {
	dst, at := begin(dst, 'C')
	dst = append(append(dst, tag...), 0)
	return end(dst, at)
}

// AppendTextColumn appends a RowDescription of one text column.
func AppendTextColumn(dst []byte, column string) []byte {
	dst, at := begin(dst, 'T')
	dst = append(dst, 0, 1)
	dst = append(append(dst, column...), 0)
	// No table, no attribute, type text (25) of variable length, no modifier, text format.
	dst = append(dst, 0, 0, 0, 0, 0, 0, 0, 0, 0, 25, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0)
	return end(dst, at)
}

// AppendTextValue appends a DataRow of one column.
func AppendTextValue(dst []byte, value string) []byte {
	dst, at := begin(dst, 'D')
	dst = append(dst, 0, 1)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(value)))
	dst = append(dst, value...)
	return end(dst, at)
}

// ReplaceField copies a complete ErrorResponse or NoticeResponse with another value in one field.
func ReplaceField(msg []byte, field byte, value []byte) []byte {
	dst, at := begin(make([]byte, 0, len(msg)+len(value)), msg[0])
	for body := Body(msg); len(body) > 1 && body[0] != 0; {
		old, rest, ok := CString(body[1:])
		if !ok {
			break
		}
		dst = append(dst, body[0])
		if body[0] == field {
			old = value
		}
		dst = append(append(dst, old...), 0)
		body = rest
	}
	return end(append(dst, 0), at)
}
