package main

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// tell writes the figures as Markdown.
func tell(out io.Writer, runs []run, groups []group) {
	head(out, runs)
	outages(out, groups)
	clients(out, groups)
	parts(out, table{"Phases of the outage, in seconds.", "phase", group.phases}, groups)
	parts(out, table{"What else was awaited, in seconds.", "what", group.marks}, groups)
	kept(out, groups)
	flaws(out, runs)
}

// head says when, where and with what this was measured.
func head(out io.Writer, runs []run) {
	first, last, low, high := runs[0].At, runs[0].At, math.Inf(1), math.Inf(-1)
	var machines, servers, versions, timings []string
	add := func(list *[]string, text string) {
		if text != "" && !slices.Contains(*list, text) {
			*list = append(*list, text)
		}
	}
	failed := 0
	for _, r := range runs {
		if r.At.Before(first) {
			first = r.At
		}
		if r.At.After(last) {
			last = r.At
		}
		if load, err := strconv.ParseFloat(r.Load, 64); err == nil {
			low, high = min(low, load), max(high, load)
		}
		if r.Failed != "" {
			failed++
		}
		add(&machines, r.Machine)
		add(&servers, r.Postgres)
		add(&versions, r.Version)
		if r.Timing != "" {
			add(&timings, fmt.Sprintf("%s: %s", r.Preset, r.Timing))
		}
	}
	until := last.Format("15:04")
	if first.YearDay() != last.YearDay() {
		until = last.Format("2006-01-02 15:04")
	}
	fmt.Fprintf(out, "%d runs from %s to %s UTC, %d of them failed; load average %.1f to %.1f.\n", len(runs), first.Format("2006-01-02 15:04"), until, failed, low, high)
	for _, fact := range []struct {
		name string
		said []string
	}{{"Machine", machines}, {"PostgreSQL", servers}, {"Version", versions}, {"Preset", timings}} {
		for _, text := range fact.said {
			fmt.Fprintf(out, "%s: %s.\n", fact.name, text)
		}
	}
}

func outages(out io.Writer, groups []group) {
	fmt.Fprintln(out, "\nSeconds without an acknowledged write of any client, and the longest that one write waited.")
	fmt.Fprintln(out, "\n| event | with | runs | failed | min | median | p95 | max | longest wait, median | max | by the write address, median | max |")
	fmt.Fprintln(out, "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
	for _, g := range groups {
		good := g.good()
		fmt.Fprintf(out, "| %s | %s | %d | %d |", cell(g.Event), cell(g.title()), len(g.Runs), len(g.Runs)-len(good))
		if len(good) == 0 {
			fmt.Fprintln(out, strings.Repeat(" |", 8))
			continue
		}
		s := g.outage()
		fmt.Fprintf(out, " %.2f | %.2f | %.2f | %.2f |", s.Min, s.Median, s.P95, s.Max)
		for _, value := range []func(run) float64{
			func(r run) float64 { return r.Longest },
			func(r run) float64 {
				if r.Address == nil {
					return 0
				}
				return r.Address.Outage
			},
		} {
			if s := g.of(value); s.Max > 0 {
				fmt.Fprintf(out, " %.2f | %.2f |", s.Median, s.Max)
			} else {
				fmt.Fprint(out, " | |")
			}
		}
		fmt.Fprintln(out)
	}
}

func clients(out io.Writer, groups []group) {
	fmt.Fprintln(out, "\nWhat clients were told, in all runs together.")
	fmt.Fprintln(out, "\n| event | with | acknowledged | refused | unknown | acknowledged rows lost | twice | acknowledged by the former primary | idle cut | busy cut | pinned cut | errors |")
	fmt.Fprintln(out, "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|")
	for _, g := range groups {
		codes := map[string]int{}
		for _, r := range g.Runs {
			for code, n := range r.Codes {
				codes[code] += n
			}
		}
		var list []string
		for _, code := range slices.Sorted(maps.Keys(codes)) {
			list = append(list, fmt.Sprintf("%s × %d", code, codes[code]))
		}
		fmt.Fprintf(out, "| %s | %s |", cell(g.Event), cell(g.title()))
		for _, of := range []func(run) int{
			func(r run) int { return r.Acknowledged }, func(r run) int { return r.Refused }, func(r run) int { return r.Unknown },
			func(r run) int { return r.Lost }, func(r run) int { return r.Twice }, func(r run) int { return r.Stale },
			func(r run) int { return r.IdleLost }, func(r run) int { return r.BusyLost }, func(r run) int { return r.PinnedLost },
		} {
			fmt.Fprintf(out, " %d |", g.sum(of))
		}
		fmt.Fprintf(out, " %s |\n", strings.Join(list, ", "))
	}
}

// table is of named durations of each group.
type table struct {
	about, column string
	of            func(group) (names []string, took []spread)
}

func parts(out io.Writer, t table, groups []group) {
	var b strings.Builder
	for _, g := range groups {
		names, took := t.of(g)
		for i, name := range names {
			fmt.Fprintf(&b, "| %s | %s | %s | %.2f | %.2f | %.2f | %.2f |\n", cell(g.Event), cell(g.title()), cell(name), took[i].Min, took[i].Median, took[i].P95, took[i].Max)
		}
	}
	if b.Len() > 0 {
		fmt.Fprintf(out, "\n%s\n\n| event | with | %s | min | median | p95 | max |\n|---|---|---|--:|--:|--:|--:|\n%s", t.about, t.column, b.String())
	}
}

// kept says how much log that the new primary does not have was saved from the old one.
func kept(out io.Writer, groups []group) {
	for _, g := range groups {
		tail, data := g.of(func(r run) float64 { return float64(r.Tail) }), g.of(func(r run) float64 { return float64(r.Data) })
		if tail.Max > 0 {
			fmt.Fprintf(out, "\n%s, %s: %.0f to %.0f MB of log saved from the old primary, of %.0f MB of data.\n", g.Event, g.title(), tail.Min/1000, tail.Max/1000, 1000*data.Max)
		}
	}
}

// flaws are the runs that have no figures, or that broke a promise.
func flaws(out io.Writer, runs []run) {
	first := true
	say := func(r run, what string) {
		if first {
			fmt.Fprint(out, "\nFailed runs and broken promises:\n\n")
			first = false
		}
		fmt.Fprintf(out, "* %s, %s, %s, load %s: %s\n", r.At.Format("15:04:05"), r.Preset, r.Event, r.Load, what)
	}
	for _, r := range runs {
		if r.Failed != "" {
			say(r, "waited in vain for "+r.Failed)
		}
		for _, promise := range r.Broken {
			say(r, promise)
		}
	}
}

// cell is text for a table of Markdown.
func cell(text string) string { return strings.ReplaceAll(text, "|", "\\|") }
