package e2e

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// A namespace does not cover CLOCK_REALTIME, and Go reads it without a system call that could be
// changed. So the product is built with a runtime that adds to the wall clock, and only to that, what
// /run/clock of its host says. Everything else of it is what its users run.

// graft is a change of one file that is compiled: old must be there once.
type graft struct{ file, old, new string }

func clockGrafts(goroot, source string) []graft {
	dir := filepath.Join(goroot, "src", "runtime")
	const declared = "\nfunc time_now() (sec int64, nsec int32, mono int64)\n"
	return []graft{
		{filepath.Join(dir, "time_linux_amd64.s"), "TEXT time·now<ABIInternal>(SB)", "TEXT ·trueNow<ABIInternal>(SB)"},
		{filepath.Join(dir, "timeasm.go"), declared, strings.TrimSuffix(declared, "\n") + ` {
	sec, nsec, mono = trueNow()
	if wallOffset != nil {
		sec += *wallOffset
	}
	return sec, nsec, mono
}

func trueNow() (sec int64, nsec int32, mono int64)

//go:linkname wallOffset
var wallOffset *int64
`},
		{filepath.Join(source, "cmd", "cstproxy", "log.go"), "cfg.Build(", "cfg.Build(zap.WithClock(trueClock{}), "},
	}
}

// overlay writes what is compiled instead of which file, and returns the path of the list.
func overlay(t *testing.T, goroot, source string) string {
	t.Helper()
	dir := t.TempDir()
	extra, err := filepath.Abs("testdata/clock.go.txt")
	if err != nil {
		t.Fatal(err)
	}
	instead := map[string]string{filepath.Join(source, "cmd", "cstproxy", "clock_of_the_lab.go"): extra}
	for _, g := range clockGrafts(goroot, source) {
		text, err := os.ReadFile(g.file)
		if err != nil {
			t.Fatalf("set clocks: %v", err)
		}
		if n := strings.Count(string(text), g.old); n != 1 {
			t.Fatalf("set clocks: %s has %q %d times, want once: it is not as in Go 1.26 (this is %s), and this test must learn of the change", g.file, g.old, n, runtime.Version())
		}
		to := filepath.Join(dir, filepath.Base(g.file))
		if err := os.WriteFile(to, []byte(strings.Replace(string(text), g.old, g.new, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		instead[g.file] = to
	}
	list, err := json.Marshal(map[string]any{"Replace": instead})
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(to, list, 0o600); err != nil {
		t.Fatal(err)
	}
	return to
}

// buildWithClock has fleets of this test run a product whose wall clock can be set. The whole standard
// library is compiled for that, once for each Go.
func buildWithClock(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		t.Skipf("this test sets the wall clock of linux/amd64, and this is %s/%s", runtime.GOOS, runtime.GOARCH)
	}
	goroot, err := output(exec.CommandContext(t.Context(), "go", "env", "GOROOT"))
	if err != nil {
		t.Fatalf("set clocks: %v", err)
	}
	source, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "cstproxy")
	build := exec.CommandContext(t.Context(), "go", "build", "-overlay", overlay(t, goroot, source), "-trimpath", "-buildvcs=false", "-o", to, "./cmd/cstproxy")
	build.Dir = source
	if _, err := output(build); err != nil {
		t.Fatalf("build the product with a clock that can be set: %v", err)
	}
	t.Setenv("CST_BINARY", to)
}

// SetClock makes the wall clock of the host's cstproxy wrong by an offset from now on, or from its
// start on when it does not run. PostgreSQL's and the log's stay right, and so does the monotonic one.
func (h *Host) SetClock(wrong time.Duration) {
	h.lab.t.Helper()
	var b strings.Builder
	for _, c := range binary.NativeEndian.AppendUint64(nil, uint64(wrong/time.Second)) {
		fmt.Fprintf(&b, `\%03o`, c)
	}
	h.must("set the clock", fmt.Sprintf("printf '%s' | dd of=/run/clock conv=notrunc status=none", b.String()))
}
