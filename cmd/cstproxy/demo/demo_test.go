package demo

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

func TestSharesAreDrawnToScale(t *testing.T) {
	for _, c := range []struct {
		part, whole int
		want        string
	}{
		{0, 0, ""},
		{1, 2, strings.Repeat("█", 10) + strings.Repeat(" ", 10) + "  50 %"},
		{200, 200, strings.Repeat("█", 20) + " 100 %"},
		{0, 9, strings.Repeat(" ", 20) + "   0 %"},
	} {
		if got := bar(c.part, c.whole); got != c.want {
			t.Errorf("bar(%d, %d) = %q, want %q", c.part, c.whole, got, c.want)
		}
	}
}

func TestATallySinceAnotherCountsOnlyWhatIsNew(t *testing.T) {
	before := tally{Reads: map[string]int{"a": 3}, Writes: map[string]int{}, Errors: 1}
	now := tally{Reads: map[string]int{"a": 5, "b": 2}, Writes: map[string]int{"a": 1}, Errors: 4}
	if got := now.since(before).String(); got != "a 2 reads, b 2 reads, a 1 writes, 3 errors" {
		t.Errorf("since: %s", got)
	}
	if got := now.since(tally{}); sum(got.Reads) != 7 {
		t.Errorf("since nothing: %v", got)
	}
}

func TestAWriteThatIsRepeatedKeepsItsNumberAndItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLoad("", nil)
		if n := l.begin(7); n != 1 {
			t.Errorf("the first number is %d", n)
		}
		<-time.After(time.Second)
		l.failed(errStale, 1)
		if n, waits := l.begin(7), l.waiting(); n != 1 || waits != time.Second {
			t.Errorf("number %d after an error, waiting for %s", n, waits)
		}
		<-time.After(time.Second)
		l.wrote(7, "a")
		total, _, _ := l.now()
		if total.Lost != 1 || total.Writes["a"] != 1 || l.receipts()[7] != 1 || l.waiting() != 0 {
			t.Errorf("%+v, receipts %v", total, l.receipts())
		}
		if waited := l.waited(); waited != 2*time.Second || l.waited() != 0 {
			t.Errorf("waited %s", waited)
		}
	})
}

func TestOnlyWhatAFailoverDidIsRepeated(t *testing.T) {
	for code, want := range map[string]bool{"40001": true, "08007": true, "57P01": false, "23505": false} {
		if got := repeatable(fmt.Errorf("write: %w", &pgconn.PgError{Code: code})); got != want {
			t.Errorf("%s: %v", code, got)
		}
	}
	if repeatable(io.ErrUnexpectedEOF) {
		t.Error("a lost connection is no answer")
	}
}

func TestALossTellsWhatItCost(t *testing.T) {
	l := loss{successor: "node2", waited: 1100 * time.Millisecond, acked: 500}
	if got := l.String(); got != "node2 took over: writes waited 1.1 s at most, 0 connections lost, 0 of 500 acknowledged rows missing" {
		t.Error(got)
	}
	l.seen, l.missing = tally{Errors: 3, Lost: 2, Repeats: 1}, 4
	if got := l.String(); !strings.HasSuffix(got, "2 connections lost, 4 of 500 acknowledged rows missing, 1 transactions repeated, 3 errors") {
		t.Error(got)
	}
}

func TestQuantilesAreOfTheSortedTimes(t *testing.T) {
	spent := []time.Duration{4 * time.Millisecond, time.Millisecond, 3 * time.Millisecond, 2 * time.Millisecond}
	if p50, p99 := quantile(spent, 0.5), quantile(spent, 1); p50 != 2 || p99 != 4 {
		t.Errorf("p50 %v, p100 %v", p50, p99)
	}
	if quantile(nil, 0.5) != 0 {
		t.Error("no times have a quantile")
	}
}

func TestAnImpossibleDemoIsRefused(t *testing.T) {
	cfg := DefaultConfig()
	if err := cfg.Validate(); err != nil {
		t.Errorf("the default: %v", err)
	}
	cfg.Standbys, cfg.Port = 1, 0
	if err := cfg.Validate(); err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("two problems: %v", err)
	}
}

func TestTheFirstEventsAreToldOnce(t *testing.T) {
	var e events
	e.add("one %d", 1)
	e.add("two")
	if lines := e.from(1); len(lines) != 1 || !strings.HasSuffix(lines[0], "two") {
		t.Errorf("from 1: %q", lines)
	}
	if lines := e.from(9); len(lines) != 0 {
		t.Errorf("from 9: %q", lines)
	}
}
