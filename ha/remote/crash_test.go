package remote

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// variant is the wrapper with a catastrophe after one of its lines.
type variant struct {
	after int // counted from 1
	line  string
	text  string
}

func (v variant) name() string { return fmt.Sprintf("%03d %s", v.after, strings.TrimSpace(v.line)) }

// variants puts the catastrophe after each line of the wrapper where a command may stand.
func variants(t *testing.T, text, catastrophe string) []variant {
	t.Helper()
	var list []variant
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if trimmed := strings.TrimSpace(line); trimmed == "" || strings.HasPrefix(trimmed, "#") {
			continue
		}
		cut := strings.Join(lines[:i+1], "\n") + "\n" + catastrophe + "\n" + strings.Join(lines[i+1:], "\n")
		check := exec.CommandContext(t.Context(), "sh", "-n")
		check.Stdin = strings.NewReader(cut)
		if check.Run() == nil {
			list = append(list, variant{i + 1, line, cut})
		}
	}
	return list
}

// scene is a ratchet that stands at 1.1, with a command of that token that lives although its
// wrapper is gone. Then somebody wants 1.2.
type scene struct {
	*script
	ran string // where the command of 1.2 notes that it ran
	old *exec.Cmd
	end chan struct{}
}

func setScene(t *testing.T, s *script) *scene {
	t.Helper()
	dir := filepath.Join(s.dir, "state", token(1, 1).key())
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	k := token(1, 1)
	seen := fmt.Sprintf("ratchet 1 1 1\n%s\n%s\n%s\n", k.Fleet, k.Cluster, k.PGData)
	if err := os.WriteFile(filepath.Join(dir, "seen"), []byte(seen), 0o600); err != nil {
		t.Fatal(err)
	}
	c := &scene{script: s, ran: filepath.Join(t.TempDir(), "ran"), end: make(chan struct{})}
	// It writes the record and its mark itself, since both have its pid.
	c.old = exec.CommandContext(t.Context(), "bash", "-c", `
		read -r stat </proc/$$/stat; set -- "$1" "$2" ${stat##*) }; start=${22}
		read -r boot </proc/sys/kernel/random/boot_id
		echo "$boot $$ $start 1 1" >"$1/new"; mv "$1/new" "$1/running"
		CSTPROXY_RATCHET=$2.1.1.$$.$start exec sleep 1000`, "bash", dir, k.key())
	c.old.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := c.old.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = c.old.Wait(); close(c.end) }() // finish waits
	await(t, "the old command runs", exists(filepath.Join(dir, "running")))
	return c
}

func (c *scene) finish() {
	_ = syscall.Kill(-c.old.Process.Pid, syscall.SIGKILL)
	<-c.end
}

// next asks for 1.2; what runs notes whether the old command lives.
func (c *scene) next(t *testing.T) string {
	t.Helper()
	script := `case $(cut -d" " -f3 "/proc/$2/stat" 2>/dev/null) in '' | Z) echo alone ;; *) echo together ;; esac >>"$1"`
	_, account := c.do(t, token(1, 2), "sh", "-c", script, "sh", c.ran, fmt.Sprint(c.old.Process.Pid))
	return account
}

// check is what must hold after the catastrophe.
func (c *scene) check(t *testing.T) {
	t.Helper()
	seen, err := os.ReadFile(c.file(token(1, 2), "seen"))
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(seen), "\n")
	if first != "ratchet 1 1 1" && first != "ratchet 1 1 2" {
		t.Fatalf("seen is %q", seen)
	}
	if exists(c.ran)() && first != "ratchet 1 1 2" {
		t.Fatalf("the command ran, but seen is %q", seen)
	}
}

// recover is the same leader's retry, and then an older one's attempt.
func (c *scene) recover(t *testing.T) {
	t.Helper()
	if account := c.next(t); account != "ran" {
		t.Errorf("the retry: %q", account)
	}
	if _, account := c.do(t, token(1, 1), "true"); account != "refused 1 2" {
		t.Errorf("the older one: %q", account)
	}
	if text, err := os.ReadFile(c.ran); err != nil || strings.Contains(string(text), "together") {
		t.Errorf("the old command was there: %q %v", text, err)
	}
	files, err := os.ReadDir(filepath.Dir(c.file(token(1, 2), "seen")))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if n := f.Name(); n != "seen" && n != "lock" && n != "run" {
			t.Errorf("left behind: %s", n)
		}
	}
}

func TestTheWrapperMayBeKilledAfterEachOfItsLines(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	for _, v := range variants(t, wrapperText(), "kill -KILL $$") {
		t.Run(v.name(), func(t *testing.T) {
			t.Parallel()
			s := newScript(t, "sh", v.text)
			c := setScene(t, s)
			defer c.finish()
			c.next(t)
			c.check(t)
			s.install(t, wrapperText())
			c.recover(t)
		})
	}
}

// extShutdown is EXT4_IOC_SHUTDOWN; with noFlush, what is not in the journal on disk is lost, as in a
// power cut.
const (
	extShutdown = 0x8004587d
	noFlush     = 2
)

// cutPowerWhenAsked makes the test binary the program that the cut wrapper calls.
func cutPowerWhenAsked() {
	mount := os.Getenv("CSTPROXY_TEST_CUT")
	if mount == "" || len(os.Args) != 2 || os.Args[1] != "cut" {
		return
	}
	d, err := os.Open(mount)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(d.Fd()), extShutdown, noFlush)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cut the power:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// disk is an ext4 file system of its own.
type disk struct{ image, mount string }

func newDisk(t *testing.T) *disk {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a file system whose power can be cut")
	}
	d := &disk{image: filepath.Join(t.TempDir(), "image"), mount: filepath.Join(t.TempDir(), "mount")}
	if err := os.WriteFile(d.image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(d.image, 16<<20); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(d.mount, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "mkfs.ext4", "-q", d.image).CombinedOutput(); err != nil {
		t.Skipf("cannot make an ext4 file system: %v %s", err, out)
	}
	if out, err := exec.CommandContext(t.Context(), "mount", "-o", "loop", d.image, d.mount).CombinedOutput(); err != nil {
		t.Skipf("cannot mount a file: %v %s", err, out)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(d.mount, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	t.Setenv("CSTPROXY_TEST_CUT", d.mount)
	return d
}

// restart is the host's next boot, as far as the disk is concerned.
func (d *disk) restart(t *testing.T) {
	t.Helper()
	await(t, "nobody uses the disk", func() bool { return unix.Unmount(d.mount, 0) == nil })
	if out, err := exec.CommandContext(t.Context(), "mount", "-o", "loop", d.image, d.mount).CombinedOutput(); err != nil {
		t.Fatalf("mount again: %v %s", err, out)
	}
}

// sync makes what is on this disk durable, and on no other one of this machine.
func (d *disk) sync(t *testing.T) {
	t.Helper()
	dir, err := os.Open(d.mount)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		t.Fatal(err)
	}
}

// cutPowerAfter plays the scene on the disk with the power cut after one line.
func (d *disk) cutPowerAfter(t *testing.T, v variant) *scene {
	t.Helper()
	s := &script{shell: "sh", dir: filepath.Join(d.mount, "r")}
	if err := os.RemoveAll(s.dir); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(s.dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.install(t, v.text)
	c := setScene(t, s)
	d.sync(t)
	c.next(t)
	c.finish() // the host's processes are gone
	d.restart(t)
	return c
}

func cutLine(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%q cut; kill -KILL $$", self)
}

func TestThePowerMayFailAfterEachLineOfTheWrapper(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	d := newDisk(t)
	for _, v := range variants(t, wrapperText(), cutLine(t)) {
		t.Run(v.name(), func(t *testing.T) {
			c := d.cutPowerAfter(t, v)
			c.check(t)
			c.install(t, wrapperText())
			c.recover(t)
		})
	}
}

// A ratchet that renames without syncing must be caught, or the test above proves nothing.
func TestAPowerCutForgetsWhatWasNotSynced(t *testing.T) {
	d := newDisk(t)
	careless := strings.ReplaceAll(wrapperText(), "\tsync \"$dir/seen\" \"$dir\"", "\ttrue \"$dir/seen\" \"$dir\"")
	for _, v := range variants(t, careless, cutLine(t)) {
		if strings.TrimSpace(v.line) != "code=$?" {
			continue
		}
		c := d.cutPowerAfter(t, v)
		seen, err := os.ReadFile(c.file(token(1, 2), "seen"))
		if err != nil {
			t.Fatal(err)
		}
		if !exists(c.ran)() || !strings.HasPrefix(string(seen), "ratchet 1 1 1\n") {
			t.Errorf("the careless ratchet remembers: ran %v, %q", exists(c.ran)(), seen)
		}
		return
	}
	t.Fatal("the line is gone from the wrapper")
}
