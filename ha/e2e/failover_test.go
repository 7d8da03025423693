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
	l, f := three(t, Layout{})
	former := f.awaitWhole(t, patience)
	run := begin(t, l.Host("c1"), usual(f.way(f.members[1])), former, f.nodes)
	event := time.Now()
	former.PowerOff()
	await(t, "writes after the power-off", func(context.Context) bool {
		promoted, ok := run.watch.promoted(former, event)
		return ok && run.ledger.acknowledged(promoted.Add(time.Second)) > 50
	})
	report := run.finish(t, event, writable(t.Context(), f.nodes))
	t.Log(report)
	for _, line := range f.log(event.Add(-time.Second)) {
		t.Log(line.Member.Name, line.Time.Sub(event), line.Raw)
	}
}
