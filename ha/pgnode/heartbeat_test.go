package pgnode

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cstproxy/cstproxy/ha/pglocal"
)

func heart(t *testing.T, n *pglocal.Node, timeout time.Duration) *Server {
	t.Helper()
	s, err := New(Config{Host: n.Host, Port: n.Port, User: "postgres", Password: pglocal.DefaultPassword, Database: HeartbeatDatabase, SSLMode: "disable", Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAHeartbeatTellsWhyItWasNotWritten(t *testing.T) {
	pg := pglocal.ForTest(t, pglocal.Options{Standbys: 1})
	a, b := pg.Nodes()[0], pg.Nodes()[1]
	s := heart(t, a, ample)
	if err := heart(t, b, ample).MakeHeartbeat(t.Context()); err == nil {
		t.Error("a standby made a database")
	}
	for range 2 {
		if err := s.MakeHeartbeat(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := pg.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	h := Heartbeat{ID: 1, Epoch: 3, Member: "m'1"}
	ca, cb := connect(t, s), connect(t, heart(t, b, ample))
	if p := ca.Beat(t.Context(), h); p.Writes != Commits || p.LSN == 0 || p.Err != nil {
		t.Fatalf("%+v", p)
	}
	if p := cb.Beat(t.Context(), h); p.Writes != ReadOnly {
		t.Errorf("standby: %+v", p)
	}
	row, err := a.PsqlIn(t.Context(), HeartbeatDatabase, "SELECT id, epoch, member, beat > now() - interval '1 hour', lsn > '0/0' FROM cs_sys_heartbeat")
	if err != nil || row != "1\t3\tm'1\tt\tt" {
		t.Errorf("%q, %v", row, err)
	}

	psql(t, a, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
	psql(t, a, "SELECT pg_reload_conf()")
	if p := ca.Beat(t.Context(), h); p.Writes != Commits {
		t.Errorf("without its synchronous standby: %+v", p)
	}
	a.Hang()
	pr := connectWhile(t, ca)
	a.Wake()
	if pr.Writes != Stuck || CauseOf(pr.Err) != Silent {
		t.Errorf("hung: %+v", pr)
	}
	cd := connect(t, s)
	if _, err := cd.query(t.Context(), "DROP TABLE cs_sys_heartbeat"); err == nil {
		t.Error("search_path should not find it")
	}
	if _, err := a.PsqlIn(t.Context(), HeartbeatDatabase, "SET synchronous_commit = local; DROP TABLE cs_sys_heartbeat"); err != nil {
		t.Fatal(err)
	}
	if p := cd.Beat(t.Context(), h); p.Writes != NoTable {
		t.Errorf("without the table: %+v", p)
	}
}

// connectWhile beats on a server that does not answer; the connection is of no use afterwards.
func connectWhile(t *testing.T, c *Conn) Pulse {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	return c.Beat(ctx, Heartbeat{ID: 1, Member: "m1"})
}

func TestALockOnTheTableIsNotDeath(t *testing.T) {
	pg := pglocal.ForTest(t, pglocal.Options{})
	a := pg.Nodes()[0]
	s := heart(t, a, 2*time.Second)
	if err := s.MakeHeartbeat(t.Context()); err != nil {
		t.Fatal(err)
	}
	holder := connect(t, heart(t, a, ample))
	if _, err := holder.query(t.Context(), "BEGIN; LOCK TABLE public.cs_sys_heartbeat"); err != nil {
		t.Fatal(err)
	}
	c := connect(t, s)
	if p := c.Beat(t.Context(), Heartbeat{ID: 1, Member: "m1"}); p.Writes != Blocked || c.Broken() {
		t.Errorf("%+v", p)
	}
	if _, err := holder.query(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if p := c.Beat(t.Context(), Heartbeat{ID: 1, Member: "m1"}); p.Writes != Commits {
		t.Errorf("%+v", p)
	}
}

func TestAFullDiskIsTold(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a file system that can be filled needs root to be mounted")
	}
	pg := pglocal.ForTest(t, pglocal.Options{})
	a := pg.Nodes()[0]
	dir := filepath.Join(a.SocketDir, "small")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=1m,mode=777", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("no tmpfs can be mounted here: %s", out)
	}
	t.Cleanup(func() {
		if err := pg.Stop(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %s", out)
		}
	})
	space := filepath.Join(dir, "space")
	if err := os.Mkdir(space, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("chown", "postgres", space).CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	s := heart(t, a, ample)
	if err := s.MakeHeartbeat(t.Context()); err != nil {
		t.Fatal(err)
	}
	psql(t, a, "CREATE TABLESPACE small LOCATION '"+space+"'")
	if _, err := a.PsqlIn(t.Context(), HeartbeatDatabase, "ALTER TABLE cs_sys_heartbeat SET TABLESPACE small"); err != nil {
		t.Fatal(err)
	}
	// Somebody's old snapshot keeps every version of the row, so that the table grows.
	old := connect(t, heart(t, a, ample))
	if _, err := old.query(t.Context(), "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1"); err != nil {
		t.Fatal(err)
	}
	c := connect(t, s)
	var name strings.Builder // that does not compress
	for sum := sha256.Sum256(nil); name.Len() < 6000; sum = sha256.Sum256(sum[:]) {
		name.WriteString(base64.StdEncoding.EncodeToString(sum[:]))
	}
	for range 300 {
		p := c.Beat(t.Context(), Heartbeat{ID: 1, Member: name.String()})
		if p.Writes == DiskFull {
			return
		}
		if p.Writes != Commits {
			t.Fatalf("%+v", p)
		}
	}
	t.Error("1 MB is not full yet")
}

func TestAHeartbeatThatWasFlushedProvesThatAStandbyStreams(t *testing.T) {
	pg := pglocal.ForTest(t, pglocal.Options{Standbys: 2})
	a, b, d := pg.Nodes()[0], pg.Nodes()[1], pg.Nodes()[2]
	s := heart(t, a, ample)
	if err := s.MakeHeartbeat(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := pg.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.Hang()
	t.Cleanup(d.Wake)
	c := connect(t, s)
	p := c.Beat(t.Context(), Heartbeat{ID: 1, Member: "m1"})
	if p.Writes != Commits {
		t.Fatalf("%+v", p)
	}
	for end := time.Now().Add(ample); ; {
		names, err := c.Confirmed(t.Context(), p.LSN)
		if err != nil {
			t.Fatal(err)
		}
		if len(names) == 1 && names[0] == b.Name {
			break
		}
		if len(names) > 1 || time.Now().After(end) {
			t.Fatalf("confirmed by %v", names)
		}
		time.Sleep(10 * time.Millisecond)
	}
	// pg_stat_replication goes on to say that the hung one streams.
	senders, err := c.Replication(t.Context())
	if err != nil || len(senders) != 2 || senders[1].State != "streaming" {
		t.Errorf("%+v, %v", senders, err)
	}
	if o := observe(t, connect(t, server(t, b, "postgres"))); o.Receive < p.LSN {
		t.Errorf("received %s, not %s", o.Receive, p.LSN)
	}
}

func TestAnybodyMayStampThePrimarysLog(t *testing.T) {
	pg := pglocal.ForTest(t, pglocal.Options{Standbys: 1})
	a, b := pg.Nodes()[0], pg.Nodes()[1]
	psql(t, a, "CREATE ROLE watcher LOGIN PASSWORD 'pglocal'; GRANT pg_monitor TO watcher; ALTER ROLE watcher SET default_transaction_read_only = on")
	if err := pg.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := connect(t, server(t, a, "watcher"))
	before := observe(t, c)
	lsn, err := c.Stamp(t.Context(), "m'1 7")
	after := observe(t, c)
	if err != nil || lsn <= before.Insert || after.Flush < lsn {
		t.Errorf("at %s, %v; inserted %s before, flushed %s after", lsn, err, before.Insert, after.Flush)
	}
	if lsn, err := connect(t, server(t, b, "watcher")).Stamp(t.Context(), "x"); err == nil {
		t.Errorf("a standby's log was stamped at %s", lsn)
	}
	s, err := c.Streams(t.Context())
	if err != nil || !s.Primary || s.SystemID != after.SystemID || s.Timeline != 1 || len(s.Senders) != 1 || s.Senders[0].AppName != b.Name {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err := connect(t, server(t, b, "watcher")).Streams(t.Context()); err != nil || s.Primary || s.Timeline != 0 || len(s.Senders) != 0 {
		t.Errorf("standby: %+v, %v", s, err)
	}
}

func TestSettingsThatForbidARewindAreNamed(t *testing.T) {
	pg := pglocal.ForTest(t, pglocal.Options{Settings: map[string]string{"wal_keep_size": "0"}})
	f := facts(t, server(t, pg.Primary(), "postgres"))
	text := strings.Join(f.Warnings, "\n")
	for _, want := range []string{"wal_log_hints", "full_page_writes", "wal_keep_size is 0 MB", "max_slot_wal_keep_size is unlimited"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in:\n%s", want, text)
		}
	}
	for _, set := range [][2]string{{"full_page_writes", "on"}, {"wal_keep_size", "1GB"}, {"max_slot_wal_keep_size", "64MB"}} {
		if err := pg.Primary().Set(t.Context(), set[0], set[1]); err != nil {
			t.Fatal(err)
		}
	}
	f = facts(t, server(t, pg.Primary(), "postgres"))
	if len(f.Warnings) != 2 || !strings.Contains(f.Warnings[1], "lower than max_wal_size (1024 MB)") {
		t.Errorf("%q", f.Warnings)
	}
}

func TestTheHeartbeatsDatabaseIsWaitedForWhileSomebodyElseMakesIt(t *testing.T) {
	pg := pglocal.ForTest(t, pglocal.Options{})
	a := pg.Primary()
	other, err := pgconn.Connect(t.Context(), a.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(t.Context())
	if _, err := other.Exec(t.Context(), "BEGIN; LOCK TABLE pg_database IN SHARE ROW EXCLUSIVE MODE").ReadAll(); err != nil {
		t.Fatal(err)
	}
	made := make(chan error, 1)
	go func() { made <- heart(t, a, 500*time.Millisecond).MakeHeartbeat(t.Context()) }()
	const waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND clock_timestamp() - query_start > '1.5s'"
	for got := "0"; got == "0"; { // three times as long as it waits for other locks
		if got, err = a.Psql(t.Context(), waits); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-made:
			t.Fatalf("it did not wait: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
	if _, err := other.Exec(t.Context(), "COMMIT").ReadAll(); err != nil {
		t.Fatal(err)
	}
	if err := <-made; err != nil {
		t.Error(err)
	}
}
