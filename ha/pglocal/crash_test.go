package pglocal

import (
	"path/filepath"
	"testing"
)

func TestAServerThatSomebodyElseStartedCanCrash(t *testing.T) {
	c := ForTest(t, Options{})
	n := c.Primary()
	if err := n.Crash(t.Context()); err != nil || n.Running() {
		t.Fatalf("a server of our own: running %v, %v", n.Running(), err)
	}
	if err := n.Crash(t.Context()); err != nil {
		t.Errorf("one that is down: %v", err)
	}
	if err := c.run(t.Context(), c.bins.path("pg_ctl"), "-D", n.Dir, "-l", filepath.Join(n.Dir, "pg_ctl.log"), "-w", "start"); err != nil {
		t.Fatal(err)
	}
	pid := n.postmaster()
	if got, err := n.Psql(t.Context(), "SELECT 1"); got != "1" || pid == 0 {
		t.Fatalf("it answers %q, %v; process %d", got, err, pid)
	}
	if err := n.Crash(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Psql(t.Context(), "SELECT 1"); err == nil || n.postmaster() != 0 {
		t.Errorf("it still answers, or process %d is still there", n.postmaster())
	}
}
