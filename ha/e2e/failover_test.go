package e2e

import (
	"context"
	"testing"
	"time"
)

// three is the layout that most users have: three hosts, each with a member and a server.
func three(t *testing.T, more Layout) (*Lab, *Fleet) {
	t.Helper()
	l := New(t, Options{Hosts: []string{"m1", "m2", "m3", "c1"}})
	hosts := []*Host{l.Host("m1"), l.Host("m2"), l.Host("m3")}
	more.Members, more.Nodes = hosts, l.Postgres(nil, hosts...)
	return l, newFleet(l, more)
}

func TestAPrimaryWhoseHostLosesItsPowerIsReplaced(t *testing.T) {
	l, f := three(t, Layout{Cluster: map[string]string{"write_vip": `"10.77.0.100/24"`}})
	former := f.awaitWhole(t, patience)
	load := usual(f.way(f.members[1]))
	load.Readers, load.Pinned = 2, 2
	run := begin(t, l.Host("c1"), load, former, f.nodes)
	event := time.Now()
	former.PowerOff()
	await(t, "writes after the power-off", func(context.Context) bool {
		promoted, ok := run.watch.promoted(former, event)
		return ok && run.ledger.acknowledged(promoted.Add(time.Second)) > 50
	})
	x := &trace{fleet: f, run: run, event: event, report: run.finish(t, event, writable(t.Context(), f.nodes))}
	t.Log(x.report)
	x.check(t, always...)
	x.check(t, idleClientsStay)
	former.PowerOn()
	f.memberOn(former.Host).Start()
	f.awaitWhole(t, 2*time.Minute)
	x.check(t, operationsEnd, epochsRise)
}

func TestASwitchoverCostsNoClientMoreThanAPause(t *testing.T) {
	l, f := three(t, Layout{Cluster: map[string]string{"write_vip": `"10.77.0.100/24"`}})
	former := f.awaitWhole(t, patience)
	load := usual(f.way(f.members[1]))
	load.Readers = 2
	run := begin(t, l.Host("c1"), load, former, f.nodes)
	event := time.Now()
	f.switchover().Make(former)
	now := f.awaitWhole(t, patience)
	await(t, "writes after the switchover", func(context.Context) bool { return run.ledger.acknowledged(time.Now().Add(-time.Second)) > 50 })
	if now == former {
		t.Errorf("%s is still the primary", former.Name)
	}
	x := &trace{fleet: f, run: run, event: event, report: run.finish(t, event, now)}
	t.Log(x.report)
	x.check(t, always...)
	x.check(t, nothingIsLost, idleClientsStay, operationsEnd)
	if n := x.report.Refused + x.report.Unknown + x.report.BusyLost; n > 0 {
		t.Errorf("clients were told of %d failures: %v", n, x.report.Codes)
	}
}

func TestAPrimaryThatCrashesIsStartedAgain(t *testing.T) {
	l, f := three(t, Layout{})
	former := f.awaitWhole(t, patience)
	run := begin(t, l.Host("c1"), usual(f.way(f.members[1])), former, f.nodes)
	event := time.Now()
	former.Kill()
	now := f.awaitWhole(t, patience)
	await(t, "writes after the crash", func(context.Context) bool { return run.ledger.acknowledged(time.Now().Add(-time.Second)) > 50 })
	if now != former {
		t.Errorf("%s is the primary, not %s", now.Name, former.Name)
	}
	x := &trace{fleet: f, run: run, event: event, report: run.finish(t, event, now)}
	t.Log(x.report)
	x.check(t, always...)
	x.check(t, nothingIsLost, epochUnchanged, idleClientsStay, operationsEnd)
}
