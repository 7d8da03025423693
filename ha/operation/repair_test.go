package operation

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/pglocal"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

func TestWhatCannotBeRewoundIsCopiedAnew(t *testing.T) {
	s := newStage(t, pglocal.Options{Standbys: 1, Settings: map[string]string{"wal_log_hints": "off"}})
	a, b := s.pg.Nodes()[0], s.pg.Nodes()[1]
	s.must(action(decide.Recruit, b, 2, record.Fence))
	s.sql(a, "CREATE TABLE lost (x int)")
	s.must(action(decide.Stop, a, 2, record.Fence), action(decide.PromoteIt, b, 2, record.Promote))
	rewind := from(action(decide.Rewind, a, 2, record.Done), b)
	e := s.within() // the error itself, not its text
	if _, err := s.Executor.within(e, rewind, s.nodes[rewind.Node]); !Impossible(err) {
		t.Fatalf("%v\n%s", err, s.said())
	}
	_, r := s.Do(t.Context(), action(decide.Look, a, 2, record.Done))
	if !r.Fact.Stopped || !r.Fact.Complete || !r.Host.Standby {
		t.Fatalf("what could not be rewound is not as it was: %+v, %+v", r.Fact, r.Host)
	}
	r = s.must(from(action(decide.Rebuild, a, 2, record.Done), b))
	if r.Fact.Role != topology.RoleStandby || r.Fact.Upstream != topology.NodeID(b.ID) {
		t.Errorf("%+v", r.Fact)
	}
	s.sql(b, "CREATE TABLE new (x int)")
	s.reads(a, "SELECT to_regclass('new') IS NOT NULL, to_regclass('lost') IS NULL, current_setting('cluster_name')", "t\tt\t"+a.Name)
	old, err := filepath.Glob(a.Dir + ".cstproxy-old-*")
	if err != nil || len(old) != 1 {
		t.Errorf("the old directory: %v, %v (the repeat must not have copied again)", old, err)
	}
	if !strings.Contains(s.said(), "100%") {
		t.Error("no progress was told")
	}
}

// crippled is a folder of PostgreSQL's programs in which one is a script.
func crippled(t *testing.T, name, script string) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "cst-operation-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	real, err := pglocal.Program("postgres")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"postgres", "pg_ctl", "pg_rewind", "pg_controldata", "pg_basebackup"} {
		text := `#!/bin/sh
exec ` + filepath.Join(filepath.Dir(real), p) + ` "$@"
`
		if p == name {
			text = "#!/bin/sh\nreal=" + filepath.Join(filepath.Dir(real), p) + "\n" + script
		}
		if err := os.WriteFile(filepath.Join(dir, p), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestAnInterruptedRewindIsNotStartedAndNotRepeated(t *testing.T) {
	s, a, b, _ := failover(t)
	whole := s.Executor
	dir := crippled(t, "pg_rewind", `case "$*" in
*--version* | *--dry-run*) exec $real "$@" ;;
esac
$real "$@" & sleep 0.05; kill -9 $!; exit 1
`)
	s.Executor = s.executor(func(n *Node) { n.BinDir = dir })
	rewind := from(action(decide.Rewind, a, 2, record.Done), b)
	if _, err := s.Executor.within(s.within(), rewind, s.nodes[rewind.Node]); !Interrupted(err) {
		t.Fatalf("%v\n%s", err, s.said())
	}
	s.Executor = whole
	if err := a.Start(t.Context()); err == nil {
		t.Fatal("somebody could start the mixture")
	}
	for _, again := range []decide.Action{rewind, action(decide.Start, a, 2, record.Done), action(decide.Revive, a, 2, record.Done)} {
		if _, err := s.Executor.within(s.within(), again, s.nodes[rewind.Node]); !Interrupted(err) {
			t.Fatalf("%s: %v", again.Verb, err)
		}
	}
	_, r := s.Do(t.Context(), action(decide.Look, a, 2, record.Done))
	if r.Fact.Complete || r.Fact.Halfway || r.Host.Unfinished != "rewinding" {
		t.Fatalf("%+v, %+v", r.Fact, r.Host)
	}
	s.must(from(action(decide.Rebuild, a, 2, record.Done), b))
	s.reads(a, "SELECT sum(x), current_setting('cluster_name') FROM t", "3\t"+a.Name)
}

func TestARewindThatDiedBeforeOrAfterGoesOn(t *testing.T) {
	s, a, b, _ := failover(t)
	whole := s.Executor
	rewind := from(action(decide.Rewind, a, 2, record.Done), b)
	dies := func(name, script, phase string) {
		t.Helper()
		dir := crippled(t, name, script)
		s.Executor = s.executor(func(n *Node) { n.BinDir = dir })
		result, r := s.Do(t.Context(), rewind)
		if result.Err == "" || r.Host == nil || r.Host.Unfinished != phase || r.Fact.Halfway != (phase != "") || r.Fact.Complete && r.Fact.Halfway {
			t.Fatalf("%q, %+v\n%s", result.Err, r.Host, s.said())
		}
		if err := a.Start(t.Context()); err == nil && phase != "" {
			t.Fatal("somebody could start it in the middle")
		} else if err == nil && s.sql(a, "SELECT pg_is_in_recovery()") != "t" {
			t.Fatal("somebody could start it as a primary")
		}
		s.Executor = whole
	}
	// The script's own process dies with its group, as in a power cut.
	dies("postgres", `case "$*" in *--version*) exec $real "$@" ;; esac
kill -9 0
`, "recovering")
	dies("pg_ctl", `case "$*" in *--version*|stop*) exec $real "$@" ;; esac
kill -9 0
`, "")
	s.must(rewind)
	s.reads(a, "SELECT sum(x), current_setting('cluster_name') FROM t", "3\t"+a.Name)
}

func TestARebuildThatDiedWhenTheOldDirectoryWasOutOfTheWayGoesOn(t *testing.T) {
	s, a, b, _ := failover(t)
	rebuild := from(action(decide.Rebuild, a, 2, record.Done), b)
	s.must(rebuild)
	s.must(action(decide.Stop, a, 2, record.Done))
	copied := a.Dir + ".cstproxy-copied"
	if err := os.Rename(a.Dir, copied); err != nil {
		t.Fatal(err)
	}
	look := action(decide.Look, a, 2, record.Done)
	if _, r := s.Do(t.Context(), look); r.Host == nil || r.Host.Unfinished != "copied" || r.Fact.Complete || r.Fact.Halfway || r.Fact.Vacant {
		t.Fatalf("%+v, %+v", r.Fact, r.Host)
	}
	rebuild.Operation++
	s.must(rebuild)
	s.reads(a, "SELECT sum(x), current_setting('cluster_name') FROM t", "3\t"+a.Name)
	s.must(action(decide.Stop, a, 2, record.Done+1))
	if err := os.Rename(a.Dir, a.Dir+".away"); err != nil {
		t.Fatal(err)
	}
	if _, r := s.Do(t.Context(), look); r.Host == nil || !r.Fact.Vacant || r.Fact.Stopped {
		t.Errorf("%+v, %+v", r.Fact, r.Host)
	}
	// The old one was removed for want of space, and the new one is not whole.
	if err := os.Rename(a.Dir+".away", a.Dir+".cstproxy-copying"); err != nil {
		t.Fatal(err)
	}
	if _, r := s.Do(t.Context(), look); r.Host == nil || r.Fact.Vacant || !r.Fact.Stopped || r.Fact.Complete {
		t.Errorf("%+v, %+v", r.Fact, r.Host)
	}
}

func TestAnEmptyHostIsCloned(t *testing.T) {
	s := newStage(t, pglocal.Options{})
	a := s.pg.Nodes()[0]
	s.sql(a, "CREATE TABLE t AS SELECT 1 AS x")
	home := filepath.Join(s.pg.Dir(), "node9")
	if out, err := exec.Command("install", "-d", "-o", s.nodes[1].OSUser, home).CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	node := s.node(9, freePort(t), filepath.Join(home, "data"))
	s.Executor = s.executorOf([]Node{s.nodes[1], node})
	clone := decide.Action{Verb: decide.Rebuild, Mode: "clone", Node: 9, Upstream: 1, Operation: 4, Epoch: 1, Step: record.After, Timeout: patienceOfTests}
	// A clone has its source's configuration; on the source's own host that is its port, too.
	s.fails(clone, "does not start")
	conf := filepath.Join(node.PGData, "pglocal.conf")
	text, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	own := strings.NewReplacer("port = "+strconv.Itoa(a.Port), "port = "+strconv.Itoa(node.Port), a.SocketDir, home).Replace(string(text))
	if err := os.WriteFile(conf, []byte(own), 0o600); err != nil {
		t.Fatal(err)
	}
	r := s.must(clone) // which goes on where it stopped
	if r.Fact.Role != topology.RoleStandby || r.Fact.Upstream != 1 || r.Fact.SystemID == 0 {
		t.Errorf("%+v", r.Fact)
	}
	s.reads(a, "SELECT application_name FROM pg_stat_replication", "node9")
	clone.Operation++
	s.fails(clone, "not empty")
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func TestAMissingProgramFailsLoudly(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "PG_VERSION"), []byte("15\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ words, want string }{
		{"programs pg_ctl; echo $bin", "/bin"},
		{"programs pg_ctl pg_rewindd", "pg_ctl pg_rewindd of PostgreSQL 15 not found in:"},
		{"echo 99 >$pgdata/PG_VERSION\nprograms pg_ctl", "pg_ctl of PostgreSQL 99 not found in:"},
	} {
		out, err := exec.Command("sh", "-c", prelude+c.words, "x", "directory="+dir, "bindir=").CombinedOutput()
		if !strings.Contains(string(out), c.want) || (err == nil) != (c.want == "/bin") {
			t.Errorf("%s: %s, %v", c.words, out, err)
		}
	}
}

func TestAWarningOfAProgramIsNoPathToIt(t *testing.T) {
	pg := pglocal.ForTest(t, pglocal.Options{})
	programs := crippled(t, "pg_ctl", `echo "pg_ctl: libpq.so.5: no version information available" >&2; exec "$real" "$@"`)
	out, err := exec.Command("sh", "-c", prelude+factsScript, "x", "directory="+pg.Primary().Dir, "bindir="+programs).CombinedOutput()
	h, bad := parseHostFacts(string(out))
	if err != nil || bad != nil || h.SystemID == 0 || !strings.Contains(string(out), "\nbindir="+programs+"\n") {
		t.Errorf("%v, %v: %+v\n%s", err, bad, h, out)
	}
}

func TestHostFactsAreReadWithSuspicion(t *testing.T) {
	h, err := parseHostFacts("Welcome to this host\nexists=yes\nfuture=1\ncheckpoint=1/2\nmarker=7 released\n")
	if err != nil || !h.Exists || h.Checkpoint != 1<<32+2 || h.Marker.Epoch != 7 {
		t.Errorf("%+v, %v", h, err)
	}
	for _, bad := range []string{"marker=x\n", "timeline=4294967296\n", "system=-1\n", "processes=many\n", "checkpoint=1\n"} {
		if _, err := parseHostFacts(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
