package operation

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/hook"
	"github.com/cstproxy/cstproxy/ha/pglocal"
	"github.com/cstproxy/cstproxy/ha/pgnode"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

func TestHooksAreToldOfAFailover(t *testing.T) {
	s := newStage(t, pglocal.Options{Standbys: 1})
	a, b := s.pg.Nodes()[0], s.pg.Nodes()[1]
	s.sql(a, "CREATE TABLE told (cluster text, event text, old text, new text)")
	s.sql(a, "CREATE FUNCTION switched(cluster text, event text, old text, new text) RETURNS void LANGUAGE sql AS $$ INSERT INTO public.told VALUES ($1, $2, $3, $4) $$")
	if err := s.pg.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "hook")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho \"$CSTPROXY_HOOK: $*\"\n[ \"$CSTPROXY_HOOK\" != on_role_change ]\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	op := &record.Operation{ID: 2, Kind: record.Failover, From: 1, To: 2, Step: record.Promote, Former: 1, Candidate: topology.NodeID(b.ID)}
	said := &record.Cluster{Epoch: record.Epoch{Number: 1, Primary: 1, History: topology.History{Timeline: 1}}, Operation: op}
	s.cfg.Hooks = hook.Config{PreFence: program, PostPromote: program, OnRoleChange: program, TriggerFunc: "switched"}
	told := func() {
		s.cfg.Record, s.cfg.Changed, s.cfg.Confirm = func() *record.Cluster { return said }, func() <-chan struct{} { return nil }, leads
	}
	told()
	s.must(action(decide.Recruit, b, 2, record.Fence), action(decide.Stop, a, 2, record.Fence))
	if r, _ := s.Do(t.Context(), mode(action(decide.Hook, a, 2, record.Promote), hook.PreFence)); r.Err != "" {
		t.Error(r.Err)
	}
	s.must(action(decide.PromoteIt, b, 2, record.Promote))
	op.Step = record.After
	said.Epoch = record.Epoch{Number: 2, Primary: op.Candidate, History: topology.History{Timeline: 2}}
	s.mu.Lock()
	before := slices.Clone(s.lines)
	s.lines = nil
	s.mu.Unlock()
	after := action(decide.Hook, b, 2, record.After)
	for _, name := range []string{hook.PostPromote, hook.TriggerFunc} {
		if r, _ := s.Do(t.Context(), mode(after, name)); r.Err != "" {
			t.Errorf("%s: %s", name, r.Err)
		}
	}
	s.fails(mode(after, hook.OnRoleChange), "exit status 1")
	if want := "pre_fence: pre_fence: c failover 2 2 1 " + s.address(1) + " 2 " + s.address(2) + " 0"; !slices.Contains(before, want) {
		t.Errorf("%q is not among %q", want, before)
	}
	if want := "post_promote: post_promote: c failover 2 2 1 " + s.address(1) + " 2 " + s.address(2) + " 2"; !strings.Contains(s.said(), want) {
		t.Errorf("%q is not in %q", want, s.said())
	}
	s.reads(b, "SELECT concat_ws(' ', cluster, event, old, new) FROM told", "c failover 127.0.0.1 127.0.0.1")
	said.Operation = nil
	s.fails(mode(after, hook.PostPromote), "is over")
	s.cfg.Hooks.TriggerFunc = "nowhere.to_be_found"
	said.Operation = op
	s.fails(mode(after, hook.TriggerFunc), "nowhere")
	s.Executor = s.executor(func(n *Node) { n.Trigger = s.database(t, n.Port, "template1") })
	s.cfg.Hooks = hook.Config{TriggerFunc: "switched"}
	told()
	s.fails(mode(after, hook.TriggerFunc), "switched") // which is in another database
}

func (s *stage) database(t *testing.T, port int, name string) *pgnode.Server {
	t.Helper()
	q, err := pgnode.New(pgnode.Config{Host: "127.0.0.1", Port: port, User: "postgres", Password: pglocal.DefaultPassword,
		Database: name, SSLMode: "disable", Timeout: patienceOfTests})
	if err != nil {
		t.Fatal(err)
	}
	return q
}
