package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/cstproxy/cstproxy/admin"
	"github.com/cstproxy/cstproxy/cmd/cstproxy/stand"
	"github.com/cstproxy/cstproxy/ha/pglocal"
)

// node is the server with that id.
func (w *world) node(id int) *pglocal.Node { return w.cluster.Nodes()[id-1] }

// crashPrimary kills the primary, and returns the picture from before.
func (w *world) crashPrimary(t *testing.T) admin.Cluster {
	t.Helper()
	before := w.awaitWell(t)
	if err := w.node(before.Primary).Crash(t.Context()); err != nil {
		t.Fatal(err)
	}
	return before
}

// awaitEpoch waits until another node has taken over from the primary of before.
func (w *world) awaitEpoch(t *testing.T, before admin.Cluster) {
	t.Helper()
	var c admin.Cluster
	await(t, "another epoch", func() bool {
		c = w.picture(t)
		return c.Epoch > before.Epoch && c.Primary != 0
	})
	if c.Epoch != before.Epoch+1 || c.Primary == before.Primary {
		t.Errorf("primary %d of epoch %d became %d of %d; tasks: %v", before.Primary, before.Epoch, c.Primary, c.Epoch, w.tasks(t))
	}
}

// compareAll looks for a closed ledger's rows on all nodes.
func (l *ledger) compareAll() {
	l.Helper()
	l.world.awaitWell(l.T)
	for _, n := range l.world.cluster.Nodes() {
		l.compare(n)
	}
}

func TestAnotherServerTakesOver(t *testing.T) {
	g := newGate(t)
	w := operatedWorld(t, fmt.Sprintf("on_crash = \"failover\"\npre_fence = %q", g.program))

	t.Run("from a primary that was killed", func(t *testing.T) {
		l := w.openLedger(t)
		before := w.crashPrimary(t)
		l.awaitRows()
		w.awaitEpoch(t, before)
		l.close()
		l.compareAll() // the old primary is a standby by now, without anybody's order
	})
	t.Run("at an operator's order, without any error", func(t *testing.T) {
		before, l := w.awaitWell(t), w.openLedger(t)
		to := before.Primary%3 + 1
		out := w.cstproxy(t, 0, "ctl", "switch", "-i", strconv.Itoa(to), "--yes")
		l.awaitRows()
		l.close()
		if after := w.awaitWell(t); after.Primary != to || after.Epoch != before.Epoch+1 || l.repeats() != 0 {
			t.Errorf("primary %d of epoch %d, %d repeats\n%s", after.Primary, after.Epoch, l.repeats(), out)
		}
		l.compareAll()
	})
	t.Run("only when the cluster is not froze", func(t *testing.T) {
		w.awaitWell(t)
		l := w.openLedger(t)
		w.cstproxy(t, 0, "ctl", "froze", "--why", "a test")
		done := len(w.tasks(t))
		before := w.crashPrimary(t)
		await(t, "the word that nothing is done", func() bool {
			e, err := w.client(t).Evidence(t.Context(), stand.ClusterName)
			return err == nil && strings.Contains(e.Alarm, "the cluster is froze by")
		})
		if now := w.picture(t); now.Epoch != before.Epoch || len(w.tasks(t)) != done || w.node(before.Primary).Running() {
			t.Errorf("something was done: %+v", now)
		}
		w.cstproxy(t, 0, "ctl", "unfroze")
		w.awaitEpoch(t, before)
		l.awaitRows()
		l.close()
		l.compareAll()
	})
	t.Run("although cstproxy is killed in the middle", func(t *testing.T) {
		w.awaitWell(t)
		l := w.openLedger(t)
		g.close(t)
		before := w.crashPrimary(t)
		await(t, "the failover to begin", func() bool { _, err := os.Stat(g.reached); return err == nil })
		if err := w.proxy.Kill(); err != nil {
			t.Fatal(err)
		}
		l.end() // they have lost their proxy
		g.open(t)
		if err := w.proxy.Launch(); err != nil {
			t.Fatal(err)
		}
		if after := w.awaitWell(t); after.Epoch != before.Epoch+1 || after.Primary == before.Primary {
			t.Errorf("primary %d of epoch %d after %d of %d", after.Primary, after.Epoch, before.Primary, before.Epoch)
		}
		l.compareAll()
	})
	t.Run("and a standby can be copied anew", func(t *testing.T) {
		before := w.awaitWell(t)
		id := before.Primary%3 + 1
		l := w.openLedger(t)
		out := w.cstproxy(t, 0, "ctl", "repair", "-i", strconv.Itoa(id), "--mode", "rebuild", "--yes")
		l.awaitRows()
		l.close()
		if !strings.Contains(out, fmt.Sprintf("rebuild node %d from node %d (replace): done", id, before.Primary)) {
			t.Errorf("%s", out)
		}
		l.compareAll()
	})
}

func TestAPrimaryThatCrashedIsStartedAgain(t *testing.T) {
	w := operatedWorld(t, "on_crash = \"restart\"\nrestart_budget = \"2m\"")
	if out := w.cstproxy(t, 0, "status"); !strings.Contains(out, "epoch 1, primary node 1") {
		t.Errorf("status:\n%s", out)
	}
	// What needs a restart of cstproxy is told, and stays as it was.
	text, err := os.ReadFile(w.proxy.ConfigFile())
	if err != nil {
		t.Fatal(err)
	}
	off := strings.Replace(string(text), "enabled = true", "enabled = false", 1)
	if err := os.WriteFile(w.proxy.ConfigFile(), []byte(off), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.proxy.Reload(); err != nil {
		t.Fatal(err)
	}
	w.awaitLog(t, "setting waits for a restart", "cluster[demo].operation.enabled")
	w.awaitLog(t, "configuration reloaded")

	l := w.openLedger(t)
	before := w.crashPrimary(t)
	l.awaitRows()
	l.close()
	if after := w.awaitWell(t); after.Primary != before.Primary || after.Epoch != before.Epoch {
		t.Errorf("primary %d of epoch %d became %d of %d", before.Primary, before.Epoch, after.Primary, after.Epoch)
	}
	if done := w.tasks(t); len(done) != 1 || done[0] != "restart done" {
		t.Errorf("tasks: %v", done)
	}
	l.compareAll()

	if out := w.cstproxy(t, 0, "stop"); !strings.Contains(out, "has ended") {
		t.Errorf("stop:\n%s", out)
	}
	<-w.proxy.Exited()
	w.cstproxy(t, 3, "status")
}
