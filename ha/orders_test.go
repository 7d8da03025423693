package ha

import (
	"errors"
	"slices"
	"testing"

	"github.com/cstproxy/cstproxy/ha/pglocal"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// What an operator says to one member is passed on once; what is heard from another is obeyed and not
// passed on again, or two members would tell each other for ever.
func TestOrdersArePassedOnWhereTheyWereGiven(t *testing.T) {
	f := newFixture(t, pglocal.Options{Standbys: 1})
	late, err := f.pg.AddStandby(t.Context(), nil)
	f.must(err)
	var passed []Order
	f.told = func(o Order) { passed = append(passed, o) }
	f.run()
	f.settled()
	b, ctx := f.pg.Nodes()[1], t.Context()
	heard := func(address string, w Word) error {
		return f.agent.Obey(ctx, Order{Cluster: "c1", Address: address, Word: w})
	}
	f.must(heard(late.Address(), Added))
	f.await("the added node", has(3, topology.Healthy))
	f.must(heard(b.Address(), Detached))
	f.await("a detached node", has(2, topology.Detached))
	f.must(heard(b.Address(), Attached))
	f.await("the node back", has(2, topology.Healthy))
	for range 2 {
		f.must(heard(late.Address(), Removed))
	}
	if got := f.agent.Backends("c1"); !slices.Equal(got, []string{b.Address()}) {
		t.Errorf("backends: %v", got)
	}
	if err := heard("10.0.0.1:5432", Draining); !errors.Is(err, ErrUnknown) {
		t.Errorf("about a stranger: %v", err)
	}
	if err := heard(b.Address(), "promoted"); !errors.Is(err, ErrRefused) {
		t.Errorf("a word that nobody says: %v", err)
	}
	if len(passed) != 0 {
		t.Errorf("passed on: %v", passed)
	}
	f.must(f.agent.Drain(ctx, "c1", 2))
	f.must(f.agent.AddBackend(ctx, "c1", b.Address()))
	f.must(f.agent.AddBackend(ctx, "c1", late.Address()))
	f.must(f.agent.RemoveBackend(ctx, "c1", late.Address()))
	want := []Order{{"c1", b.Address(), Draining}, {"c1", b.Address(), Attached}, {"c1", late.Address(), Added}, {"c1", late.Address(), Removed}}
	if !slices.Equal(passed, want) {
		t.Errorf("passed on %v, want %v", passed, want)
	}
}
