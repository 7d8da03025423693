package e2e

import "time"

// milestones are what the members' logs tell of a failover, in this order. The first line after the
// event that fits counts.
var milestones = []struct {
	Name string
	Fits func(line) bool
}{
	{"noticed by enough voters", step("intent")},
	{"writes held", step("freeze")},
	{"standbys cut off, leases over", step("promote")},
	{"promoted and agreed", func(l line) bool { return l.Msg == "epoch begins" }},
}

func step(name string) func(line) bool {
	return func(l line) bool {
		return l.Msg == "step" && (l.Kind == "failover" || l.Kind == "switch") && l.Step == name
	}
}

// phases are the parts of a failover: what each took, from the event on to the end of the outage.
func phases(log []line, event, ended time.Time) []phase {
	var parts []phase
	last := event
	for _, m := range milestones {
		for _, l := range log {
			if l.Time.After(event) && m.Fits(l) {
				parts = append(parts, phase{m.Name, ms(l.Time.Sub(last))})
				last = l.Time
				break
			}
		}
	}
	if len(parts) == 0 {
		return []phase{{"the same node takes writes again", ms(ended.Sub(event))}}
	}
	return append(parts, phase{"clients write again", ms(ended.Sub(last))})
}
