package law

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"sort"
	"strings"
	"testing"
)

const module = "github.com/cstproxy/cstproxy"

// pkg is one package as `go list` tells it; Imports are those of its non-test files.
type pkg struct {
	ImportPath string
	Imports    []string
}

// packages lists the module's packages and everything below them, by import path.
func packages(t *testing.T) map[string]pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-deps", "-json=ImportPath,Imports", module+"/...").Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatalf("go list: %v", err)
	}
	all := map[string]pkg{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all[p.ImportPath] = p
	}
}

// ours is the path inside the module ("" = not ours).
func ours(path string) string {
	inside, ok := strings.CutPrefix(path, module+"/")
	if !ok {
		return ""
	}
	return inside
}

// within says whether a path is one of the trees' roots or below it.
func within(path string, trees ...string) bool {
	return slices.ContainsFunc(trees, func(tree string) bool {
		return path == tree || strings.HasPrefix(path, tree+"/")
	})
}

// reach is everything of ours that p imports, directly or not.
func reach(all map[string]pkg, p string) []string {
	seen := map[string]bool{}
	var visit func(string)
	visit = func(path string) {
		for _, imported := range all[path].Imports {
			if ours(imported) != "" && !seen[imported] {
				seen[imported] = true
				visit(imported)
			}
		}
	}
	visit(p)
	var list []string
	for path := range seen {
		list = append(list, ours(path))
	}
	sort.Strings(list)
	return list
}

func TestLawOfImportsAmongOurPackages(t *testing.T) {
	all := packages(t)
	for path := range all {
		from := ours(path)
		if from == "" {
			continue
		}
		for _, to := range reach(all, path) {
			if why := forbidden(from, to); why != "" {
				t.Errorf("%s reaches %s: %s", from, to, why)
			}
		}
	}
}

func forbidden(from, to string) string {
	switch {
	case within(from, "router", "proxy/wire", "ha/topology", "bench"):
		return "it imports nothing of ours"
	case within(from, "proxy", "balancer") && within(to, "ha") && to != "ha/topology":
		return "the data plane knows only ha/topology of the control plane"
	case within(from, "ha") && within(to, "proxy"):
		return "the control plane does not know the data plane"
	case within(from, "ha/record") && to != "ha/topology",
		within(from, "ha/lease", "ha/decide") && !within(to, "ha/record", "ha/topology"):
		return "what is decided depends on values alone"
	case within(from, "ha/gossip", "ha/vip", "ha/hook") && to != "ha/topology":
		return "of ours it imports only ha/topology"
	case within(from, "ha/peer"):
		return "it imports nothing of ours"
	case within(from, "ha/consensus") && !within(to, "ha/record", "ha/peer", "ha/topology"):
		return "of ours it imports only what it keeps and what it speaks through"
	case within(to, "cmd") && !within(from, "cmd"),
		within(to, "admin") && !within(from, "cmd", "admin", "conf"), // conf assembles admin's Config
		within(to, "conf") && !within(from, "cmd", "conf"),
		within(to, "ha/fleet", "ha/member") && !within(from, "cmd", "conf", "ha/fleet", "ha/member"): // conf assembles member's Config
		return "only cmd imports it"
	case within(from, "ha/remote") && to != "ha/topology" && !within(to, "ha/remote"):
		return "ha/remote knows of us only ha/topology"
	case within(from, "ha/pgnode") && !within(to, "ha/topology", "ha/record"),
		within(from, "ha/operation") && !within(to, "ha/topology", "ha/record", "ha/decide", "ha/pgnode", "ha/remote", "ha/vip", "ha/hook"):
		return "what acts on servers knows what was decided, and nobody who decides or agrees"
	case within(to, "ha/pglocal", "ha/remote/sshlocal", "ha/peer/peerlocal") && !within(from, "cmd", "ha/pglocal", "ha/remote/sshlocal", "ha/peer/peerlocal"):
		return "test clusters are for tests and the demo"
	}
	return ""
}

// homes says where a dependency may be imported. What is not listed may be used anywhere.
var homes = map[string][]string{
	"github.com/hashicorp/raft":              {"ha/consensus"},
	"github.com/hashicorp/go-hclog":          {"ha/consensus"},
	"go.etcd.io/bbolt":                       {"ha/consensus"},
	"github.com/hashicorp/memberlist":        {"ha/gossip"},
	"github.com/skeema/knownhosts":           {"ha/remote"},
	"golang.org/x/crypto/ssh":                {"ha/remote"},
	"github.com/vishvananda/netlink":         {"ha/vip"},
	"github.com/jackc/pgx/v5":                {"ha/pgnode", "ha/pglocal", "proxy/catalog", "cmd/cstproxy/demo", "bench"},
	"github.com/jackc/pgx/v5/pgproto3":       {"proxy", "ha/pgnode", "ha/pglocal"},
	"github.com/jackc/pgproto3/v2":           {"proxy"},
	"github.com/BurntSushi/toml":             {"conf"},
	"github.com/spf13/cobra":                 {"cmd"},
	"github.com/jedib0t/go-pretty/v6":        {"cmd"},
	"github.com/coreos/go-systemd/v22":       {"cmd"},
	"github.com/lib/pq":                      {},
	"github.com/prometheus/client_golang":    {"admin", "cmd"},
	"net/http":                               {"admin", "cmd", "ha/hook"},
	"golang.org/x/sys/unix":                  {"proxy/reactor", "ha", "cmd", "bench"},
	"syscall":                                {"proxy/reactor", "proxy", "ha", "cmd", "bench"},
	"os/exec":                                {"ha", "cmd", "bench"},
	"github.com/pganalyze/pg_query_go/v6":    {},
	"github.com/anishathalye/porcupine":      {},
	"pgregory.net/rapid":                     {},
	"go.uber.org/goleak":                     {},
	"testing":                                {},
	"unsafe":                                 {"proxy/reactor", "bench"},
	"log":                                    {"ha/gossip", "bench"},
	"math/rand":                              {},
	"github.com/prometheus/client_model/go":  {},
	"github.com/jackc/chunkreader/v2":        {},
	"github.com/jackc/pgx/v5/stdlib":         {},
	"github.com/hashicorp/raft-boltdb/v2":    {},
	"github.com/hashicorp/go-metrics/compat": {},
}

func TestLawOfImportsFromOutside(t *testing.T) {
	for path, p := range packages(t) {
		from := ours(path)
		if from == "" {
			continue
		}
		for _, imported := range p.Imports {
			home, listed := homeOf(imported)
			if listed && !within(from, home...) {
				t.Errorf("%s imports %s, whose homes are %v", from, imported, home)
			}
		}
	}
}

// homeOf finds the longest entry of homes that the import lies in. Standard library entries are
// meant exactly.
func homeOf(imported string) (home []string, listed bool) {
	for path := imported; ; {
		if home, listed := homes[path]; listed && (path == imported || strings.Contains(path, ".")) {
			return home, true
		}
		cut := strings.LastIndexByte(path, '/')
		if cut < 0 {
			return nil, false
		}
		path = path[:cut]
	}
}
