package proxy

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/cstproxy/cstproxy/proxy/wire"
)

// renderMessages is the opposite of parseMessages. What is no complete message is shown as Raw.
func renderMessages(b []byte, fromServer bool) []string {
	var out []string
	for len(b) > 0 {
		typ, size, ok, err := wire.Header(b)
		if err != nil || !ok || size > len(b) {
			return append(out, "Raw "+quote(string(b)))
		}
		r := &renderer{b: b[wire.HeaderSize:size]}
		text := ""
		if fromServer {
			text = r.backend(typ)
		} else {
			text = r.frontend(typ)
		}
		if r.bad || len(r.b) > 0 {
			text = "Raw " + quote(string(b[:size]))
		}
		out = append(out, strings.TrimRight(text, " "))
		b = b[size:]
	}
	return out
}

type renderer struct {
	b   []byte
	bad bool
}

func (r *renderer) cstring() string {
	s, rest, ok := wire.CString(r.b)
	r.bad = r.bad || !ok
	r.b = rest
	return string(s)
}

func (r *renderer) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.bad = true
		return make([]byte, max(0, min(n, 8)))
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *renderer) int16() int { return int(binary.BigEndian.Uint16(r.take(2))) }
func (r *renderer) int32() int { return int(int32(binary.BigEndian.Uint32(r.take(4)))) }

func (r *renderer) rest() string {
	s := string(r.b)
	r.b = nil
	return s
}

func (r *renderer) values() string {
	out := ""
	for n := r.int16(); n > 0 && !r.bad; n-- {
		out += " " + quote(string(r.take(r.int32())))
	}
	return out
}

func (r *renderer) numbers() string {
	out := ""
	for n := r.int16(); n > 0 && !r.bad; n-- {
		out += fmt.Sprintf(" %d", r.int32())
	}
	return out
}

func (r *renderer) frontend(typ byte) string {
	for name, t := range plainFrontend {
		if t == typ {
			return name
		}
	}
	switch typ {
	case 'Q':
		return "Query " + quote(r.cstring())
	case 'P':
		return fmt.Sprintf("Parse %s %s%s", quote(r.cstring()), quote(r.cstring()), r.numbers())
	case 'B':
		portal, stmt := r.cstring(), r.cstring()
		r.take(2 * r.int16())
		values := r.values()
		r.take(2 * r.int16())
		return fmt.Sprintf("Bind %s %s%s", quote(portal), quote(stmt), values)
	case 'D', 'C':
		name := map[byte]string{'D': "Describe", 'C': "Close"}[typ]
		return fmt.Sprintf("%s %c %s", name, r.take(1)[0], quote(r.cstring()))
	case 'E':
		return fmt.Sprintf("Execute %s %d", quote(r.cstring()), r.int32())
	case 'd':
		return "CopyData " + quote(r.rest())
	case 'f':
		return "CopyFail " + quote(r.cstring())
	case 'F':
		return "FunctionCall " + quote(r.rest())
	}
	r.bad = true
	return ""
}

func (r *renderer) backend(typ byte) string {
	for name, t := range plainBackend {
		if t == typ {
			return name
		}
	}
	switch typ {
	case 'Z':
		return fmt.Sprintf("Ready %c", r.take(1)[0])
	case 'C':
		return "Complete " + quote(r.cstring())
	case 'S':
		return "Status " + quote(r.cstring()) + " " + quote(r.cstring())
	case 'T':
		var names []string
		for n := r.int16(); n > 0 && !r.bad; n-- {
			names = append(names, r.cstring())
			r.take(18)
		}
		return "Columns" + quoteAll(names)
	case 'D':
		return "Row" + r.values()
	case 't':
		return "Parameters" + r.numbers()
	case 'E', 'N':
		return r.report(typ)
	case 'A':
		return fmt.Sprintf("Notification %d %s %s", r.int32(), quote(r.cstring()), quote(r.cstring()))
	case 'G', 'H':
		r.rest() // formats
		return map[byte]string{'G': "CopyIn", 'H': "CopyOut"}[typ]
	case 'd':
		return "CopyData " + quote(r.rest())
	case 'R':
		return r.authentication()
	case 'K':
		r.take(4)
		return fmt.Sprintf("Key %d bytes", len(r.rest()))
	case 'v':
		version, n := r.int32(), r.int32()
		out := fmt.Sprintf("Negotiate %d.%d", version>>16, version&0xffff)
		for ; n > 0 && !r.bad; n-- {
			out += " " + quote(r.cstring())
		}
		return out
	}
	r.bad = true
	return ""
}

func (r *renderer) authentication() string {
	switch code := r.int32(); code {
	case 0:
		return "AuthenticationOk"
	case 10:
		return "SASL " + quote(r.rest())
	case 11:
		return "SASLContinue " + quote(r.rest())
	case 12:
		return "SASLFinal " + quote(r.rest())
	}
	r.bad = true
	return ""
}

// report is an Error or Notice: the fields that every one has, then the others that have a text.
func (r *renderer) report(typ byte) string {
	values := map[byte]string{}
	more := ""
	for !r.bad && len(r.b) > 0 && r.b[0] != 0 {
		field := r.take(1)[0]
		value := r.cstring()
		switch field {
		case 'S', 'V', 'C', 'M':
			values[field] = value
		default:
			more += fmt.Sprintf(" %c=%q", field, value)
		}
	}
	r.take(1)
	name := map[byte]string{'E': "Error", 'N': "Notice"}[typ]
	return fmt.Sprintf("%s %s %s %s%s", name, values['V'], values['C'], quote(values['M']), more)
}
