package remote

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// script is the wrapper on this machine's own file system, run without SSH.
type script struct {
	shell, dir string
}

// newScript installs text, which is the wrapper or what a test made of it.
func newScript(t *testing.T, shell, text string) *script {
	t.Helper()
	s := &script{shell: shell, dir: filepath.Join(t.TempDir(), "r")}
	if err := os.MkdirAll(filepath.Join(s.dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.install(t, text)
	return s
}

func (s *script) install(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, "ratchet"), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// command is the wrapper's call for a token; wait is in seconds.
func (s *script) command(ctx context.Context, k Token, wait int, argv ...string) *exec.Cmd {
	args := []string{filepath.Join(s.dir, "ratchet"), wrapperVersion(), "do", "NONCE", k.key(),
		strconv.FormatUint(k.Epoch, 10), strconv.Itoa(k.Step), strconv.Itoa(wait), "0", "0",
		k.Fleet, k.Cluster, k.PGData}
	cmd := exec.CommandContext(ctx, s.shell, append(args, argv...)...)
	cmd.Stdin = strings.NewReader("")
	return cmd
}

// do returns the standard output and the wrapper's account.
func (s *script) do(t *testing.T, k Token, argv ...string) (string, string) {
	t.Helper()
	return finish(t, s.command(within(t), k, 20, argv...))
}

func finish(t *testing.T, cmd *exec.Cmd) (string, string) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	_, account, _ := strings.Cut("\n"+errs.String(), "\nNONCE ")
	if account == "" {
		account = fmt.Sprintf("none: %v: %s", err, errs.String())
	}
	return out.String(), strings.TrimSpace(account)
}

func (s *script) file(k Token, name string) string {
	return filepath.Join(s.dir, "state", k.key(), name)
}

// eachShell runs a test with every POSIX shell that hosts have as sh.
func eachShell(t *testing.T, f func(t *testing.T, shell string)) {
	for _, shell := range []string{"dash", "bash"} {
		t.Run(shell, func(t *testing.T) {
			path, err := exec.LookPath(shell)
			if err != nil {
				t.Skipf("this machine has no %s", shell)
			}
			f(t, path)
		})
	}
}

func TestTheRatchetOnlyRises(t *testing.T) {
	var round int
	s := newScript(t, "sh", wrapperText())
	rapid.Check(t, func(r *rapid.T) {
		round++
		high := Token{}
		for range rapid.IntRange(1, 3).Draw(r, "calls") {
			k := token(uint64(rapid.IntRange(1, 11).Draw(r, "epoch")), rapid.IntRange(0, 11).Draw(r, "step"))
			k.Cluster = strconv.Itoa(round)
			older := k.Epoch < high.Epoch || k.Epoch == high.Epoch && k.Step < high.Step
			out, account := s.do(t, k, "echo", "ran")
			want, said := "ran", "ran\n"
			if older {
				want, said = fmt.Sprintf("refused %d %d", high.Epoch, high.Step), ""
			} else {
				high = k
			}
			if account != want || out != said {
				r.Fatalf("%d.%d after %d.%d: %q, %q", k.Epoch, k.Step, high.Epoch, high.Step, account, out)
			}
		}
	})
}

func TestWhatANewerDecisionFindsRunningItEnds(t *testing.T) {
	eachShell(t, func(t *testing.T, shell string) {
		s, tmp := newScript(t, shell, wrapperText()), t.TempDir()
		child := filepath.Join(tmp, "child")
		// Neither the command nor its child listens to TERM.
		work := `trap "" TERM; sh -c 'echo $$ >'"$1"'.new; mv '"$1"'.new '"$1"'; while :; do sleep 0.1; done' & wait; wait`
		older := s.command(within(t), token(1, 1), 5, "sh", "-c", work, "sh", child)
		var account string
		var wg sync.WaitGroup
		wg.Go(func() { _, account = finish(t, older) })
		await(t, "the older one runs", exists(child))
		pid := readPid(t, child)
		if _, got := s.do(t, token(1, 2), "sh", "-c", `kill -0 "$1" 2>/dev/null && exit 1; exit 0`, "sh", strconv.Itoa(pid)); got != "ran" {
			t.Errorf("the newer one: %q", got)
		}
		if running(pid) {
			t.Error("the child of the older one lives")
		}
		wg.Wait()
		if account != "refused 1 2" {
			t.Errorf("the older one: %q", account)
		}
	})
}

func readPid(t *testing.T, file string) int {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func running(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return !strings.HasPrefix(rest, "Z")
}

func TestEqualTokensRunOneAfterTheOther(t *testing.T) {
	s, tmp := newScript(t, "sh", wrapperText()), t.TempDir()
	// mkdir fails for the second one if both are inside.
	work := `mkdir "$1/inside" && sleep 0.05 && rmdir "$1/inside"`
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, account := finish(t, s.command(within(t), token(1, 1), 20, "sh", "-c", work, "sh", tmp)); account != "ran" {
				t.Errorf("got %q", account)
			}
		})
	}
	wg.Wait()
}

func TestAnEqualTokenWaitsOnlyAsLongAsItsCaller(t *testing.T) {
	s, tmp := newScript(t, "sh", wrapperText()), t.TempDir()
	began, end := filepath.Join(tmp, "began"), filepath.Join(tmp, "end")
	var wg sync.WaitGroup
	wg.Go(func() {
		s.do(t, token(1, 1), "sh", "-c", `touch "$1"; until [ -e "$2" ]; do sleep 0.05; done`, "sh", began, end)
	})
	await(t, "the first one runs", exists(began))
	if _, account := finish(t, s.command(within(t), token(1, 1), 1, "true")); !strings.HasPrefix(account, "busy ") {
		t.Errorf("got %q", account)
	}
	if err := os.WriteFile(end, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
}

// orphan starts a command under the wrapper and kills the wrapper: the command goes on.
func orphan(t *testing.T, s *script, k Token, script string) int {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pid")
	cmd := s.command(t.Context(), k, 5, "sh", "-c", `echo $$ >"$1.new"; mv "$1.new" "$1"; `+script, "sh", file)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, "the command runs", exists(file))
	pid := readPid(t, file)
	t.Cleanup(func() { _ = syscall.Kill(-pid, syscall.SIGKILL) })
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // says that it was killed
	if !running(pid) {
		t.Fatal("the command died with its wrapper")
	}
	return pid
}

func TestACommandWhoseWrapperWasKilledIsWaitedForOrEnded(t *testing.T) {
	eachShell(t, func(t *testing.T, shell string) {
		s := newScript(t, shell, wrapperText())
		pid := orphan(t, s, token(1, 1), "exec sleep 1000")
		if _, account := finish(t, s.command(within(t), token(1, 1), 1, "true")); !strings.HasPrefix(account, "busy ") {
			t.Errorf("the equal one: %q", account)
		}
		if _, account := s.do(t, token(1, 0), "true"); account != "refused 1 1" {
			t.Errorf("the older one: %q", account)
		}
		if !running(pid) {
			t.Fatal("an equal or older one ended it")
		}
		if _, account := s.do(t, token(2, 0), "true"); account != "ran" {
			t.Errorf("the newer one: %q", account)
		}
		if running(pid) {
			t.Error("it lives")
		}
	})
}

func TestOrphansOfACommandAreKnownByTheirMark(t *testing.T) {
	s := newScript(t, "sh", wrapperText())
	leader := orphan(t, s, token(1, 1), "sleep 1000 & echo $! >$1.child; while :; do sleep 1000; done")
	// The group leader dies alone; its children stay in the group.
	if err := syscall.Kill(leader, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, "the leader is gone", func() bool { return !running(leader) })
	if err := syscall.Kill(-leader, 0); err != nil {
		t.Fatalf("the group is gone, too: %v", err)
	}
	if _, account := s.do(t, token(1, 2), "true"); account != "ran" {
		t.Errorf("got %q", account)
	}
	await(t, "the group is gone", func() bool { return groupGone(leader) })
}

// groupGone looks at /proc: zombies that nobody reaps still take signals.
func groupGone(group int) bool {
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		fields := strings.Fields(rest)
		if len(fields) > 2 && fields[2] == strconv.Itoa(group) && fields[0] != "Z" {
			return false
		}
	}
	return true
}

// A record may outlive its process: the wrapper was killed and the command ended later. Then its pid
// may be somebody else's.
func TestAnInnocentProcessUnderARecycledPidIsLeftAlone(t *testing.T) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	for name, record := range map[string]string{
		"recycled":     strings.TrimSpace(string(boot)) + " %d 12345 1 1\n",
		"other boot":   "11111111-1111-1111-1111-111111111111 %d %s 1 1\n",
		"not a record": "%d\n",
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t, "sh", wrapperText())
			s.do(t, token(1, 1), "true")
			innocent := exec.CommandContext(t.Context(), "sleep", "1000")
			innocent.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			if err := innocent.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = innocent.Process.Kill(); _ = innocent.Wait() }()
			text := strings.ReplaceAll(record, "%d", strconv.Itoa(innocent.Process.Pid))
			text = strings.ReplaceAll(text, "%s", startOf(t, innocent.Process.Pid))
			if err := os.WriteFile(s.file(token(1, 1), "running"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, k := range []Token{token(1, 1), token(1, 2)} {
				if _, account := s.do(t, k, "true"); account != "ran" {
					t.Errorf("got %q", account)
				}
			}
			if !running(innocent.Process.Pid) {
				t.Error("it was killed")
			}
		})
	}
}

func startOf(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return strings.Fields(rest)[19]
}

func TestWhatACommandLeavesInItsGroupEndsWithIt(t *testing.T) {
	eachShell(t, func(t *testing.T, shell string) {
		s, file := newScript(t, shell, wrapperText()), filepath.Join(t.TempDir(), "pid")
		_, account := s.do(t, token(1, 1), "sh", "-c", `sleep 1000 & echo $! >"$1"`, "sh", file)
		if account != "ran" {
			t.Errorf("got %q", account)
		}
		if running(readPid(t, file)) {
			t.Error("it lives")
		}
	})
}

func TestAServerThatACommandStartsLivesOnAndHoldsNothingUp(t *testing.T) {
	eachShell(t, func(t *testing.T, shell string) {
		s, file := newScript(t, shell, wrapperText()), filepath.Join(t.TempDir(), "pid")
		// It keeps the command's standard output and error open, as a server without a log file does.
		start := `setsid sh -c 'echo $$ >"$1.new"; mv "$1.new" "$1"; exec sleep 1000' sh "$1" & until [ -e "$1" ]; do sleep 0.02; done; echo up`
		out, account := s.do(t, token(1, 1), "sh", "-c", start, "sh", file)
		pid := readPid(t, file)
		defer func() { _ = syscall.Kill(pid, syscall.SIGKILL) }()
		if account != "ran" || out != "up\n" {
			t.Errorf("got %q, %q", account, out)
		}
		for _, k := range []Token{token(1, 1), token(2, 1)} {
			if _, account := s.do(t, k, "true"); account != "ran" {
				t.Errorf("got %q", account)
			}
		}
		if !running(pid) {
			t.Error("the server was ended")
		}
	})
}

func TestHalfTheInputRunsNothing(t *testing.T) {
	eachShell(t, func(t *testing.T, shell string) {
		s := newScript(t, shell, wrapperText())
		cmd := s.command(within(t), token(1, 1), 5, "sh", "-s")
		body := base64.StdEncoding.EncodeToString([]byte("echo one\necho two\n"))
		cmd.Args[10] = strconv.Itoa(len(body))
		cmd.Stdin = strings.NewReader(body[:8])
		if out, account := finish(t, cmd); account != "cut" || out != "" {
			t.Errorf("got %q, %q", account, out)
		}
		if exists(s.file(token(1, 1), "seen"))() {
			t.Error("the ratchet moved")
		}
	})
}

func TestAFullDiskMeansThatNothingIsDone(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small file system")
	}
	eachShell(t, func(t *testing.T, shell string) {
		s := newScript(t, shell, wrapperText())
		state := filepath.Join(s.dir, "state")
		if err := unix.Mount("none", state, "tmpfs", 0, "size=64k"); err != nil {
			t.Skipf("cannot mount here: %v", err)
		}
		defer func() {
			if err := unix.Unmount(state, 0); err != nil {
				t.Error(err)
			}
		}()
		if _, account := s.do(t, token(1, 1), "true"); account != "ran" {
			t.Fatalf("got %q", account)
		}
		fill := filepath.Join(state, "fill")
		if err := os.WriteFile(fill, make([]byte, 1<<20), 0o600); err == nil {
			t.Fatal("the disk is not full")
		}
		ran := filepath.Join(t.TempDir(), "ran")
		for _, k := range []Token{token(1, 2), token(1, 1)} {
			if _, account := s.do(t, k, "touch", ran); !strings.HasPrefix(account, "broken ") {
				t.Errorf("got %q", account)
			}
		}
		if exists(ran)() {
			t.Error("it ran")
		}
		if err := os.Remove(fill); err != nil {
			t.Fatal(err)
		}
		if _, account := s.do(t, token(1, 2), "true"); account != "ran" {
			t.Errorf("afterwards: %q", account)
		}
	})
}

func TestAFileThatIsNoRatchetsIsNotGuessedAt(t *testing.T) {
	for _, text := range []string{"", "\n", "ratchet 2 1 1\n", "ratchet 1 x 1\n", "ratchet 1 1\n", "ratchet 1 1 1 1\n", "ratchet 1 1111111111111111111 1\n"} {
		s := newScript(t, "sh", wrapperText())
		s.do(t, token(1, 1), "true")
		if err := os.WriteFile(s.file(token(1, 1), "seen"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, account := s.do(t, token(9, 1), "echo", "ran"); !strings.HasPrefix(account, "broken ") || out != "" {
			t.Errorf("%q: %q, %q", text, account, out)
		}
	}
}
