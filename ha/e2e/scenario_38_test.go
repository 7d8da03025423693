package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// The old primary has written what nobody else received, loses its power, and is started by its host when
// the power is back. What it does beside the new primary never counts, and what only it had is kept.
func TestAnOldPrimaryThatReturnsFollowsTheNewOne(t *testing.T) {
	_, f := three(t, Layout{Operation: map[string]string{"anti_flap": `"0s"`, "max_lag_on_failover": `"1GB"`}})
	t.Run("by being rewound", func(t *testing.T) {
		s := f.divergence(t, "")
		s.former.PowerOn()
		s.former.Start() // by its own boot
		now := f.awaitWhole(t, 4*patience)
		if now == s.former {
			t.Errorf("%s is the primary again", now.Name)
		}
		f.memberOn(s.former.Host).Start()
		s.forgot(t)
		if saved := savedLog(t, s.former); len(saved) == 0 {
			t.Errorf("the log that only %s had was not kept", s.former.Name)
		}
		if rebuilt := s.said(`"action done"`, `"verb":"rebuild"`); len(rebuilt) > 0 {
			t.Errorf("it was copied instead of rewound: %s", rebuilt[0].Raw)
		}
		s.ends(oneEpochMore, operationsEnd)
	})
	t.Run("by being copied when log is missing that a rewind needs", func(t *testing.T) {
		slow(t)
		s := f.divergence(t, "CHECKPOINT; SELECT pg_switch_wal(); INSERT INTO lost VALUES ('more'); CHECKPOINT; SELECT pg_switch_wal(); INSERT INTO lost VALUES ('more'); CHECKPOINT")
		dropLog(t, s.former)
		s.former.PowerOn()
		f.memberOn(s.former.Host).Start()
		f.awaitWhole(t, 4*patience)
		s.forgot(t)
		if len(s.said(`"action failed"`, `"verb":"rewind"`, "pg_rewind cannot")) == 0 {
			t.Errorf("nobody has noticed that it cannot be rewound")
		}
		if old, _ := filepath.Glob(s.former.path("postgresql/data.cstproxy-old-*")); len(old) != 1 {
			t.Errorf("the directory that may hold the only copy of something is not there: %v", old)
		}
		s.ends(oneEpochMore, operationsEnd)
	})
	t.Run("by being copied when the rewind was interrupted", func(t *testing.T) {
		slow(t)
		s := f.divergence(t, "INSERT INTO lost SELECT repeat('y', 1000) FROM generate_series(1, 60000)")
		s.former.PowerOn()
		killed := make(chan error, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
		defer cancel()
		go func() { // received below
			_, err := s.former.Exec(ctx, "sh", "-c", `until pkill -KILL -f '[p]g_rewind --target-pgdata=[^ ]*-rewinding'; do :; done`)
			killed <- err
		}()
		f.memberOn(s.former.Host).Start()
		if err := <-killed; err != nil {
			t.Fatalf("interrupt the rewind: %v", err)
		}
		f.awaitWhole(t, 4*patience)
		s.forgot(t)
		if len(s.said(`"action done"`, `"verb":"rebuild"`)) == 0 {
			t.Errorf("a directory in which a rewind was interrupted was started again")
		}
		s.ends(oneEpochMore, operationsEnd)
	})
}

// divergence has the primary write by itself, past all members, what no standby receives, and takes its
// power away. It returns when another one is the primary; the network is whole again.
func (f *Fleet) divergence(t *testing.T, more string) *scene {
	t.Helper()
	primary := f.awaitWhole(t, 4*patience)
	s := enact(t, f, usual(f.way(f.elsewhere(primary))))
	var rest []*Host
	for _, n := range s.others() {
		rest = append(rest, n.Host)
	}
	f.lab.Partition([]*Host{primary.Host}, rest)
	s.happens(func() {
		if _, err := primary.Psql(t.Context(), "DROP TABLE IF EXISTS lost; CREATE TABLE lost AS SELECT repeat('x', 1000) AS x FROM generate_series(1, 3000)"); err != nil {
			t.Fatal(err)
		}
		for statement := range strings.SplitSeq(more, ";") {
			if _, err := primary.Psql(t.Context(), statement); err != nil {
				t.Fatal(err)
			}
		}
		primary.PowerOff()
	})
	f.lab.Heal()
	s.awaitSuccessor()
	return s
}

// forgot says that what the former primary wrote alone is no part of it any more.
func (s *scene) forgot(t *testing.T) {
	t.Helper()
	if got, err := s.former.Psql(t.Context(), "SELECT to_regclass('lost') IS NULL"); err != nil || got != "t" {
		t.Errorf("what %s wrote by itself is part of it still: %v", s.former.Name, err)
	}
}

// savedLog are the files of log that were put aside.
func savedLog(t *testing.T, n *Node) []string {
	t.Helper()
	found, err := filepath.Glob(n.path("postgresql/cstproxy-lost/*/*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// dropLog removes, from a host without power, all log from before the last checkpoint.
func dropLog(t *testing.T, n *Node) {
	t.Helper()
	said, err := controlData(n)
	if err != nil {
		t.Fatal(err)
	}
	_, redo, _ := strings.Cut(said, "REDO WAL file:")
	redo, _, _ = strings.Cut(strings.TrimSpace(redo), "\n")
	files, err := os.ReadDir(n.path("postgresql/data/pg_wal"))
	if err != nil || len(redo) != 24 {
		t.Fatalf("log of %s: %v (%q)", n.Name, err, redo)
	}
	for _, file := range files {
		if len(file.Name()) == 24 && file.Name() < redo {
			if err := os.Remove(n.path("postgresql/data/pg_wal/" + file.Name())); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// controlData is what pg_controldata says of a server that does not run, on the machine.
func controlData(n *Node) (string, error) {
	cmd := exec.Command(filepath.Join(n.lab.bin, "pg_controldata"), "-D", n.path("postgresql/data"))
	cmd.Env = []string{"LC_ALL=C"}
	return output(cmd)
}

// fmtID is the node's number as ctl takes it.
func fmtID(n *Node) string { return strconv.Itoa(n.ID()) }
