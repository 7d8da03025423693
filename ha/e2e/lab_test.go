package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"go.uber.org/goleak"

	"github.com/cstproxy/cstproxy/ha/pglocal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait; it decides nothing but how long a failing test takes.
const patience = 30 * time.Second

// Options say what a lab consists of.
type Options struct {
	// Hosts are the names of the hosts, at most 200. Host i (from 1) has the address 10.77.0.(10+i)/24
	// and fd77::i/64, the same in every lab: their switches are not connected to anything.
	Hosts []string
	// OnlyIPv6 leaves the IPv4 addresses out.
	OnlyIPv6 bool
}

// Lab is a switch with hosts, as long as a test lives. Its methods and those of its hosts are for the
// test's goroutine, except where they say otherwise.
type Lab struct {
	t      *testing.T
	dir    string // everything that is on the disk
	bin    string // PostgreSQL's programs, which are not on the PATH of an SSH command
	groups string // how the paths of the hosts' control groups begin
	hosts  []*Host
	sw     netns.NsHandle
	faults faults
	dog    *exec.Cmd
	leash  io.Closer // the watchdog works when it is closed
}

// New makes a lab and boots its hosts. Without what it needs it skips the test.
func New(t *testing.T, o Options) *Lab {
	t.Helper()
	needs(t)
	l := &Lab{t: t, sw: netns.None(), faults: newFaults()}
	if err := l.make(o); err != nil {
		t.Fatalf("make a lab: %v", err)
	}
	l.parallel("boot", (*Host).boot)
	return l
}

// needs skips the test where there is no lab to be had.
func needs(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("this test makes hosts of namespaces, which needs root")
	}
	for _, program := range []string{"nsenter", "setpriv", "ip", "nft", "/usr/sbin/sshd", "ssh", "bash", "arping"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("this test makes hosts with %s, which is not here: make deps", program)
		}
	}
	if _, err := pglocal.Program("postgres"); err != nil {
		t.Skipf("this test needs PostgreSQL: %v", err)
	}
	if freezers() == "" {
		t.Skip("this test freezes hosts, and this machine has no control group file system for that at /sys/fs/cgroup")
	}
}

// freezers is the folder in which a control group that can be frozen is made; "" when there is none.
func freezers() string {
	for _, dir := range []string{"/sys/fs/cgroup/freezer", "/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		probe := filepath.Join(dir, "cgroup.procs")
		if f, err := os.OpenFile(probe, os.O_WRONLY, 0); err == nil {
			_ = f.Close()
			return dir
		}
	}
	return ""
}

func (l *Lab) make(o Options) error {
	// Not below the temporary directory, which the hosts hide behind their own.
	dir, err := os.MkdirTemp("/var/tmp", "cstproxy-lab-")
	if err != nil {
		return err
	}
	postgres, err := pglocal.Program("postgres")
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	l.bin = filepath.Dir(postgres)
	l.dir, l.groups = dir, filepath.Join(freezers(), filepath.Base(dir)+"-")
	if err := l.startWatchdog(); err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	l.t.Cleanup(l.remove)
	if err := os.Chmod(dir, 0o711); err != nil {
		return err
	}
	if err := os.MkdirAll(l.Share(), 0o755); err != nil {
		return err
	}
	if err := l.makeSwitch(); err != nil {
		l.t.Skipf("this test makes network namespaces, which this machine does not let it: %v", err)
	}
	for i, name := range o.Hosts {
		h := &Host{Name: name, Addr: fmt.Sprintf("10.77.0.%d", 11+i), number: i + 1, lab: l}
		if o.OnlyIPv6 {
			h.Addr = fmt.Sprintf("fd77::%d", h.number)
		}
		if err := h.prepare(); err != nil {
			return err
		}
		l.hosts = append(l.hosts, h)
	}
	return l.writeKeys()
}

func (l *Lab) startWatchdog() error {
	script, err := filepath.Abs("testdata/watchdog.sh")
	if err != nil {
		return err
	}
	text, err := os.ReadFile(script)
	if err != nil {
		return err
	}
	l.dog = exec.Command("/bin/sh", "-c", string(text), "lab-watchdog", l.dir, l.groups)
	l.dog.Dir = "/"
	l.dog.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if l.leash, err = l.dog.StdinPipe(); err != nil {
		return err
	}
	return l.dog.Start()
}

// remove ends everything and waits until nothing is left.
func (l *Lab) remove() {
	l.parallel("power off", (*Host).cut)
	if l.sw.IsOpen() {
		_ = l.sw.Close()
	}
	_ = l.leash.Close()
	if err := l.dog.Wait(); err != nil {
		l.t.Errorf("clean up: %v", err)
	}
}

// parallel does the same to all hosts.
func (l *Lab) parallel(what string, do func(*Host) error) {
	l.t.Helper()
	errs := make([]error, len(l.hosts))
	var all sync.WaitGroup
	for i, h := range l.hosts {
		all.Go(func() { errs[i] = do(h) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		l.t.Fatalf("%s: %v", what, err)
	}
}

// Host is the one of that name.
func (l *Lab) Host(name string) *Host {
	l.t.Helper()
	for _, h := range l.hosts {
		if h.Name == name {
			return h
		}
	}
	l.t.Fatalf("the lab has no host %s", name)
	return nil
}

// Share is a folder that every host sees as /run/lab.
func (l *Lab) Share() string { return filepath.Join(l.dir, "share") }

// KnownHosts names the keys of all hosts, by address and by name.
func (l *Lab) KnownHosts() string { return filepath.Join(l.dir, "known_hosts") }

// await waits for something that is going to be so.
func await(t *testing.T, what string, ok func(ctx context.Context) bool) {
	t.Helper()
	awaitFor(t, patience, what, ok)
}

// awaitFor is await with a patience of its own.
func awaitFor(t *testing.T, limit time.Duration, what string, ok func(ctx context.Context) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for !ok(ctx) {
		if ctx.Err() != nil {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// failure is what a program that ended badly said, with the error.
func failure(err error, said string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %s", err, strings.TrimSpace(said))
}
