package remote

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"pgregory.net/rapid"

	"github.com/cstproxy/cstproxy/ha/remote/sshlocal"
)

// gate is a command that says that it runs and goes on when it is told to.
type gate struct{ began, open, finished string }

func newGate(t *testing.T) gate {
	dir := t.TempDir()
	return gate{filepath.Join(dir, "began"), filepath.Join(dir, "open"), filepath.Join(dir, "finished")}
}

// argv writes more than a pipe holds after the gate was opened, to whoever still reads it.
func (g gate) argv() []string {
	script := `touch "$1"; until [ -e "$2" ]; do sleep 0.05; done; head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2; touch "$3"`
	return []string{"sh", "-c", script, "sh", g.began, g.open, g.finished}
}

func (g gate) pass(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(g.open, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestACommandGoesOnWhenItsConnectionIsCutAndTheRetryWaitsForIt(t *testing.T) {
	h, s := installed(t)
	g := newGate(t)
	var wg sync.WaitGroup
	var cut error
	wg.Go(func() { _, cut = h.Do(within(t), token(1, 1), Command{Argv: g.argv()}) })
	await(t, "the command runs", exists(g.began))
	s.Cut()
	wg.Wait()
	var lost *Unreachable
	if !errors.As(cut, &lost) || !lost.Sent {
		t.Fatalf("got %v", cut)
	}
	var retry error
	wg.Go(func() {
		_, retry = h.Do(within(t), token(1, 1), Command{Argv: []string{"test", "-e", g.finished}})
	})
	g.pass(t)
	wg.Wait()
	if retry != nil {
		t.Errorf("the retry ran beside it: %v", retry)
	}
}

func TestACommandGoesOnWhenItsServerFreezes(t *testing.T) {
	h, s := installed(t)
	g := newGate(t)
	var wg sync.WaitGroup
	var lost *Unreachable
	wg.Go(func() {
		if _, err := h.Do(within(t), token(1, 1), Command{Argv: g.argv()}); !errors.As(err, &lost) || !lost.Sent {
			t.Errorf("got %v", err)
		}
	})
	await(t, "the command runs", exists(g.began))
	s.Freeze()
	wg.Wait() // the connection is given up
	s.Cut()
	g.pass(t)
	await(t, "the command ends", exists(g.finished))
	s.Thaw()
}

func TestANewerDecisionOverSSHEndsAnOlderOne(t *testing.T) {
	h, s := installed(t)
	c := configFor(t, s)
	c.Dir = h.cfg.Dir
	other := run(t, c) // another member
	g := newGate(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := h.Do(within(t), token(4, 1), Command{Argv: g.argv()})
		var refused *Refused
		if !errors.As(err, &refused) || refused.Seen != token(5, 1) {
			t.Errorf("got %v", err)
		}
	})
	await(t, "the older command runs", exists(g.began))
	do(t, other, token(5, 1), "true")
	wg.Wait()
}

func TestTheDeadlineEndsTheCommandOnTheHost(t *testing.T) {
	h, _ := installed(t)
	file := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := h.Do(ctx, token(1, 1), Command{Argv: []string{"sh", "-c", `echo $$ >"$1"; sleep 1000; true`, "sh", file}})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	pid := readPid(t, file)
	await(t, "the command ends", func() bool { return !running(pid) })
	do(t, h, token(1, 1), "true")
}

func TestProgressComesLineByLine(t *testing.T) {
	h, _ := installed(t)
	var lines []string
	long := strings.Repeat("x", 3*maxLine)
	_, err := h.Do(within(t), token(1, 1), Command{
		Argv:     []string{"sh", "-c", `printf '10%%\r20%%\rdone\n' >&2; sleep 0.2; printf 'a\n\n%s\nb' "$1"`, "sh", long},
		Progress: func(line string) { lines = append(lines, line) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"10%", "20%", "done", "a", long[:maxLine], "b"}; !slices.Equal(lines, want) {
		t.Errorf("got %.200q", lines)
	}
}

func TestAnOlderWrapperIsReplacedAndANewHostIsNot(t *testing.T) {
	h, _ := installed(t)
	do(t, h, token(2, 1), "true")
	old := filepath.Join(h.cfg.Dir, "ratchet-000000000000")
	if err := os.Rename(filepath.Join(h.cfg.Dir, filepath.Base(h.wrapperPath())), old); err != nil {
		t.Fatal(err)
	}
	do(t, h, token(2, 2), "true")
	if _, err := h.Do(within(t), token(1, 1), Command{Argv: []string{"true"}}); err == nil {
		t.Error("the new version has forgotten what the old one saw")
	}
}

func TestInstallMayBeRepeatedWhileCommandsRun(t *testing.T) {
	h, _ := installed(t)
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			if err := h.Install(within(t)); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			k := token(1, 1)
			k.Cluster = strconv.Itoa(i)
			if _, err := h.Do(within(t), k, Command{Argv: []string{"true"}}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestArgumentsArriveAsTheyAre(t *testing.T) {
	h, _ := installed(t)
	nasty := []string{"", " ", "'", `"`, "\\", "$HOME", "`id`", "$(id)", "a\nb", "*", "~", "-n", "--", "!!", "é\xff", "'\\''", "\t", "#", ";exit 3", "&"}
	out, err := h.Do(within(t), token(1, 1), Command{Argv: append([]string{"printf", `%s\0`}, nasty...)})
	if want := strings.Join(nasty, "\x00") + "\x00"; err != nil || string(out.Stdout) != want {
		t.Errorf("Do: %v\ngot  %q\nwant %q", err, out.Stdout, want)
	}
	if got, want := ask(t, h, append([]string{"printf", `%s\0`}, nasty...)...), strings.Join(nasty, "\x00")+"\x00"; got != want {
		t.Errorf("Ask:\ngot  %q\nwant %q", got, want)
	}
	for _, argv := range [][]string{nil, {""}, {"-x"}, {"echo", "a\x00b"}, {"echo", strings.Repeat("x", maxCommand)}} {
		if _, err := h.Ask(within(t), argv); err == nil {
			t.Errorf("%.20q was taken", argv)
		}
	}
}

func TestQuotingIsUndoneByEveryShell(t *testing.T) {
	eachShell(t, func(t *testing.T, shell string) {
		rapid.Check(t, func(r *rapid.T) {
			args := rapid.SliceOfN(rapid.StringMatching(`[^\x00]{0,20}`), 1, 5).Draw(r, "args")
			words, err := quote(append([]string{"printf", `%s\0`}, args...))
			if err != nil {
				r.Fatal(err)
			}
			out, err := exec.CommandContext(t.Context(), shell, "-c", words).Output()
			if want := strings.Join(args, "\x00") + "\x00"; err != nil || string(out) != want {
				r.Fatalf("%v\ngot  %q\nwant %q", err, out, want)
			}
		})
	})
}

func TestTokensThatNameNothingAreNotTaken(t *testing.T) {
	h, _ := installed(t)
	for _, k := range []Token{
		{}, {"", "c", "/d", 1, 1}, {"f", "", "/d", 1, 1}, {"f", "c", "d", 1, 1}, {"f", "c\n", "/d", 1, 1},
		{"f", "c", "/d", 0, 1}, {"f", "c", "/d", 1, -1}, {"f", "c", "/d", 1 << 63, 1},
	} {
		if _, err := h.Do(within(t), k, Command{Argv: []string{"true"}}); err == nil {
			t.Errorf("%+v was taken", k)
		}
	}
}

// keyFiles are private keys that cannot be used, and what is said of them.
func TestKeysThatCannotBeUsedSayWhy(t *testing.T) {
	s := sshlocal.ForTest(t)
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	locked, err := ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		text, says string
		mode       os.FileMode
	}{
		{string(pem.EncodeToMemory(locked)), "is encrypted", 0o600},
		{string(pem.EncodeToMemory(locked)), "chmod 600", 0o644},
		{"nonsense", "not a private key", 0o600},
	} {
		cfg := configFor(t, s)
		cfg.KeyFile = filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(cfg.KeyFile, []byte(c.text), c.mode); err != nil {
			t.Fatal(err)
		}
		_, err := run(t, cfg).Ask(within(t), []string{"true"})
		var auth *Auth
		if !errors.As(err, &auth) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("got %v, want %q", err, c.says)
		}
	}
}

func TestTheAgentsKeysAreUsed(t *testing.T) {
	s := sshlocal.ForTest(t)
	text, err := os.ReadFile(s.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.ParseRawPrivateKey(text)
	if err != nil {
		t.Fatal(err)
	}
	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: key}); err != nil {
		t.Fatal(err)
	}
	c := configFor(t, s)
	c.KeyFile, c.AgentSocket = "", filepath.Join(t.TempDir(), "agent")
	ln, err := net.Listen("unix", c.AgentSocket)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { _ = agent.ServeAgent(ring, conn) })
		}
	})
	t.Cleanup(func() { _ = ln.Close(); wg.Wait() })
	if _, err := run(t, c).Ask(within(t), []string{"true"}); err != nil {
		t.Error(err)
	}
}

func TestCallsAfterTheEndOfRunFailAtOnce(t *testing.T) {
	s := sshlocal.ForTest(t)
	h, err := New(configFor(t, s), zapForTest(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = h.Run(ctx) })
	ask(t, h, "true")
	var under error
	wg.Go(func() { _, under = h.Ask(within(t), []string{"sleep", "1000"}) })
	await(t, "the command runs", func() bool { return len(h.asks) == 1 })
	cancel()
	wg.Wait()
	var lost *Unreachable
	if !errors.As(under, &lost) {
		t.Errorf("the call that was under way: %v", under)
	}
	if _, err := h.Ask(t.Context(), []string{"true"}); !errors.Is(err, errNotRunning) {
		t.Errorf("got %v", err)
	}
}
