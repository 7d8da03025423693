//lint:file-ignore SA1019 ast.Object resolves package-level names well enough here, without type checking the module

package law

import (
	"go/ast"
	"go/token"
	"strings"
	"testing"
)

// packageVars are the package-level variables of one package, by name.
type packageVars map[string]*ast.ValueSpec

// TestLawOfPackageState: a package-level variable is a constant in all but name. It has a value
// from the start, and nothing assigns to it, counts it, or takes its address.
func TestLawOfPackageState(t *testing.T) {
	byDir := map[string][]*source{}
	for _, s := range sources(t) {
		if !s.test() && !within(s.dir(), "bench") {
			byDir[s.dir()] = append(byDir[s.dir()], s)
		}
	}
	for _, files := range byDir {
		vars := packageVars{}
		for _, s := range files {
			collectVars(t, s, vars)
		}
		for _, s := range files {
			checkWrites(t, s, vars)
		}
	}
}

func collectVars(t *testing.T, s *source, vars packageVars) {
	t.Helper()
	for _, d := range s.file.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.VAR {
			continue
		}
		for _, spec := range g.Specs {
			v := spec.(*ast.ValueSpec)
			embedded := g.Doc != nil && strings.Contains(docText(g.Doc), "//go:embed")
			for _, name := range v.Names {
				if name.Name == "_" || excused(s, name.Name, "state") {
					continue
				}
				vars[name.Name] = v
				if len(v.Values) == 0 && !embedded && name.Name != "version" {
					t.Errorf("%s:%d: package-level variable %s without a value: it is there to be changed", s.path, s.line(v), name.Name)
				}
			}
		}
	}
}

func docText(g *ast.CommentGroup) string {
	var b strings.Builder
	for _, c := range g.List {
		b.WriteString(c.Text + "\n")
	}
	return b.String()
}

func checkWrites(t *testing.T, s *source, vars packageVars) {
	t.Helper()
	report := func(e ast.Expr, what string) {
		if name := vars.named(e); name != "" {
			t.Errorf("%s:%d: package-level variable %s is %s", s.path, s.line(e), name, what)
		}
	}
	ast.Inspect(s.file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			if n.Tok != token.DEFINE {
				for _, left := range n.Lhs {
					report(left, "assigned to")
				}
			}
		case *ast.IncDecStmt:
			report(n.X, "counted")
		case *ast.UnaryExpr:
			if n.Op == token.AND {
				if id, ok := n.X.(*ast.Ident); ok {
					report(id, "addressed")
				}
			}
		}
		return true
	})
}

// named is the package-level variable at the root of an expression such as v, v.f, v[i].
func (vars packageVars) named(e ast.Expr) string {
	for {
		switch x := e.(type) {
		case *ast.SelectorExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		case *ast.Ident:
			spec, ok := vars[x.Name]
			if !ok || (x.Obj != nil && x.Obj.Decl != spec) {
				return "" // a local of the same name
			}
			return x.Name
		default:
			return ""
		}
	}
}
