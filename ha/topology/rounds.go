package topology

import "sync/atomic"

// MaxSlots is how many nodes of one cluster Rounds has room for.
const MaxSlots = 64

// Round numbers one question "how far is the primary, how far is everybody", within an epoch.
type Round uint64

// Ticket is what a session's last write left behind: a node has replayed that write once its safe
// round of the same epoch has reached Round. The zero Ticket is satisfied by every node.
type Ticket struct {
	Epoch Epoch
	Round Round
}

// Rounds tells how far each node has certainly replayed, as round numbers. The monitor opens
// round k (Open) before it asks the primary for its WAL insert position P_k, then reads each
// node's replay position and marks node.safe = the largest k with replay >= P_k. So a write that
// is stamped with "last opened round + 1" before its answer is forwarded lies before P of that
// round: a node whose safe round has reached the stamp has the write. It lives in atomics instead
// of the View because it changes all the time and must wake nobody.
type Rounds struct {
	epoch  atomic.Uint64
	opened atomic.Uint64
	wanted atomic.Int64 // when a session last waited for a round, ns of the process clock
	safe   [MaxSlots]atomic.Uint64
}

// NewRounds returns rounds of epoch 0 in which no node has proved anything.
func NewRounds() *Rounds { return &Rounds{} }
