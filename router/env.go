package router

// Env is what Classify has to know of the session besides the text. The zero Env is that of a
// fresh session of which nothing is known.
type Env struct {
	// Knowledge is the database's catalogue; nil when it was not read (offline): relations are
	// ordinary tables then, and functions are those of PostgreSQL 15.
	Knowledge *Knowledge
	// Strings must follow the newest ParameterStatus of standard_conforming_strings that the
	// session's server sent; servers report every change of it at once.
	Strings StringSyntax
	// Encoding must follow the newest ParameterStatus of client_encoding: EncodingOf.
	Encoding Encoding
	// Rules are the table rules that apply to this session: Rules.Match.
	Rules *TableRules
}

// StringSyntax is how a backslash in '…' is read.
type StringSyntax uint8

const (
	// StandardStrings: a backslash is an ordinary character (standard_conforming_strings = on).
	StandardStrings StringSyntax = iota
	// EscapeStrings: a backslash escapes the next character (standard_conforming_strings = off).
	EscapeStrings
)

// Encoding says how the bytes of a text make characters, as far as that matters for finding its
// ASCII characters. The server converts a text before it reads it; the classifier sees the bytes
// of the client.
type Encoding uint8

const (
	// ASCIISafe: bytes of multi-byte characters are all above 0x7F (UTF8, LATIN1, EUC_* …).
	ASCIISafe Encoding = iota
	// DoubleByte: a byte above 0x7F takes the next one with it, which may look like a backslash or
	// a letter (BIG5, GBK, UHC).
	DoubleByte
	// ShiftJIS is like DoubleByte, but 0xA1 to 0xDF stand alone (SJIS, SHIFT_JIS_2004).
	ShiftJIS
	// GB18030 has characters of two and four bytes.
	GB18030
	// Johab has characters of two bytes, and of three after 0x8F.
	Johab
)

// EncodingOf classifies a value of client_encoding as servers report it.
func EncodingOf(clientEncoding string) Encoding {
	name := make([]byte, 0, 16)
	for i := 0; i < len(clientEncoding) && len(name) < 32; i++ {
		switch ch := clientEncoding[i]; {
		case 'A' <= ch && ch <= 'Z':
			name = append(name, ch+'a'-'A')
		case 'a' <= ch && ch <= 'z', '0' <= ch && ch <= '9':
			name = append(name, ch)
		}
	}
	switch string(name) {
	case "sjis", "mskanji", "shiftjis", "win932", "windows932", "shiftjis2004":
		return ShiftJIS
	case "big5", "win950", "windows950", "gbk", "win936", "windows936", "uhc", "win949", "windows949":
		return DoubleByte
	case "gb18030":
		return GB18030
	case "johab":
		return Johab
	}
	return ASCIISafe
}

// mask overwrites every byte of a multi-byte character by 0x80, which is a letter to the lexer.
// Lengths are those of PostgreSQL's pg_mblen for each encoding (src/common/wchar.c). It is false
// for a text that no server accepts: a character is cut off, or goes on with a byte that none of
// these encodings has behind the first (all begin at 0x30).
func mask(b []byte, e Encoding) bool {
	for i := 0; i < len(b); {
		if b[i] < 0x80 {
			i++
			continue
		}
		n := characterSize(b[i:], e)
		if n > len(b)-i {
			return false
		}
		for j := i; j < i+n; j++ {
			if b[j] < 0x30 {
				return false
			}
			b[j] = 0x80
		}
		i += n
	}
	return true
}

func characterSize(b []byte, e Encoding) int {
	switch {
	case e == ShiftJIS && 0xA1 <= b[0] && b[0] <= 0xDF:
		return 1
	case e == GB18030 && len(b) > 1 && '0' <= b[1] && b[1] <= '9':
		return 4
	case e == Johab && b[0] == 0x8F:
		return 3
	}
	return 2
}
