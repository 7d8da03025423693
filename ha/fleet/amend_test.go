package fleet

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cstproxy/cstproxy/ha"
	"github.com/cstproxy/cstproxy/ha/record"
)

// amend has the fleet decide by other values, as a real member does.
func (n *member) amend(values map[string]string) {
	conf, err := ha.DefaultCluster().Amended(values)
	if err != nil {
		n.world.t.Errorf("%s: %v", n.name, err)
	}
	c := n.config().Clusters[0]
	c.Policy.MaxRepairs = conf.Operation.MaxRepairs
	if err := n.fleet.Configure("c", c.Policy, c.Nodes); err != nil {
		n.world.t.Errorf("%s: %v", n.name, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.values = values
}

func (n *member) check(kept, set map[string]string) (map[string]string, error) {
	all := maps.Clone(kept)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, set)
	conf, err := ha.DefaultCluster().Amended(all)
	literal := map[string]string{}
	for _, p := range conf.Policies() {
		if _, there := set[p.Key]; there {
			literal[p.Key] = p.Value
		}
	}
	return literal, err
}

// obeys waits until each of the members has put these values in force.
func (w *world) obeys(values map[string]string, among ...*member) {
	w.t.Helper()
	w.await(func() error {
		for _, n := range among {
			n.mu.Lock()
			got := n.values
			n.mu.Unlock()
			if !reflect.DeepEqual(got, values) {
				return fmt.Errorf("%s obeys %v", n.name, got)
			}
		}
		return nil
	})
}

func policies(version uint64, set map[string]string, unset ...string) Amendment {
	return Amendment{Cluster: "c", Amend: record.Amend{Version: version, Set: set, Unset: unset, By: "dba", Why: "a drill"}}
}

func TestPoliciesChangedAnywhereHoldOnAllMembers(t *testing.T) {
	w := newWorld(t, "a", "b", "witness")
	w.rules(1, w.members[:2]...)
	leader := w.leader(w.members...)
	others := w.others(leader)

	if m, err := others[0].fleet.ForeseeAmend(t.Context(), policies(0, map[string]string{"max_repairs": "9"})); err != nil || m.Version != 1 || m.Values["max_repairs"] != "9" {
		t.Errorf("foreseen: %+v, %v", m, err)
	}
	if c, err := others[0].fleet.Record("c"); err != nil || c.Meta != nil {
		t.Errorf("what was only foreseen is in the log: %+v, %v", c.Meta, err)
	}
	m, err := others[0].fleet.Amend(t.Context(), policies(0, map[string]string{"max_repairs": "5", "gray_after": "3s"}))
	if err != nil || m.Version != 1 || m.Values["gray_after"] != `"3s"` || m.Changes[0].By != "dba" || m.Changes[0].At == 0 {
		t.Fatalf("changed: %+v, %v", m, err)
	}
	if c, err := others[0].fleet.Record("c"); err != nil || c.Policies().Version != 1 {
		t.Errorf("the member that took the order does not show it: %v", err)
	}
	w.obeys(map[string]string{"max_repairs": "5", "gray_after": `"3s"`}, w.members...)
	leader.fleet.mu.Lock()
	if p := leader.fleet.reign.seats["c"].Policy; p.MaxRepairs != 5 || p.Lease != terms.Length {
		t.Errorf("the leader decides by %+v", p)
	}
	leader.fleet.mu.Unlock()

	for name, c := range map[string]struct {
		a    Amendment
		kind error
		says string
	}{
		"over somebody else's": {policies(0, map[string]string{"max_repairs": "1"}), ha.ErrRefused, "the policies of c are at version 1, not 0: dba has changed gray_after, max_repairs at "},
		"what cannot be":       {policies(1, map[string]string{"switch_drain": "6s"}), ha.ErrPolicy, "switch_budget is 5s, must be at least 6.5s"},
		"what is in the file":  {policies(1, map[string]string{"ssh_user": "x"}), ha.ErrPolicy, "stays in the file"},
		"of no cluster":        {Amendment{Cluster: "d"}, ha.ErrUnknown, `"d"`},
		"with too many words":  {Amendment{Cluster: "c", Amend: record.Amend{Version: 1, Unset: []string{"max_repairs"}, By: "dba", Why: strings.Repeat("x", 2000)}}, ha.ErrPolicy, "too much"},
		"in nobody's name":     {Amendment{Cluster: "c", Amend: record.Amend{Version: 1, Unset: []string{"max_repairs"}}}, ha.ErrPolicy, "who changes"},
		"that do not fit":      {policies(1, map[string]string{"switch_budget": "100ms"}), ha.ErrPolicy, "must be at least 700ms"},
	} {
		if _, err := others[1].fleet.Amend(t.Context(), c.a); !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if m, err = others[1].fleet.Amend(t.Context(), policies(1, map[string]string{"max_repairs": "5"}, "on_crash")); err != nil || m.Version != 1 {
		t.Errorf("what changes nothing made version %d, %v", m.Version, err)
	}
	if m, err = others[1].fleet.Amend(t.Context(), policies(1, nil, "gray_after")); err != nil || m.Version != 2 || m.Changes[1].Former["gray_after"] != `"3s"` {
		t.Errorf("taken back: %+v, %v", m, err)
	}
	w.obeys(map[string]string{"max_repairs": "5"}, w.members...)

	q := amendment{Amendment: policies(2, map[string]string{"max_repairs": "6"})}
	q.At = 77
	first, err := leader.fleet.amended(t.Context(), q)
	must(t, err)
	if again, err := leader.fleet.amended(t.Context(), q); err != nil || again.Version != first.Version {
		t.Errorf("an order whose answer was lost made version %d, and %d when it came again, %v", first.Version, again.Version, err)
	}
}

func TestChangedPoliciesOutliveLeadersAndRestarts(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	w.rules(1, w.members...)
	first := w.leader(w.members...)
	rest := w.others(first)
	_, err := first.fleet.Amend(t.Context(), policies(0, map[string]string{"max_repairs": "5"}))
	must(t, err)
	w.obeys(map[string]string{"max_repairs": "5"}, w.members...)
	address := first.front.Addr().String()
	first.stop()

	// A member is away: that it can read the change was known before the first one.
	w.leader(rest...)
	m, err := rest[0].fleet.Amend(t.Context(), policies(1, map[string]string{"on_crash": "failover"}))
	if err != nil || m.Version != 2 {
		t.Fatalf("under the next leader: %+v, %v", m, err)
	}
	both := map[string]string{"max_repairs": "5", "on_crash": `"failover"`}
	w.obeys(both, rest...)
	first.values = nil
	first.front, err = net.Listen("tcp", address)
	must(t, err)
	first.start()
	w.obeys(both, first)
	w.sound()
}

func TestNobodyWritesWhatAnOlderMemberCannotRead(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	w.rules(1, w.members...)
	leader := w.leader(w.members...)
	away := w.others(leader)[0]
	change := policies(0, map[string]string{"max_repairs": "5"})
	w.cuts.set(away.at, true)
	w.await(func() error {
		if l := away.log.Leader().Name; l != "" {
			return fmt.Errorf("%s still hears %s", away.name, l)
		}
		return nil
	})
	level := func(set func(map[string]levelSaid)) {
		leader.fleet.mu.Lock()
		defer leader.fleet.mu.Unlock()
		set(leader.fleet.reign.levels)
	}
	level(func(all map[string]levelSaid) { all[away.name] = levelSaid{0, Now()} })
	if _, err := leader.fleet.Amend(t.Context(), change); !errors.Is(err, ha.ErrRefused) || !strings.HasPrefix(err.Error(), away.name+": of an older build") {
		t.Errorf("with a member of an older build: %v", err)
	}
	unheard := func(what string) {
		t.Helper()
		if _, err := leader.fleet.Amend(t.Context(), change); !errors.Is(err, ha.ErrRefused) || !strings.HasPrefix(err.Error(), away.name+": not heard of") {
			t.Errorf("with a member %s: %v", what, err)
		}
	}
	level(func(all map[string]levelSaid) { delete(all, away.name) })
	unheard("of which nobody knows")
	level(func(all map[string]levelSaid) { all[away.name] = levelSaid{record.Level, Now() - time.Minute} })
	unheard("that may be down to be run as an older build")
	w.cuts.set(away.at, false)
	w.await(func() error {
		_, err := leader.fleet.Amend(t.Context(), change)
		return err
	})
	w.obeys(map[string]string{"max_repairs": "5"}, w.members...)
}
