package router

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the expectations in testdata")

var (
	unescaper = strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\t`, "\t", `\r`, "\r", `\f`, "\f")
	offline   = Env{}
)

// line is one case of a file in testdata: what is expected, and the statement.
type line struct {
	number int
	want   []string
	sql    string
}

// cases reads a file of lines "want | want | statement", and rewrites it with what got returns
// when -update is given.
func cases(t *testing.T, name string, columns int, got func(l line) []string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	for i, text := range lines {
		if text == "" || text[0] == '#' {
			continue
		}
		parts := strings.SplitN(text, "|", columns+1)
		if len(parts) != columns+1 {
			t.Fatalf("%s:%d: %d columns", path, i+1, len(parts))
		}
		l := line{number: i + 1, sql: unescaper.Replace(strings.TrimPrefix(parts[columns], " "))}
		for _, p := range parts[:columns] {
			l.want = append(l.want, strings.TrimSpace(p))
		}
		if g := got(l); *update {
			lines[i] = strings.TrimRight(strings.Join(g, " | ")+" | "+strings.TrimPrefix(parts[columns], " "), " ")
		} else if a, b := strings.Join(g, " | "), strings.Join(l.want, " | "); a != b {
			t.Errorf("%s:%d: %s\n got %s\nwant %s", path, i+1, l.sql, a, b)
		}
	}
	if *update {
		if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStatementsGoWhereTheyBelong(t *testing.T) {
	c := New(DefaultConfig())
	cases(t, "statements.txt", 2, func(l line) []string {
		v := c.Classify([]byte(l.sql), offline)
		return []string{v.Route.Target.String(), v.Route.Why}
	})
}
