package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cstproxy/cstproxy/ha/pglocal"
)

// bench is one run of pgbench. pgbench gives up a client at its first error.
type bench struct {
	args []string
	url  string
}

func pgbench(url string, args ...string) bench { return bench{args: args, url: url} }

// run returns how many transactions were done; any error fails the test.
func (b bench) run(t *testing.T) int {
	t.Helper()
	n, err := b.try(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (b bench) try(ctx context.Context) (int, error) {
	var r report
	cmd, err := b.command(ctx, &r)
	if err != nil {
		return 0, err
	}
	return b.judge(&r, cmd.Run())
}

// during runs pgbench for as long as work takes. Work returns only after it has seen the load run.
func (b bench) during(t *testing.T, work func()) {
	t.Helper()
	b.args = append(b.args, "-T", "3600")
	var r report
	cmd, err := b.command(t.Context(), &r)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // at the latest when the test's context ends
	work()
	_ = cmd.Process.Signal(syscall.SIGALRM) // the alarm by which -T ends; if it ended before, judge says why
	limit := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer limit.Stop()
	if _, err := b.judge(&r, <-ended); err != nil {
		t.Error(err)
	}
}

// report is what a run printed.
type report struct{ out, diagnostics bytes.Buffer }

func (b bench) command(ctx context.Context, r *report) (*exec.Cmd, error) {
	program, err := pglocal.Program("pgbench")
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(b.url)
	if err != nil {
		return nil, err
	}
	password, _ := u.User.Password()
	cmd := exec.CommandContext(ctx, program, append(b.args, "-h", u.Hostname(), "-p", u.Port(), "-U", u.User.Username(), strings.TrimPrefix(u.Path, "/"))...)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+password, "PGSSLMODE=disable")
	cmd.Stdout, cmd.Stderr = &r.out, &r.diagnostics
	return cmd, nil
}

// judge returns how many transactions a run did.
func (b bench) judge(r *report, ended error) (int, error) {
	out, diagnostics := r.out.String(), r.diagnostics.String()
	if ended != nil {
		return 0, fmt.Errorf("pgbench %s: %w\n%s%s", strings.Join(b.args, " "), ended, diagnostics, out)
	}
	for _, bad := range []string{"aborted", "error:", "ERROR:", "FATAL:", "WARNING:"} {
		if strings.Contains(diagnostics, bad) {
			return 0, fmt.Errorf("pgbench %s said:\n%s", strings.Join(b.args, " "), diagnostics)
		}
	}
	if failed := figure(out, "number of failed transactions: "); failed > 0 {
		return 0, fmt.Errorf("pgbench failed %d transactions:\n%s", failed, out)
	}
	return figure(out, "number of transactions actually processed: "), nil
}

// figure is the number after a label in pgbench's report; 0 when there is none.
func figure(report, label string) int {
	_, rest, _ := strings.Cut(report, label)
	digits := strings.FieldsFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if rest == "" || len(digits) == 0 {
		return 0
	}
	n, err := strconv.Atoi(digits[0])
	if err != nil {
		return 0
	}
	return n
}

func (w *world) initPgbench(t *testing.T, scale int) {
	t.Helper()
	b := pgbench(w.direct(w.cluster.Primary()), "-i", "-q", "-s", strconv.Itoa(scale))
	program, err := pglocal.Program("pgbench")
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(b.url)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, append(b.args, "-h", u.Hostname(), "-p", u.Port(), "-U", appUser, appDB)...)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+appPassword)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("pgbench -i: %v\n%s", err, out)
	}
	if err := w.cluster.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// selectOnly is what pgbench -S sends.
const selectOnly = "SELECT abalance FROM pgbench_accounts%"

func TestPgbenchReadsSpreadByWeightAndSpareThePrimary(t *testing.T) {
	w := sharedWorld(t)
	before := w.refusals(t)
	for _, protocol := range []string{"simple", "extended", "prepared"} {
		for _, clients := range []int{1, 8, 64} {
			t.Run(fmt.Sprintf("%s with %d clients", protocol, clients), func(t *testing.T) {
				w.forgetCalls(t)
				each := max(100, 2000/clients)
				done := pgbench(w.through(), "-n", "-S", "-M", protocol, "-c", strconv.Itoa(clients), "-j", "2", "-t", strconv.Itoa(each)).run(t)
				if done != clients*each {
					t.Errorf("%d of %d transactions", done, clients*each)
				}
				counts := w.calls(t, selectOnly)
				w.wantShares(t, counts, w.evenly())
				if got := sum(counts); got != done {
					t.Errorf("the servers ran %d reads for %d of pgbench's", got, done)
				}
			})
		}
	}
	if n := w.refusals(t) - before; n != 0 {
		t.Errorf("standbys refused %d statements", n)
	}
}

func TestPgbenchWith500Clients(t *testing.T) {
	long(t)
	w := sharedWorld(t)
	for _, protocol := range []string{"simple", "extended", "prepared"} {
		t.Run(protocol, func(t *testing.T) {
			w.forgetCalls(t)
			pgbench(w.through(), "-n", "-S", "-M", protocol, "-c", "500", "-j", "2", "-T", "20").run(t)
			w.wantShares(t, w.calls(t, selectOnly), w.evenly())
		})
	}
}

func sum(counts map[string]int) int {
	n := 0
	for _, c := range counts {
		n += c
	}
	return n
}
