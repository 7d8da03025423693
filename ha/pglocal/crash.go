package pglocal

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Crash is Kill for a server that somebody else may have started since, as cstproxy does over SSH: the
// one that the pid file names. It returns when its processes are gone; without any it does nothing.
func (n *Node) Crash(ctx context.Context) error {
	if n.Running() {
		n.Kill()
		return nil
	}
	pid := n.postmaster()
	if pid == 0 {
		return nil
	}
	_ = syscall.Kill(pid, syscall.SIGSTOP) // as in kill
	family := append([]int{pid}, childrenOf(pid)...)
	for _, p := range family {
		_ = syscall.Kill(p, syscall.SIGKILL) // it may have ended by itself
	}
	return poll(ctx, n.Name+" to be gone", func() (bool, error) {
		for _, p := range family {
			// One that has ended and waits for its parent has no command line any more.
			if line, err := os.ReadFile(procFile(p, "cmdline")); err == nil && len(line) > 0 {
				return false, nil
			}
		}
		return true, nil
	})
}

// postmaster is the process that the pid file names; 0 when it is not one on our folder.
func (n *Node) postmaster() int {
	text, err := os.ReadFile(filepath.Join(n.Dir, "postmaster.pid"))
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil || pid <= 1 {
		return 0
	}
	line, err := os.ReadFile(procFile(pid, "cmdline"))
	if err != nil || !strings.Contains(string(line), n.Dir) {
		return 0
	}
	return pid
}

func procFile(pid int, name string) string { return filepath.Join("/proc", strconv.Itoa(pid), name) }
