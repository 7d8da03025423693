package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/vishvananda/netns"
)

// Host is one host of a lab.
type Host struct {
	Name string
	Addr string // IPv4, but for Options.OnlyIPv6

	lab    *Lab
	number int
	init   *exec.Cmd      // pid 1; nil: no power
	hold   io.WriteCloser // pid 1 reads the other end
	pid    atomic.Int64   // of pid 1, on the machine; 0: no power
}

// port is the host's on the switch.
func (h *Host) port() string { return fmt.Sprint("p", h.number) }

// group is the control group of all the host's processes.
func (h *Host) group() string { return h.lab.groups + h.Name }

// path is where the host's files are on the machine.
func (h *Host) path(name string) string { return filepath.Join(h.lab.dir, "hosts", h.Name, name) }

func (h *Host) prepare() error {
	for _, name := range []string{"etc", "etc.work", "home", "log", "postgresql"} {
		if err := os.MkdirAll(h.path(name), 0o755); err != nil {
			return err
		}
	}
	return errors.Join(os.Mkdir(h.path("root"), 0o700), os.Mkdir(h.group(), 0o755))
}

// boot gives the host power and returns when its sshd listens.
func (h *Host) boot() error {
	script, err := os.ReadFile("testdata/init.sh")
	if err != nil {
		return err
	}
	console, err := os.OpenFile(h.path("console"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer console.Close()
	init := exec.Command("bash", "-c", string(script), "init", h.Name, strconv.Itoa(h.number), h.lab.dir, h.Addr)
	init.Dir, init.Stderr = "/", console
	init.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}
	init.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID |
		syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWNET}
	if h.hold, err = init.StdinPipe(); err != nil {
		return err
	}
	said, err := init.StdoutPipe()
	if err != nil {
		return err
	}
	if err := init.Start(); err != nil {
		return err
	}
	h.init = init
	if err := h.cable(); err != nil {
		return err
	}
	if _, err := io.WriteString(h.hold, "go\n"); err != nil {
		return err
	}
	if line, err := bufio.NewReader(said).ReadString('\n'); line != "ready\n" {
		text, _ := os.ReadFile(console.Name())
		return fmt.Errorf("%s did not boot: %q, %v\n%s", h.Name, line, err, text)
	}
	h.pid.Store(int64(init.Process.Pid))
	return nil
}

// cable joins pid 1, which waits for it, to its control group and to the switch.
func (h *Host) cable() error {
	pid := h.init.Process.Pid
	if err := os.WriteFile(h.group()+"/cgroup.procs", []byte(strconv.Itoa(pid)), 0); err != nil {
		return err
	}
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return err
	}
	defer ns.Close()
	return h.lab.inSwitch(func() error { return plug(h, ns) })
}

// cut takes the power away: the cable goes first, so nobody hears the host's sockets end. It may be
// frozen, and it may be off already.
func (h *Host) cut() error {
	if h.init == nil {
		return nil
	}
	h.pid.Store(0)
	err := h.lab.inSwitch(func() error { return unplug(h) })
	_ = h.init.Process.Kill() // it may have ended by itself
	err = errors.Join(err, h.freezer(thawed))
	_ = h.init.Wait() // by a signal; it returns when every process of the host is gone
	_ = h.hold.Close()
	h.init = nil
	return err
}

// PowerOff ends everything on the host at once and without a word: connections to it stay open and
// silent. What it has written to files stays.
func (h *Host) PowerOff() {
	h.lab.t.Helper()
	if err := h.cut(); err != nil {
		h.lab.t.Fatalf("power %s off: %v", h.Name, err)
	}
	delete(h.lab.faults.silent, h.port())
	h.lab.apply()
}

// PowerOn boots the host again, with the same address on the network; it starts only sshd.
func (h *Host) PowerOn() {
	h.lab.t.Helper()
	if err := h.boot(); err != nil {
		h.lab.t.Fatalf("power %s on: %v", h.Name, err)
	}
}

// The states of a control group, as version 1 and version 2 call them.
type frozenness struct{ v1, v2 string }

var (
	frozen = frozenness{"FROZEN", "1"}
	thawed = frozenness{"THAWED", "0"}
)

func (h *Host) freezer(want frozenness) error {
	v1 := h.group() + "/freezer.state"
	if _, err := os.Stat(v1); err == nil {
		return os.WriteFile(v1, []byte(want.v1), 0)
	}
	return os.WriteFile(h.group()+"/cgroup.freeze", []byte(want.v2), 0)
}

// isFrozen says whether every process of the host stands still.
func (h *Host) isFrozen() bool {
	if state, err := os.ReadFile(h.group() + "/freezer.state"); err == nil {
		return strings.TrimSpace(string(state)) == frozen.v1
	}
	events, err := os.ReadFile(h.group() + "/cgroup.events")
	return err == nil && strings.Contains(string(events), "frozen 1")
}

// Freeze is a virtual machine that is paused: nothing of the host runs, and since its kernel, which is
// ours, would go on acknowledging, the switch forwards nothing from and to it. CLOCK_BOOTTIME goes on.
func (h *Host) Freeze() {
	h.lab.t.Helper()
	h.lab.faults.silent[h.port()] = true
	h.lab.apply()
	if err := h.freezer(frozen); err != nil {
		h.lab.t.Fatalf("freeze %s: %v", h.Name, err)
	}
	await(h.lab.t, h.Name+" to stand still", func(context.Context) bool { return h.isFrozen() })
}

// Thaw ends Freeze.
func (h *Host) Thaw() {
	h.lab.t.Helper()
	if err := h.freezer(thawed); err != nil {
		h.lab.t.Fatalf("thaw %s: %v", h.Name, err)
	}
	delete(h.lab.faults.silent, h.port())
	h.lab.apply()
}

// Do runs f on a thread that is in the host's network, and nothing else of it: sockets that f opens
// itself are the host's, and stay so; after a power-off they reach nobody. It may be called from any
// goroutine.
func (h *Host) Do(f func() error) error {
	ns, err := netns.GetFromPid(int(h.pid.Load()))
	if err != nil {
		return fmt.Errorf("%s has no power: %w", h.Name, err)
	}
	defer ns.Close()
	return within(ns, f)
}

func within(ns netns.NsHandle, f func() error) error {
	ended := make(chan error, 1)
	go func() { // the next line waits
		runtime.LockOSThread() // and never unlocked: Go throws the thread away
		if err := netns.Set(ns); err != nil {
			ended <- err
			return
		}
		ended <- f()
	}()
	return <-ended
}

// Dial connects from the host to an address:port of the lab's network. It may be called from any
// goroutine.
func (h *Host) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var conn net.Conn
	err := h.Do(func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Command is a program of the host, run as one of its users (root or postgres) in the root directory.
// It ends with ctx; what it has put into the background does not. It may be called from any goroutine.
func (h *Host) Command(ctx context.Context, user string, argv ...string) *exec.Cmd {
	home := map[string]string{"root": "/root", "postgres": "/var/lib/postgresql"}[user]
	enter := []string{"-c", `echo $$ >"$0" && exec "$@"`, h.group() + "/cgroup.procs",
		"nsenter", "-t", strconv.FormatInt(h.pid.Load(), 10), "-m", "-n", "-p", "-u", "-i", "--",
		"setpriv", "--pdeathsig", "KILL", "--reuid", user, "--regid", user, "--init-groups",
		"env", "-i", "HOME=" + home, "USER=" + user, "LANG=C.UTF-8", "PATH=" + h.lab.bin + ":/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd := exec.CommandContext(ctx, "sh", append(enter, argv...)...)
	cmd.WaitDelay = patience
	return cmd
}

// Exec runs a command as root and returns what it wrote to standard output.
func (h *Host) Exec(ctx context.Context, argv ...string) (string, error) {
	return output(h.Command(ctx, "root", argv...))
}

func output(cmd *exec.Cmd) (string, error) {
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	err = failure(err, stderr.String())
	return strings.TrimRight(stdout.String(), "\n"), err
}
