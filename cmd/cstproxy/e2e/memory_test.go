package e2e

import (
	"bytes"
	"context"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cstproxy/cstproxy/cmd/cstproxy/stand"
)

// rss is a process' resident memory in kB.
func rss(t *testing.T, pid int) int {
	t.Helper()
	return statusField(t, pid, "VmRSS:")
}

func statusField(t *testing.T, pid int, label string) int {
	t.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), label)
	n, err := strconv.Atoi(strings.Fields(rest + " ?")[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// peak is the largest resident memory that a process had while work ran, in kB.
func peak(t *testing.T, pid int, work func()) int {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		work()
	}()
	highest := 0
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		highest = max(highest, rss(t, pid))
		select {
		case <-done:
			return highest
		case <-tick.C:
		}
	}
}

func TestFiveThousandIdleClientsTakeLittleMemory(t *testing.T) {
	long(t)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < 12000 {
		t.Fatalf("this needs 12,000 open files: ulimit -n gives %d, %v", limit.Cur, err)
	}
	w := sharedWorld(t)
	p := w.secondProxy(t, trusting())
	url := p.URL(appUser, appPassword, appDB) + "?sslmode=disable"
	mustExec(t, connect(t, url), "SELECT 1")
	before := rss(t, p.PID())
	const clients = 5000
	conns := make([]*pgconn.PgConn, clients)
	var wg sync.WaitGroup
	for part := range 8 {
		wg.Go(func() {
			for i := part; i < clients; i += 8 {
				conn, err := pgconn.Connect(t.Context(), url)
				if err != nil {
					t.Errorf("client %d: %v", i, err)
					return
				}
				conns[i] = conn
				if _, err := conn.Exec(t.Context(), "SELECT 1").ReadAll(); err != nil {
					t.Errorf("client %d: %v", i, err)
					return
				}
			}
		})
	}
	wg.Wait()
	defer func() {
		for _, c := range conns {
			if c != nil {
				_ = c.Conn().Close() // 5,000 polite farewells take their time
			}
		}
	}()
	await(t, "the memory to settle", func() bool {
		a := rss(t, p.PID())
		rest(t.Context(), 3*time.Second)
		return rss(t, p.PID()) >= a-200
	})
	after := rss(t, p.PID())
	t.Logf("resident memory: %d kB with 1 client, %d kB with %d", before, after, clients)
	if after-before > 12<<10 {
		t.Errorf("%d idle clients take %d kB", clients, after-before)
	}
}

// trusting lets everybody in; SCRAM would measure the clients' own key iterations.
func trusting() stand.Options {
	return stand.Options{More: trustAll, Passwords: map[string]string{appUser: appPassword}}
}

const trustAll = `
[[hba]]
type = "host"
database = "all"
user = "all"
address = "127.0.0.1/32"
method = "trust"
`

// slowly passes bytes on with a pause after each megabyte, for a while; then it hurries.
type slowly struct {
	ctx    context.Context
	passed int
	until  int
}

func (s *slowly) pace(n int) {
	before := s.passed
	s.passed += n
	if s.passed < s.until && before>>20 != s.passed>>20 {
		rest(s.ctx, 20*time.Millisecond)
	}
}

func (s *slowly) Write(b []byte) (int, error) {
	s.pace(len(b))
	return len(b), nil
}

// lines is a source of COPY data.
type lines struct {
	slowly
	left int
}

func (l *lines) Read(b []byte) (int, error) {
	if l.left <= 0 {
		return 0, io.EOF
	}
	line := append(bytes.Repeat([]byte("x"), 1023), '\n')
	n := 0
	for n+len(line) <= len(b) && l.left > 0 {
		n += copy(b[n:], line)
		l.left -= len(line)
	}
	l.pace(n)
	return n, nil
}

func TestAGigabyteEitherWayPassesInBoundedMemory(t *testing.T) {
	w := newWorld(t, setup{servers: twoStandbys()})
	size := 64 << 20
	if span(1, 2) == 2 {
		size = 1 << 30
	}
	conn := connect(t, w.through())
	mustExec(t, conn, "CREATE UNLOGGED TABLE sink (line text)")
	for range 50 {
		mustExec(t, conn, "SELECT 1")
	}
	before := rss(t, w.proxy.PID())
	report := func(what string, highest int) {
		t.Logf("%s: resident memory %d kB before, %d kB at most", what, before, highest)
		if highest-before > 16<<10 {
			t.Errorf("%s takes %d kB", what, highest-before)
		}
	}
	report("result", peak(t, w.proxy.PID(), func() {
		reader := slowly{ctx: t.Context(), until: size / 4}
		rows, err := conn.Query(t.Context(), "SELECT repeat('x', 1000) FROM generate_series(1, $1::int)", size/1000)
		if err != nil {
			t.Error(err)
			return
		}
		for rows.Next() {
			reader.pace(len(rows.RawValues()[0]))
		}
		if rows.Err() != nil || reader.passed < size-1000 {
			t.Errorf("result: %d bytes, %v", reader.passed, rows.Err())
		}
	}))
	report("row of 200 MB", peak(t, w.proxy.PID(), func() {
		var n int
		rows, err := conn.Query(t.Context(), "SELECT repeat('x', 200000000)")
		if err != nil {
			t.Error(err)
			return
		}
		for rows.Next() {
			n = len(rows.RawValues()[0])
		}
		if rows.Err() != nil || n != 200000000 {
			t.Errorf("row: %d bytes, %v", n, rows.Err())
		}
	}))
	report("COPY in", peak(t, w.proxy.PID(), func() {
		from := &lines{slowly: slowly{ctx: t.Context(), until: size / 8}, left: size}
		tag, err := conn.PgConn().CopyFrom(t.Context(), from, "COPY sink FROM STDIN")
		if err != nil || tag.RowsAffected() != int64(size>>10) {
			t.Errorf("COPY in: %v %v", tag, err)
		}
	}))
	report("COPY out", peak(t, w.proxy.PID(), func() {
		to := &slowly{ctx: t.Context(), until: size / 4}
		if _, err := conn.PgConn().CopyTo(t.Context(), to, "COPY sink TO STDOUT"); err != nil || to.passed != size {
			t.Errorf("COPY out: %d of %d bytes, %v", to.passed, size, err)
		}
	}))
}

func TestTenMinutesOfComingAndGoingLeaveTheMemoryFlat(t *testing.T) {
	long(t)
	w := sharedWorld(t)
	p := w.secondProxy(t, trusting())
	url := p.URL(appUser, appPassword, appDB)
	churn := func(seconds string) int {
		pgbench(url, "-n", "-C", "-b", "select-only@8", "-b", "simple-update@2", "-M", "extended", "-c", "16", "-j", "2", "-T", seconds).run(t)
		rest(t.Context(), 3*time.Second)
		return rss(t, p.PID())
	}
	settled := churn("60")
	end := churn("540")
	t.Logf("resident memory: %d kB after one minute, %d kB after ten", settled, end)
	if end > settled+4<<10 {
		t.Errorf("resident memory grew from %d kB to %d kB", settled, end)
	}
}
