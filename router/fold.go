package router

import "bytes"

// maxName is the length beyond which no name is looked up: the server cuts identifiers at
// NAMEDATALEN-1 = 63 bytes, so a longer one is simply unknown here.
const maxName = 63

// folded is room for one folded name, on the stack of who looks it up.
type folded [maxName + 1]byte

// fold writes the name at token t into buf as the server would store it: unquoted identifiers
// lose their upper case (ASCII only, as in UTF8 databases), quoted ones their quotes. The second
// result is false when the name is too long or written as U&"…"; such a name is unknown.
func fold(text []byte, t token, buf *folded) ([]byte, bool) {
	b := text[t.start:t.end]
	switch t.kind {
	case tokWord:
		if len(b) > maxName {
			return nil, false
		}
		for i, ch := range b {
			if 'A' <= ch && ch <= 'Z' {
				ch += 'a' - 'A'
			}
			buf[i] = ch
		}
		return buf[:len(b)], true
	case tokQuoted:
		b = b[1 : len(b)-1]
		if len(b) > maxName {
			return nil, false
		}
		if bytes.IndexByte(b, '"') < 0 {
			return b, true
		}
		n := 0
		for i := 0; i < len(b); i++ {
			buf[n] = b[i]
			n++
			if b[i] == '"' {
				i++ // the second of a pair
			}
		}
		return buf[:n], true
	}
	return nil, false
}

// foldString is s in ASCII lower case.
func foldString(s string) string {
	for i := 0; i < len(s); i++ {
		if 'A' <= s[i] && s[i] <= 'Z' {
			return string(bytes.ToLower([]byte(s))) // all callers compare with ASCII words
		}
	}
	return s
}
