package e2e

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// inKilled is set for the process that is killed.
const inKilled = "CST_LAB_KILLED"

// The test's process gets SIGKILL while one host is frozen and programs run on the other.
func TestALabEndsWithItsProcess(t *testing.T) {
	if os.Getenv(inKilled) != "" {
		makeALabAndWait(t)
		return
	}
	needs(t)
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestALabEndsWithItsProcess$", "-test.v")
	child.Env = append(os.Environ(), inKilled+"=yes")
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var dir, groups string
	for lines := bufio.NewScanner(out); groups == "" && lines.Scan(); {
		if words := strings.Fields(lines.Text()); len(words) == 3 && words[0] == "LAB" {
			dir, groups = words[1], words[2]
		}
	}
	_ = child.Process.Kill()
	_ = child.Wait()
	if groups == "" {
		t.Fatal("there was no lab to be killed")
	}
	await(t, "the lab to vanish", func(context.Context) bool {
		left, err := filepath.Glob(groups + "*")
		_, gone := os.Stat(dir)
		return err == nil && len(left) == 0 && os.IsNotExist(gone)
	})
	await(t, "the watchdog to end", func(context.Context) bool {
		_, err := exec.Command("pgrep", "-f", dir).Output()
		return err != nil
	})
	nothingIsLeft(t, dir, groups)
}

func makeALabAndWait(t *testing.T) {
	l := New(t, Options{Hosts: []string{"h1", "h2"}})
	busy := l.Host("h1").Command(t.Context(), "postgres", "sleep", "1000")
	if err := busy.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Host("h1").Exec(t.Context(), "sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 &"); err != nil {
		t.Fatal(err)
	}
	l.Host("h2").Freeze()
	fmt.Println("LAB", l.dir, l.groups)
	_ = busy.Wait()
}
