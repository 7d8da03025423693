// Package lease decides who may route writes of an epoch until when. A Holder is a member's side for
// one cluster, a Grantor the leader's. Neither has a clock, a goroutine or a network: every time is
// handed in, as a duration on the owner's own monotonic clock that goes on while the machine sleeps,
// and times of two members are never compared. Neither is safe for concurrent use.
//
// What all of it is for: when a leader sees Grantor.Lapsed, or every member has acknowledged the
// Freeze, no member routes a write of the old epoch or forwards an answer of its primary, and none
// will. The reasons stand beside the inequalities: G1 to G4 (grants), P1 to P3 (proofs).
package lease

import "time"

// Terms are the same for all members of a fleet.
type Terms struct {
	// Length is L: how long a lease lasts after its request was sent, on the member's clock.
	Length time.Duration
	// Drift is by how much the rates of two members' clocks may differ: 0.01 allows 1 %.
	Drift float64
}

// Wait is how long L on any member's clock can last on this one's.
//
// G1: a member counts L from t to t+L on its clock. While it counts, this clock counts at most
// L·(1+Drift), because the rates differ by no more. So what a member began no later than this
// clock's t has ended when this clock shows t+Wait.
func (t Terms) Wait() time.Duration {
	return t.Length + time.Duration(float64(t.Length)*t.Drift)
}
