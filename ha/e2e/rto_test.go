package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
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
	Preset    string    `json:"preset"`
	Event     string    `json:"event"`
	Load      string    `json:"load"` // average of the machine's last minute, at the event

	Outage float64 `json:"outage_ms"` // no client's write was acknowledged
	Phases []phase `json:"phases"`    // one after the other, from the event on

	Acknowledged int            `json:"acknowledged"`
	Refused      int            `json:"refused"`
	Unknown      int            `json:"unknown"`
	Lost         int            `json:"lost_rows"`
	Twice        int            `json:"rows_twice"`
	IdleLost     int            `json:"idle_lost"`
	BusyLost     int            `json:"busy_lost"`
	Codes        map[string]int `json:"errors,omitempty"`
}

type phase struct {
	Name string  `json:"name"`
	Took float64 `json:"ms"`
}

func newFigure(contender, preset, event string, r Report) figure {
	return figure{
		At: r.Event.UTC().Truncate(time.Second), Contender: contender, Preset: preset, Event: event, Load: loadAverage(),
		Outage: ms(r.Outage), Acknowledged: r.Acknowledged, Refused: r.Refused, Unknown: r.Unknown,
		Lost: len(r.Lost), Twice: len(r.Twice), IdleLost: r.IdleLost, BusyLost: r.BusyLost, Codes: r.Codes,
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

// The events that are measured. Off says that the host must be powered on again.
type event struct {
	Name string
	Make func(n *Node)
	Off  bool
	// Leader says that the host carries the fleet's leader, too.
	Leader bool
}

var (
	crash    = event{Name: "crash of the primary's processes", Make: (*Node).Kill}
	powerOff = event{Name: "power-off of the primary's host", Make: func(n *Node) { n.PowerOff() }, Off: true}
	// Patroni's etcd has a leader as well; where that is is left to chance.
	powerOffWithLeader = event{Name: "power-off of the host of primary and leader", Make: powerOff.Make, Off: true, Leader: true}
)

func TestRTOPatroni(t *testing.T) {
	n := runs(t)
	needs(t)
	needsPatroni(t)
	noRestart := func(p patroniPreset) patroniPreset {
		p.Name, p.PrimaryStartTimeout = p.Name+", primary_start_timeout 0", 0
		return p
	}
	for _, c := range []struct {
		preset patroniPreset
		events []event
	}{
		{patroniDefaults, []event{crash, powerOff}},
		{noRestart(patroniDefaults), []event{crash}},
		{patroniFastest, []event{crash, powerOff}},
		{noRestart(patroniFastest), []event{crash}},
		{patroniBelow, []event{powerOff}},
	} {
		t.Run(c.preset.Name, func(t *testing.T) {
			l := New(t, Options{Hosts: []string{"p1", "p2", "p3", "c1"}})
			p := newPatroni(l, c.preset, l.Host("p1"), l.Host("p2"), l.Host("p3"))
			t.Cleanup(func() {
				if t.Failed() {
					t.Log(p.logs())
				}
			})
			for _, e := range c.events {
				for range n {
					p.measure(t, e)
				}
			}
		})
	}
}

// measure is one run: the event comes at any moment of Patroni's loop.
func (p *patroni) measure(t *testing.T, e event) {
	t.Helper()
	former := p.awaitWhole(5 * time.Minute)
	run := begin(t, p.lab.Host("c1"), usual(p.way()), former, p.nodes)
	pause(t.Context(), time.Second+rand.N(time.Duration(p.preset.LoopWait)*time.Second))
	at := time.Now()
	e.Make(former)
	// The clients have their answer, and go on for a while.
	awaitFor(t, 3*time.Minute, "writes after "+e.Name, func(context.Context) bool {
		return run.ledger.acknowledged(time.Now().Add(-time.Second)) > 50 && time.Since(at) > 3*time.Second
	})
	now := writable(t.Context(), p.nodes)
	if now == nil {
		t.Fatalf("after %s there is no single primary", e.Name)
	}
	report := run.finish(t, at, now)
	f := newFigure("Patroni 3.0.2", p.preset.Name, e.Name, report)
	if promoted, ok := run.watch.promoted(former, at); ok {
		found := max(0, report.Ended.Sub(promoted)) // a client may see it before the observer does
		f.Phases = []phase{{"another node takes writes", ms(report.SinceEvent - found)}, {"clients have found it", ms(found)}}
	} else {
		f.Phases = []phase{{"the same node takes writes again", ms(report.SinceEvent)}}
	}
	f.keep(t)
	t.Logf("%s, %s: %s", p.preset.Name, e.Name, report)
	if e.Off {
		former.PowerOn()
		p.start(former)
	}
}

// The product's presets and the events that are measured with each.
func TestRTO(t *testing.T) {
	n := runs(t)
	for _, c := range []struct {
		preset string
		layout Layout
		events []event
	}{
		{"defaults", Layout{Operation: map[string]string{"anti_flap": `"0s"`}}, []event{crash, powerOff, powerOffWithLeader}},
		{"on_crash failover", Layout{Operation: map[string]string{"anti_flap": `"0s"`, "on_crash": `"failover"`}}, []event{crash}},
	} {
		t.Run(c.preset, func(t *testing.T) {
			_, f := three(t, c.layout)
			for _, e := range append(c.events, f.switchover()) {
				for range n {
					f.measure(t, c.preset, e)
				}
			}
		})
	}
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

// measure is one run: the event comes at any moment between two probes.
func (f *Fleet) measure(t *testing.T, preset string, e event) {
	t.Helper()
	former := f.awaitWhole(t, 3*time.Minute)
	other := f.members[0]
	if other.Host == former.Host {
		other = f.members[1]
	}
	leader := other
	if e.Leader {
		leader = f.memberOn(former.Host)
	}
	f.awaitLeader(t, leader)
	run := begin(t, f.lab.Host("c1"), usual(f.way(other)), former, f.nodes)
	pause(t.Context(), time.Second+rand.N(time.Second))
	at := time.Now()
	e.Make(former)
	awaitFor(t, time.Minute, "writes after "+e.Name, func(context.Context) bool {
		return run.ledger.acknowledged(time.Now().Add(-time.Second)) > 50 && time.Since(at) > 3*time.Second
	})
	now := writable(t.Context(), f.nodes)
	if now == nil {
		t.Fatalf("after %s there is no single primary", e.Name)
	}
	report := run.finish(t, at, now)
	got := newFigure("cstproxy", preset, e.Name, report)
	got.Phases = phases(f.log(at), at, report.Ended)
	got.keep(t)
	t.Logf("%s, %s: %s", preset, e.Name, report)
	if e.Off {
		former.PowerOn()
		f.memberOn(former.Host).Start()
	}
}
