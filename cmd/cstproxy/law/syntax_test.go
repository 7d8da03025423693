//lint:file-ignore SA1019 ast.Object resolves package-level names well enough here, without type checking the module

package law

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	maxFileLines = 600
	maxFuncLines = 80
	maxParams    = 4
	nearFile     = 450 // reported, not refused
	nearFunc     = 65
)

// source is one parsed file.
type source struct {
	path string // relative to the module's root, with slashes
	fset *token.FileSet
	file *ast.File
	text string
}

func (s *source) test() bool          { return strings.HasSuffix(s.path, "_test.go") }
func (s *source) dir() string         { return filepath.ToSlash(filepath.Dir(s.path)) }
func (s *source) line(n ast.Node) int { return s.fset.Position(n.Pos()).Line }

func (s *source) lines(n ast.Node) int {
	return s.fset.Position(n.End()).Line - s.fset.Position(n.Pos()).Line + 1
}

// sources parses every Go file of the repository, nested modules included.
func sources(t *testing.T) []*source {
	t.Helper()
	root := filepath.Join("..", "..", "..")
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		t.Fatal(err)
	}
	var all []*source
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // somebody else's scratch file
			}
			return err
		}
		if d.IsDir() {
			if name := d.Name(); path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "node_modules") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		s := &source{path: filepath.ToSlash(rel), fset: token.NewFileSet(), text: string(text)}
		s.file, err = parser.ParseFile(s.fset, path, text, parser.ParseComments)
		all = append(all, s)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// imported is the name under which the file knows an import path; "" when it does not import it.
func (s *source) imported(path string) string {
	for _, spec := range s.file.Imports {
		if strings.Trim(spec.Path.Value, `"`) != path {
			continue
		}
		if spec.Name != nil {
			return spec.Name.Name
		}
		base := filepath.Base(path)
		if len(base) > 1 && base[0] == 'v' && base[1] >= '0' && base[1] <= '9' {
			base = filepath.Base(filepath.Dir(path))
		}
		return base
	}
	return ""
}

// calls says whether n is name.fn of an imported package.
func calls(n ast.Node, name, fn string) bool {
	sel, ok := n.(*ast.SelectorExpr)
	if !ok || name == "" || sel.Sel.Name != fn {
		return false
	}
	x, ok := sel.X.(*ast.Ident)
	return ok && x.Name == name
}

func TestLawOfSizes(t *testing.T) {
	for _, s := range sources(t) {
		if n := strings.Count(s.text, "\n"); n > maxFileLines {
			t.Errorf("%s: %d lines, at most %d", s.path, n, maxFileLines)
		} else if n > nearFile {
			t.Logf("%s: %d lines", s.path, n)
		}
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || s.test() {
				continue
			}
			if n := s.lines(f); n > maxFuncLines && !excused(s, f.Name.Name, "size") {
				t.Errorf("%s:%d: %s has %d lines, at most %d", s.path, s.line(f), f.Name.Name, n, maxFuncLines)
			} else if n > nearFunc {
				t.Logf("%s:%d: %s has %d lines", s.path, s.line(f), f.Name.Name, n)
			}
		}
	}
}

func TestLawOfDeclarations(t *testing.T) {
	for _, s := range sources(t) {
		for _, bad := range []string{"util", "utils", "common", "types", "helper", "helpers", "misc"} {
			if s.file.Name.Name == bad {
				t.Errorf("%s: a package named %s says nothing", s.path, bad)
			}
		}
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if f.Name.Name == "init" && f.Recv == nil {
				t.Errorf("%s:%d: init()", s.path, s.line(f))
			}
			if !s.test() {
				checkParams(t, s, f)
			}
		}
	}
}

func checkParams(t *testing.T, s *source, f *ast.FuncDecl) {
	t.Helper()
	n := 0
	for _, p := range f.Type.Params.List {
		n += max(1, len(p.Names))
		if id, ok := p.Type.(*ast.Ident); ok && id.Name == "bool" && !excused(s, f.Name.Name, "bool") {
			t.Errorf("%s:%d: %s takes a bool: two functions or an enum say more", s.path, s.line(f), f.Name.Name)
		}
	}
	if n > maxParams && !excused(s, f.Name.Name, "params") {
		t.Errorf("%s:%d: %s takes %d parameters, at most %d: a struct names them", s.path, s.line(f), f.Name.Name, n, maxParams)
	}
}

func TestLawOfForbiddenCalls(t *testing.T) {
	for _, s := range sources(t) {
		timePkg, contextPkg := s.imported("time"), s.imported("context")
		zapPkg := s.imported("go.uber.org/zap")
		old := s.imported("github.com/jackc/pgproto3/v2")
		polls := loops(s)
		mayStart := s.test() || within(s.dir(), "cmd", "bench", "ha/pglocal")
		ast.Inspect(s.file, func(n ast.Node) bool {
			if n == nil {
				return true
			}
			switch {
			case s.test() && calls(n, timePkg, "Sleep") && !inside(n, polls) && !excused(s, "", "sleep"):
				t.Errorf("%s:%d: time.Sleep in a test outside of a loop: await the condition", s.path, s.line(n))
			case !mayStart && (calls(n, contextPkg, "Background") || calls(n, contextPkg, "TODO")) && !excused(s, "", "context"):
				t.Errorf("%s:%d: contexts come from the caller", s.path, s.line(n))
			case calls(n, zapPkg, "S") || calls(n, zapPkg, "L") || calls(n, zapPkg, "ReplaceGlobals"):
				t.Errorf("%s:%d: the logger is passed in", s.path, s.line(n))
			case old != "":
				checkOldProtocol(t, s, n, old)
			}
			return true
		})
	}
}

// loops are the for statements of a file: a sleep in one is how a condition is polled.
func loops(s *source) []ast.Node {
	var list []ast.Node
	ast.Inspect(s.file, func(n ast.Node) bool {
		if f, ok := n.(*ast.ForStmt); ok {
			list = append(list, f)
		}
		return true
	})
	return list
}

func inside(n ast.Node, outer []ast.Node) bool {
	return slices.ContainsFunc(outer, func(o ast.Node) bool { return o.Pos() <= n.Pos() && n.End() <= o.End() })
}

// checkOldProtocol: the decoders of pgproto3/v2 panic on malformed input and allocate by claimed
// lengths (GO-2026-4518), and the module is at its end of life. It may only build messages.
func checkOldProtocol(t *testing.T, s *source, n ast.Node, name string) {
	t.Helper()
	for _, fn := range []string{"NewBackend", "NewFrontend", "Backend", "Frontend", "ChunkReader", "NewChunkReader"} {
		if calls(n, name, fn) {
			t.Errorf("%s:%d: pgproto3/v2's %s: it may only be used to Encode", s.path, s.line(n), fn)
		}
	}
	call, ok := n.(*ast.CallExpr)
	if !ok {
		return
	}
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if ok && (sel.Sel.Name == "Decode" || sel.Sel.Name == "Receive" || sel.Sel.Name == "ReceiveStartupMessage") {
		t.Errorf("%s:%d: %s in a file that imports pgproto3/v2: it may only be used to Encode", s.path, s.line(n), sel.Sel.Name)
	}
}

func TestLawOfUnfinishedWork(t *testing.T) {
	for _, s := range sources(t) {
		for _, g := range s.file.Comments {
			for _, mark := range []string{"TO" + "DO", "FIX" + "ME", "XX" + "X"} {
				if strings.Contains(g.Text(), mark) {
					t.Errorf("%s:%d: %s", s.path, s.line(g), mark)
				}
			}
		}
	}
}
