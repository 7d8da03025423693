package ha

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/pglocal"
	"github.com/cstproxy/cstproxy/ha/pgnode"
	"github.com/cstproxy/cstproxy/ha/record"
)

// brief is for what must be noticed; what must not is given a timeout that a busy machine keeps to.
const (
	brief    = 400 * time.Millisecond
	generous = 1500 * time.Millisecond
)

// beating starts a cluster whose primary is agreed on, and an agent that writes heartbeats to it.
// A heartbeat is taken for stuck after two timeouts.
func beating(t *testing.T, o pglocal.Options, timeout time.Duration) *fixture {
	f := newFixture(t, o)
	f.conf.ProbeTimeout = timeout
	f.beats = "m1"
	f.run()
	f.settled()
	f.must(f.agent.PrepareHeartbeat(t.Context(), "c1"))
	o1 := f.status().Observation
	f.must(f.agent.Rule("c1", Ruling{Epoch: record.Epoch{Number: 7, Primary: 1, SystemID: o1.SystemID, History: o1.History}}))
	f.poll("a heartbeat", func() bool {
		got, err := f.pg.Nodes()[0].PsqlIn(t.Context(), pgnode.HeartbeatDatabase, "SELECT id, epoch, member FROM cs_sys_heartbeat")
		f.must(err)
		return got == strconv.Itoa(HeartbeatID("m1"))+"\t7\tm1"
	})
	return f
}

// status is what the agent knows of the primary.
func (f *fixture) status() NodeStatus {
	f.t.Helper()
	s, err := f.agent.Snapshot("c1")
	f.must(err)
	return *s.Node(1)
}

func (f *fixture) becomes(c decide.Class) NodeStatus {
	f.t.Helper()
	f.poll("class "+string(c), func() bool { return f.status().Class == c })
	return f.status()
}

// stays fails the test if the class is anything but c during the next probes.
func (f *fixture) stays(c decide.Class, probes int) {
	f.t.Helper()
	var last time.Time
	for seen := 0; seen < probes; {
		s := f.status()
		if s.Class != c {
			f.t.Fatalf("class %q, not %q: %s", s.Class, c, s.Failure)
		}
		if s.LastTried.After(last) {
			last = s.LastTried
			seen++
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (f *fixture) signal(pid string, sig syscall.Signal) {
	f.t.Helper()
	n, err := strconv.Atoi(pid)
	f.must(err)
	f.must(syscall.Kill(n, sig))
}

func TestAFrozenPostmasterIsStuckAlthoughOldSessionsAnswer(t *testing.T) {
	f := beating(t, pglocal.Options{}, brief)
	pid := strconv.Itoa(f.pg.Nodes()[0].PID())
	f.signal(pid, syscall.SIGSTOP)
	s := f.becomes(decide.Stuck)
	if !strings.Contains(s.Failure, "takes no new connections") || time.Since(s.LastSeen) > f.conf.ProbeTimeout+patience/10 {
		t.Errorf("%q, seen %s ago", s.Failure, time.Since(s.LastSeen))
	}
	f.signal(pid, syscall.SIGCONT)
	f.becomes(decide.Answers)
}

func TestAServerThatTakesConnectionsAndDoesNothingIsStuckAndNotSilent(t *testing.T) {
	f := beating(t, pglocal.Options{}, brief)
	a := f.pg.Nodes()[0]
	a.Hang()
	f.becomes(decide.Stuck)
	f.stays(decide.Stuck, 3)
	a.Wake()
	f.becomes(decide.Answers)
	a.Kill()
	f.becomes(decide.Refused)
}

// A write that does not end is what a frozen file system looks like: reads go on from memory.
func TestAHeartbeatThatDoesNotEndIsStuckUntilItDoes(t *testing.T) {
	f := beating(t, pglocal.Options{MaxConnections: 20}, brief)
	a := f.pg.Nodes()[0]
	pid := f.psql(a, "SELECT pid FROM pg_stat_activity WHERE datname = '"+pgnode.HeartbeatDatabase+"' AND application_name = 'cstproxy'")
	f.signal(pid, syscall.SIGSTOP)
	s := f.becomes(decide.Stuck)
	if !strings.Contains(s.Failure, "a heartbeat has not been committed") {
		t.Errorf("%q", s.Failure)
	}
	// The clients of such a server pile up until nobody is let in any more.
	for {
		if _, err := pgconn.Connect(t.Context(), a.URL("postgres")); err != nil {
			break
		}
	}
	f.stays(decide.Stuck, 5)
	f.signal(pid, syscall.SIGCONT)
	f.becomes(decide.Answers)
	if v := f.board.View(); v.Primary != 1 {
		t.Errorf("%s", describe(v))
	}
}

func TestAServerOutOfConnectionsIsNotStuck(t *testing.T) {
	f := beating(t, pglocal.Options{MaxConnections: 20}, generous)
	a := f.pg.Nodes()[0]
	fill := func() {
		for {
			conn, err := pgconn.Connect(t.Context(), a.URL("postgres"))
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close(context.WithoutCancel(t.Context())) })
		}
	}
	admin := f.connect(a)
	fill()
	f.stays(decide.Answers, 8)
	// Not even when the agent loses the connections that it had and gets no others.
	for range 20 {
		_, err := count(t.Context(), admin, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'cstproxy'")
		f.must(err)
		fill()
		if c := f.status().Class; c != decide.Answers && c != decide.Full {
			t.Errorf("class %q", c)
		}
	}
	f.becomes(decide.Full)
	f.stays(decide.Full, 3)
}

func TestALockOnTheHeartbeatsTableIsNotStuck(t *testing.T) {
	f := beating(t, pglocal.Options{}, generous)
	conn, err := pgconn.Connect(t.Context(), f.pg.Nodes()[0].URL(pgnode.HeartbeatDatabase))
	f.must(err)
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), "BEGIN; LOCK TABLE cs_sys_heartbeat").ReadAll()
	f.must(err)
	f.stays(decide.Answers, 40) // longer than two timeouts
}

func TestAFullDiskIsStuckAndNamed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a file system that can be filled needs root to be mounted")
	}
	f := newFixture(t, pglocal.Options{})
	a := f.pg.Nodes()[0]
	dir := filepath.Join(a.SocketDir, "small")
	f.must(os.Mkdir(dir, 0o755))
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=1m,mode=777", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("no tmpfs can be mounted here: %s", out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %s", out)
		}
	})
	space := filepath.Join(dir, "space")
	f.must(os.Mkdir(space, 0o700))
	if out, err := exec.Command("chown", "postgres", space).CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	f.conf.ProbeInterval = 20 * time.Millisecond
	f.beats = "m1"
	f.run()
	f.settled()
	f.must(f.agent.PrepareHeartbeat(t.Context(), "c1"))
	f.psql(a, "CREATE TABLESPACE small LOCATION '"+space+"'")
	in := func(sql string) error {
		_, err := a.PsqlIn(t.Context(), pgnode.HeartbeatDatabase, sql)
		return err
	}
	f.must(in("ALTER TABLE cs_sys_heartbeat SET TABLESPACE small"))
	// Somebody's old snapshot keeps every version of the row, so that the table grows; the rest is filled.
	conn, err := pgconn.Connect(t.Context(), a.URL(pgnode.HeartbeatDatabase))
	f.must(err)
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").ReadAll()
	f.must(err)
	o := f.status().Observation
	f.must(f.agent.Rule("c1", Ruling{Epoch: record.Epoch{Number: 7, Primary: 1, SystemID: o.SystemID, History: o.History}}))
	f.becomes(decide.Answers)
	for n := 0; ; n++ {
		if err := in("INSERT INTO cs_sys_heartbeat SELECT -i, 0, repeat('x', 200), now(), '0/0' FROM generate_series(" + strconv.Itoa(n*100+1) + ", " + strconv.Itoa(n*100+100) + ") AS i"); err != nil {
			break
		}
	}
	s := f.becomes(decide.Stuck)
	if !s.DiskFull || !strings.Contains(s.Failure, "disk full") {
		t.Errorf("full %t, %q", s.DiskFull, s.Failure)
	}
}

func TestOnlyTheAgreedPrimaryIsWrittenTo(t *testing.T) {
	f := beating(t, pglocal.Options{}, generous)
	a := f.pg.Nodes()[0]
	o := f.status().Observation
	rule := func(r Ruling) { f.must(f.agent.Rule("c1", r)) }
	r := Ruling{Epoch: record.Epoch{Number: 8, Primary: 1, SystemID: o.SystemID, History: o.History}}
	beats := func() string {
		got, err := a.PsqlIn(t.Context(), pgnode.HeartbeatDatabase, "SELECT beat FROM cs_sys_heartbeat WHERE epoch = 8")
		f.must(err)
		return got
	}
	rule(r)
	f.poll("a heartbeat of epoch 8", func() bool { return beats() != "" })
	r.Frozen = "a switchover"
	rule(r)
	f.stays(decide.Answers, 2) // one may have been under way
	last := beats()
	f.stays(decide.Answers, 4)
	if now := beats(); now != last {
		t.Errorf("written while frozen: at %s, last at %s", now, last)
	}
	if _, err := f.agent.Server("c1", 9); !errors.Is(err, ErrUnknown) {
		t.Errorf("a way to a node that is not there: %v", err)
	}
	if err := f.agent.Beat("nowhere", "m1"); !errors.Is(err, ErrUnknown) {
		t.Errorf("heartbeats in no cluster: %v", err)
	}
}
