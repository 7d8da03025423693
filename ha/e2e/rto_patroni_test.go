package e2e

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"
)

// The events that are measured. Off says that the host must be powered on again.
type event struct {
	Name string
	Make func(n *Node)
	Off  bool
}

var (
	crash    = event{Name: "crash of the primary's processes", Make: (*Node).Kill}
	powerOff = event{Name: "power-off of the primary's host", Make: func(n *Node) { n.PowerOff() }, Off: true}
)

const patroniContender = "Patroni 3.0.2"

func TestRTOPatroni(t *testing.T) {
	n := runs(t)
	needs(t)
	needsPatroni(t)
	done := measured(t, patroniContender)
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
				for range n - done[c.preset.Name+", "+e.Name] {
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
	f := newFigure(patroniContender, p.preset.Name, e.Name, report)
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
