package e2e

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cstproxy/cstproxy/cmd/cstproxy/stand"
)

func TestADrainedProxyLetsTransactionsFinish(t *testing.T) {
	w := sharedWorld(t)
	p, err := w.newProxy(stand.Options{Proxy: `drain_timeout = "1h"`}, "draining")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	busy, idle := connect(t, p.URL(appUser, appPassword, appDB)), connect(t, p.URL(appUser, appPassword, appDB))
	mustExec(t, idle, "SELECT 1")
	mustExec(t, busy, "DROP TABLE IF EXISTS drained; CREATE TABLE drained (i int)")
	tx, err := busy.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "INSERT INTO drained VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		stopped <- p.Stop(ctx)
	}()
	await(t, "the port to close", func() bool {
		conn, err := net.Dial("tcp", p.Listen())
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
	if _, err := tx.Exec(t.Context(), "INSERT INTO drained VALUES (2)"); err != nil {
		t.Errorf("a statement of the running transaction: %v", err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Errorf("its commit: %v", err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	got, err := w.cluster.Primary().PsqlIn(t.Context(), appDB, "SELECT count(*) FROM drained")
	if err != nil || got != "2" {
		t.Errorf("rows: %s, %v; want 2", got, err)
	}
	if _, err := idle.Exec(t.Context(), "SELECT 1"); sqlState(err) != "57P01" && !strings.HasPrefix(sqlState(err), "?") {
		t.Errorf("the idle client: %v", err)
	}
}

func TestDemoCheckKeepsItsPromises(t *testing.T) {
	w := sharedWorld(t) // reserves the ports
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, built, "demo", "--check", "--port", freePort(t, w), "--admin-port", freePort(t, w))
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil || strings.Count(string(out), "kept ") != 4 {
		t.Errorf("cstproxy demo --check: %v", err)
	}
}

func freePort(t *testing.T, w *world) string {
	t.Helper()
	port, err := w.cluster.TakePort()
	if err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(port)
}

func TestWaitingForAServerEndsWithAHint(t *testing.T) {
	w := sharedWorld(t)
	p := w.secondProxy(t, stand.Options{Proxy: "pool_size = 1"})
	url := p.URL(appUser, appPassword, appDB)
	holder, waiter := connect(t, url), connect(t, url)
	w.warm(t, url)
	for range w.cluster.Nodes() { // one connection to each server, which then nobody has to wait for
		mustExec(t, holder, "SELECT txid_current()")
		mustExec(t, waiter, "SELECT count(*) FROM pg_class")
	}
	if err := p.Rewrite(func(o *stand.Options) { o.Proxy = "pool_size = 1\nwait_timeout = \"300ms\"" }); err != nil {
		t.Fatal(err)
	}
	if err := p.Reload(); err != nil {
		t.Fatal(err)
	}
	await(t, "the reload", func() bool {
		log, err := os.ReadFile(p.LogFile())
		return err == nil && bytes.Contains(log, []byte("configuration reloaded"))
	})
	tx, err := holder.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "CREATE TEMP TABLE held ()"); err != nil {
		t.Fatal(err)
	}
	if _, err := waiter.Exec(t.Context(), "CREATE TEMP TABLE waited ()", pgx.QueryExecModeSimpleProtocol); sqlState(err) != "53300" {
		t.Errorf("the waiting session: %v; want 53300", err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Error(err)
	}
	mustExec(t, waiter, "SELECT 1") // it is still connected, and served
}
