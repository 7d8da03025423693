package oracle

import (
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	pg_query "github.com/pganalyze/pg_query_go/v6"
)

// Statement is one statement of the corpus.
type Statement struct {
	Text
	File string
	// Tree is nil when the grammar refuses the statement, as a server does.
	Tree *pg_query.ParseResult
}

// Corpus is all statements of the suite's scripts.
func (s Suite) Corpus() ([]Statement, error) {
	files, err := s.Scripts()
	if err != nil {
		return nil, err
	}
	var out []Statement
	for _, file := range files {
		b, err := os.ReadFile(filepath.Join(s.Root, file))
		if err != nil {
			return nil, err
		}
		for _, text := range Script(string(b)) {
			for _, one := range split(text) {
				st := Statement{Text: one, File: file}
				if tree, err := Parse(one.SQL, one.Strings); err == nil {
					st.Tree = tree
				}
				out = append(out, st)
			}
		}
	}
	return out, nil
}

// split cuts a text into statements. The splitter does not know of non-standard strings; such a
// text, and one that cannot be cut into tokens, stays whole.
func split(t Text) []Text {
	if t.Strings == Escape || !utf8.ValidString(t.SQL) {
		return []Text{t}
	}
	parts, err := pg_query.SplitWithScanner(t.SQL, true)
	if err != nil {
		return []Text{t}
	}
	var out []Text
	for _, p := range parts {
		if strings.TrimSpace(p) != "" {
			out = append(out, Text{p, t.Strings})
		}
	}
	return out
}
