package router

import "bytes"

type tokenKind uint8

const (
	tokEnd      tokenKind = iota // end of the text
	tokBad                       // cannot be read: unterminated, or no character of SQL
	tokWord                      // unquoted identifier or key word
	tokQuoted                    // "identifier"
	tokUnicode                   // U&"identifier", whose name is not worked out
	tokString                    // any string constant
	tokNumber                    // numeric constant
	tokParam                     // $1
	tokOperator                  // operator, also * and =
	tokCast                      // ::
	tokDot
	tokComma
	tokOpen      // (
	tokClose     // )
	tokBracket   // [
	tokUnbracket // ]
	tokSemicolon
	tokColon // : and :=
)

// token is a piece of the text: text[start:end].
type token struct {
	kind  tokenKind
	kw    keyword // of a tokWord
	start int32
	end   int32
}

// lexer cuts a text into tokens by the rules of PostgreSQL's scan.l. It reads each byte a bounded
// number of times and allocates nothing.
type lexer struct {
	text    []byte
	pos     int
	strings StringSyntax
	// hinting is on from a statement's start to its first token; a comment in between may be a
	// hint, which is left in hint.
	hinting bool
	hint    RouteChoice
}

type class uint8

const (
	classBad class = iota
	classSpace
	classWord  // starts an identifier
	classDigit // also goes on in an identifier
	classOperator
	classSelf // a token by itself
	classDollar
	classQuote
	classDouble
)

var classes = func() (t [256]class) {
	for c := range t {
		switch {
		case c >= 0x80, 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '_':
			t[c] = classWord
		case '0' <= c && c <= '9':
			t[c] = classDigit
		}
	}
	for _, c := range []byte(" \t\n\r\f\v") {
		t[c] = classSpace
	}
	for _, c := range []byte("~!@#^&|`?+-*/%<>=") {
		t[c] = classOperator
	}
	for _, c := range []byte(",()[].;:") {
		t[c] = classSelf
	}
	t['$'], t['\''], t['"'] = classDollar, classQuote, classDouble
	return t
}()

var selfKinds = [256]tokenKind{
	',': tokComma, '(': tokOpen, ')': tokClose, '[': tokBracket, ']': tokUnbracket,
	'.': tokDot, ';': tokSemicolon, ':': tokColon,
}

// next returns the next token. After tokBad the lexer must not be asked again.
func (l *lexer) next() token {
	if !l.skipBlanks() {
		return l.token(tokBad, l.pos)
	}
	l.hinting = false
	if l.pos >= len(l.text) {
		return l.token(tokEnd, l.pos)
	}
	start := l.pos
	switch classes[l.text[start]] {
	case classWord:
		return l.word()
	case classDigit:
		return l.number()
	case classOperator:
		return l.operator()
	case classQuote:
		return l.quoted(start, l.strings)
	case classDouble:
		return l.doubleQuoted(start, tokQuoted)
	case classDollar:
		return l.dollar()
	case classSelf:
		return l.self()
	}
	return l.token(tokBad, start)
}

func (l *lexer) token(k tokenKind, start int) token {
	return token{kind: k, start: int32(start), end: int32(l.pos)}
}

// skipBlanks skips white space and comments; false when a comment does not end.
func (l *lexer) skipBlanks() bool {
	for l.pos < len(l.text) {
		switch c := l.text[l.pos]; {
		case classes[c] == classSpace:
			l.pos++
		case c == '-' && l.at(1) == '-':
			l.skipLine()
		case c == '/' && l.at(1) == '*':
			start := l.pos
			if !l.skipComment() {
				return false
			}
			if l.hinting {
				if h, ok := parseHint(l.text[start+2 : l.pos-2]); ok {
					l.hint = h
				}
			}
		default:
			return true
		}
	}
	return true
}

// at is the byte at a distance from the position, 0 beyond the end. No text has a byte 0, which
// ends a string in the protocol; as a character it is classBad.
func (l *lexer) at(n int) byte {
	if l.pos+n < len(l.text) {
		return l.text[l.pos+n]
	}
	return 0
}

// skipLine skips a -- comment up to, not including, its newline.
func (l *lexer) skipLine() {
	for l.pos < len(l.text) && l.text[l.pos] != '\n' && l.text[l.pos] != '\r' {
		l.pos++
	}
}

// skipComment skips a comment in /* */, which may have others inside.
func (l *lexer) skipComment() bool {
	depth := 0
	for l.pos+1 < len(l.text) {
		switch {
		case l.text[l.pos] == '/' && l.text[l.pos+1] == '*':
			depth++
			l.pos += 2
		case l.text[l.pos] == '*' && l.text[l.pos+1] == '/':
			depth--
			l.pos += 2
			if depth == 0 {
				return true
			}
		default:
			l.pos++
		}
	}
	return false
}

// word reads an identifier or key word, or the letter before a quote that starts a special string.
func (l *lexer) word() token {
	start := l.pos
	if l.at(1) == '\'' {
		switch l.text[start] | 0x20 {
		case 'e':
			l.pos++
			return l.quoted(start, EscapeStrings)
		case 'b', 'x':
			l.pos++
			return l.quoted(start, StandardStrings)
		case 'n':
			l.pos++
			return l.quoted(start, l.strings)
		}
	}
	if l.text[start]|0x20 == 'u' && l.at(1) == '&' {
		switch l.at(2) {
		case '\'':
			l.pos += 2
			return l.quoted(start, StandardStrings)
		case '"':
			l.pos += 2
			return l.escapeCharacter(l.doubleQuoted(start, tokUnicode))
		}
	}
	var low [20]byte // no key word is longer
	n := 0
	for l.pos < len(l.text) {
		c := l.text[l.pos]
		if cl := classes[c]; cl != classWord && cl != classDigit && cl != classDollar {
			break
		}
		if n < len(low) {
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			low[n] = c
		}
		n++
		l.pos++
	}
	t := l.token(tokWord, start)
	if n <= len(low) {
		t.kw = keywordOf(low[:n])
	}
	return t
}

// number reads a numeric constant. Letters right after it start a word, as they did before
// PostgreSQL 15, so that nothing hides behind a digit; newer servers refuse them or read 0x1F and
// 1_000, whose rest is then a harmless word here.
func (l *lexer) number() token {
	start := l.pos
	l.digits()
	if l.at(0) == '.' && l.at(1) != '.' {
		l.pos++
		l.digits()
	}
	l.exponent()
	return l.token(tokNumber, start)
}

func (l *lexer) digits() {
	for l.pos < len(l.text) && classes[l.text[l.pos]] == classDigit {
		l.pos++
	}
}

func (l *lexer) exponent() {
	if l.at(0)|0x20 != 'e' {
		return
	}
	n := 1
	if c := l.at(1); c == '+' || c == '-' {
		n = 2
	}
	if classes[l.at(n)] == classDigit {
		l.pos += n
		l.digits()
	}
}

// operator reads the longest operator: it ends before a comment, and of several characters the
// last is + or - only if one of ~!@#^&|`?% is among them. The server refuses operators of more
// than 63 characters, so that it need not be looked further than that: "+-+-+-…" is read again
// from each of its characters.
func (l *lexer) operator() token {
	start, special := l.pos, false
	for l.pos < len(l.text) && l.pos-start <= maxName && classes[l.text[l.pos]] == classOperator {
		c := l.text[l.pos]
		if l.pos > start && (c == '-' && l.at(1) == '-' || c == '/' && l.at(1) == '*') {
			break
		}
		switch c {
		case '~', '!', '@', '#', '^', '&', '|', '`', '?', '%':
			special = true
		}
		l.pos++
	}
	if !special {
		for l.pos-start > 1 && (l.text[l.pos-1] == '+' || l.text[l.pos-1] == '-') {
			l.pos--
		}
	}
	return l.token(tokOperator, start)
}

func (l *lexer) self() token {
	start, c := l.pos, l.text[l.pos]
	switch {
	case c == '.' && classes[l.at(1)] == classDigit:
		l.pos++
		l.digits()
		l.exponent()
		return l.token(tokNumber, start)
	case c == ':' && l.at(1) == ':':
		l.pos += 2
		return l.token(tokCast, start)
	case c == ':' && l.at(1) == '=', c == '.' && l.at(1) == '.':
		l.pos += 2
		return l.token(tokColon, start)
	}
	l.pos++
	return l.token(selfKinds[c], start)
}

// quoted reads a string constant whose opening quote is at the position.
func (l *lexer) quoted(start int, syntax StringSyntax) token {
	for {
		l.pos++ // the opening quote
		if !l.toQuote(syntax) {
			return l.token(tokBad, start)
		}
		// A constant goes on behind a newline. For others than E'' it makes no difference
		// whether that is a constant of its own.
		if syntax != EscapeStrings || !l.continues() {
			return l.token(tokString, start)
		}
	}
}

// toQuote moves behind the closing quote.
func (l *lexer) toQuote(syntax StringSyntax) bool {
	for l.pos < len(l.text) {
		var i int
		if syntax == EscapeStrings {
			i = bytes.IndexAny(l.text[l.pos:], `'\`)
		} else {
			i = bytes.IndexByte(l.text[l.pos:], '\'')
		}
		if i < 0 {
			break
		}
		l.pos += i
		switch {
		case l.text[l.pos] == '\\':
			l.pos += 2
		case l.at(1) == '\'':
			l.pos += 2
		default:
			l.pos++
			return true
		}
	}
	l.pos = len(l.text)
	return false
}

// continues looks behind a closing quote for white space with a newline (and -- comments) and
// another quote, and moves there.
func (l *lexer) continues() bool {
	back, newline := l.pos, false
	for l.pos < len(l.text) {
		switch c := l.text[l.pos]; {
		case c == '\n' || c == '\r':
			newline = true
			l.pos++
		case classes[c] == classSpace:
			l.pos++
		case c == '-' && l.at(1) == '-':
			l.skipLine()
		case c == '\'' && newline:
			return true
		default:
			l.pos = back
			return false
		}
	}
	l.pos = back
	return false
}

// doubleQuoted reads a quoted identifier whose opening quote is at the position.
func (l *lexer) doubleQuoted(start int, kind tokenKind) token {
	first := l.pos
	l.pos++
	for {
		i := bytes.IndexByte(l.text[l.pos:], '"')
		if i < 0 {
			l.pos = len(l.text)
			return l.token(tokBad, start)
		}
		l.pos += i + 1
		if l.at(0) != '"' {
			break
		}
		l.pos++
	}
	if l.pos-first == 2 {
		return l.token(tokBad, start) // zero-length identifier
	}
	return l.token(kind, start)
}

// escapeCharacter makes UESCAPE '!' a part of the identifier that it stands behind, so that what
// comes next stands behind the name.
func (l *lexer) escapeCharacter(t token) token {
	if t.kind != tokUnicode {
		return t
	}
	back := l.pos
	if !l.skipBlanks() || l.at(0)|0x20 != 'u' || l.at(1) == '&' || l.word().kw != kwUescape {
		l.pos = back
		return t
	}
	if !l.skipBlanks() {
		return l.token(tokBad, int(t.start))
	}
	c := l.at(0)
	if c != '\'' && c != '$' && (c|0x20 != 'e' || l.at(1) != '\'') || l.next().kind != tokString {
		return l.token(tokBad, int(t.start)) // the grammar wants a string here
	}
	t.end = int32(l.pos)
	return t
}

// dollar reads $1 or a string in dollar quotes.
func (l *lexer) dollar() token {
	start := l.pos
	l.pos++
	if classes[l.at(0)] == classDigit {
		l.digits()
		return l.token(tokParam, start)
	}
	if classes[l.at(0)] == classWord {
		for c := classes[l.at(0)]; c == classWord || c == classDigit; c = classes[l.at(0)] {
			l.pos++
		}
	}
	if l.at(0) != '$' {
		return l.token(tokBad, start)
	}
	l.pos++
	quote := l.text[start:l.pos]
	i := bytes.Index(l.text[l.pos:], quote)
	if i < 0 {
		l.pos = len(l.text)
		return l.token(tokBad, start)
	}
	l.pos += i + len(quote)
	return l.token(tokString, start)
}
