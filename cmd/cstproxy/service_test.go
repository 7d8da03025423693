package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/cstproxy/cstproxy/admin"
	"github.com/cstproxy/cstproxy/conf"
	"github.com/cstproxy/cstproxy/ha/pglocal"
)

// logBuffer is a log that a test can wait for.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) Sync() error { return nil }

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// stage is a running cstproxy with real servers behind it.
type stage struct {
	*testing.T
	cluster *pglocal.Cluster
	file    string
	admin   string
	port    string // where clients connect
	log     *logBuffer
	systemd *logBuffer // what it was told
	text    string     // of the configuration file
	ended   chan error
}

func freeAddress(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{T: t, cluster: pglocal.ForTest(t, pglocal.Options{Standbys: 2}), admin: freeAddress(t), log: &logBuffer{}, systemd: &logBuffer{}, ended: make(chan error, 1)}
	s.playSystemd()
	var b strings.Builder
	fmt.Fprintf(&b, "[proxy]\nlisten = \"127.0.0.1:0\"\ndrain_timeout = \"1s\"\n[admin]\nlisten = %q\ntoken = %q\n", s.admin, testToken)
	fmt.Fprintf(&b, "[ha]\nprobe_interval = \"50ms\"\nstate_dir = %q\n", t.TempDir())
	fmt.Fprintf(&b, "[[cluster]]\nname = \"cluster01\"\nauth_user = %q\npassword = %q\n", pglocal.Superuser, s.cluster.Password())
	for i, n := range s.cluster.Nodes() {
		fmt.Fprintf(&b, "[[cluster.node]]\nid = %d\nhost = %q\nport = %d\nrepl_app_name = %q\n", i+1, n.Host, n.Port, n.Name)
	}
	s.text = b.String()
	s.file = filepath.Join(t.TempDir(), "cstproxy.toml")
	s.write(s.text)
	cfg, err := conf.Load(s.file, nil)
	if err != nil {
		t.Fatal(err)
	}
	core := zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), s.log, zap.InfoLevel)
	service, err := newService(cfg, nil, zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	s.port = service.data.proxy.Addresses()[0].String()
	ctx, cancel := context.WithCancel(context.Background())
	go func() { s.ended <- service.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err, told := <-s.ended:
			if told && err != nil {
				t.Errorf("run: %v", err)
			}
		case <-time.After(30 * time.Second):
			t.Error("run does not end")
		}
		if t.Failed() {
			t.Logf("log:\n%s", s.log)
		}
	})
	return s
}

// playSystemd collects what the service tells its manager.
func (s *stage) playSystemd() {
	s.Helper()
	path := filepath.Join(s.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		s.Fatal(err)
	}
	s.Setenv("NOTIFY_SOCKET", path)
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 4096)
		for {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			_, _ = s.systemd.Write(append(b[:n], '|'))
		}
	}()
	s.Cleanup(func() { _ = conn.Close(); <-done })
}

func (s *stage) write(text string) {
	s.Helper()
	if err := os.WriteFile(s.file, []byte(text), 0o600); err != nil {
		s.Fatal(err)
	}
}

// await polls until what holds, for at most 20 s.
func (s *stage) await(what string, holds func() bool) {
	s.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			s.Fatalf("%s did not come about\n%s", what, s.log)
		}
	}
}

// show is what ctl show knows.
func (s *stage) show() admin.Cluster {
	s.Helper()
	code, out, errOut := cstproxy("ctl", "show", "-o", "json", "-f", s.file)
	var list []admin.Cluster
	if code != 0 || json.Unmarshal([]byte(out), &list) != nil || len(list) != 1 {
		s.Fatalf("ctl show: exit code %d\n%s%s", code, out, errOut)
	}
	return list[0]
}

func (s *stage) get(path string) (int, string) {
	s.Helper()
	resp, err := http.Get("http://" + s.admin + path)
	if err != nil {
		s.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func (s *stage) ctl(want int, args ...string) string {
	s.Helper()
	code, out, errOut := cstproxy(append([]string{"ctl", "-f", s.file}, args...)...)
	if code != want {
		s.Errorf("ctl %v: exit code %d, want %d\n%s%s", args, code, want, out, errOut)
	}
	return out + errOut
}

func TestOperatorsSeeAndSteerARealCluster(t *testing.T) {
	s := newStage(t)
	s.await("a primary and two standbys", func() bool { c := s.show(); return c.State == admin.StateNormal && len(c.Backends) == 2 })
	primary, standbys := s.cluster.Nodes()[0], s.cluster.Nodes()[1:]

	t.Run("what is shown", func(t *testing.T) {
		s.await("the first round", func() bool { return s.show().Nodes[1].LagBytes != nil })
		c := s.show()
		if c.Primary != 1 || c.Epoch == 0 || c.SystemID == "" || c.Nodes[0].Timeline != 1 {
			t.Errorf("show: %+v", c)
		}
		if out := s.ctl(0, "get_last_lsn", "-o", "tsv"); strings.Count(out, "\t1\t0/") != 3 {
			t.Errorf("get_last_lsn:\n%s", out)
		}
		if out := s.ctl(0, "repl_delay", "-o", "tsv"); strings.Count(out, "\tasync\tnormal\t") != 2 || !strings.Contains(out, "\tN/A\t") {
			t.Errorf("repl_delay:\n%s", out)
		}
	})
	t.Run("cstlb's list", func(t *testing.T) {
		a, b := standbys[0].Address(), standbys[1].Address()
		want := fmt.Sprintf(`{"%[1]s":{"State":0,"NextAddress":"%[2]s","PreAddress":"%[2]s"},"%[2]s":{"State":0,"NextAddress":"%[1]s","PreAddress":"%[1]s"}}`, a, b)
		if code, body := s.get("/backend/list?token=" + testToken); code != 200 || body != want {
			t.Errorf("%d %s\nwant %s", code, body, want)
		}
	})
	t.Run("health and metrics", func(t *testing.T) {
		for _, path := range []string{"/livez", "/readyz", "/primary", "/replica", "/health", "/metrics"} {
			if code, body := s.get(path); code != 200 {
				t.Errorf("%s: %d %s", path, code, body)
			}
		}
		if _, body := s.get("/metrics"); !strings.Contains(body, "cstproxy_clients 0") {
			t.Error("the data plane's metrics are missing")
		}
		if out := s.ctl(0, "stats"); !strings.Contains(out, "clients: 0") {
			t.Errorf("stats: %s", out)
		}
	})
	t.Run("detach and attach", func(t *testing.T) {
		s.ctl(0, "node", "detach", "-i", "2")
		s.await("node 2 out of the rotation", func() bool { return strings.Join(s.show().Backends, " ") == standbys[1].Address() })
		if out := s.ctl(4, "node", "drain", "-i", "3"); !strings.Contains(out, "the last node of cluster01 that takes reads") {
			t.Errorf("drain of the last reader: %s", out)
		}
		s.ctl(2, "node", "attach", "-i", "77")
		s.ctl(0, "node", "attach", "-i", "2")
		s.await("node 2 back", func() bool { return len(s.show().Backends) == 2 })
	})
	t.Run("backends of cstlb", func(t *testing.T) {
		get := func(verb, address string) int {
			code, _ := s.get("/backend/" + verb + "?backend=" + address + "&token=" + testToken)
			return code
		}
		if code := get("delete", standbys[0].Address()); code != 200 {
			t.Errorf("delete: %d", code)
		}
		s.await("one backend", func() bool { return len(s.show().Backends) == 1 })
		if code := get("add", standbys[0].Address()); code != 200 {
			t.Errorf("add: %d", code)
		}
		s.await("two backends", func() bool { return len(s.show().Backends) == 2 })
		if code := get("add", "127.0.0.1:1"); code != 409 {
			t.Errorf("add of nobody: %d, want 409", code)
		}
		foreign, err := s.cluster.AddForeign(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if code, body := s.get("/backend/add?backend=" + foreign.Address() + "&token=" + testToken); code != 409 {
			t.Errorf("add of a foreign server: %d %s", code, body)
		}
	})
	t.Run("explain with the catalogue", func(t *testing.T) {
		if _, err := primary.Psql(context.Background(), "CREATE FUNCTION my_write() RETURNS int LANGUAGE sql VOLATILE AS 'select 1'; CREATE FUNCTION my_read() RETURNS int LANGUAGE sql STABLE AS 'select 1'"); err != nil {
			t.Fatal(err)
		}
		for sql, want := range map[string]string{"SELECT my_write()": "primary", "SELECT my_read()": "standby"} {
			code, out, errOut := cstproxy("explain", "-f", s.file, "-o", "json", sql)
			var list []explained
			if code != 0 || errOut != "" || json.Unmarshal([]byte(out), &list) != nil || list[0].Target != want {
				t.Errorf("%s: exit code %d, %s%s, want %s", sql, code, out, errOut, want)
			}
		}
	})
	t.Run("reload", func(t *testing.T) { s.reloads(standbys[0].Port) })
	t.Run("drain", func(t *testing.T) {
		s.signal(syscall.SIGTERM)
		select {
		case err := <-s.ended:
			if err != nil {
				t.Errorf("run: %v", err)
			}
			close(s.ended)
			number := regexp.MustCompile(`[0-9]{4,}`)
			want := "READY=1|" + strings.Repeat("RELOADING=1\nMONOTONIC_USEC=N\n|READY=1|", 3) + "STOPPING=1|"
			told := ""
			s.await("what systemd is told", func() bool { told = number.ReplaceAllString(s.systemd.String(), "N"); return len(told) >= len(want) })
			if told != want {
				t.Errorf("systemd was told %q, want %q", told, want)
			}
		case <-time.After(20 * time.Second):
			t.Error("SIGTERM did not end it")
		}
		s.ctl(3, "show")
	})
}

func (s *stage) signal(sig syscall.Signal) {
	s.Helper()
	if err := syscall.Kill(os.Getpid(), sig); err != nil {
		s.Fatal(err)
	}
}

// client is a session through the proxy, as an application has one.
func (s *stage) client() *pgx.Conn {
	s.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, fmt.Sprintf("postgres://%s:%s@%s/postgres?sslmode=disable", pglocal.Superuser, s.cluster.Password(), s.port))
	if err != nil {
		s.Fatalf("log in through the proxy: %v\n%s", err, s.log)
	}
	s.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func (s *stage) query(c *pgx.Conn) {
	s.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var n int
	if err := c.QueryRow(ctx, "SELECT 41 + $1::int", 1).Scan(&n); err != nil || n != 42 {
		s.Errorf("query through the proxy: %d, %v", n, err)
	}
}

// reloads changes the file behind the running process, badly and well.
func (s *stage) reloads(port int) {
	s.Helper()
	old := s.client()
	s.query(old)
	s.write(s.text + "weight = 5\nwieght = 6\n")
	s.signal(syscall.SIGHUP)
	s.await("a refusal", func() bool { return strings.Contains(s.log.String(), "reload refused") })
	if !strings.Contains(s.log.String(), `unknown key \"wieght\"`) {
		s.Errorf("the log does not name the problem")
	}
	if w := s.show().Nodes[2].Weight; w != 1 {
		s.Errorf("a refused file changed a weight to %d", w)
	}
	s.write(strings.Replace(s.text, "listen = \"127.0.0.1:0\"", "listen = \"127.0.0.1:1\"", 1) +
		"weight = 5\n[catalog]\nverifier_ttl = \"1s\"\n")
	s.signal(syscall.SIGHUP)
	s.await("the new weight", func() bool { return s.show().Nodes[2].Weight == 5 })
	s.await("the log of it", func() bool { return strings.Contains(s.log.String(), "configuration reloaded") })
	if log := s.log.String(); !strings.Contains(log, "setting waits for a restart") || !strings.Contains(log, "cluster[cluster01].node[3].weight") {
		s.Error("the log does not tell what changed")
	}
	s.query(old) // nobody was cut
	s.query(s.client())
	s.write(strings.Replace(s.text, fmt.Sprintf("port = %d", port), "port = 70000", 1))
	s.signal(syscall.SIGHUP)
	s.await("another refusal", func() bool { return strings.Count(s.log.String(), "reload refused") == 2 })
}

func TestAnAddressThatIsTakenEndsTheStart(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	file := filepath.Join(t.TempDir(), "cstproxy.toml")
	text := fmt.Sprintf("[proxy]\nlisten = %q\n[admin]\nlisten = \"\"\n[[cluster]]\nname = \"a\"\n[[cluster.node]]\nid = 1\nhost = \"127.0.0.1\"\n", ln.Addr())
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, errOut := cstproxy("run", "-f", file)
	if code != 1 || !strings.Contains(errOut, "address already in use") {
		t.Errorf("exit code %d, %s", code, errOut)
	}
}

func TestCheckPrintsEveryProblem(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cstproxy.toml")
	if err := os.WriteFile(file, []byte("[proxy]\nlisen = 1\npool_size = \"x\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, verb := range [][]string{{"check"}, {"config", "show"}, {"run"}, {"explain", "select 1"}} {
		code, _, errOut := cstproxy(append(verb, "-f", file)...)
		if code != 2 || !strings.Contains(errOut, file+`:2: unknown key "lisen"`) || !strings.Contains(errOut, file+":3: pool_size") {
			t.Errorf("%v: exit code %d\n%s", verb, code, errOut)
		}
	}
	sample := filepath.Join("..", "..", "conf", "cstproxy.toml")
	if code, out, errOut := cstproxy("check", "-f", sample); code != 0 || !strings.Contains(out, "no problems") {
		t.Errorf("the sample: exit code %d, %s", code, errOut)
	}
}

func TestExplainJudgesOffline(t *testing.T) {
	code, out, errOut := cstproxy("explain", "-o", "tsv", "SELECT 1; DELETE FROM t")
	want := "#\ttarget\twhy\tlooked at\teffects\tstatement\n1\tstandby\t"
	if code != 0 || !strings.HasPrefix(out, want) || !strings.Contains(out, "\n2\tprimary\t") || !strings.Contains(out, "\nall\tprimary\t") {
		t.Errorf("exit code %d\n%s%s", code, out, errOut)
	}
}
