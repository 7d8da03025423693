package oracle

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/cstproxy/cstproxy/router"
)

// longest bounds the texts of the fuzz target: libpg_query has no limit of its own for nesting.
const longest = 4096

// FuzzReadHasNoWrite: whatever the bytes are, if they are called a read, the grammar either refuses
// them, as a server does, or finds no write in them. The mode says whether the bytes are the text
// or choose words of a vocabulary, how strings are read, and what is known of the database.
func FuzzReadHasNoWrite(f *testing.F) {
	for i, base := range Bases {
		f.Add([]byte(base), byte(i%4))
		f.Add([]byte(base), byte(4+i%4))
	}
	for i, snippet := range Snippets {
		f.Add([]byte("SELECT a FROM t "+snippet), byte(i%4))
		f.Add([]byte("SELECT "+snippet+" FROM t"), byte(i%4))
	}
	vocabulary := vocabulary()
	sides := []Side{Offline(), Invented()}
	c := router.New(router.Config{}) // without a cache it remembers nothing
	f.Fuzz(func(t *testing.T, b []byte, mode byte) {
		if len(b) > longest {
			return
		}
		x := Text{SQL: string(b), Strings: Strings(mode & 1)}
		side := sides[mode>>1&1]
		if mode&4 != 0 {
			x.SQL = soup(b, vocabulary)
		}
		if strings.IndexByte(x.SQL, 0) >= 0 || !utf8.ValidString(x.SQL) {
			return // no text that a server of this encoding takes
		}
		v := side.Classify(c, x)
		if v.Route.Target != router.Standby {
			return
		}
		tree, err := Parse(x.SQL, x.Strings)
		if err != nil {
			return
		}
		if broken := side.Broken(v, side.Truth.JudgeText(tree)); len(broken) > 0 {
			t.Errorf("%s, %q: %v", side.Name, x.SQL, broken)
		}
	})
}

// vocabulary is at most 65536 pieces of SQL; a fuzzer makes statements of them faster than of bytes.
func vocabulary() []string {
	seen := map[string]bool{}
	var out []string
	add := func(s string) {
		if s != "" && !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	for _, text := range Bases {
		for _, piece := range cut(text) {
			add(strings.TrimSpace(piece))
		}
	}
	for _, list := range [][]string{words, Snippets, blanks} {
		for _, s := range list {
			add(s)
		}
	}
	return out
}

// soup reads two bytes for each piece.
func soup(b []byte, vocabulary []string) string {
	var out strings.Builder
	for ; len(b) > 1 && out.Len() < longest; b = b[2:] {
		out.WriteString(vocabulary[(int(b[0])<<8|int(b[1]))%len(vocabulary)])
		out.WriteByte(' ')
	}
	return out.String()
}
