package pgnode

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/cstproxy/cstproxy/ha/record"
)

// ErrSyncNames is why a synchronous_standby_names cannot be read.
var ErrSyncNames = errors.New("not a synchronous_standby_names")

// maxSyncNames bounds what ParseSyncNames takes, in bytes.
const maxSyncNames = 64 << 10

// ParseSyncNames reads the setting synchronous_standby_names (src/backend/replication/
// syncrep_gram.y and syncrep_scanner.l): empty, a list of names (FIRST 1 of them), k (…),
// FIRST k (…) or ANY k (…); names may be quoted, numbers are names in a list, keywords are case
// insensitive, '*' stands for everybody whether it is quoted or not. Names keep their case; the
// server compares them without.
func ParseSyncNames(s string) (record.SyncSet, error) {
	if s == "" {
		return record.SyncSet{}, nil
	}
	words, err := syncWords(s)
	if err != nil {
		return record.SyncSet{}, err
	}
	if len(words) == 0 {
		return record.SyncSet{}, fmt.Errorf("%w: no name", ErrSyncNames)
	}
	set := record.SyncSet{Method: "first", Count: 1}
	switch {
	case words[0].kind == syncKeyword:
		set.Method = strings.ToLower(words[0].text)
		if words, err = counted(words[1:], &set); err != nil {
			return record.SyncSet{}, err
		}
	case words[0].kind == syncNumber && len(words) > 1 && words[1].text == "(" && words[1].kind == syncMark:
		if words, err = counted(words, &set); err != nil {
			return record.SyncSet{}, err
		}
	}
	for i, w := range words {
		name := w.kind == syncName || w.kind == syncNumber
		if i%2 == 0 && !name || i%2 == 1 && (w.kind != syncMark || w.text != ",") {
			return record.SyncSet{}, fmt.Errorf("%w: unexpected %q", ErrSyncNames, w.text)
		}
		if name && w.text == "*" {
			set.Any = true
		}
		if name {
			set.Names = append(set.Names, w.text)
		}
	}
	if len(words)%2 == 0 {
		return record.SyncSet{}, fmt.Errorf("%w: a name is missing at the end", ErrSyncNames)
	}
	return set, nil
}

// counted takes "k ( … )" apart: sets the count and returns what is between the parentheses.
func counted(words []syncWord, set *record.SyncSet) ([]syncWord, error) {
	last := len(words) - 1
	if last < 3 || words[0].kind != syncNumber || words[1] != (syncWord{syncMark, "("}) || words[last] != (syncWord{syncMark, ")"}) {
		return nil, fmt.Errorf("%w: want a number and names in parentheses", ErrSyncNames)
	}
	n, err := strconv.Atoi(words[0].text)
	if err != nil || n < 1 {
		return nil, fmt.Errorf("%w: %q standbys", ErrSyncNames, words[0].text)
	}
	set.Count = n
	return words[2:last], nil
}

type syncKind int

const (
	syncName syncKind = iota
	syncNumber
	syncKeyword // FIRST, ANY
	syncMark    // ( ) ,
)

type syncWord struct {
	kind syncKind
	text string
}

func syncWords(s string) ([]syncWord, error) {
	if len(s) > maxSyncNames {
		return nil, fmt.Errorf("%w: %d bytes", ErrSyncNames, len(s))
	}
	var words []syncWord
	for i := 0; i < len(s); {
		switch c := s[i]; {
		case strings.IndexByte(conninfoSpace, c) >= 0:
			i++
		case c == '(' || c == ')' || c == ',':
			words = append(words, syncWord{syncMark, string(c)})
			i++
		case c == '*':
			words = append(words, syncWord{syncName, "*"})
			i++
		case c == '"':
			name, n, ok := quotedName(s[i:])
			if !ok {
				return nil, fmt.Errorf("%w: a quoted name does not end", ErrSyncNames)
			}
			words = append(words, syncWord{syncName, name})
			i += n
		case isDigit(c):
			n := span(s[i:], isDigit)
			words = append(words, syncWord{syncNumber, s[i : i+n]})
			i += n
		case startsName(c):
			n := span(s[i:], continuesName)
			words = append(words, word(s[i:i+n]))
			i += n
		default:
			return nil, fmt.Errorf("%w: unexpected %q", ErrSyncNames, c)
		}
	}
	return words, nil
}

func word(s string) syncWord {
	if strings.EqualFold(s, "first") || strings.EqualFold(s, "any") {
		return syncWord{syncKeyword, s}
	}
	return syncWord{syncName, s}
}

// quotedName reads a name in double quotes, doubled inside; n is how many bytes it takes.
func quotedName(s string) (name string, n int, ok bool) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] != '"':
			b.WriteByte(s[i])
		case i+1 < len(s) && s[i+1] == '"':
			b.WriteByte('"')
			i++
		default:
			return b.String(), i + 1, true
		}
	}
	return "", 0, false
}

func span(s string, in func(byte) bool) int {
	n := 0
	for n < len(s) && in(s[n]) {
		n++
	}
	return n
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func startsName(c byte) bool {
	return c == '_' || c >= 0x80 || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func continuesName(c byte) bool { return startsName(c) || isDigit(c) || c == '$' }
