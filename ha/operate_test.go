package ha

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cstproxy/cstproxy/ha/pglocal"
	"github.com/cstproxy/cstproxy/ha/topology"
)

func TestBackendsComeAndGoAndSurviveARestart(t *testing.T) {
	f := newFixture(t, pglocal.Options{Standbys: 1})
	ctx := t.Context()
	stranger, err := f.pg.AddForeign(ctx)
	f.must(err)
	late, err := f.pg.AddStandby(ctx, nil)
	f.must(err)
	f.run()
	f.settled()
	b := f.pg.Nodes()[1]
	expect := func(when string, want ...string) {
		t.Helper()
		f.poll(fmt.Sprintf("%s: backends %v", when, want), func() bool { return slices.Equal(f.agent.Backends("c1"), want) })
	}
	expect("at first", b.Address())
	for addr, want := range map[string]error{
		stranger.Address(): ErrRefused, "127.0.0.1:1": ErrRefused,
		"": ErrAddress, "127.0.0.1": ErrAddress, "127.0.0.1:x": ErrAddress, "a,b:5432": ErrAddress, ":5432": ErrAddress,
	} {
		if err := f.agent.AddBackend(ctx, "c1", addr); !errors.Is(err, want) {
			t.Errorf("adding %q: %v, want %v", addr, err, want)
		}
	}
	if err := f.agent.AddBackend(ctx, "c2", late.Address()); !errors.Is(err, ErrUnknown) {
		t.Errorf("adding to an unknown cluster: %v", err)
	}
	for range 2 {
		f.must(f.agent.AddBackend(ctx, "c1", late.Address()))
		expect("after the addition", b.Address(), late.Address())
	}
	f.must(f.agent.Detach(ctx, "c1", 2))
	expect("after node 2 was detached", late.Address())
	if s, _ := f.agent.Snapshot("c1"); !s.Node(3).Added || s.Node(2).Health != topology.Detached {
		t.Errorf("snapshot: %+v", s.Nodes)
	}

	f.run()
	f.await("the added node healthy after a restart", has(3, topology.Healthy))
	expect("after a restart", late.Address())
	f.must(f.agent.Apply(f.conf))
	f.await("the added node healthy after a reload", has(3, topology.Healthy))
	expect("after a reload", late.Address())

	f.must(f.agent.AddBackend(ctx, "c1", b.Address()))
	expect("after node 2 was added again", b.Address(), late.Address())
	for range 2 {
		f.must(f.agent.RemoveBackend(ctx, "c1", late.Address()))
		f.must(f.agent.RemoveBackend(ctx, "c1", b.Address()))
		expect("after both were removed")
	}
	if v := f.board.View(); v.Node(3) != nil || v.Node(2).Health != topology.Detached {
		t.Errorf("after the removals: %s", describe(v))
	}
	f.must(f.agent.Drain(ctx, "c1", 2))
	f.await("node 2 draining", has(2, topology.Draining))
	f.must(f.agent.Attach(ctx, "c1", 2))
	expect("after node 2 was attached", b.Address())
	if err := f.agent.Attach(ctx, "c1", 9); !errors.Is(err, ErrUnknown) {
		t.Errorf("attaching an unknown node: %v", err)
	}
}

func TestOperatorsAreToldWhereEveryNodeIs(t *testing.T) {
	f := newFixture(t, pglocal.Options{Standbys: 2})
	f.run()
	f.settled()
	ctx := t.Context()
	f.psql(f.pg.Nodes()[0], "CREATE TABLE t AS SELECT generate_series(1, 1000)")
	f.must(f.pg.CatchUp(ctx))
	delays, err := f.agent.ReplicationDelay(ctx, "c1")
	f.must(err)
	if len(delays) != 3 || !delays[0].Primary || !delays[1].Streaming || !delays[2].Streaming {
		t.Fatalf("delays: %+v", delays)
	}
	if s := delays[1].Sender; s.State != "streaming" || s.SyncState != "async" || s.AppName != f.pg.Nodes()[1].Name {
		t.Errorf("sender of node 2: %+v", s)
	}
	f.pg.Nodes()[2].Kill()
	where, err := f.agent.LastLSN(ctx, "c1")
	f.must(err)
	if where[0].Role != topology.RolePrimary || where[0].Timeline != 1 || where[0].LSN == 0 || where[1].Replay == 0 || where[2].Err == nil {
		t.Errorf("positions: %+v", where)
	}
	f.pg.Nodes()[0].Kill()
	f.await("no primary", func(v *topology.View) bool { return v.Primary == 0 })
	if _, err := f.agent.ReplicationDelay(ctx, "c1"); !errors.Is(err, ErrRefused) {
		t.Errorf("delays without a primary: %v", err)
	}
}

func TestAReloadChangesNodesInPlace(t *testing.T) {
	f := newFixture(t, pglocal.Options{Standbys: 2})
	f.run()
	f.settled()
	f.cluster().Nodes[1].Weight = 5
	f.cluster().Nodes[2].Tags.NoLoadBalance = true
	f.must(f.agent.Apply(f.conf))
	v := f.board.View()
	if v.Node(2).Weight != 5 || v.Node(2).Health != topology.Healthy || v.Node(3).TakesReads() {
		t.Errorf("after a reload: %s, weight %d", describe(v), v.Node(2).Weight)
	}
	f.conf.ProbeTimeout = 1500 * time.Millisecond // every connection is made anew
	f.must(f.agent.Apply(f.conf))
	v = f.board.View()
	if v.Primary != 1 || !v.Node(2).TakesReads() {
		t.Errorf("another timeout interrupted the service: %s", describe(v))
	}
	f.must(awaitTicket(t.Context(), v, v.Node(2).Slot, v.Rounds.Stamp(v.Epoch)))
	v = f.board.View()
	bad := f.conf
	bad.Clusters = []ClusterConfig{f.conf.Clusters[0]}
	bad.Clusters[0].Nodes = nil
	if err := f.agent.Apply(bad); err == nil || f.board.View() != v {
		t.Errorf("a bad configuration was taken: %v", err)
	}
	bad = f.conf
	bad.Clusters = append(slices.Clone(bad.Clusters), f.conf.Clusters[0])
	bad.Clusters[1].Name = "c2"
	if err := f.agent.Apply(bad); !errors.Is(err, ErrRefused) {
		t.Errorf("a new cluster was taken: %v", err)
	}
	f.cluster().Nodes = f.cluster().Nodes[:2]
	f.must(f.agent.Apply(f.conf))
	if v = f.board.View(); v.Node(3) != nil {
		t.Errorf("after a node was removed: %s", describe(v))
	}
}

func TestAStateFileThatCannotBeReadStopsTheAgent(t *testing.T) {
	conf := DefaultConfig()
	conf.StateDir = t.TempDir()
	c := DefaultCluster()
	c.Name, c.Nodes = "c1", []NodeConfig{{ID: 1, Host: "127.0.0.1", Port: 1, Weight: 1}}
	conf.Clusters = []ClusterConfig{c}
	for _, content := range []string{"{", `{"format": 99}`, `{"format":1,"clusters":{"c1":{"forks":[{"timeline":1,"end":"x"}]}}}`} {
		if err := os.WriteFile(filepath.Join(conf.StateDir, "agent.json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		a := quietAgent(t, conf)
		if err := a.Run(t.Context()); err == nil {
			t.Errorf("an agent ran with the state %q", content)
		}
	}
}
