package operation

import (
	"path/filepath"
	"testing"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/pglocal"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// promotedLately is a cluster whose node b is the primary of epoch 2 since a moment ago, and has written a fraction
// of its dirty buffers for the checkpoint that it began by itself; d follows it.
func promotedLately(t *testing.T) (s *stage, b, d *pglocal.Node) {
	s = newStage(t, pglocal.Options{Standbys: 2})
	a, b, d := s.pg.Nodes()[0], s.pg.Nodes()[1], s.pg.Nodes()[2]
	s.sql(a, "CREATE TABLE t (x int)")
	s.sql(a, "CREATE TABLE dirty AS SELECT repeat('x', 4000) FROM generate_series(1, 4000)")
	if err := s.pg.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.must(action(decide.Recruit, d, 2, record.Fence), action(decide.Recruit, b, 2, record.Fence))
	s.must(action(decide.Stop, a, 2, record.Fence), action(decide.PromoteIt, b, 2, record.Promote), from(action(decide.Follow, d, 2, record.After), b))
	return s, b, d
}

// loses has b crash with a row that nobody else has, and makes d the primary of epoch 3; b is a standby again.
func (s *stage) loses(b, d *pglocal.Node) {
	s.t.Helper()
	s.must(action(decide.Recruit, d, 3, record.Fence))
	s.sql(b, "INSERT INTO t VALUES (100)")
	crash := script{text: `programs pg_ctl; stop_server "$pgdata" immediate 10`}
	if err := s.act(s.within(), action(decide.Look, b, 2, record.Done), crash); err != nil {
		s.t.Fatal(err)
	}
	s.must(action(decide.PromoteIt, d, 3, record.Promote))
	if r := s.must(action(decide.Start, b, 3, record.Done)); r.Fact.Role != topology.RoleStandby || r.Fact.History.Timeline != 2 {
		s.t.Fatalf("%+v", r.Fact)
	}
}

// keptOf says whether the log of a timeline that b had alone was kept.
func (s *stage) keptOf(b *pglocal.Node, timeline string) bool {
	return exists(s.t, filepath.Join(filepath.Dir(b.Dir), "cstproxy-lost", "*-tl"+timeline, "0000000"+timeline+"*"))
}

func TestAPrimaryThatIsLostSoonAfterItsPromotionIsRewound(t *testing.T) {
	s, b, d := promotedLately(t)
	const last = "SELECT timeline_id, checkpoint_lsn FROM pg_control_checkpoint()"
	before := s.sql(b, last)
	c := &record.Cluster{Epoch: record.Epoch{Number: 2, Primary: topology.NodeID(b.ID)}, LastEpoch: 2, LastOperation: 3}
	for _, busy := range []*record.Cluster{
		{Epoch: c.Epoch, Operation: &record.Operation{ID: 3, Kind: record.Failover, Step: record.Fence}},
		{Epoch: c.Epoch, Froze: &record.Froze{}},
		{Epoch: record.Epoch{Number: 2, Primary: topology.NodeID(d.ID)}},
		{},
	} {
		if settled, err := s.Settle(s.within(), busy); settled || err != nil {
			t.Errorf("%+v: %t, %v", busy, settled, err)
		}
	}
	if now := s.sql(b, last); now != before || now[0] != '1' {
		t.Fatalf("the last checkpoint was %s, and is %s before anybody asked for one", before, now)
	}
	var settled string
	for range 2 {
		if done, err := s.Settle(s.within(), c); !done || err != nil {
			t.Fatal(done, err)
		}
		now := s.sql(b, last)
		if now[0] != '2' || settled != "" && now != settled {
			t.Errorf("settled: %s, after %q", now, settled)
		}
		settled = now
	}

	s.loses(b, d)
	s.must(from(action(decide.Rewind, b, 3, record.Done), d))
	s.sql(d, "INSERT INTO t VALUES (1)")
	s.reads(b, "SELECT sum(x) FROM t", "1")
	if !s.keptOf(b, "2") {
		t.Error("the log that it had alone was not kept")
	}
}

// Before its first checkpoint a server's control file names the timeline before its promotion.
func TestTheLogOfTheLastTimelineIsKept(t *testing.T) {
	s, b, d := promotedLately(t)
	s.loses(b, d)
	result, _ := s.Do(t.Context(), from(action(decide.Rewind, b, 3, record.Done), d))
	if !s.keptOf(b, "2") {
		t.Errorf("the log that it had alone was not kept (%q)", result.Err)
	}
}
