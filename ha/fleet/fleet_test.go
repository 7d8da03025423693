package fleet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"

	"github.com/cstproxy/cstproxy/ha"
	"github.com/cstproxy/cstproxy/ha/decide"
)

func TestMembersAgreeOnThePrimaryAtFirstSightAndKeepTheirLeases(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	w.rules(1, w.members...)
	for _, n := range w.members {
		if r := n.ruled(); r.Epoch.Primary != 1 || r.Epoch.SystemID != 7 {
			t.Errorf("%s takes node %d of system %d for the primary", n.name, r.Epoch.Primary, r.Epoch.SystemID)
		}
	}
	w.outlast()
	w.rules(1, w.members...)
}

func TestAllMembersStopWritingBeforeAnotherPrimaryIsPromoted(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	w.rules(1, w.members...)
	old := make([]ha.Ruling, len(w.members))
	for i, n := range w.members {
		old[i] = n.ruled()
	}
	w.becomes(1, decide.Refused)
	w.rules(2, w.members...)
	w.sound()
	for i, n := range w.members {
		r := n.ruled()
		if r.Epoch.Primary == 1 || r.Epoch.History.Timeline != 2 {
			t.Errorf("%s: epoch %d has primary %d on timeline %d", n.name, r.Epoch.Number, r.Epoch.Primary, r.Epoch.History.Timeline)
		}
		if !old[i].Lease.Ended() {
			t.Errorf("%s: the lease of epoch 1 has not ended", n.name)
		}
		if len(n.frozen) == 0 {
			t.Errorf("%s never held its writes", n.name)
		}
	}
}

func TestALeaderThatIsCutOffLosesItsLeaseAndAnotherOneFailsOver(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	w.rules(1, w.members...)
	first := w.leader(w.members...)
	lease := first.ruled().Lease
	w.cuts.set(first.at, true)
	rest := w.others(first)
	w.leader(rest...)
	w.rules(1, rest...)
	w.becomes(1, decide.Silent)
	w.rules(2, rest...)
	w.sound()
	if first.ruled().Epoch.Number != 1 || lease.Held(int64(Now())) {
		t.Errorf("%s, cut off, is at epoch %d and holds a lease: %v", first.name, first.ruled().Epoch.Number, lease.Held(int64(Now())))
	}
	w.cuts.set(first.at, false)
	w.rules(2, w.members...)
	if !lease.Ended() {
		t.Errorf("%s is back, and its lease of epoch 1 has not ended", first.name)
	}
}

func TestAMemberThatIsCutOffStopsWritingAndTheOthersGoOn(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	w.rules(1, w.members...)
	leader := w.leader(w.members...)
	lost := w.others(leader)[0]
	w.cuts.set(lost.at, true)
	w.await(func() error {
		if lost.ruled().Lease.Held(int64(Now())) {
			return fmt.Errorf("%s holds its lease", lost.name)
		}
		return nil
	})
	w.rules(1, w.others(lost)...)
	if lost.ruled().Lease.Ended() {
		t.Error("its lease has ended for good, although the epoch goes on")
	}
	w.cuts.set(lost.at, false)
	w.rules(1, w.members...)
}

func TestWhoeverLeadsNextKnowsHowLongAgoTheLastFailoverWas(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	w.rules(1, w.members...)
	before := Now()
	w.becomes(1, decide.Refused)
	w.rules(2, w.members...)
	after := Now()
	first := w.leader(w.members...)
	rest := w.others(first)
	known := func(n *member) error {
		n.fleet.mu.Lock()
		defer n.fleet.mu.Unlock()
		if at := n.fleet.clusters[0].begun; at < before || at > after {
			return fmt.Errorf("%s says that epoch 2 began at %v, not between %v and %v", n.name, at, before, after)
		}
		return nil
	}
	for _, n := range w.members {
		w.await(func() error { return known(n) })
	}
	address := rest[0].front.Addr().String()
	rest[0].stop()
	var err error
	rest[0].front, err = net.Listen("tcp", address)
	must(t, err)
	rest[0].start()
	w.await(func() error { return known(rest[0]) })
	first.stop()
	next := w.leader(rest...)
	w.await(func() error {
		next.fleet.mu.Lock()
		defer next.fleet.mu.Unlock()
		if next.fleet.reign == nil {
			return fmt.Errorf("%s does not lead yet", next.name)
		}
		if at := next.fleet.reign.seats["c"].epochSince; at < before || at > after {
			t.Errorf("%s leads, and epoch 2 began at %v, not between %v and %v", next.name, at, before, after)
		}
		return nil
	})
}

func TestNobodyGetsALeaseWhoMayBeUnknownToTheNextLeader(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	w.rules(1, w.members...)
	leader := w.leader(w.members...)
	rest := w.others(leader)
	f := leader.fleet
	f.mu.Lock()
	reign := f.reign
	clear(reign.sworn) // as if each had just been added
	f.mu.Unlock()
	w.await(func() error { return f.swear(t.Context(), reign, rest[0].name) })
	w.cuts.set(leader.at, true)
	ctx, cancel := context.WithTimeout(t.Context(), terms.Length)
	defer cancel()
	if err := f.swear(ctx, reign, rest[0].name); err != nil {
		t.Errorf("one that is certainly there is asked about again: %v", err)
	}
	f.mu.Lock()
	clear(reign.sworn)
	f.mu.Unlock()
	if err := f.swear(ctx, reign, rest[1].name); err == nil {
		t.Error("an addition that no majority has seen is taken for certain")
	}
	if err := f.swear(t.Context(), reign, "d"); !errors.Is(err, errStranger) {
		t.Errorf("one that the log does not have: %v", err)
	}
}

func TestAMemberAloneNeedsNoLeaseAndHoldsItsWritesBeforeItPromotes(t *testing.T) {
	w := newWorld(t, "a")
	n := w.members[0]
	epoch := func(number uint64) {
		t.Helper()
		w.await(func() error {
			if r := n.ruled(); uint64(r.Epoch.Number) < number || r.Frozen != "" {
				return fmt.Errorf("epoch %d, frozen %q", r.Epoch.Number, r.Frozen)
			}
			return nil
		})
	}
	epoch(1)
	w.becomes(1, decide.Refused)
	epoch(2)
	if n.ruled().Lease != nil || len(n.frozen) == 0 {
		t.Errorf("lease %v, held %q", n.ruled().Lease, n.frozen)
	}
}

func TestAWitnessVotesAndIsNotWaitedFor(t *testing.T) {
	w := newWorld(t, "a", "b", "witness")
	routing := w.members[:2]
	w.rules(1, routing...)
	w.becomes(1, decide.Refused)
	w.rules(2, routing...)
	w.sound()
	if w.members[2].ruled().Lease.Held(int64(Now())) {
		t.Error("the witness holds a lease")
	}
}

// orders has the leader fail over although nothing is wrong.
func (w *world) orders(leader *member, o decide.Order) {
	w.t.Helper()
	w.await(func() error {
		_, err := leader.fleet.Command(w.t.Context(), Command{Cluster: "c", Verb: Failover, Order: o})
		return err
	})
}
