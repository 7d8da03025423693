package oracle

import (
	"slices"
	"strings"
)

// Text is what a client sends in one message, and how the server reads backslashes in it.
type Text struct {
	SQL     string
	Strings Strings
}

// Script cuts a psql script into the texts that psql would send, each with all the statements that
// were joined by \; in it. Meta commands, the data of COPY FROM STDIN and what stands between are
// left out; variables are replaced.
func Script(text string) []Text {
	s := &script{in: text, vars: map[string]string{}}
	for s.pos < len(s.in) {
		s.step()
	}
	s.send()
	return s.out
}

// script is psql's view of a file: it knows where constants and comments end, and parentheses.
type script struct {
	in    string
	pos   int
	buf   strings.Builder
	out   []Text
	now   Strings // standard_conforming_strings at this place
	vars  map[string]string
	depth int // open parentheses
	body  int // BEGIN and CASE of an SQL function's body that are open
	words []string
}

// step handles one token at the position.
func (s *script) step() {
	rest := s.in[s.pos:]
	switch c := rest[0]; {
	case strings.HasPrefix(rest, "--"):
		s.take(lineEnd(rest))
	case strings.HasPrefix(rest, "/*"):
		s.take(commentEnd(rest))
	case c == '\'':
		s.take(quoteEnd(rest, '\'', s.escapes()))
	case c == '"':
		s.take(quoteEnd(rest, '"', Standard))
	case c == '$':
		s.take(dollarEnd(rest))
	case c == '\\':
		s.meta(rest)
	case c == ';':
		s.pos++
		if s.depth > 0 || s.body > 0 {
			s.buf.WriteByte(';')
			return
		}
		s.buf.WriteByte(';')
		s.send()
	case c == ':':
		s.variable(rest)
	case isLetter(c):
		n := wordEnd(rest)
		s.note(strings.ToLower(rest[:n]))
		s.take(n)
	default:
		switch c {
		case '(':
			s.depth++
		case ')':
			s.depth = max(s.depth-1, 0)
		}
		s.take(1)
	}
}

func (s *script) take(n int) {
	s.buf.WriteString(s.in[s.pos : s.pos+n])
	s.pos += n
}

// escapes says how the constant at the position is read: E'…' has backslashes.
func (s *script) escapes() Strings {
	if s.pos > 0 && s.in[s.pos-1]|0x20 == 'e' && (s.pos < 2 || !isLetter(s.in[s.pos-2])) {
		return Escape
	}
	return s.now
}

// note follows the body of CREATE FUNCTION … BEGIN ATOMIC … END, as psql does.
func (s *script) note(word string) {
	s.words = append(s.words, word)
	if s.depth > 0 || s.words[0] != "create" {
		return
	}
	switch word {
	case "begin", "case":
		if s.body > 0 || word == "begin" {
			s.body++
		}
	case "end":
		s.body = max(s.body-1, 0)
	}
}

// send ends a text; data of COPY follows it.
func (s *script) send() {
	text := strings.TrimSpace(s.buf.String())
	s.buf.Reset()
	words := s.words
	s.depth, s.body, s.words = 0, 0, nil
	if text == "" || text == ";" {
		return
	}
	s.out = append(s.out, Text{text, s.now})
	if slices.Contains(words, "standard_conforming_strings") {
		s.now = Standard
		if slices.Contains(words, "off") {
			s.now = Escape
		}
	}
	if !copiesIn(words) {
		return
	}
	s.pos += lineEnd(s.in[s.pos:])
	for s.pos < len(s.in) {
		s.pos++ // the newline
		n := lineEnd(s.in[s.pos:])
		line := s.in[s.pos : s.pos+n]
		s.pos += n
		if strings.TrimRight(line, "\r") == `\.` {
			return
		}
	}
}

// copiesIn says whether the words are those of COPY … FROM STDIN.
func copiesIn(words []string) bool {
	for i, w := range words {
		if w == "copy" && i > 0 { // joined by \;
			return copiesIn(words[i:])
		}
		if w == "from" && i+1 < len(words) && (words[i+1] == "stdin" || words[i+1] == "stdout") && words[0] == "copy" {
			return true
		}
	}
	return false
}

// meta handles a meta command.
func (s *script) meta(rest string) {
	if strings.HasPrefix(rest, `\;`) {
		s.pos += 2
		s.buf.WriteByte(';')
		return
	}
	n := 1 + wordEnd(rest[1:])
	name := rest[1:n]
	end := lineEnd(rest)
	s.pos += end
	if next := strings.Index(rest[n:end], `\\`); next >= 0 { // ends the command, not the line
		end = n + next
		s.pos += end + 2 - lineEnd(rest)
	}
	switch name {
	case "set":
		if f := strings.Fields(rest[n:end]); len(f) > 0 {
			s.vars[f[0]] = strings.Trim(strings.Join(f[1:], " "), "'")
		}
	case "g", "gx", "gset", "gexec", "gdesc", "crosstabview", "watch", "bind":
		s.send()
	case "r", "reset":
		s.buf.Reset()
		s.depth, s.body, s.words = 0, 0, nil
	}
}

// variable handles :name, :'name' and :"name"; :: and := are none.
func (s *script) variable(rest string) {
	if strings.HasPrefix(rest, "::") || strings.HasPrefix(rest, ":=") {
		s.take(2)
		return
	}
	quote, body := "", rest[1:]
	if body != "" && (body[0] == '\'' || body[0] == '"') {
		quote, body = body[:1], body[1:]
	}
	n := wordEnd(body)
	if n == 0 || quote != "" && !strings.HasPrefix(body[n:], quote) {
		s.take(1)
		return
	}
	value, known := s.vars[body[:n]]
	switch {
	case !known && quote == "":
		value = "1" // of \gset: mostly numbers
	case !known:
		value = body[:n]
	}
	s.buf.WriteString(quote + value + quote)
	s.pos += 1 + 2*len(quote) + n
}

func isLetter(c byte) bool { return c == '_' || 'a' <= c|0x20 && c|0x20 <= 'z' || c >= 0x80 }

func wordEnd(s string) int {
	for i := range len(s) {
		if c := s[i]; !isLetter(c) && (i == 0 || c != '$') && (c < '0' || c > '9') {
			return i
		}
	}
	return len(s)
}

func lineEnd(s string) int {
	if i := strings.IndexByte(s, '\n'); i >= 0 {
		return i
	}
	return len(s)
}

func commentEnd(s string) int {
	depth := 0
	for i := 0; i+1 < len(s); i++ {
		switch s[i : i+2] {
		case "/*":
			depth++
			i++
		case "*/":
			depth--
			i++
			if depth == 0 {
				return i + 1
			}
		}
	}
	return len(s)
}

func quoteEnd(s string, quote byte, syntax Strings) int {
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '\\' && syntax == Escape:
			i++
		case s[i] == quote && i+1 < len(s) && s[i+1] == quote:
			i++
		case s[i] == quote:
			return i + 1
		}
	}
	return len(s)
}

func dollarEnd(s string) int {
	n := 1
	for n < len(s) && (isLetter(s[n]) || n > 1 && '0' <= s[n] && s[n] <= '9') {
		n++
	}
	if n >= len(s) || s[n] != '$' {
		return 1
	}
	tag := s[:n+1]
	if i := strings.Index(s[n+1:], tag); i >= 0 {
		return n + 1 + i + len(tag)
	}
	return len(s)
}
