package operation

import (
	"strings"
	"testing"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/pglocal"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

const slotsSQL = "SELECT coalesce(string_agg(slot_name, ' ' ORDER BY slot_name), '') FROM pg_replication_slots"

func slotSettings(limit string) map[string]string {
	settings := rewindable()
	settings["max_slot_wal_keep_size"] = limit
	settings["wal_keep_size"] = "0"
	return settings
}

func (s *stage) step(slots *Slots, c *record.Cluster) map[topology.NodeID]string {
	s.t.Helper()
	lost, err := slots.Step(s.within(), c)
	if err != nil {
		s.t.Fatal(err)
	}
	return lost
}

func (s *stage) fill(n *pglocal.Node) {
	s.t.Helper()
	for range 2 {
		s.sql(n, "SELECT pg_logical_emit_message(false, 'x', 'y'), pg_switch_wal()")
	}
	s.sql(n, "CHECKPOINT")
}

// Whoever is promoted has what the others lack; nobody's log piles up; who was away for too long is named.
func TestEveryNodeBearsTheOthersSlotsWhereTheyAreBounded(t *testing.T) {
	s := newStage(t, pglocal.Options{Standbys: 2, Settings: slotSettings("64MB")})
	a, b, d := s.pg.Nodes()[0], s.pg.Nodes()[1], s.pg.Nodes()[2]
	c := &record.Cluster{Epoch: record.Epoch{Number: 1, Primary: 1}, LastEpoch: 1, LastOperation: 1}
	s.must(from(action(decide.Follow, b, 1, record.Done+1), a), from(action(decide.Follow, d, 1, record.Done+1), a))
	slots := NewSlots(s.Executor)
	s.step(slots, c)
	for n, want := range map[*pglocal.Node]string{a: "cstproxy_node2 cstproxy_node3", b: "cstproxy_node1 cstproxy_node3", d: "cstproxy_node1 cstproxy_node2"} {
		s.reads(n, slotsSQL, want)
	}
	s.fill(a)
	if err := s.pg.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.step(slots, c)
	s.reads(b, "SELECT bool_and(restart_lsn = pg_last_wal_replay_lsn()) FROM pg_replication_slots", "t")

	// One in repair, and one of a node that is none of ours any more.
	s.sql(a, "SELECT pg_create_physical_replication_slot('cstproxy_gone', true), pg_create_physical_replication_slot('theirs', true)")
	kept := s.sql(b, "SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'cstproxy_node3'")
	c.Tasks = map[topology.NodeID]*record.Operation{3: {ID: 2, Kind: record.Repair, Node: 3}}
	s.fill(a)
	if err := s.pg.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.step(slots, c)
	s.reads(b, "SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'cstproxy_node3'", kept)
	s.reads(a, slotsSQL, "cstproxy_node2 cstproxy_node3 theirs")
	c.Tasks = nil

	if err := d.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if lost := s.step(slots, c); len(lost) != 0 {
		t.Errorf("lost: %v", lost)
	}
	s.reads(a, slotsSQL, "cstproxy_node2 cstproxy_node3 theirs")
	for range 4 {
		s.reads(b, "SELECT pg_last_wal_replay_lsn() >= '"+s.sql(a, "SELECT pg_current_wal_lsn()")+"'", "t")
		s.fill(a)
	}
	s.reads(b, "SELECT pg_last_wal_replay_lsn() >= '"+s.sql(a, "SELECT pg_current_wal_lsn()")+"'", "t")
	for range 2 {
		if lost := s.step(slots, c); len(lost) != 1 || !strings.Contains(lost[3], "max_slot_wal_keep_size is 64 MB") {
			t.Errorf("lost: %v", lost)
		}
	}
	s.reads(a, slotsSQL, "cstproxy_node2 theirs")
	// Nothing is touched in an operation.
	c.Operation = &record.Operation{Step: record.Freeze}
	s.sql(a, "SELECT pg_create_physical_replication_slot('cstproxy_gone', true)")
	s.step(slots, c)
	s.reads(a, slotsSQL, "cstproxy_gone cstproxy_node2 theirs")
}

func TestWhereNothingBoundsSlotsOnlyThoseInUseAreKept(t *testing.T) {
	s := newStage(t, pglocal.Options{Standbys: 2, Settings: slotSettings("-1")})
	a, b, d := s.pg.Nodes()[0], s.pg.Nodes()[1], s.pg.Nodes()[2]
	c := &record.Cluster{Epoch: record.Epoch{Number: 1, Primary: 1}, LastEpoch: 1}
	s.must(from(action(decide.Follow, b, 1, record.Done+1), a))
	s.sql(b, "SELECT pg_create_physical_replication_slot('cstproxy_node1', true)") // of a former time as primary
	s.sql(d, "SELECT pg_create_physical_replication_slot('cstproxy_node4', true)")
	slots := NewSlots(s.Executor)
	s.step(slots, c)
	s.reads(a, slotsSQL, "cstproxy_node2")
	s.reads(b, slotsSQL, "cstproxy_node1")
	s.reads(d, slotsSQL, "")
	s.fill(a)
	if err := s.pg.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.step(slots, c)
	s.reads(b, "SELECT bool_and(restart_lsn = pg_last_wal_replay_lsn()) FROM pg_replication_slots", "t")
	if err := b.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.fill(a)
	if lost := s.step(slots, c); len(lost) != 0 {
		t.Errorf("without any limit: %v", lost)
	}
	s.cfg.SlotLimit = 16 << 20
	if lost := s.step(slots, c); len(lost) != 1 || !strings.Contains(lost[2], "for node 2, which does not stream") {
		t.Errorf("with a limit: %v", lost)
	}
	s.reads(a, slotsSQL, "")
	// Who is being repaired was told to follow by its slot.
	c.Tasks = map[topology.NodeID]*record.Operation{2: {ID: 2, Kind: record.Repair, Node: 2}}
	s.step(slots, c)
	s.reads(a, slotsSQL, "cstproxy_node2")
}
