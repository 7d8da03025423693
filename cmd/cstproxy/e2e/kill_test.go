package e2e

import (
	"testing"

	"github.com/cstproxy/cstproxy/cmd/cstproxy/stand"
	"github.com/cstproxy/cstproxy/ha/pglocal"
)

func twoStandbys() pglocal.Options { return pglocal.Options{Standbys: 2} }

func TestAKilledStandbyCostsNoReadAndReturnsByItself(t *testing.T) {
	w := newWorld(t, setup{servers: twoStandbys()})
	w.initPgbench(t, 1)
	w.warm(t, w.through())
	for i, protocol := range []string{"simple", "extended", "prepared"} {
		t.Run(protocol, func(t *testing.T) {
			victim, other := w.cluster.Standbys()[i%2], w.cluster.Standbys()[1-i%2]
			w.forgetCalls(t)
			pgbench(w.through(), "-n", "-S", "-M", protocol, "-c", "16", "-j", "2").during(t, func() {
				w.awaitMoreReads(t, victim)
				victim.Kill()
				if err := w.proxy.AwaitBackends(t.Context(), 1); err != nil {
					t.Error(err)
				}
				w.awaitMoreReads(t, other)
				if err := victim.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				if err := w.proxy.AwaitBackends(t.Context(), 2); err != nil {
					t.Error(err)
				}
				w.awaitMoreReads(t, victim)
			})
			w.forgetCalls(t)
			pgbench(w.through(), "-n", "-S", "-M", protocol, "-c", "4", "-t", "200").run(t)
			w.wantShares(t, w.calls(t, selectOnly), w.evenly())
		})
	}
}

func TestAStandbyThatIsShutDownCostsNoRead(t *testing.T) {
	w := newWorld(t, setup{servers: twoStandbys()})
	w.initPgbench(t, 1)
	w.warm(t, w.through())
	other, victim := w.cluster.Standbys()[0], w.cluster.Standbys()[1]
	pgbench(w.through(), "-n", "-S", "-M", "prepared", "-c", "8", "-j", "2").during(t, func() {
		w.awaitMoreReads(t, victim)
		if err := victim.Stop(t.Context()); err != nil { // FATAL 57P01 to each connection
			t.Fatal(err)
		}
		w.awaitMoreReads(t, other)
	})
}

// awaitMoreReads waits until the node has run some more of pgbench's.
func (w *world) awaitMoreReads(t *testing.T, n *pglocal.Node) {
	t.Helper()
	before := callsOf(t, n, selectOnly)
	await(t, "reads on "+n.Name, func() bool { return callsOf(t, n, selectOnly) > before+100 })
}

func TestWritesWaitForAPrimaryThatRestarts(t *testing.T) {
	w := newWorld(t, setup{servers: twoStandbys(), proxy: stand.Options{Proxy: `hold_writes = "2m"`}})
	conn := connect(t, w.through())
	mustExec(t, conn, "CREATE TABLE held (i int)")
	w.warm(t, w.through())
	primary := w.cluster.Primary()
	if err := primary.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := conn.PgConn().Exec(t.Context(), "INSERT INTO held VALUES (1)").ReadAll()
		answered <- err
	}()
	other := connect(t, w.through()) // reads go on meanwhile
	var node string
	if err := other.QueryRow(t.Context(), "SELECT current_setting('pglocal.node') FROM pg_class LIMIT 1").Scan(&node); err != nil || node == primary.Name {
		t.Errorf("a read while the primary is down: %s, %v", node, err)
	}
	select {
	case err := <-answered:
		t.Fatalf("the write was answered without a primary: %v", err)
	default:
	}
	if err := primary.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-answered; err != nil {
		t.Errorf("the write that waited: %v", err)
	}
	got, err := primary.PsqlIn(t.Context(), appDB, "SELECT count(*) FROM held")
	if err != nil || got != "1" {
		t.Errorf("rows: %s, %v; want 1", got, err)
	}
}
