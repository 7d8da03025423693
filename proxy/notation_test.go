package proxy

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/cstproxy/cstproxy/proxy/wire"
)

// The notation of transcripts: messages separated by " | ", each a name and its fields. Strings
// are quoted; "'x'*1000" is a run, "+" joins. Names are PostgreSQL's, shortened where they are
// frequent: Row, Complete, Ready, Error.

// parseMessages turns notation into bytes.
func parseMessages(line string, fromServer bool) ([]byte, error) {
	words, err := splitWords(line)
	if err != nil {
		return nil, err
	}
	var out []byte
	for len(words) > 0 {
		n := 0
		for n < len(words) && words[n] != "|" {
			n++
		}
		if n == 0 {
			return nil, fmt.Errorf("empty message in %q", line)
		}
		f := &fields{words: words[1:n]}
		if fromServer {
			out = f.backend(out, words[0])
		} else {
			out = f.frontend(out, words[0])
		}
		if f.err != nil {
			return nil, fmt.Errorf("%s: %w", words[0], f.err)
		}
		if len(f.words) > 0 {
			return nil, fmt.Errorf("%s: %q is too much", words[0], f.words)
		}
		words = words[n:]
		if len(words) > 0 {
			words = words[1:]
		}
	}
	return out, nil
}

// splitWords cuts at blanks outside of quotes.
func splitWords(line string) ([]string, error) {
	var words []string
	for i := 0; i < len(line); {
		if line[i] == ' ' {
			i++
			continue
		}
		start := i
		for i < len(line) && line[i] != ' ' {
			if line[i] == '"' || line[i] == '\'' {
				q, err := strconv.QuotedPrefix(line[i:])
				if err != nil {
					return nil, fmt.Errorf("bad quoting at %q", line[i:])
				}
				i += len(q)
				continue
			}
			i++
		}
		words = append(words, line[start:i])
	}
	return words, nil
}

// fields reads the fields of one message.
type fields struct {
	words []string
	err   error
}

func (f *fields) word() string {
	if len(f.words) == 0 {
		f.err = fmt.Errorf("a field is missing")
		return ""
	}
	w := f.words[0]
	f.words = f.words[1:]
	return w
}

func (f *fields) text() string {
	var out strings.Builder
	for _, part := range splitParts(f.word()) {
		quoted, times, repeated := part, 1, false
		if i := strings.LastIndex(part, "*"); i > 0 && part[i-1] != '\\' && part[len(part)-1] != '"' && part[len(part)-1] != '\'' {
			quoted = part[:i]
			times, f.err = strconv.Atoi(part[i+1:])
			repeated = true
		}
		s, err := unquote(quoted)
		if err != nil || f.err != nil {
			f.err = fmt.Errorf("%q is not a string", part)
			return ""
		}
		if repeated {
			s = strings.Repeat(s, times)
		}
		out.WriteString(s)
	}
	return out.String()
}

func unquote(s string) (string, error) {
	if len(s) > 1 && s[0] == '\'' {
		r, _, rest, err := strconv.UnquoteChar(s[1:], '\'')
		if err != nil || rest != "'" {
			return "", fmt.Errorf("bad character")
		}
		return string([]byte{byte(r)}), nil
	}
	return strconv.Unquote(s)
}

// splitParts cuts a word at "+" outside of quotes.
func splitParts(w string) []string {
	var parts []string
	start := 0
	for i := 0; i < len(w); {
		if w[i] == '"' || w[i] == '\'' {
			q, err := strconv.QuotedPrefix(w[i:])
			if err != nil {
				break
			}
			i += len(q)
			continue
		}
		if w[i] == '+' {
			parts = append(parts, w[start:i])
			start = i + 1
		}
		i++
	}
	return append(parts, w[start:])
}

func (f *fields) texts() []string {
	var out []string
	for len(f.words) > 0 && f.err == nil {
		out = append(out, f.text())
	}
	return out
}

func (f *fields) number() int {
	n, err := strconv.Atoi(f.word())
	if err != nil && f.err == nil {
		f.err = err
	}
	return n
}

func message(dst []byte, typ byte, body []byte) []byte {
	dst = append(dst, typ)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(body)+4))
	return append(dst, body...)
}

func cstring(s string) []byte { return append([]byte(s), 0) }

var plainFrontend = map[string]byte{"Sync": 'S', "Flush": 'H', "CopyDone": 'c', "Terminate": 'X'}

func (f *fields) frontend(dst []byte, name string) []byte {
	if typ, ok := plainFrontend[name]; ok {
		return message(dst, typ, nil)
	}
	switch name {
	case "Query":
		return wire.AppendQuery(dst, []byte(f.text()))
	case "Parse":
		stmt, text := f.text(), f.text()
		types := binary.BigEndian.AppendUint16(nil, uint16(len(f.words)))
		for len(f.words) > 0 && f.err == nil {
			types = binary.BigEndian.AppendUint32(types, uint32(f.number()))
		}
		return wire.AppendParse(dst, stmt, text, types)
	case "Run": // shorthand
		out := wire.AppendParse(dst, "", f.text(), []byte{0, 0})
		out = wire.AppendTarget(bindMessage(out, "", ""), 'D', 'P', "")
		return executeMessage(out, "", 0)
	case "Bind":
		portal, stmt := f.text(), f.text()
		return bindMessage(dst, portal, stmt, f.texts()...)
	case "Describe", "Close":
		kind := f.word()
		return wire.AppendTarget(dst, name[0], kind[0], f.text())
	case "Execute":
		return executeMessage(dst, f.text(), f.number())
	case "CopyData":
		return message(dst, 'd', []byte(f.text()))
	case "CopyFail":
		return message(dst, 'f', cstring(f.text()))
	case "FunctionCall":
		return message(dst, 'F', []byte(f.text()))
	case "Raw":
		return append(dst, f.text()...)
	case "Hex":
		b, err := hex.DecodeString(strings.Join(f.words, ""))
		f.words, f.err = nil, err
		return append(dst, b...)
	case "Startup":
		version := strings.SplitN(f.word(), ".", 2)
		major, _ := strconv.Atoi(version[0])
		minor, _ := strconv.Atoi(version[1])
		return append(dst, startupPacket(uint32(major<<16|minor), f.texts()...)...)
	case "SSLRequest":
		return append(dst, 0, 0, 0, 8, 4, 210, 22, 47)
	case "GSSENCRequest":
		return append(dst, 0, 0, 0, 8, 4, 210, 22, 48)
	case "CancelRequest":
		body := binary.BigEndian.AppendUint32(nil, wire.CodeCancel)
		body = binary.BigEndian.AppendUint32(body, uint32(f.number()))
		body = append(body, f.text()...)
		return append(binary.BigEndian.AppendUint32(dst, uint32(len(body)+4)), body...)
	}
	f.err = fmt.Errorf("no such message of a client")
	return dst
}

func bindMessage(dst []byte, portal, stmt string, params ...string) []byte {
	body := append(cstring(portal), cstring(stmt)...)
	body = append(body, 0, 0)
	body = binary.BigEndian.AppendUint16(body, uint16(len(params)))
	for _, p := range params {
		body = append(binary.BigEndian.AppendUint32(body, uint32(len(p))), p...)
	}
	return message(dst, 'B', append(body, 0, 0))
}

func executeMessage(dst []byte, portal string, limit int) []byte {
	return message(dst, 'E', binary.BigEndian.AppendUint32(cstring(portal), uint32(limit)))
}

// startupPacket has names and values in turn; user and database are added when they are missing.
func startupPacket(version uint32, params ...string) []byte {
	given := map[string]bool{}
	body := binary.BigEndian.AppendUint32(nil, version)
	for i := 0; i+1 < len(params); i += 2 {
		given[params[i]] = true
		body = append(append(body, cstring(params[i])...), cstring(params[i+1])...)
	}
	for _, name := range []string{"user", "database"} {
		if !given[name] {
			body = append(append(body, cstring(name)...), cstring("app")...)
		}
	}
	body = append(body, 0)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4)), body...)
}

var plainBackend = map[string]byte{"ParseComplete": '1', "BindComplete": '2', "CloseComplete": '3', "NoData": 'n',
	"Suspended": 's', "EmptyQuery": 'I', "CopyDone": 'c'}

func (f *fields) backend(dst []byte, name string) []byte {
	if typ, ok := plainBackend[name]; ok {
		return message(dst, typ, nil)
	}
	switch name {
	case "Ready":
		return wire.AppendReady(dst, f.word()[0])
	case "Complete":
		return wire.AppendComplete(dst, f.text())
	case "Status":
		return wire.AppendParameterStatus(dst, f.text(), f.text())
	case "Result": // shorthand
		columns := &fields{words: []string{`"c"`}}
		out := (&fields{words: f.words}).backend(columns.backend(dst, "Columns"), "Row")
		f.words = nil
		return wire.AppendComplete(out, "SELECT 1")
	case "Columns":
		names := f.texts()
		body := binary.BigEndian.AppendUint16(nil, uint16(len(names)))
		for _, n := range names {
			body = append(append(body, cstring(n)...), 0, 0, 0, 0, 0, 0, 0, 0, 0, 25, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0)
		}
		return message(dst, 'T', body)
	case "Row":
		values := f.texts()
		body := binary.BigEndian.AppendUint16(nil, uint16(len(values)))
		for _, v := range values {
			body = append(binary.BigEndian.AppendUint32(body, uint32(len(v))), v...)
		}
		return message(dst, 'D', body)
	case "Parameters":
		body := binary.BigEndian.AppendUint16(nil, uint16(len(f.words)))
		for len(f.words) > 0 && f.err == nil {
			body = binary.BigEndian.AppendUint32(body, uint32(f.number()))
		}
		return message(dst, 't', body)
	case "Error", "Notice":
		typ := name[0]
		severity, code, text := f.word(), f.word(), f.text()
		body := []byte("S" + severity + "\x00V" + severity + "\x00C" + code + "\x00M" + text + "\x00")
		for len(f.words) > 0 && f.err == nil {
			field, value, _ := strings.Cut(f.word(), "=")
			s, err := strconv.Unquote(value)
			if err != nil || len(field) != 1 {
				f.err = fmt.Errorf("bad field %q", value)
			}
			body = append(append(body, field[0]), cstring(s)...)
		}
		return message(dst, typ, append(body, 0))
	case "Notification":
		body := binary.BigEndian.AppendUint32(nil, uint32(f.number()))
		return message(dst, 'A', append(append(body, cstring(f.text())...), cstring(f.text())...))
	case "CopyIn":
		return message(dst, 'G', []byte{0, 0, 0})
	case "CopyOut":
		return message(dst, 'H', []byte{0, 0, 0})
	case "CopyData":
		return message(dst, 'd', []byte(f.text()))
	case "Raw":
		return append(dst, f.text()...)
	}
	f.err = fmt.Errorf("no such message of a server")
	return dst
}

// quote is the notation of a string, runs of one byte shortened.
func quote(s string) string {
	var parts []string
	rest := s
	for {
		at, n := longRun(rest)
		if n == 0 {
			break
		}
		if at > 0 {
			parts = append(parts, strconv.Quote(rest[:at]))
		}
		parts = append(parts, fmt.Sprintf("%s*%d", strconv.QuoteRune(rune(rest[at])), n))
		rest = rest[at+n:]
	}
	if rest != "" || len(parts) == 0 {
		parts = append(parts, strconv.Quote(rest))
	}
	return strings.Join(parts, "+")
}

// longRun finds 40 or more equal bytes.
func longRun(s string) (at, n int) {
	for i := 0; i < len(s); {
		j := i + 1
		for j < len(s) && s[j] == s[i] {
			j++
		}
		if j-i >= 40 {
			return i, j - i
		}
		i = j
	}
	return 0, 0
}

func quoteAll(list []string) string {
	var out strings.Builder
	for _, s := range list {
		out.WriteString(" " + quote(s))
	}
	return out.String()
}
