package lease

import (
	"time"

	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// Request asks the leader for a lease of Epoch. Number never repeats within a member's life, and
// Birth differs from life to life: the answer to a request of before a restart is none to a request
// of after it that has the same number.
type Request struct {
	Epoch  topology.Epoch
	Birth  uint64
	Number uint64
}

// Reply is a leader's yes to the Request of the same value.
type Reply Request

// Holder is a member's lease for one cluster. The zero Holder holds none.
type Holder struct {
	terms Terms
	epoch topology.Epoch
	until time.Duration
	// frozen is the newest operation whose Freeze was obeyed and that has not ended.
	frozen record.OperationID
	// newest is the highest operation that was ever obeyed or seen to end; an order of it or of an
	// older one that arrives late does not freeze again.
	newest record.OperationID
	birth  uint64
	number uint64
	asked  map[uint64]time.Duration // requests without an answer: when each was sent
}

// NewHolder returns a Holder without a lease. birth is random.
func NewHolder(terms Terms, birth uint64) *Holder {
	return &Holder{terms: terms, birth: birth, asked: map[uint64]time.Duration{}}
}

// maxAsked bounds the requests that still may be answered; L/3 apart, older ones are worthless.
const maxAsked = 16

// Follow tells the Holder what the log says, as far as this member has read it: the present epoch,
// and the operation that freezes it (record.Cluster.Frozen; 0 for none) or the last one begun
// (record.Cluster.LastOperation), so that a freeze that was obeyed is lifted when it has ended.
// A new epoch ends the lease of the one before.
func (h *Holder) Follow(epoch topology.Epoch, frozen, last record.OperationID) {
	if epoch != h.epoch {
		h.epoch, h.until = epoch, 0
		clear(h.asked)
	}
	switch {
	case frozen != 0:
		h.freeze(frozen)
	case h.frozen != 0 && last >= h.frozen:
		// The log knows the operation, and it does not freeze any more: it was undone, or it has
		// ended. While last is lower, the order came ahead of the log and is obeyed.
		h.frozen = 0
	}
	h.newest = max(h.newest, last)
}

// Freeze obeys a leader's order to route no more writes of epoch, for an operation. It returns the
// operation that may be acknowledged; 0 when the order is none for this member: of another epoch, or
// of an operation that has ended here.
//
// G4: after the acknowledgement the lease is not held, and stays so until the log says that the
// operation will promote nobody: requests of before are forgotten, a Reply to a later one and a
// Proof do nothing while frozen.
func (h *Holder) Freeze(operation record.OperationID, epoch topology.Epoch) record.OperationID {
	if epoch != h.epoch || operation < h.newest && operation != h.frozen {
		return 0
	}
	if operation == h.newest && h.frozen == 0 {
		return 0 // the log has it, and it is not freezing
	}
	h.freeze(operation)
	return h.frozen
}

func (h *Holder) freeze(operation record.OperationID) {
	h.frozen, h.newest = max(h.frozen, operation), max(h.newest, operation)
	h.until = 0
	clear(h.asked)
}

// Frozen is the operation whose Freeze this member has obeyed and may acknowledge; 0 for none.
func (h *Holder) Frozen() record.OperationID { return h.frozen }

// Ask returns a request that is sent at sent or later.
func (h *Holder) Ask(sent time.Duration) Request {
	h.number++
	for n, at := range h.asked {
		if sent-at > h.terms.Length || n+maxAsked <= h.number {
			delete(h.asked, n)
		}
	}
	h.asked[h.number] = sent
	return Request{Epoch: h.epoch, Birth: h.birth, Number: h.number}
}

// Granted takes a leader's reply. The lease lasts L from when the request was sent, not from when
// the answer came: of an answer that took long nothing is left. It says whether the reply counted.
func (h *Holder) Granted(r Reply) bool {
	sent, asked := h.asked[r.Number]
	if !asked || r.Birth != h.birth || r.Epoch != h.epoch || h.frozen != 0 {
		return false
	}
	delete(h.asked, r.Number)
	h.until = max(h.until, sent+h.terms.Length)
	return true
}

// Proven takes a Proof of this member's own, which it collects while no leader answers.
func (h *Holder) Proven(p Proof) bool {
	if p.Epoch != h.epoch || h.frozen != 0 || !p.Holds() {
		return false
	}
	h.until = max(h.until, p.Began+h.terms.Length)
	return true
}

// Until is when the lease ends, on this member's clock; a time that has passed, or 0, when it is
// not held.
func (h *Holder) Until() time.Duration { return h.until }

// Held says whether a write may be routed, and the answer to one forwarded, at now.
func (h *Holder) Held(now time.Duration) bool { return now < h.until }

// Epoch is the epoch that Until is about.
func (h *Holder) Epoch() topology.Epoch { return h.epoch }
