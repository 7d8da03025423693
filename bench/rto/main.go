// Command rto makes a table and a chart of what `make rto` has measured: how long clients could not
// write, in failovers and switchovers, of cstproxy and others. It reads lines of JSON, one for each
// run, as ha/e2e writes them. It imports nothing of ours.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// run is one measured event; see figure in ha/e2e.
type run struct {
	At        time.Time `json:"at"`
	Contender string    `json:"contender"`
	Version   string    `json:"version"`
	Machine   string    `json:"machine"`
	Postgres  string    `json:"postgres"`
	Preset    string    `json:"preset"`
	Timing    string    `json:"timing"`
	Event     string    `json:"event"`
	Load      string    `json:"load"`
	Failed    string    `json:"failed"` // what was waited for in vain; there are no figures then
	Outage    float64   `json:"outage_ms"`
	Longest   float64   `json:"longest_ms"`
	Rate      float64   `json:"rate"`
	Phases    []phase   `json:"phases"`
	Marks     []phase   `json:"marks"`

	Acknowledged int            `json:"acknowledged"`
	Refused      int            `json:"refused"`
	Unknown      int            `json:"unknown"`
	Lost         int            `json:"lost_rows"`
	Twice        int            `json:"rows_twice"`
	Stale        int            `json:"stale_acks"`
	IdleLost     int            `json:"idle_lost"`
	BusyLost     int            `json:"busy_lost"`
	PinnedLost   int            `json:"pinned_lost"`
	Codes        map[string]int `json:"errors"`
	Address      *struct {
		Outage float64 `json:"outage_ms"`
		Lost   int     `json:"lost_rows"`
		Stale  int     `json:"stale_acks"`
	} `json:"address"`
	Broken []string `json:"broken"`
	Tail   int64    `json:"tail_bytes"`
	Data   int64    `json:"data_mb"`
}

type phase struct {
	Name string  `json:"name"`
	Took float64 `json:"ms"`
}

// group is the runs of one event with one preset of one contender.
type group struct {
	Event, Contender, Preset string
	Runs                     []run
}

func main() {
	chart := flag.String("svg", "", "write the chart to this file")
	flag.Parse()
	if err := report(os.Stdout, *chart, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "rto:", err)
		os.Exit(1)
	}
}

func report(out io.Writer, chart string, files []string) error {
	var runs []run
	for _, name := range files {
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		more, err := read(file)
		_ = file.Close() // only read
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		runs = append(runs, more...)
	}
	if len(runs) == 0 {
		return fmt.Errorf("no runs in %d files", len(files))
	}
	groups := gather(runs)
	tell(out, runs, groups)
	if chart == "" {
		return nil
	}
	return os.WriteFile(chart, []byte(draw(groups)), 0o644)
}

func read(r io.Reader) ([]run, error) {
	var runs []run
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20) // a broken promise may name many rows
	for number := 1; lines.Scan(); number++ {
		var one run
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		runs = append(runs, one)
	}
	return runs, lines.Err()
}

// gather groups the runs: events in the order in which they appear, and within one the contenders.
func gather(runs []run) []group {
	var groups []group
	var events []string
	for _, r := range runs {
		if !slices.Contains(events, r.Event) {
			events = append(events, r.Event)
		}
		i := slices.IndexFunc(groups, func(g group) bool { return g.Event == r.Event && g.Contender == r.Contender && g.Preset == r.Preset })
		if i < 0 {
			groups, i = append(groups, group{r.Event, r.Contender, r.Preset, nil}), len(groups)
		}
		groups[i].Runs = append(groups[i].Runs, r)
	}
	slices.SortStableFunc(groups, func(a, b group) int { return slices.Index(events, a.Event) - slices.Index(events, b.Event) })
	return groups
}

// spread is the distribution of some milliseconds, in seconds.
type spread struct{ Min, Median, P95, Max float64 }

func spreadOf(ms []float64) spread {
	slices.Sort(ms)
	n := len(ms)
	p95 := ms[min(n-1, int(0.95*float64(n)))]
	return spread{ms[0] / 1000, (ms[(n-1)/2] + ms[n/2]) / 2000, p95 / 1000, ms[n-1] / 1000}
}

// good are the runs that have figures.
func (g group) good() []run {
	return slices.DeleteFunc(slices.Clone(g.Runs), func(r run) bool { return r.Failed != "" })
}

// of is the distribution of what the runs have of some value; there must be one that did not fail.
func (g group) of(value func(run) float64) spread {
	var ms []float64
	for _, r := range g.good() {
		ms = append(ms, value(r))
	}
	if len(ms) == 0 {
		return spread{}
	}
	return spreadOf(ms)
}

func (g group) outage() spread { return g.of(func(r run) float64 { return r.Outage }) }

// phases are the distributions of the parts, for the parts that more than half of the runs have.
func (g group) phases() (names []string, took []spread) {
	names, all := gatherPhases(g.good(), func(r run) []phase { return r.Phases })
	names = slices.DeleteFunc(names, func(name string) bool { return 2*len(all[name]) <= len(g.good()) })
	for _, name := range names {
		took = append(took, spreadOf(all[name]))
	}
	return names, took
}

// marks are the distributions of what else was awaited.
func (g group) marks() (names []string, took []spread) {
	names, all := gatherPhases(g.good(), func(r run) []phase { return r.Marks })
	for _, name := range names {
		took = append(took, spreadOf(all[name]))
	}
	return names, took
}

// gatherPhases are the milliseconds of each part, and the parts' names: each after those that come
// before it in a run.
func gatherPhases(runs []run, of func(run) []phase) (names []string, all map[string][]float64) {
	all = map[string][]float64{}
	for _, r := range runs {
		at := 0
		for _, p := range of(r) {
			if i := slices.Index(names, p.Name); i >= 0 {
				at = i + 1
			} else {
				names = slices.Insert(names, at, p.Name)
				at++
			}
			all[p.Name] = append(all[p.Name], p.Took)
		}
	}
	return names, all
}

func (g group) sum(of func(run) int) (total int) {
	for _, r := range g.Runs {
		total += of(r)
	}
	return total
}

// title is what a bar of the chart is about.
func (g group) title() string { return strings.Join([]string{g.Contender, g.Preset}, ", ") }
