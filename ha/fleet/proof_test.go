package fleet

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/record"
)

func TestWithoutQuorumMembersGoOnWhileTheyProveThatNobodyWasPromoted(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	w.rules(1, w.members...)
	w.proves(true)
	for _, n := range w.members {
		w.cuts.set(n.at, true)
	}
	w.outlast()
	w.rules(1, w.members...)
	w.proves(false)
	w.await(func() error {
		for _, n := range w.members {
			if n.ruled().Lease.Held(int64(Now())) {
				return fmt.Errorf("%s holds a lease", n.name)
			}
		}
		return nil
	})
}

func TestAMemberThatProvesByItselfStopsBeforeTheOthersPromote(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	w.rules(1, w.members...)
	w.proves(true)
	leader := w.leader(w.members...)
	w.cuts.set(leader.at, true)
	rest := w.others(leader)
	next := w.leader(rest...)
	w.outlast()
	w.rules(1, leader)
	w.orders(next, decide.Order{By: "dba", Why: "test", Accept: record.AcceptLoss})
	w.rules(2, rest...)
	w.sound()
}

// outlast waits until whatever a leader granted up to now has lapsed.
func (w *world) outlast() {
	w.t.Helper()
	lapsed := Now() + 2*terms.Length
	w.await(func() error {
		if Now() < lapsed {
			return errors.New("a lease may last yet")
		}
		return nil
	})
}

func (w *world) proves(can bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.proofs = can
}
