package operation

import (
	"os/exec"
	"testing"
	"time"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/pglocal"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// The host of the primary loses power: nobody has stopped the server, so nothing in its directory says that it
// has been replaced.
func TestAFormerPrimaryThatLostPowerIsStartedAsAStandby(t *testing.T) {
	s := newStage(t, pglocal.Options{Standbys: 1})
	a, b := s.pg.Nodes()[0], s.pg.Nodes()[1]
	s.sql(a, "CREATE TABLE t (x int)")
	if err := s.pg.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.must(action(decide.Recruit, b, 2, record.Fence))
	s.sql(a, "INSERT INTO t VALUES (100)")
	a.Kill()
	promote := action(decide.PromoteIt, b, 2, record.Promote)
	promote.Timeline = 2
	s.must(promote)
	left, ok := s.must(action(decide.Look, b, 2, record.Done)).Fact.History.LeftAt(1)
	if !ok {
		t.Fatal("no timeline was left")
	}

	r := s.must(action(decide.Start, a, 2, record.Done))
	if r.Fact.Role != topology.RoleStandby || !a.Standby() {
		t.Fatalf("it came up as a %s: %+v", r.Fact.Role, r.Fact)
	}
	// What it has alone is seen, and is taken back.
	if had := max(r.Fact.Receive, r.Fact.Replay); r.Fact.History.Timeline != 1 || had <= left {
		t.Fatalf("at %s of timeline %d, which was left at %s", had, r.Fact.History.Timeline, left)
	}
	s.must(from(action(decide.Rewind, a, 2, record.Done), b))
	s.sql(b, "INSERT INTO t VALUES (1)")
	s.reads(a, "SELECT sum(x) FROM t", "1")
	if !s.keptOf(a, "1") {
		t.Error("the log that it had alone was not kept")
	}
}

// A repair whose answer was lost is asked for again; its server may have been promoted and lost since.
func TestARepairThatIsRepeatedStartsNoPrimary(t *testing.T) {
	s, a, b, _ := failover(t)
	rewind := from(action(decide.Rewind, a, 2, record.Done), b)
	s.must(rewind)
	if err := a.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	lost := script{text: `programs pg_ctl; stop_server "$pgdata" immediate 10`}
	if err := s.act(s.within(), rewind, lost); err != nil {
		t.Fatal(err)
	}
	if a.Standby() {
		t.Fatal("something says already that it is a standby")
	}
	rewind.Timeout = 5 * time.Second // it is on another branch, and will not stream
	result, r := s.Do(t.Context(), rewind)
	if r.Fact.Role != topology.RoleStandby || !a.Standby() {
		t.Errorf("%q, %+v", result.Err, r.Fact)
	}
}

func TestAServerThatRunsAsAPrimaryIsNotTakenForAStartedStandby(t *testing.T) {
	s := newStage(t, pglocal.Options{})
	a := s.pg.Nodes()[0]
	s.fails(action(decide.Start, a, 2, record.Done), "runs as a primary")
	if a.Standby() || s.sql(a, "SELECT pg_is_in_recovery()") != "f" {
		t.Error("what runs was changed")
	}
}

// Before version 12 a recovery.conf may be there that is not a standby's.
func TestARecoveryThatWouldEndAsAPrimaryBecomesAStandbys(t *testing.T) {
	for _, c := range []struct{ had, want string }{
		{"", "standby_mode = on\nrecovery_target_timeline = latest\n"},
		{"restore_command = 'x'\nprimary_conninfo = 'host=a'\n",
			"restore_command = 'x'\nprimary_conninfo = 'host=a'\nstandby_mode = on\nrecovery_target_timeline = latest\n"},
		{"standby_mode = 'off'\n", "standby_mode = on\nrecovery_target_timeline = latest\n"},
		{"standby_mode = 'on'\nprimary_conninfo = 'host=a'\n", "standby_mode = 'on'\nprimary_conninfo = 'host=a'\n"},
	} {
		dir := t.TempDir()
		script := `printf '%s' "$had" >"$pgdata/recovery.conf"
[ -n "$had" ] || rm "$pgdata/recovery.conf"
major=11
standby "$pgdata"
cat "$pgdata/recovery.conf"`
		out, err := exec.Command("sh", "-c", prelude+script, "x", "directory="+dir, "had="+c.had).CombinedOutput()
		if err != nil || string(out) != c.want {
			t.Errorf("%q became %q, %v; want %q", c.had, out, err, c.want)
		}
	}
}
