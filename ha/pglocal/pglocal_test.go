package pglocal

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestAClusterReplicatesAndLeavesNothingBehind(t *testing.T) {
	c := New(Options{Standbys: 2, StandbySettings: map[string]string{"work_mem": "'5MB'"}})
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	pids := []int{}
	for _, n := range c.Nodes() {
		pids = append(pids, n.PID())
	}
	defer c.Stop()
	if len(c.Standbys()) != 2 || c.Primary() == nil {
		t.Fatalf("roles: primary %v, %d standbys", c.Primary(), len(c.Standbys()))
	}
	if _, err := c.Primary().Psql(t.Context(), "CREATE TABLE t AS SELECT generate_series(1, 10) AS i"); err != nil {
		t.Fatal(err)
	}
	if err := c.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, n := range c.Standbys() {
		if got, err := n.Psql(t.Context(), "SELECT count(*), current_setting('work_mem') FROM t"); got != "10\t5MB" {
			t.Errorf("%s has %q, %v", n.Name, got, err)
		}
	}
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		if alive(pid) {
			t.Errorf("process %d is still there", pid)
		}
	}
	if _, err := os.Stat(c.Dir()); err == nil {
		t.Errorf("%s is still there", c.Dir())
	}
}

func TestAKilledStandbyComesBackOnItsPortAndStreams(t *testing.T) {
	c := ForTest(t, Options{Standbys: 1})
	s := c.Standbys()[0]
	port := s.Port
	s.Kill()
	if _, err := s.Psql(t.Context(), "SELECT 1"); err == nil {
		t.Fatal("a killed server answers")
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitStreaming(t.Context()); err != nil || s.Port != port {
		t.Fatalf("port %d, was %d: %v", s.Port, port, err)
	}
}

func TestStandbysCanBeAddedPromotedAndStrangersMade(t *testing.T) {
	c := ForTest(t, Options{Auth: Trust, TLS: true, Password: "it's"})
	late, err := c.AddStandby(t.Context(), map[string]string{"recovery_min_apply_delay": "'200ms'"})
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := c.AddForeign(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const system = "SELECT system_identifier FROM pg_control_system()"
	ours, _ := c.Primary().Psql(t.Context(), system)
	same, _ := late.Psql(t.Context(), system)
	other, _ := foreign.Psql(t.Context(), system)
	if ours == "" || ours != same || ours == other {
		t.Errorf("system identifiers: primary %s, standby %s, foreign %s", ours, same, other)
	}
	c.Primary().Kill()
	if err := late.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := late.Psql(t.Context(), "CREATE TABLE after_promotion()"); err != nil {
		t.Error(err)
	}
	psql, err := Program("psql")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(psql, "-XAtc", "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
		late.URL("postgres")+"?sslmode=verify-full&sslrootcert="+c.CAFile())
	if out, err := cmd.CombinedOutput(); strings.TrimSpace(string(out)) != "t" {
		t.Errorf("TLS: %s, %v", out, err)
	}
}

// The test binary runs itself, and the child is killed in the middle.
func TestAKilledOwnerTakesItsServersAndFoldersAlong(t *testing.T) {
	if os.Getenv("PGLOCAL_CHILD") == "1" {
		c := New(Options{Standbys: 1})
		if err := c.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		fmt.Printf("cluster %s %d\n", c.Dir(), c.Primary().PID())
		select {}
	}
	child := exec.Command(os.Args[0], "-test.run=^TestAKilledOwnerTakesItsServersAndFoldersAlong$")
	child.Env = append(os.Environ(), "PGLOCAL_CHILD=1")
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var dir string
	var pid int
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if n, _ := fmt.Sscanf(lines.Text(), "cluster %s %d", &dir, &pid); n == 2 {
			break
		}
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
	if pid == 0 {
		t.Fatal("the child did not start a cluster")
	}
	err = poll(t.Context(), "the watchdog", func() (bool, error) {
		_, err := os.Stat(dir)
		return os.IsNotExist(err) && !alive(pid), nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAKilledServerLeavesNoSharedMemory(t *testing.T) {
	var segment string
	t.Run("cluster", func(t *testing.T) {
		c := ForTest(t, Options{})
		text, err := os.ReadFile(filepath.Join(c.Primary().Dir, "postmaster.pid"))
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(text), "\n")
		if len(lines) < 7 || len(strings.Fields(lines[6])) != 2 {
			t.Fatalf("no segment in %q", text)
		}
		if segment = strings.Fields(lines[6])[1]; !shared(t, segment) {
			t.Fatalf("segment %s is not there", segment)
		}
		c.Primary().Kill()
	})
	if shared(t, segment) {
		t.Errorf("segment %s is still there", segment)
	}
}

// shared says whether the system has this segment of shared memory.
func shared(t *testing.T, id string) bool {
	t.Helper()
	text, err := os.ReadFile("/proc/sysvipc/shm")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[1] == id {
			return true
		}
	}
	return false
}

func alive(pid int) bool {
	_, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
	return err == nil
}
