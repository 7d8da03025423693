package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/admin"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const testToken = "540cd628-d74e-11e7-992e-60f81dd129c2"

// manual is the cluster of CLup's manual: 42 is the primary, 44 is gone.
type manual struct{ fail error }

func (f manual) Clusters() []string { return []string{"cluster01"} }

func (f manual) Cluster(name string) (admin.Cluster, error) {
	if name != "cluster01" {
		return admin.Cluster{}, fmt.Errorf("there is no cluster %q: %w", name, admin.ErrUnknown)
	}
	node := func(id int, role string, lag int64) admin.Node {
		seconds := float64(lag) / 1000
		return admin.Node{ID: id, Host: fmt.Sprintf("192.168.56.%d", 40+id), Port: 5432, Role: role, Health: "healthy",
			InRotation: role == "standby", Weight: 1, Timeline: 9, LSN: "0/30E73D0", LagBytes: &lag, LagSeconds: &seconds,
			OSUser: "postgres", PGData: "/home/postgres/pgdata", AppName: fmt.Sprintf("stb%d", 40+id)}
	}
	nodes := []admin.Node{node(1, "standby", 0), node(2, "primary", 0), node(3, "standby", 152000), node(4, "standby", 0)}
	nodes[1].LagBytes = nil
	nodes[3].Health, nodes[3].Why, nodes[3].InRotation, nodes[3].LagBytes = "down", "connection refused", false, nil
	return admin.Cluster{Name: name, State: admin.StateDegraded, Why: "node 4 is down", Epoch: 3, Primary: 2,
		SystemID: "7212345678901234567", Backends: []string{"192.168.56.41:5432", "192.168.56.43:5432"}, Nodes: nodes}, nil
}

func (f manual) AddBackend(context.Context, string, string) error    { return f.fail }
func (f manual) RemoveBackend(context.Context, string, string) error { return f.fail }
func (f manual) Attach(context.Context, string, int) error           { return f.fail }
func (f manual) Detach(context.Context, string, int) error           { return f.fail }
func (f manual) Drain(context.Context, string, int) error            { return f.fail }

func (f manual) LastLSN(context.Context, string) ([]admin.NodeLSN, error) {
	return []admin.NodeLSN{
		{ID: 1, Host: "192.168.56.41", Port: 5432, Timeline: 9, LSN: "0/30E73D0"},
		{ID: 2, Host: "192.168.56.42", Port: 5432, Primary: true, Timeline: 9, LSN: "0/30E73D0"},
		{ID: 3, Host: "192.168.56.43", Port: 5432, Timeline: 9, LSN: "0/30E73D0"},
		{ID: 4, Host: "192.168.56.44", Port: 5432, Error: "connection refused"},
	}, f.fail
}

func (f manual) ReplicationDelay(context.Context, string) ([]admin.NodeDelay, error) {
	standby := func(id int, replay int64) admin.NodeDelay {
		zero := int64(0)
		return admin.NodeDelay{ID: id, Host: fmt.Sprintf("192.168.56.%d", 40+id), Port: 5432, CurrentLSN: "0/30E8038",
			SentDelay: &zero, WriteDelay: &zero, FlushDelay: &zero, ReplayDelay: &replay, IsSync: "async", State: "normal"}
	}
	return []admin.NodeDelay{
		standby(1, 152), {ID: 2, Host: "192.168.56.42", Port: 5432, Primary: true}, standby(3, 152),
		{ID: 4, Host: "192.168.56.44", Port: 5432, CurrentLSN: "0/30E8038", State: "not streaming"},
	}, f.fail
}

// adminPort serves the fleet until the test ends and returns the path of a file that leads ctl there.
func adminPort(t *testing.T, f manual) (file, address string) {
	t.Helper()
	return servePort(t, admin.Parts{Observer: f, Backends: f, Nodes: f, Replication: f})
}

func servePort(t *testing.T, parts admin.Parts) (file, address string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := admin.New(admin.Config{Token: testToken}, ln, parts, zap.NewNop())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	file = filepath.Join(t.TempDir(), "cstproxy.toml")
	text := fmt.Sprintf("[admin]\nlisten = %q\ntoken = %q\n", ln.Addr(), testToken)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, ln.Addr().String()
}

// cstproxy runs the command line in this process.
func cstproxy(args ...string) (code int, out, errOut string) {
	var o, e bytes.Buffer
	code = execute(context.Background(), args, &o, &e)
	return code, o.String(), e.String()
}

func TestCtlPrintsWhatClupadmPrints(t *testing.T) {
	file, address := adminPort(t, manual{})
	for name, args := range map[string]string{
		"show":               "show",
		"show.json":          "show -o json",
		"show.yaml":          "list -o yaml",
		"show.tsv":           "show -o tsv -i 3",
		"get_last_lsn":       "get_last_lsn -c cluster01",
		"get_last_lsn.yaml":  "lsn -o yaml -i 4",
		"repl_delay":         "repl_delay -c cluster01",
		"repl_delay.tsv":     "lag -o tsv",
		"node_attach":        "node attach -i 4",
		"node_detach.json":   "node detach 1 -o json",
		"stats":              "stats",
		"node_drain_primary": "node drain 2 --yes",
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errOut := cstproxy(append([]string{"ctl", "-f", file}, strings.Fields(args)...)...)
			if code != 0 {
				t.Fatalf("exit code %d: %s", code, errOut)
			}
			golden(t, name, strings.ReplaceAll(out, address, "127.0.0.1:8082"))
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (go test -update writes it)", err)
	}
	if got != string(want) {
		t.Errorf("%s:\n%s\nwant:\n%s", name, got, want)
	}
}

func TestExitCodesTellWhatHappened(t *testing.T) {
	file, address := adminPort(t, manual{})
	failing, _ := adminPort(t, manual{fail: errors.New("disk full")})
	refusing, _ := adminPort(t, manual{fail: fmt.Errorf("it belongs to another system: %w", admin.ErrRefused)})
	t.Setenv("CSTPROXY_CONFIG", "")
	t.Setenv("CSTLB_TOKEN", "")
	t.Chdir(t.TempDir())
	for _, c := range []struct {
		name, args string
		code       int
		says       string
	}{
		{"done", "ctl show -f " + file, 0, ""},
		{"failed", "ctl node attach 1 -f " + failing, 1, "disk full"},
		{"an unknown command", "ctl shwo", 2, `did you mean show?`},
		{"an unknown flag", "ctl show --what", 2, "unknown flag"},
		{"an unknown format", "ctl show -o xml", 2, "want table, json, yaml or tsv"},
		{"no node", "ctl node detach -f " + file, 2, "give its id with -i"},
		{"two nodes", "ctl node detach 1 -i 2 -f " + file, 2, "one node"},
		{"an unknown cluster", "ctl show -c none -f " + file, 2, `there is no cluster "none"`},
		{"an unknown node", "ctl show -i 9 -f " + file, 2, "there is no node 9"},
		{"an unknown node's position", "ctl get_last_lsn -i 9 -f " + file, 2, "there is no node 9"},
		{"an unknown node's delay", "ctl repl_delay -i 9 -f " + file, 2, "there is no node 9"},
		{"no file", "ctl show", 2, "no configuration file"},
		{"a file that is not there", "ctl show -f none.toml", 2, "none.toml: cannot be read"},
		{"nobody there", "ctl show --url 127.0.0.1:1", 3, "connection refused"},
		{"refused", "ctl node attach 1 -f " + refusing, 4, "another system"},
		{"no token", "ctl node attach 1 --url " + address, 4, "missing or wrong token"},
		{"the primary, unasked", "ctl node detach 2 -f " + file, 4, "node 2 is the primary of cluster01"},
		{"too many arguments", "version x", 2, "version --help"},
		{"check without a file", "check", 2, "no configuration file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errOut := cstproxy(strings.Fields(c.args)...)
			if code != c.code || !strings.Contains(errOut, c.says) {
				t.Errorf("exit code %d, want %d\n%s%s", code, c.code, out, errOut)
			}
			if code == 0 && errOut != "" {
				t.Errorf("standard error: %s", errOut)
			}
		})
	}
}

func TestCtlTakesTheTokenFromTheEnvironment(t *testing.T) {
	_, address := adminPort(t, manual{})
	t.Setenv("CSTPROXY_CONFIG", "")
	t.Chdir(t.TempDir())
	t.Setenv("CSTLB_TOKEN", testToken)
	if code, _, errOut := cstproxy("ctl", "node", "attach", "1", "--url", address); code != 0 {
		t.Errorf("exit code %d: %s", code, errOut)
	}
}

func TestOnlyTheLastReaderAndThePrimaryAreWorthAQuestion(t *testing.T) {
	c, err := manual{}.Cluster("cluster01")
	if err != nil {
		t.Fatal(err)
	}
	for node, want := range map[int]string{1: "", 2: "node 2 is the primary of cluster01: writes would wait", 4: ""} {
		if got := consequence([]admin.Cluster{c}, node); got != want {
			t.Errorf("node %d: %q, want %q", node, got, want)
		}
	}
	c.Nodes[2].InRotation = false
	if got := consequence([]admin.Cluster{c}, 1); got != "node 1 is the last node of cluster01 that takes reads" {
		t.Errorf("the last reader: %q", got)
	}
}

func TestYAMLQuotesWhatWouldNotStayText(t *testing.T) {
	var b bytes.Buffer
	data := map[string]any{"a": []any{"plain word", "yes", "1.5", "", "0/30E73D0", "a: b", map[string]any{"k": []any{}, "m": map[string]any{}}}, "n": nil, "x": 1.5}
	if err := writeYAML(&b, data); err != nil {
		t.Fatal(err)
	}
	want := "a:\n  - plain word\n  - \"yes\"\n  - \"1.5\"\n  - \"\"\n  - \"0/30E73D0\"\n  - \"a: b\"\n  - k: []\n    m: {}\n\"n\": null\nx: 1.5\n"
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}
