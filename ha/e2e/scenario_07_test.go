package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// process is the member's, as the machine numbers it.
func (m *Member) process() int {
	m.lab.t.Helper()
	list, err := os.ReadFile(m.group() + "/cgroup.procs")
	if err != nil {
		m.lab.t.Fatal(err)
	}
	for word := range strings.FieldsSeq(string(list)) {
		exe, _ := os.Readlink(filepath.Join("/proc", word, "exe"))
		args, _ := os.ReadFile(filepath.Join("/proc", word, "cmdline"))
		if filepath.Base(exe) == "cstproxy" && strings.Contains(string(args), "\x00run\x00") {
			pid, err := strconv.Atoi(word)
			if err != nil {
				m.lab.t.Fatal(err)
			}
			return pid
		}
	}
	m.lab.t.Fatalf("no member runs on %s", m.Name)
	return 0
}

// The leader stands still while it promotes. Its successor goes on from the journal; what it had under
// way meets hosts and servers that have seen a later decision.
func TestALeaderThatStandsStillWhileItPromotesIsSucceeded(t *testing.T) {
	slow(t)
	_, f := three(t, Layout{Operation: map[string]string{"on_crash": `"failover"`}, Cluster: virtual})
	primary := f.awaitWhole(t, patience)
	leader := f.elsewhere(primary)
	f.awaitLeader(t, leader)
	other := f.members[0]
	for _, m := range f.members {
		if m != leader {
			other = m
		}
	}
	s := enact(t, f, usual(f.way(other)))
	pid := leader.process()
	s.happens(s.former.Kill)
	awaitStep(t, leader, s.event, "promote")
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	paused := time.Now()
	await(t, "another leader", func(context.Context) bool {
		for _, l := range f.log(paused) {
			if l.Msg == "leads" && l.Member != leader {
				return true
			}
		}
		return false
	})
	now := s.awaitSuccessor()
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	await(t, "the former leader to know that it is none", func(context.Context) bool {
		for _, l := range leader.log(paused) {
			if l.Msg == "leads no more" {
				return true
			}
		}
		return false
	})
	if whole := f.awaitWhole(t, 2*patience); whole != now {
		t.Errorf("%s is the primary, after %s", whole.Name, now.Name)
	}
	s.heldBy(writeVIP, now.Host)
	s.ends(operationsEnd, nobodyWasAhead, oneEpochMore)
}

// awaitStep waits, impatiently, until the member has logged that the failover after the event is there.
func awaitStep(t *testing.T, m *Member, event time.Time, name string) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		for _, l := range m.log(event) {
			if step(name)(l) {
				return
			}
		}
		if time.Now().After(end) {
			t.Fatalf("%s did not get to the step %s", m.Name, name)
		}
	}
}
