package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cstproxy/cstproxy/cmd/cstproxy/stand"
	"github.com/cstproxy/cstproxy/ha/pglocal"
)

// The applications' user and database. Passwords are checked by SCRAM, at the proxy and behind it.
const (
	appUser     = "app"
	appPassword = "a secret"
	appDB       = "app"
)

// built is the binary that TestMain made, and shared the world of the tests that leave it as they found it.
var (
	built  string
	shared *world
)

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) (exit int) {
	dir, err := os.MkdirTemp("", "cstproxy-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	built = filepath.Join(dir, "cstproxy")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", built, "github.com/cstproxy/cstproxy/cmd/cstproxy").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build cstproxy: %v\n%s", err, out)
		return 1
	}
	defer func() {
		if shared == nil {
			return
		}
		if err := shared.end(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			exit = 1
		}
	}()
	return m.Run()
}

// world is a cluster with the application's role and database, and a proxy in front.
type world struct {
	cluster *pglocal.Cluster
	proxy   *stand.Proxy
}

// setup says what a world is like.
type setup struct {
	servers pglocal.Options
	proxy   stand.Options
}

// sharedWorld is a primary with two standbys of equal weight and pgbench's tables at scale 5.
func sharedWorld(t *testing.T) *world {
	t.Helper()
	if shared == nil {
		w, err := makeWorld(context.Background(), setup{servers: pglocal.Options{Standbys: 2}})
		if err != nil {
			t.Fatal(err)
		}
		shared = w
		w.initPgbench(t, 5)
		w.warm(t, w.through())
	}
	return shared
}

// newWorld is one that ends with the test.
func newWorld(t *testing.T, s setup) *world {
	t.Helper()
	w, err := makeWorld(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			w.tellLog(t)
		}
		if err := w.end(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func makeWorld(ctx context.Context, s setup) (*world, error) {
	settings := map[string]string{
		"shared_preload_libraries":            "pg_stat_statements",
		"pg_stat_statements.track":            "top",
		"pg_stat_statements.max":              "5000",
		"max_standby_streaming_delay":         "30s",
		"log_min_error_statement":             "error",
		"max_locks_per_transaction":           "256",
		"max_prepared_transactions":           "10",
		"track_activity_query_size":           "4096",
		"password_encryption":                 "scram-sha-256",
		"idle_in_transaction_session_timeout": "0",
	}
	for name, value := range s.servers.Settings {
		settings[name] = value
	}
	s.servers.Settings = settings
	if s.servers.MaxConnections == 0 {
		s.servers.MaxConnections = 200
	}
	w := &world{cluster: pglocal.New(s.servers)}
	if err := w.cluster.Start(ctx); err != nil {
		return nil, err
	}
	if err := w.prepare(ctx, s); err != nil {
		return nil, fmt.Errorf("%w\n%v", err, w.end())
	}
	return w, nil
}

func (w *world) prepare(ctx context.Context, s setup) error {
	primary := w.cluster.Primary()
	for _, sql := range []string{
		fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", appUser, appPassword),
		fmt.Sprintf("CREATE DATABASE %s OWNER %s", appDB, appUser),
	} {
		if _, err := primary.Psql(ctx, sql); err != nil {
			return err
		}
	}
	if _, err := primary.PsqlIn(ctx, appDB, "CREATE EXTENSION pg_stat_statements"); err != nil {
		return err
	}
	if err := w.cluster.CatchUp(ctx); err != nil {
		return err
	}
	var err error
	w.proxy, err = w.newProxy(s.proxy, "cstproxy")
	if err != nil {
		return err
	}
	return w.proxy.Start(ctx)
}

// newProxy prepares one more proxy in front of the same cluster.
func (w *world) newProxy(o stand.Options, name string) (*stand.Proxy, error) {
	o.Binary, o.Cluster, o.Dir = built, w.cluster, filepath.Join(w.cluster.Dir(), name)
	if err := os.Mkdir(o.Dir, 0o700); err != nil {
		return nil, err
	}
	return stand.New(o)
}

// secondProxy starts a proxy of other options in front of the same cluster, until the test ends.
func (w *world) secondProxy(t *testing.T, o stand.Options) *stand.Proxy {
	t.Helper()
	p, err := w.newProxy(o, "proxy-"+strconv.FormatInt(time.Now().UnixNano(), 36))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stopProxy(t, p) })
	return p
}

// warm waits until reads through the proxy reach a standby: before it has read a database's
// catalogue it cannot know what a statement does, and sends it to the primary.
func (w *world) warm(t *testing.T, url string) {
	t.Helper()
	conn := connect(t, url)
	await(t, "a read on a standby", func() bool {
		var node string
		err := conn.QueryRow(t.Context(), "SELECT current_setting('pglocal.node') FROM pg_class LIMIT 1").Scan(&node)
		if err != nil {
			t.Fatal(err)
		}
		return node != w.cluster.Primary().Name
	})
	_ = conn.Close(t.Context())
}

func stopProxy(t *testing.T, p *stand.Proxy) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if t.Failed() {
		tellLog(t, p)
	}
	if err := p.Stop(ctx); err != nil {
		t.Error(err)
	}
}

func (w *world) end() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var err error
	if w.proxy != nil {
		err = w.proxy.Stop(ctx)
	}
	if stopped := w.cluster.Stop(); err == nil {
		err = stopped
	}
	return err
}

func (w *world) tellLog(t *testing.T) { tellLog(t, w.proxy) }

// tellLog adds the end of the proxy's log to a failed test.
func tellLog(t *testing.T, p *stand.Proxy) {
	b, err := os.ReadFile(p.LogFile())
	if err != nil {
		return
	}
	t.Logf("the proxy's log ends with:\n%s", b[max(0, len(b)-4000):])
}

// through is the application's connection string through the proxy, direct the one to a server.
func (w *world) through() string { return w.proxy.URL(appUser, appPassword, appDB) }

func (w *world) direct(n *pglocal.Node) string {
	return strings.Replace(w.through(), w.proxy.Listen(), n.Address(), 1)
}

// connect opens a pgx connection that ends with the test.
func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = conn.Close(ctx) // the test may have killed it
	})
	return conn
}

// mustExec runs statements through the simple protocol.
func mustExec(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// forgetCalls makes the servers count statements from 0.
func (w *world) forgetCalls(t *testing.T) {
	t.Helper()
	for _, n := range w.cluster.Nodes() {
		if _, err := n.PsqlIn(t.Context(), appDB, "SELECT pg_stat_statements_reset()"); err != nil {
			t.Fatal(err)
		}
	}
}

// calls is how often each node ran statements like the pattern since forgetCalls, by name.
func (w *world) calls(t *testing.T, pattern string) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for _, n := range w.cluster.Nodes() {
		counts[n.Name] = callsOf(t, n, pattern)
	}
	return counts
}

// callsOf is calls of one node.
func callsOf(t *testing.T, n *pglocal.Node, pattern string) int {
	t.Helper()
	got, err := n.PsqlIn(t.Context(), appDB, "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements WHERE query ILIKE '"+
		strings.ReplaceAll(pattern, "'", "''")+"' AND query NOT LIKE '%pg_stat_statements%'")
	if err != nil {
		t.Fatal(err)
	}
	count, err := strconv.Atoi(got)
	if err != nil {
		t.Fatal(err)
	}
	return count
}

// awaitRunning returns when a server is executing the statement, and sleeping if that is what it does.
func (w *world) awaitRunning(ctx context.Context, sql string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, n := range w.cluster.Nodes() {
			got, err := n.Psql(ctx, "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = '"+strings.ReplaceAll(sql, "'", "''")+
				"' AND (wait_event = 'PgSleep' OR query NOT LIKE '%pg_sleep%')")
			if err != nil {
				return fmt.Errorf("look for %q: %w", sql, err)
			}
			if got != "0" {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no server was seen to run %q: %w", sql, ctx.Err())
		case <-tick.C:
		}
	}
}

// tolerance is how far a share may be from its weight's, in points of a hundred.
const tolerance = 3.0

// wantShares judges counts of reads: nothing on the primary, the standbys by weight.
func (w *world) wantShares(t *testing.T, counts map[string]int, weights map[string]int) {
	t.Helper()
	if n := counts[w.cluster.Primary().Name]; n > 0 {
		t.Errorf("the primary ran %d of the reads: %v", n, counts)
	}
	total, whole := 0, 0
	for _, s := range w.cluster.Standbys() {
		total += counts[s.Name]
		whole += weights[s.Name]
	}
	if total == 0 {
		t.Fatalf("no standby ran a read: %v", counts)
	}
	for _, s := range w.cluster.Standbys() {
		due := 100 * float64(weights[s.Name]) / float64(whole)
		share := 100 * float64(counts[s.Name]) / float64(total)
		if share < due-tolerance || share > due+tolerance {
			t.Errorf("%s ran %.1f %% of the reads instead of %.1f %%: %v", s.Name, share, due, counts)
		}
	}
}

// evenly is the weights of a world whose standbys are alike.
func (w *world) evenly() map[string]int {
	weights := map[string]int{}
	for _, s := range w.cluster.Standbys() {
		weights[s.Name] = 1
	}
	return weights
}

// refusals counts the statements that standbys refused because they would write: each is a guess
// of the router's that was wrong, even where the proxy repaired it.
func (w *world) refusals(t *testing.T) int {
	t.Helper()
	n := 0
	for _, s := range w.cluster.Standbys() {
		b, err := os.ReadFile(s.LogFile)
		if err != nil {
			t.Fatal(err)
		}
		n += strings.Count(string(b), "in a read-only transaction") + strings.Count(string(b), "during recovery")
	}
	return n
}

// long skips a test that takes minutes unless the long ones are asked for.
func long(t *testing.T) {
	t.Helper()
	if os.Getenv("CST_LONG") == "" {
		t.Skip("a long scenario: CST_LONG=1 or `make soak` runs it")
	}
}

// span is how long a timed load runs: short in `make test`, long in `make soak`.
func span(short, longer time.Duration) time.Duration {
	if os.Getenv("CST_LONG") == "" {
		return short
	}
	return longer
}

// await polls until the condition holds.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-deadline.C:
			t.Fatalf("waited a minute for %s", what)
		case <-t.Context().Done():
			t.Fatalf("while waiting for %s: %v", what, t.Context().Err())
		case <-tick.C:
		}
	}
}
