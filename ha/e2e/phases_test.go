package e2e

import (
	"slices"
	"time"
)

func step(name string) func(line) bool {
	return func(l line) bool {
		return l.Msg == "step" && (l.Kind == "failover" || l.Kind == "switch") && l.Step == name
	}
}

// phases are the parts of a failover: what each took, from the event on to the end of the outage.
func phases(log []line, event, ended time.Time) []phase {
	return phasesFrom(log, event, event, ended)
}

// phasesFrom are the parts of an outage that began with the event or, as in a switchover, later: what
// was over before it began is no part of it.
func phasesFrom(log []line, event, began, ended time.Time) []phase {
	last := event
	if began.After(event) {
		last = began
	}
	milestones := milestones(log, event, ended)
	if len(milestones) == 0 {
		return []phase{{"the same node takes writes again", ms(ended.Sub(last))}}
	}
	var parts []phase
	for _, m := range append(milestones, milestone{"clients write again", ended}) {
		if m.at.After(last) {
			parts = append(parts, phase{m.name, ms(m.at.Sub(last))})
			last = m.at
		}
	}
	return parts
}

// milestone is the end of a phase.
type milestone struct {
	name string
	at   time.Time
}

// milestones are what the members' logs tell of the failover or switchover that ended the outage.
func milestones(log []line, event, ended time.Time) []milestone {
	log = slices.DeleteFunc(slices.Clone(log), func(l line) bool { return !l.Time.After(event) || l.Time.After(ended) })
	var found []milestone
	add := func(name string, fits func(line) bool) line {
		i := slices.IndexFunc(log, fits)
		if i < 0 {
			return line{}
		}
		found = append(found, milestone{name, log[i].Time})
		return log[i]
	}
	last := func(fits func(line) bool) (line, bool) {
		for _, l := range slices.Backward(log) {
			if fits(l) {
				return l, true
			}
		}
		return line{}, false
	}
	deciding, ok := last(step("promote"))
	if !ok {
		return nil
	}
	of := func(fits func(line) bool) func(line) bool {
		return func(l line) bool { return l.Operation == deciding.Operation && fits(l) }
	}
	// The steps are logged by every member, as it hears of them: the first is the leader's word.
	promote := log[slices.IndexFunc(log, of(step("promote")))]
	done := func(verb string) func(line) bool {
		return of(func(l line) bool { return l.Msg == "action done" && l.Verb == verb })
	}
	first := add("noticed by enough voters", step("intent"))
	if first.Operation != promote.Operation {
		add("an attempt was given up", of(step("intent")))
	}
	add("writes held", of(step("freeze")))
	log = slices.DeleteFunc(log, func(l line) bool { return l.Msg == "action done" && l.Verb != "promote" && l.Time.After(promote.Time) })
	if fenced, ok := last(done("recruit")); ok && promote.Kind == "failover" {
		found = append(found, milestone{"standbys cut off", fenced.Time})
	}
	if stopped, ok := last(done("stop")); ok && promote.Kind == "switch" {
		found = append(found, milestone{"old primary shut down", stopped.Time})
	}
	add("leases over, candidate chosen", of(step("promote")))
	add("promoted", done("promote"))
	add("agreed and published", func(l line) bool { return l.Msg == "epoch begins" && !l.Time.Before(promote.Time) })
	return found
}
