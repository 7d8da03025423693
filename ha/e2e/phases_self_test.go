package e2e

import (
	"reflect"
	"testing"
	"time"
)

// Every member logs the steps, each a bit later; a failover may be the second attempt.
func TestPhasesAreTheStepsOfTheFailoverThatEndedTheOutage(t *testing.T) {
	event := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(ms int) time.Time { return event.Add(time.Duration(ms) * time.Millisecond) }
	step := func(after int, operation uint64, kind, name string) line {
		return line{Time: at(after), Msg: "step", Kind: kind, Step: name, Operation: operation}
	}
	done := func(after int, operation uint64, verb string) line {
		return line{Time: at(after), Msg: "action done", Verb: verb, Operation: operation}
	}
	log := []line{
		step(-100, 1, "failover", "promote"),
		step(300, 2, "failover", "intent"), step(310, 2, "failover", "intent"), step(400, 2, "failover", "freeze"), step(500, 2, "failover", "undo"),
		step(900, 3, "failover", "intent"), step(1000, 3, "failover", "freeze"), step(1030, 3, "failover", "freeze"),
		done(1200, 3, "recruit"), done(1300, 3, "recruit"), step(2500, 3, "failover", "promote"), step(2530, 3, "failover", "promote"),
		done(2600, 3, "recruit"), done(2900, 3, "promote"),
		{Time: at(2950), Msg: "epoch begins"}, {Time: at(2990), Msg: "epoch begins"}, step(9000, 4, "switch", "promote"),
	}
	want := []phase{
		{"noticed by enough voters", 300}, {"an attempt was given up", 600}, {"writes held", 100}, {"standbys cut off", 300},
		{"leases over, candidate chosen", 1200}, {"promoted", 400}, {"agreed and published", 50}, {"clients write again", 50},
	}
	if got := phases(log, event, at(3000)); !reflect.DeepEqual(got, want) {
		t.Errorf("the phases are %v", got)
	}
	// What is over when the outage begins is no part of it.
	want = append([]phase{{"standbys cut off", 200}}, want[4:]...)
	if got := phasesFrom(log, event, at(1100), at(3000)); !reflect.DeepEqual(got, want) {
		t.Errorf("the phases since the outage began are %v", got)
	}
	want = []phase{{"the same node takes writes again", 250}}
	if got := phases(log, event, at(250)); !reflect.DeepEqual(got, want) {
		t.Errorf("the phases of a restart are %v", got)
	}
}

func TestTimingIsWhatTheConfigurationShows(t *testing.T) {
	const said = "cluster[main].operation.on_crash                  \"restart\"\nfleet.lease          \"1.5s\"\nfleet.leader_lease   \"350ms\"\nproxy.listen \"x\"\n"
	if got := timing(said); got != "on_crash restart, fleet.lease 1.5s, fleet.leader_lease 350ms" {
		t.Errorf("the settings are %q", got)
	}
}
