package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// runs is how often each event is measured; 0, as in ordinary test runs: not at all.
func runs(t *testing.T) int {
	t.Helper()
	text := os.Getenv("CST_RTO")
	if text == "" {
		t.Skip("this measures for many minutes: make rto")
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("CST_RTO is %q, not a number of runs", text)
	}
	return n
}

// figure is one run, as a line of JSON that bench/rto reads. Durations are in milliseconds.
type figure struct {
	At        time.Time `json:"at"`
	Contender string    `json:"contender"`
	Version   string    `json:"version,omitempty"`
	Machine   string    `json:"machine,omitempty"`  // processors and kernel
	Postgres  string    `json:"postgres,omitempty"` // version
	Preset    string    `json:"preset"`
	Timing    string    `json:"timing,omitempty"` // the settings that decide how long things take
	Event     string    `json:"event"`
	Load      string    `json:"load"`             // average of the machine's last minute, at the event
	Failed    string    `json:"failed,omitempty"` // what was waited for in vain; the rest is not there

	Outage  float64 `json:"outage_ms"`            // no client's write was acknowledged
	Longest float64 `json:"longest_ms,omitempty"` // that one write waited for its answer
	Rate    float64 `json:"rate,omitempty"`       // acknowledged writes per second before the event
	Phases  []phase `json:"phases"`               // of the outage, one after the other
	Marks   []phase `json:"marks,omitempty"`      // what else was awaited, each on its own

	Acknowledged int            `json:"acknowledged"`
	Refused      int            `json:"refused"`
	Unknown      int            `json:"unknown"`
	Lost         int            `json:"lost_rows"`
	Twice        int            `json:"rows_twice"`
	Stale        int            `json:"stale_acks"` // by the former primary, after the new epoch began
	IdleLost     int            `json:"idle_lost"`
	BusyLost     int            `json:"busy_lost"`
	PinnedLost   int            `json:"pinned_lost"`
	Codes        map[string]int `json:"errors,omitempty"`
	// Address is what clients that know only the write address were told; nil where there were none.
	Address *addressed `json:"address,omitempty"`
	Broken  []string   `json:"broken,omitempty"` // promises
	Tail    int64      `json:"tail_bytes,omitempty"`
	Data    int64      `json:"data_mb,omitempty"`
}

// addressed are clients past the members: the servers answer them, nobody gates that.
type addressed struct {
	Outage float64 `json:"outage_ms"`
	Lost   int     `json:"lost_rows"`
	Stale  int     `json:"stale_acks"`
}

type phase struct {
	Name string  `json:"name"`
	Took float64 `json:"ms"`
}

func newFigure(contender, preset, event string, r Report) figure {
	return figure{
		At: r.Event.UTC().Truncate(time.Second), Contender: contender, Preset: preset, Event: event, Load: loadAverage(),
		Outage: ms(r.Outage), Longest: ms(r.Slowest), Machine: machine(), Acknowledged: r.Acknowledged, Refused: r.Refused, Unknown: r.Unknown,
		Lost: len(r.Lost), Twice: len(r.Twice), IdleLost: r.IdleLost, BusyLost: r.BusyLost, PinnedLost: r.PinnedLost, Codes: r.Codes,
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()/100) / 10 }

func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "?"
	}
	first, _, _ := strings.Cut(string(text), " ")
	return first
}

func machine() string {
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return fmt.Sprint(runtime.NumCPU(), " cores")
	}
	return fmt.Sprintf("%d cores, Linux %s", runtime.NumCPU(), strings.TrimSpace(string(kernel)))
}

// keep appends the run to the file that CST_RTO_OUT names.
func (f figure) keep(t *testing.T) {
	t.Helper()
	line, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	name := os.Getenv("CST_RTO_OUT")
	if name == "" {
		t.Logf("%s", line)
		return
	}
	file, err := os.OpenFile(filepath.Clean(name), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(file, "%s\n", line); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
}

// usual is the load under which failovers are measured.
func usual(w Way) Load {
	return Load{Way: w, Writers: 4, Pause: 10 * time.Millisecond, Idle: 10}
}

// switchover is an operator's order to make the next node the primary.
func (f *Fleet) switchover() event {
	return event{Name: "switchover", Make: func(former *Node) {
		f.lab.t.Helper()
		for i, n := range f.nodes {
			if n == former {
				next := f.nodes[(i+1)%len(f.nodes)]
				if said, err := f.members[0].ctl(f.lab.t.Context(), "switch", "-i", fmt.Sprint(next.ID()), "--yes"); err != nil {
					f.lab.t.Fatalf("switch to %s: %v\n%s", next.Name, err, said)
				}
			}
		}
	}}
}
