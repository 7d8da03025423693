package e2e

import (
	"testing"
)

func TestTransactionsAllHappenOnThePrimaryAndBalancesAddUp(t *testing.T) {
	w := newWorld(t, setup{servers: twoStandbys()})
	w.initPgbench(t, 5)
	total := 0
	for _, run := range []struct {
		name string
		args []string
	}{
		{"tpcb-like simple", []string{"-M", "simple", "-b", "tpcb-like"}},
		{"tpcb-like extended", []string{"-M", "extended", "-b", "tpcb-like"}},
		{"tpcb-like prepared", []string{"-M", "prepared", "-b", "tpcb-like"}},
		{"simple-update", []string{"-M", "prepared", "-b", "simple-update"}},
	} {
		t.Run(run.name, func(t *testing.T) {
			done := pgbench(w.through(), append(run.args, "-n", "-c", "8", "-j", "2", "-t", "100")...).run(t)
			if done != 800 {
				t.Errorf("%d of 800 transactions", done)
			}
			total += done
		})
	}
	t.Run("mixed with reads", func(t *testing.T) {
		w.forgetCalls(t)
		pgbench(w.through(), "-n", "-M", "prepared", "-b", "tpcb-like@3", "-b", "select-only@7", "-c", "16", "-j", "2", "-t", "100").run(t)
		counts := w.calls(t, "UPDATE%")
		for _, s := range w.cluster.Standbys() {
			if counts[s.Name] != 0 {
				t.Errorf("updates by node: %v", counts)
			}
		}
		// simple-update leaves tellers and branches alone, so only the accounts add up for it.
		reads := w.calls(t, selectOnly)
		if reads[w.cluster.Standbys()[0].Name] == 0 || reads[w.cluster.Standbys()[1].Name] == 0 {
			t.Errorf("reads by node: %v; none reached a standby", reads)
		}
	})
	got, err := w.cluster.Primary().PsqlIn(t.Context(), appDB, "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history)")
	if err != nil || got != "t" {
		t.Errorf("accounts and history differ: %s, %v", got, err)
	}
	if n := w.refusals(t); n != 0 {
		t.Errorf("standbys refused %d statements", n)
	}
}
