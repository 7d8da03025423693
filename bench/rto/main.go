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
	"strconv"
	"strings"
	"time"
)

// run is one measured event; see figure in ha/e2e.
type run struct {
	At        time.Time `json:"at"`
	Contender string    `json:"contender"`
	Preset    string    `json:"preset"`
	Event     string    `json:"event"`
	Load      string    `json:"load"`
	Outage    float64   `json:"outage_ms"`
	Phases    []phase   `json:"phases"`

	Acknowledged int `json:"acknowledged"`
	Refused      int `json:"refused"`
	Unknown      int `json:"unknown"`
	Lost         int `json:"lost_rows"`
	Twice        int `json:"rows_twice"`
	IdleLost     int `json:"idle_lost"`
	BusyLost     int `json:"busy_lost"`
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
	at := func(q float64) float64 { return ms[min(len(ms)-1, int(q*float64(len(ms))))] / 1000 }
	return spread{ms[0] / 1000, at(0.5), at(0.95), ms[len(ms)-1] / 1000}
}

func (g group) outage() spread {
	var ms []float64
	for _, r := range g.Runs {
		ms = append(ms, r.Outage)
	}
	return spreadOf(ms)
}

// phases are the distributions of the parts, for the parts that more than half of the runs have.
func (g group) phases() (names []string, took []spread) {
	all := map[string][]float64{}
	for _, r := range g.Runs {
		for _, p := range r.Phases {
			if all[p.Name] == nil {
				names = append(names, p.Name)
			}
			all[p.Name] = append(all[p.Name], p.Took)
		}
	}
	names = slices.DeleteFunc(names, func(name string) bool { return 2*len(all[name]) <= len(g.Runs) })
	for _, name := range names {
		took = append(took, spreadOf(all[name]))
	}
	return names, took
}

func (g group) sum(of func(run) int) (total int) {
	for _, r := range g.Runs {
		total += of(r)
	}
	return total
}

// tell writes the figures as Markdown.
func tell(out io.Writer, runs []run, groups []group) {
	first, last, low, high := runs[0].At, runs[0].At, 0.0, 0.0
	for i, r := range runs {
		if r.At.Before(first) {
			first = r.At
		}
		if r.At.After(last) {
			last = r.At
		}
		load, _ := strconv.ParseFloat(r.Load, 64) // "?" counts as none
		if low = min(low, load); i == 0 {
			low = load
		}
		high = max(high, load)
	}
	fmt.Fprintf(out, "%d runs from %s to %s UTC, load average %.1f to %.1f. Seconds without an acknowledged write of any client.\n\n",
		len(runs), first.Format("2006-01-02 15:04"), last.Format("15:04"), low, high)
	fmt.Fprintln(out, "| event | with | runs | min | median | p95 | max | idle clients cut | busy clients cut | unknown | acknowledged rows lost |")
	fmt.Fprintln(out, "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
	for _, g := range groups {
		s := g.outage()
		fmt.Fprintf(out, "| %s | %s, %s | %d | %.2f | %.2f | %.2f | %.2f | %d | %d | %d | %d |\n", g.Event, g.Contender, g.Preset, len(g.Runs), s.Min, s.Median, s.P95, s.Max,
			g.sum(func(r run) int { return r.IdleLost }), g.sum(func(r run) int { return r.BusyLost }), g.sum(func(r run) int { return r.Unknown }),
			g.sum(func(r run) int { return r.Lost }))
	}
	fmt.Fprintln(out, "\n| event | with | phase | min | median | p95 | max |\n|---|---|---|--:|--:|--:|--:|")
	for _, g := range groups {
		names, took := g.phases()
		for i, name := range names {
			fmt.Fprintf(out, "| %s | %s, %s | %s | %.2f | %.2f | %.2f | %.2f |\n", g.Event, g.Contender, g.Preset, name, took[i].Min, took[i].Median, took[i].P95, took[i].Max)
		}
	}
}

// title is what a bar of the chart is about.
func (g group) title() string { return strings.Join([]string{g.Contender, g.Preset}, ", ") }
