package e2e

import (
	"bytes"
	"slices"
	"testing"

	"github.com/cstproxy/cstproxy/cmd/cstproxy/stand"
)

func TestABackendTakenOutOverHTTPGetsNoReadsAndComesBack(t *testing.T) {
	w := sharedWorld(t)
	p := w.secondProxy(t, stand.Options{})
	victim, other := w.cluster.Standbys()[0], w.cluster.Standbys()[1]
	url := p.URL(appUser, appPassword, appDB)
	w.warm(t, url)
	load := func() map[string]int {
		w.forgetCalls(t)
		pgbench(url, "-n", "-S", "-M", "prepared", "-c", "4", "-t", "100").run(t)
		return w.calls(t, selectOnly)
	}
	get := func(path string) {
		if _, err := p.Get(t.Context(), path+"&token="+stand.Token); err != nil {
			t.Fatal(err)
		}
	}
	get("/backend/delete?backend=" + victim.Address())
	list, err := p.Backends(t.Context())
	if err != nil || !slices.Equal(list, []string{other.Address()}) {
		t.Errorf("backends after the deletion: %v, %v", list, err)
	}
	if counts := load(); counts[victim.Name] != 0 || counts[other.Name] != 400 {
		t.Errorf("reads after the deletion: %v", counts)
	}
	get("/backend/delete?backend=" + victim.Address()) // once more changes nothing
	get("/backend/add?backend=" + victim.Address())
	if err := p.AwaitBackends(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	w.wantShares(t, load(), w.evenly())
	if _, err := p.Get(t.Context(), "/backend/list?token=wrong"); err == nil {
		t.Error("a wrong token was accepted")
	}
}

func TestAStandbyOfAnotherSystemGetsNoQuery(t *testing.T) {
	w := newWorld(t, setup{servers: twoStandbys()})
	w.initPgbench(t, 1)
	foreign, err := w.cluster.AddForeign(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.proxy.Rewrite(func(o *stand.Options) { o.Nodes = w.cluster.Nodes() }); err != nil {
		t.Fatal(err)
	}
	if err := w.proxy.Reload(); err != nil {
		t.Fatal(err)
	}
	await(t, "the foreign server to be seen as one", func() bool {
		nodes, err := w.proxy.Get(t.Context(), "/api/v1/nodes")
		return err == nil && bytes.Contains(nodes, []byte(`"health":"foreign"`))
	})
	pgbench(w.through(), "-n", "-b", "tpcb-like@1", "-b", "select-only@3", "-c", "4", "-t", "100").run(t)
	got, err := foreign.Psql(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE datname = 'app' OR usename = 'app'")
	if err != nil || got != "0" {
		t.Errorf("the foreign server has %s connections of the application: %v", got, err)
	}
	if err := w.proxy.AwaitBackends(t.Context(), 2); err != nil {
		t.Error(err)
	}
}

func TestAPromotedStandbyBesideALivingPrimaryGetsNothing(t *testing.T) {
	w := newWorld(t, setup{servers: twoStandbys()})
	w.initPgbench(t, 1)
	rogue := w.cluster.Standbys()[0]
	if err := rogue.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.proxy.AwaitBackends(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	pgbench(w.through(), "-n", "-b", "tpcb-like@1", "-b", "select-only@3", "-c", "4", "-t", "100").run(t)
	got, err := rogue.PsqlIn(t.Context(), appDB, "SELECT count(*) FROM pgbench_history")
	if err != nil || got != "0" {
		t.Errorf("the promoted standby has %s rows of the application: %v", got, err)
	}
	got, err = w.cluster.Nodes()[0].PsqlIn(t.Context(), appDB, "SELECT count(*) > 0 FROM pgbench_history")
	if err != nil || got != "t" {
		t.Errorf("the primary has none: %v", err)
	}
}
