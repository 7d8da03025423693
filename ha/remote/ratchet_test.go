package remote

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cstproxy/cstproxy/ha/remote/sshlocal"
)

func token(epoch uint64, step int) Token {
	return Token{Fleet: "f", Cluster: "c", PGData: "/data/it's here", Epoch: epoch, Step: step}
}

func do(t *testing.T, h *Host, k Token, argv ...string) string {
	t.Helper()
	out, err := h.Do(within(t), k, Command{Argv: argv})
	if err != nil {
		t.Fatalf("%q at %d.%d: %v", argv, k.Epoch, k.Step, err)
	}
	return string(out.Stdout)
}

func TestTheRatchetRefusesWhatIsOlder(t *testing.T) {
	h, _ := installed(t)
	if got := do(t, h, token(3, 2), "echo", "ran"); got != "ran\n" {
		t.Errorf("got %q", got)
	}
	do(t, h, token(3, 2), "true") // a retry
	for _, older := range []Token{token(3, 1), token(2, 9)} {
		out, err := h.Do(within(t), older, Command{Argv: []string{"echo", "ran"}})
		var refused *Refused
		if !errors.As(err, &refused) || refused.Seen != token(3, 2) || refused.Asked != older {
			t.Fatalf("got %v", err)
		}
		if len(out.Stdout) != 0 {
			t.Errorf("it ran: %q", out.Stdout)
		}
	}
	do(t, h, token(3, 3), "true")
	do(t, h, token(10, 0), "true")
}

func TestOtherDirectoriesHaveOtherRatchets(t *testing.T) {
	h, _ := installed(t)
	do(t, h, token(5, 1), "true")
	for _, other := range []Token{
		{"g", "c", "/data/it's here", 1, 1}, {"f", "d", "/data/it's here", 1, 1}, {"f", "c", "/data/2", 1, 1},
	} {
		do(t, h, other, "true")
	}
	seen, err := h.Seen(within(t))
	if err != nil || len(seen) != 4 {
		t.Fatalf("%v %v", seen, err)
	}
}

func TestAFailedCommandIsAnExitError(t *testing.T) {
	h, _ := installed(t)
	_, err := h.Do(within(t), token(1, 1), Command{Argv: []string{"sh", "-c", "echo why >&2; exit 210"}})
	var exit *ExitError
	if !errors.As(err, &exit) || exit.Code != 210 || exit.Stderr != "why" {
		t.Fatalf("got %v", err)
	}
	if _, err = h.Do(within(t), token(1, 1), Command{Argv: []string{"/none"}}); !errors.As(err, &exit) || exit.Code != 127 {
		t.Fatalf("got %v", err)
	}
}

func TestWithoutTheWrapperNothingRuns(t *testing.T) {
	h := run(t, configFor(t, sshlocal.ForTest(t)))
	if _, err := h.Do(within(t), token(1, 1), Command{Argv: []string{"true"}}); !errors.Is(err, ErrNoWrapper) {
		t.Fatalf("got %v", err)
	}
	if seen, err := h.Seen(within(t)); err != nil || len(seen) != 0 {
		t.Errorf("%v %v", seen, err)
	}
}

func TestADirectoryMayBeBelowTheHome(t *testing.T) {
	s := sshlocal.ForTest(t)
	c := configFor(t, s)
	c.Dir = DefaultConfig().Dir
	h := run(t, c)
	if err := h.Install(within(t)); err != nil {
		t.Fatal(err)
	}
	do(t, h, token(1, 2), "true")
	seen, err := h.Seen(within(t))
	if err != nil || len(seen) != 1 || seen[0] != token(1, 2) {
		t.Errorf("%v %v", seen, err)
	}
	if home := filepath.Dir(s.KeyFile); !exists(filepath.Join(home, ".cstproxy", "state"))() {
		t.Errorf("nothing in %s", home)
	}
}

func TestInputArrivesAsItIs(t *testing.T) {
	h, _ := installed(t)
	secret := "line\x00two\n\n" + strings.Repeat("x", 100_000) + "\n"
	out, err := h.Do(within(t), token(1, 1), Command{Argv: []string{"wc", "-c"}, Stdin: []byte(secret)})
	if err != nil || strings.TrimSpace(string(out.Stdout)) != "100011" {
		t.Fatalf("%q %v", out.Stdout, err)
	}
	out, err = h.Do(within(t), token(1, 1), Command{Argv: []string{"cat"}, Stdin: []byte(secret[:10])})
	if err != nil || string(out.Stdout) != secret[:10] {
		t.Fatalf("%q %v", out.Stdout, err)
	}
}
