package operation

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/pglocal"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// failover is an old primary a that went on writing after b and d were recruited for epoch 2: b is the
// primary of epoch 2, d follows it, a is stopped and has log that nobody else has.
func failover(t *testing.T) (s *stage, a, b, d *pglocal.Node) {
	s = newStage(t, pglocal.Options{Standbys: 2})
	a, b, d = s.pg.Nodes()[0], s.pg.Nodes()[1], s.pg.Nodes()[2]
	s.sql(a, "CREATE TABLE t (x int)")
	s.sql(a, "INSERT INTO t VALUES (1)")
	if err := s.pg.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	// b last: the old primary writes now and then by itself, and b must not lack what d has.
	s.must(action(decide.Recruit, d, 2, record.Fence), action(decide.Recruit, b, 2, record.Fence))
	s.sql(a, "INSERT INTO t SELECT generate_series(100, 199)")
	r := s.must(action(decide.Stop, a, 2, record.Fence))
	if !r.Fact.Stopped || r.Fact.Running || r.Host == nil || !r.Host.Standby {
		t.Fatalf("after stop: %+v, %+v", r.Fact, r.Host)
	}
	promote := action(decide.PromoteIt, b, 2, record.Promote)
	promote.Timeline = 5 // 2 to 4 may have been used elsewhere
	r = s.must(promote)
	if r.Fact.Role != topology.RolePrimary || r.Fact.History.Timeline != 5 || !r.Fact.History.Known() {
		t.Fatalf("after the promotion: %+v", r.Fact)
	}
	r = s.must(from(action(decide.Follow, d, 2, record.After), b))
	if !r.Fact.Streaming || r.Fact.Upstream != topology.NodeID(b.ID) || r.Fact.Recruited != 0 {
		t.Fatalf("after follow: %+v", r.Fact)
	}
	s.sql(b, "INSERT INTO t VALUES (2)")
	s.reads(d, "SELECT sum(x) FROM t", "3")
	return s, a, b, d
}

func TestAnOldPrimaryThatIsAheadIsRewoundAndStreams(t *testing.T) {
	s, a, b, _ := failover(t)
	s.sql(b, "ALTER SYSTEM SET cluster_name = 'of the source'")
	r := s.must(from(action(decide.Rewind, a, 2, record.Done), b))
	if r.Fact.Role != topology.RoleStandby || r.Fact.Upstream != topology.NodeID(b.ID) || r.Fact.Recruited != 0 || !r.Fact.Complete {
		t.Errorf("%+v", r.Fact)
	}
	s.sql(b, "INSERT INTO t VALUES (3)")
	s.reads(a, "SELECT sum(x) FROM t", "6")
	if name := s.sql(a, "SHOW cluster_name"); name != a.Name {
		t.Errorf("the node's own settings were replaced: it is called %q", name)
	}
	if !exists(t, filepath.Join(filepath.Dir(a.Dir), "cstproxy-lost", "*-tl1", "00000001*")) {
		t.Error("the lost log was not saved")
	}
	for _, left := range []string{"kept", "recovering", "rewinding", "rewound"} {
		if exists(t, a.Dir+".cstproxy-"+left) {
			t.Errorf("%s is still there", left)
		}
	}
	if strings.Contains(s.said(), pglocal.DefaultPassword) {
		t.Error("the password was shown")
	}
	s.reads(b, "SELECT count(*) FROM pg_replication_slots WHERE active", "2")
}

func TestAStoppedPrimaryThatSomebodyStartsIsAStandby(t *testing.T) {
	s := newStage(t, pglocal.Options{Standbys: 1})
	a := s.pg.Nodes()[0]
	s.must(mode(action(decide.Stop, a, 2, record.Fence), "fast"))
	_, r := s.Do(t.Context(), action(decide.Look, a, 2, record.Fence))
	if !r.Fact.Stopped || r.Fact.Write == 0 || r.Fact.History.Timeline != 1 {
		t.Errorf("shut down in order: %+v", r.Fact)
	}
	b := s.pg.Nodes()[1]
	s.reads(b, "SELECT pg_last_wal_receive_lsn() > '"+r.Fact.Write.String()+"'", "t")
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := s.sql(a, "SELECT pg_is_in_recovery()"); got != "t" {
		t.Error("it came up writable")
	}
	if err := a.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	// It has been a standby by now: making it a primary would be a promotion.
	s.fails(action(decide.Revive, a, 2, record.Undo), "promotion")
}

func TestACrashedPrimaryIsRevived(t *testing.T) {
	s := newStage(t, pglocal.Options{})
	a := s.pg.Nodes()[0]
	a.Kill()
	s.must(action(decide.Revive, a, 1, record.After))
	s.must(action(decide.Stop, a, 2, record.Fence))
	r := s.must(action(decide.Revive, a, 2, record.Undo))
	if r.Fact.Role != topology.RolePrimary || a.Standby() {
		t.Errorf("%+v", r.Fact)
	}
}

func TestAServerThatDoesNotAnswerIsStopped(t *testing.T) {
	s := newStage(t, pglocal.Options{Standbys: 1})
	a := s.pg.Nodes()[0]
	a.Hang()
	hung := mode(action(decide.Stop, a, 2, record.Fence), "fast")
	hung.Timeout = 5 * time.Second
	s.fails(hung, "does not end")
	if a.Standby() {
		t.Error("a primary that goes on was left with standby.signal")
	}
	s.must(action(decide.Stop, a, 2, record.Fence))
	if a.Running() || !a.Standby() {
		t.Error("it still runs, or would start as a primary")
	}
}

func TestAReleasedStandbyGoesOnWithItsPrimary(t *testing.T) {
	s := newStage(t, pglocal.Options{Standbys: 1})
	a, b := s.pg.Nodes()[0], s.pg.Nodes()[1]
	r := s.must(action(decide.Recruit, b, 2, record.Fence))
	if r.Fact.Recruited != 2 || r.Fact.Streaming || r.Fact.Role != topology.RoleStandby {
		t.Fatalf("%+v", r.Fact)
	}
	r = s.must(from(action(decide.Release, b, 2, record.Undo), a))
	if r.Fact.Recruited != 0 || !r.Fact.Streaming || r.Fact.Upstream != topology.NodeID(a.ID) {
		t.Fatalf("%+v", r.Fact)
	}
	if late := s.fails(action(decide.Recruit, b, 2, record.Fence), ""); !late.Refused {
		t.Errorf("%+v", late)
	}
	if late := s.fails(action(decide.PromoteIt, b, 2, record.Promote), ""); !late.Refused {
		t.Errorf("%+v", late)
	}
	s.must(mode(action(decide.Stop, b, 2, record.Done), "fast"), action(decide.Checkpoint, a, 2, record.Done))
	r = s.must(from(action(decide.Follow, b, 2, record.Done), a)) // of a stopped server: by its files
	if !r.Fact.Streaming {
		t.Fatalf("%+v", r.Fact)
	}
	r = s.must(action(decide.Start, b, 2, record.Done))
	if r.Host, _ = s.nodes[2].hostFacts(s.within()); len(r.Warnings) == 0 || r.Host == nil || r.Host.Processes == 0 || r.Host.SystemID != r.Fact.SystemID || r.Host.Problem != "" {
		t.Errorf("%+v, %+v", r, r.Host)
	}
}

func TestWithoutTheHostSQLDoesWhatItCan(t *testing.T) {
	s := newStage(t, pglocal.Options{Standbys: 1})
	a, b := s.pg.Nodes()[0], s.pg.Nodes()[1]
	s.ssh.Close()
	s.fails(func() decide.Action {
		a := action(decide.Stop, a, 2, record.Fence)
		a.Timeout = time.Second
		return a
	}(), "")
	promote := action(decide.PromoteIt, b, 2, record.Promote)
	promote.Timeline = 4
	if r := s.must(action(decide.Recruit, b, 2, record.Fence), promote); r.Fact.History.Timeline != 4 || !r.Fact.History.Known() {
		t.Errorf("%+v", r.Fact)
	}
	s.Executor = s.executor(func(n *Node) { n.Host = nil })
	if r, _ := s.Do(t.Context(), action(decide.Stop, a, 2, record.Fence)); r.Err != ErrNoHost.Error() {
		t.Error(r.Err)
	}
}

func TestABusyStartupProcessDoesNotKeepAStandbyFromBeingRecruited(t *testing.T) {
	settings := rewindable()
	settings["max_standby_streaming_delay"] = "-1"
	s := newStage(t, pglocal.Options{Standbys: 1, Settings: settings})
	a, b := s.pg.Nodes()[0], s.pg.Nodes()[1]
	s.sql(a, "CREATE TABLE t (x int)")
	if err := s.pg.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A reader on the standby has t; the startup process waits for it with an exclusive lock.
	reading, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { // received below
		_, err := b.Psql(reading, "BEGIN; SELECT * FROM t; SELECT pg_sleep(600)")
		ended <- err
	}()
	s.reads(b, "SELECT count(*) FROM pg_locks WHERE relation = 't'::regclass AND mode = 'AccessShareLock'", "1")
	s.sql(a, "BEGIN; LOCK TABLE t; INSERT INTO t VALUES (1); COMMIT")
	s.reads(b, "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'", "1")
	recruit := action(decide.Recruit, b, 2, record.Fence)
	recruit.Timeout = 10 * time.Second
	result, r := s.Do(t.Context(), recruit)
	if result.Err != "" || r.Fact.Streaming || r.Fact.Recruited != 2 {
		t.Errorf("%s, %+v", result.Err, r.Fact)
	}
	s.reads(a, "SELECT count(*) FROM pg_stat_replication", "0")
	stop()
	if err := <-ended; err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the reader: %v", err)
	}
}

// What has no marker is promoted by no statement, but by its host under the ratchet. The figures of both
// ways are in the log.
func TestWhatSQLDoesNotPromoteItsHostDoes(t *testing.T) {
	s := newStage(t, pglocal.Options{Standbys: 2})
	b, d := s.pg.Nodes()[1], s.pg.Nodes()[2]
	for _, n := range []*pglocal.Node{b, d} {
		if n == d {
			s.must(action(decide.Recruit, d, 2, record.Fence))
		}
		began := time.Now()
		result, r := s.Do(t.Context(), action(decide.PromoteIt, n, 2, record.Promote))
		if result.Err != "" || r.Fact.Role != topology.RolePrimary {
			t.Fatalf("%s: %+v", result.Err, r.Fact)
		}
		t.Logf("promoted after %s, with the look afterwards (marker %d)", time.Since(began).Round(time.Millisecond), r.Fact.Recruited)
	}
	seen, err := s.host.Seen(s.within())
	if err != nil || len(seen) != 2 || seen[0].Step != int(record.Promote) || seen[1].Step != int(record.Promote) {
		t.Errorf("the ratchets have seen %v, %v", seen, err)
	}
}
