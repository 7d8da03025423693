package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cstproxy/cstproxy/admin"
	"github.com/cstproxy/cstproxy/cmd/cstproxy/stand"
	"github.com/cstproxy/cstproxy/ha/pglocal"
	"github.com/cstproxy/cstproxy/ha/remote/sshlocal"
)

// operatedWorld is a primary with two standbys, of which one confirms each commit, and a proxy that
// operates them over SSH. Lines are of the section [cluster.operation]; waits are long enough for a busy
// machine.
func operatedWorld(t *testing.T, lines string) *world {
	t.Helper()
	w := newWorld(t, setup{
		servers: pglocal.Options{Standbys: 2, Settings: stand.Rewindable()},
		proxy: stand.Options{
			Proxy:     `hold_writes = "2m"`,
			Operation: &stand.Operation{SSH: sshlocal.ForTest(t), Lines: lines + "\nanti_flap = \"0s\"\nswitch_drain = \"20s\"\nswitch_budget = \"1m\"\n"},
		},
	})
	if err := w.proxy.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := stand.Synchronous(t.Context(), w.cluster); err != nil {
		t.Fatal(err)
	}
	w.awaitWell(t)
	return w
}

// client asks the admin port.
func (w *world) client(t *testing.T) *admin.Client {
	t.Helper()
	c, err := w.proxy.Client()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// picture is the cluster in the proxy's words.
func (w *world) picture(t *testing.T) admin.Cluster {
	t.Helper()
	list, err := w.client(t).Clusters(t.Context(), stand.ClusterName)
	if err != nil {
		t.Fatal(err)
	}
	return list[0]
}

// awaitWell waits until there is a primary with two standbys that take reads and may take over, and
// nothing is left to do.
func (w *world) awaitWell(t *testing.T) admin.Cluster {
	t.Helper()
	var c admin.Cluster
	await(t, "a healthy cluster", func() bool {
		list, err := w.client(t).Clusters(t.Context(), stand.ClusterName)
		if err != nil {
			return false // it may be starting
		}
		c = list[0]
		well := c.State == admin.StateNormal && c.Epoch > 0 && len(c.Backends) == 2 && c.Task == nil
		for _, n := range c.Nodes {
			well = well && n.Mark == "" && n.Timeline == c.Nodes[0].Timeline
		}
		if !well {
			return false
		}
		meta, err := w.client(t).Meta(t.Context(), stand.ClusterName)
		return err == nil && meta.Epoch == c.Epoch && len(meta.Eligible) == 2
	})
	return c
}

// tasks are the kinds and outcomes of what was done, in their order.
func (w *world) tasks(t *testing.T) []string {
	t.Helper()
	list, err := w.client(t).Tasks(t.Context(), stand.ClusterName)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, task := range list {
		kinds = append(kinds, task.Kind+" "+task.Outcome)
	}
	return kinds
}

// cstproxy runs the program as an operator does and returns what it printed.
func (w *world) cstproxy(t *testing.T, exit int, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), built, append(args, "-f", w.proxy.ConfigFile())...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != exit {
		t.Fatalf("cstproxy %s: %v, want exit code %d\n%s", strings.Join(args, " "), err, exit, out)
	}
	return string(out)
}

// awaitLog waits for a text in the proxy's log.
func (w *world) awaitLog(t *testing.T, texts ...string) {
	t.Helper()
	await(t, strings.Join(texts, " … ")+" in the log", func() bool {
		log, err := os.ReadFile(w.proxy.LogFile())
		for line := range bytes.Lines(log) {
			found := err == nil
			for _, text := range texts {
				found = found && bytes.Contains(line, []byte(text))
			}
			if found {
				return true
			}
		}
		return false
	})
}

// gate is a program that the proxy calls in a failover before it does anything that cannot be undone. While
// it is shut the failover waits there.
type gate struct{ program, shut, reached string }

func newGate(t *testing.T) gate {
	t.Helper()
	dir := t.TempDir()
	g := gate{filepath.Join(dir, "gate"), filepath.Join(dir, "shut"), filepath.Join(dir, "reached")}
	text := "#!/bin/sh\n[ ! -e " + g.shut + " ] || : >" + g.reached + "\nwhile [ -e " + g.shut + " ]; do sleep 0.05; done\n"
	if err := os.WriteFile(g.program, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return g
}

func (g gate) close(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(g.shut, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(g.shut) }) // or what waits there would go on waiting
}

func (g gate) open(t *testing.T) {
	t.Helper()
	if err := os.Remove(g.shut); err != nil {
		t.Fatal(err)
	}
}
