package demo

import (
	"strings"
	"testing"
	"time"
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
