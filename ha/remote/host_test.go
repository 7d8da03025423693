package remote

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"golang.org/x/sys/unix"

	"github.com/cstproxy/cstproxy/ha/remote/sshlocal"
)

func TestMain(m *testing.M) {
	cutPowerWhenAsked()
	goleak.VerifyTestMain(m)
}

// patience is how long a test waits for what must come; nothing passes by its passing.
const patience = 20 * time.Second

func configFor(t testing.TB, s *sshlocal.Server) Config {
	t.Helper()
	c := DefaultConfig()
	c.Host, c.Port, c.User, c.KeyFile, c.KnownHostsFile = s.Host, s.Port, s.User, s.KeyFile, s.KnownHosts
	c.Dir = filepath.Join(t.TempDir(), "ratchets")
	return c
}

func zapForTest(t testing.TB) *zap.Logger { return zaptest.NewLogger(t) }

// run keeps a host's connection for as long as the test.
func run(t testing.TB, c Config) *Host {
	t.Helper()
	h, err := New(c, zapForTest(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := h.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return h
}

// installed is a host that commands may be run on, with its server.
func installed(t testing.TB) (*Host, *sshlocal.Server) {
	t.Helper()
	s := sshlocal.ForTest(t)
	h := run(t, configFor(t, s))
	if err := h.Install(within(t)); err != nil {
		t.Fatalf("%v\n%s", err, s.Log())
	}
	return h, s
}

// within is a context for one call.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// await waits until something is so.
func await(t *testing.T, what string, so func() bool) {
	t.Helper()
	ctx := within(t)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain: %s", what)
		case <-tick.C:
		}
	}
}

func exists(file string) func() bool {
	return func() bool { _, err := os.Stat(file); return err == nil }
}

func ask(t *testing.T, h *Host, argv ...string) string {
	t.Helper()
	out, err := h.Ask(within(t), argv)
	if err != nil {
		t.Fatalf("%q: %v", argv, err)
	}
	return string(out.Stdout)
}

func TestAskReturnsWhatTheCommandWrote(t *testing.T) {
	h, _ := installed(t)
	if got := ask(t, h, "echo", "a  b"); got != "a  b\n" {
		t.Errorf("got %q", got)
	}
	out, err := h.Ask(within(t), []string{"sh", "-c", "echo one; echo two >&2; exit 3"})
	var exit *ExitError
	if !errors.As(err, &exit) || exit.Code != 3 || exit.Stderr != "two" || string(out.Stdout) != "one\n" {
		t.Errorf("got %+v, %v", out, err)
	}
	if _, err := h.Ask(within(t), []string{"/no/such/program"}); !errors.As(err, &exit) || exit.Code != 127 {
		t.Errorf("a missing program is %v", err)
	}
}

func TestAnUnknownHostKeyIsNotTrusted(t *testing.T) {
	s := sshlocal.ForTest(t)
	if err := os.WriteFile(s.KnownHosts, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h := run(t, configFor(t, s))
	_, err := h.Ask(within(t), []string{"true"})
	var key *HostKey
	if !errors.As(err, &key) || key.Changed || key.Fingerprint == "" {
		t.Fatalf("got %v", err)
	}
	if !strings.Contains(err.Error(), "ssh-keyscan -p ") || !strings.Contains(err.Error(), s.KnownHosts) {
		t.Errorf("the error does not say what to do: %v", err)
	}
	if up, _, why := h.Up(); up || !strings.Contains(why, "known_hosts") {
		t.Errorf("up %v, why %q", up, why)
	}
}

func TestAMissingKnownHostsFileIsAnUnknownKey(t *testing.T) {
	s := sshlocal.ForTest(t)
	c := configFor(t, s)
	c.KnownHostsFile = filepath.Join(t.TempDir(), "none")
	_, err := run(t, c).Ask(within(t), []string{"true"})
	var key *HostKey
	if !errors.As(err, &key) || key.Changed {
		t.Fatalf("got %v", err)
	}
}

func TestAChangedHostKeyIsNotTrusted(t *testing.T) {
	s := sshlocal.ForTest(t)
	if err := s.NewHostKey(); err != nil {
		t.Fatal(err)
	}
	h := run(t, configFor(t, s))
	_, err := h.Ask(within(t), []string{"true"})
	var key *HostKey
	if !errors.As(err, &key) || !key.Changed || !strings.Contains(key.Remedy, "-R '[127.0.0.1]:") {
		t.Fatalf("got %v", err)
	}
}

func TestAKeyThatTheHostDoesNotKnowIsAnAuthError(t *testing.T) {
	s, other := sshlocal.ForTest(t), sshlocal.ForTest(t)
	c := configFor(t, s)
	c.KeyFile = other.KeyFile
	_, err := run(t, c).Ask(within(t), []string{"true"})
	var auth *Auth
	if !errors.As(err, &auth) || !strings.Contains(err.Error(), "authorized_keys") {
		t.Fatalf("got %v", err)
	}
}

func TestAHostThatIsDownIsUnreachableAndComesBack(t *testing.T) {
	h, s := installed(t)
	s.Close()
	await(t, "the host is down", func() bool { up, _, _ := h.Up(); return !up })
	_, err := h.Ask(within(t), []string{"true"})
	var lost *Unreachable
	if !errors.As(err, &lost) || lost.Sent {
		t.Fatalf("got %v", err)
	}
	if err := s.Open(); err != nil {
		t.Fatal(err)
	}
	await(t, "the host is up", func() bool { up, _, _ := h.Up(); return up })
	ask(t, h, "true")
}

func TestAServerThatAcceptsAndSaysNothingEndsTheLogin(t *testing.T) {
	s := sshlocal.ForTest(t)
	s.Freeze()
	c := configFor(t, s)
	c.LoginTimeout = 200 * time.Millisecond
	_, err := run(t, c).Ask(within(t), []string{"true"})
	var lost *Unreachable
	if !errors.As(err, &lost) || !strings.Contains(err.Error(), "did not complete the login") {
		t.Fatalf("got %v", err)
	}
	s.Thaw()
}

func TestACallEndsWithItsContextWhileTheServerIsFrozen(t *testing.T) {
	h, s := installed(t)
	ask(t, h, "true")
	s.Freeze()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := h.Ask(ctx, []string{"true"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	await(t, "the silence is noticed", func() bool { up, _, _ := h.Up(); return !up })
	await(t, "the connection is given up", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.link == nil
	})
	s.Thaw()
	await(t, "the host is up", func() bool { up, _, _ := h.Up(); return up })
	ask(t, h, "true")
}

func TestACallThatEndsLeavesTheConnectionToTheOthers(t *testing.T) {
	h, s := installed(t)
	h.mu.Lock()
	before := h.link
	h.mu.Unlock()
	for _, limit := range []time.Duration{time.Nanosecond, time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		if _, err := h.Ask(ctx, []string{"sleep", "1000"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after %v: %v", limit, err)
		}
		cancel()
	}
	ask(t, h, "true")
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.link != before || s.Connections() != 1 {
		t.Error("it was connected anew")
	}
}

func TestASlowServerKeepsItsConnection(t *testing.T) {
	h, s := installed(t)
	ask(t, h, "true")
	h.mu.Lock()
	before := h.link
	h.mu.Unlock()
	s.Freeze()
	await(t, "the silence is noticed", func() bool { up, _, _ := h.Up(); return !up })
	s.Thaw()
	await(t, "the host is up", func() bool { up, _, _ := h.Up(); return up })
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.link != before {
		t.Error("it was connected anew")
	}
}

func TestTwentyCommandsAtATime(t *testing.T) {
	h, s := installed(t)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if out, err := h.Ask(within(t), []string{"echo", "here"}); err != nil || string(out.Stdout) != "here\n" {
				t.Errorf("got %q, %v", out.Stdout, err)
			}
		})
	}
	wg.Wait()
	if n := s.Connections(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestAServerWithFewSessionsIsWaitedFor(t *testing.T) {
	s := sshlocal.ForTest(t, "MaxSessions 1")
	h := run(t, configFor(t, s))
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			if _, err := h.Ask(within(t), []string{"true"}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestAFloodOfOutputIsCut(t *testing.T) {
	h, _ := installed(t)
	const size = 5_000_000
	out, err := h.Ask(within(t), []string{"sh", "-c", "echo first; head -c 5000000 /dev/zero; echo last >&2"})
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Stdout) != kept || !strings.HasPrefix(string(out.Stdout), "first\n") || string(out.Stderr) != "last\n" {
		t.Errorf("kept %d, stderr %q", len(out.Stdout), out.Stderr)
	}
	if out.Dropped != size+6-kept {
		t.Errorf("dropped %d", out.Dropped)
	}
}

func TestTheHostSaysWhomItReaches(t *testing.T) {
	h, s := installed(t)
	other := sshlocal.ForTest(t)
	if r, why, err := h.ProbeFrom(within(t), s.Host, other.Port); r != Connected || err != nil {
		t.Errorf("%v %q %v", r, why, err)
	}
	other.Close()
	if r, why, err := h.ProbeFrom(within(t), s.Host, other.Port); r != Closed || err != nil {
		t.Errorf("%v %q %v", r, why, err)
	}
	if r, why, err := h.ProbeFrom(within(t), s.Host, silentPort(t)); r != Silent || err != nil {
		t.Errorf("%v %q %v", r, why, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	if r, _, err := h.ProbeFrom(ctx, s.Host, s.Port); r != Unknown || err == nil {
		t.Errorf("%v %v", r, err)
	}
	if r, why, err := h.ProbeFrom(within(t), "no such host", 1); r != Unknown || err == nil {
		t.Errorf("%v %q %v", r, why, err)
	}
}

// silentPort is a port whose queue of connections that nobody accepted is full: the kernel answers
// nothing to another one.
func silentPort(t *testing.T) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	port := name.(*unix.SockaddrInet4).Port
	for range 8 {
		conn, err := net.DialTimeout("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), 200*time.Millisecond)
		if err != nil {
			return port
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	t.Skip("this kernel accepts for a listener whose queue is full")
	return 0
}

func TestALoginShellThatRunsNothingIsNotASuccess(t *testing.T) {
	s := sshlocal.ForTest(t, "ForceCommand echo This account is not available.")
	h := run(t, configFor(t, s))
	if _, err := h.Ask(within(t), []string{"true"}); err == nil || !strings.Contains(err.Error(), "account is not available") {
		t.Errorf("Ask: %v", err)
	}
	if _, err := h.Do(within(t), token(1, 1), Command{Argv: []string{"true"}}); err == nil {
		t.Error("Do says that it ran")
	}
}
