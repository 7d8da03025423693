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
	Epoch topology.Epoch
	// Known is the version of the epoch's published standbys that the member goes by.
	Known  uint64
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
	// version is that of the epoch's published standbys.
	version uint64
	// granted: a leader has granted a lease of the epoch in this life; see Proven.
	granted bool
	// frozen is the operation whose Freeze is obeyed.
	frozen record.OperationID
	// ended: operations up to this one freeze nobody any more, as the log says. An order of one of
	// them that arrives late is not obeyed.
	ended  record.OperationID
	birth  uint64
	number uint64
	asked  map[uint64]time.Duration // requests without an answer: when each was sent
}

// NewHolder returns a Holder without a lease. birth is random.
func NewHolder(terms Terms, birth uint64) *Holder {
	return &Holder{terms: terms, birth: birth, asked: map[uint64]time.Duration{}}
}

// Follow tells the Holder what the log says of the cluster, as far as this member has read it. A
// new epoch ends the lease of the one before; a Freeze suspends it; the end of the operation that
// froze, or its undoing, lifts that.
func (h *Holder) Follow(c *record.Cluster) {
	if c.Epoch.Number != h.epoch {
		h.epoch, h.until, h.granted = c.Epoch.Number, 0, false
		clear(h.asked)
	}
	h.version = c.Epoch.Version
	ended := c.LastOperation
	if o := c.Operation; o != nil && o.Step <= record.Promote {
		ended = o.ID - 1
	}
	h.ended = max(h.ended, ended)
	if h.frozen <= h.ended {
		h.frozen = 0
	}
	if operation := c.Frozen(h.epoch); operation != 0 {
		h.freeze(operation)
	}
}

// Freeze obeys a leader's order to route no more writes of epoch, which may come ahead of the log.
// It says whether Frozen may be acknowledged for the operation: not when the order is of another
// epoch, or of an operation that freezes nobody any more.
//
// G4: after the acknowledgement the lease is not held, and stays so until the log says that the
// operation promotes nobody: requests of before are forgotten, and a Reply to a later one and a
// Proof do nothing while frozen.
func (h *Holder) Freeze(operation record.OperationID, epoch topology.Epoch) bool {
	if epoch != h.epoch || operation <= h.ended || operation < h.frozen {
		return false
	}
	h.freeze(operation)
	return true
}

func (h *Holder) freeze(operation record.OperationID) {
	h.frozen = max(h.frozen, operation)
	h.until = 0
	clear(h.asked)
}

// Frozen is the operation whose Freeze this member obeys, and may acknowledge; 0 for none.
func (h *Holder) Frozen() record.OperationID { return h.frozen }

// maxAsked bounds the requests that still may be answered; L/3 apart, older ones are worthless.
const maxAsked = 16

// Ask returns a request that is sent at sent or later.
func (h *Holder) Ask(sent time.Duration) Request {
	h.number++
	for n, at := range h.asked {
		if sent-at > h.terms.Length || n+maxAsked <= h.number {
			delete(h.asked, n)
		}
	}
	h.asked[h.number] = sent
	return Request{Epoch: h.epoch, Known: h.version, Birth: h.birth, Number: h.number}
}

// Granted takes a leader's reply. The lease lasts L from when the request was sent, not from when
// the answer came: of an answer that took long nothing is left. It says whether the reply counted.
func (h *Holder) Granted(r Reply) bool {
	sent, asked := h.asked[r.Number]
	if !asked || r.Birth != h.birth || r.Epoch != h.epoch || h.frozen != 0 {
		return false
	}
	delete(h.asked, r.Number)
	h.until, h.granted = max(h.until, sent+h.terms.Length), true
	return true
}

// Proven takes a Proof of this member's own, which it collects while no leader answers.
//
// P4: it counts only after a grant in this epoch and in this life. A member that was just started
// may have read less of the log than it had before, and go by standbys that everybody else takes
// for forgotten; a leader grants nothing to a member that does.
func (h *Holder) Proven(p Proof) bool {
	if p.Epoch != h.epoch || h.frozen != 0 || !h.granted || !p.Holds() {
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
