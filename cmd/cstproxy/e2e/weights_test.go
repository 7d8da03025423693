package e2e

import (
	"testing"

	"github.com/cstproxy/cstproxy/cmd/cstproxy/stand"
)

func TestWeightsDecideTheSharesOfTheReads(t *testing.T) {
	w := sharedWorld(t)
	standbys := w.cluster.Standbys()
	weights := map[string]int{standbys[0].Name: 1, standbys[1].Name: 3}
	p := w.secondProxy(t, stand.Options{Weights: weights})
	w.warm(t, p.URL(appUser, appPassword, appDB))
	w.forgetCalls(t)
	pgbench(p.URL(appUser, appPassword, appDB), "-n", "-S", "-c", "8", "-j", "2", "-t", "300").run(t)
	w.wantShares(t, w.calls(t, selectOnly), weights)
}

func TestAWeightChangedByReloadCountsAndCutsNobody(t *testing.T) {
	w := sharedWorld(t)
	standbys := w.cluster.Standbys()
	p := w.secondProxy(t, stand.Options{})
	w.warm(t, p.URL(appUser, appPassword, appDB))
	conn := connect(t, p.URL(appUser, appPassword, appDB))
	mustExec(t, conn, "SELECT 1")
	if err := p.Rewrite(func(o *stand.Options) { o.Weights = map[string]int{standbys[0].Name: 0, standbys[1].Name: 1} }); err != nil {
		t.Fatal(err)
	}
	if err := p.Reload(); err != nil {
		t.Fatal(err)
	}
	if err := p.AwaitBackends(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	w.forgetCalls(t)
	for range 50 {
		mustExec(t, conn, "SELECT abalance FROM pgbench_accounts WHERE aid = 1")
	}
	counts := w.calls(t, selectOnly)
	if counts[standbys[0].Name] != 0 || counts[standbys[1].Name] != 50 {
		t.Errorf("reads by node: %v; all 50 belong to %s", counts, standbys[1].Name)
	}
}
