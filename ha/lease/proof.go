package lease

import (
	"time"

	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// Proof is what a member without a leader found out by itself, from Began on: that nobody can have
// cut the primary of Epoch off from its standbys before Began. It is collected anew every L/3.
//
// P1: whoever promotes has first cut off so many standbys that record.Standbys.Proves cannot be
// true of the rest (record.Standbys.Broken), in this and in every older set of standbys that a
// member may go by, and it waits Wait after the last cut. P2: a standby that was cut at c, or that
// left the primary in any other way, has flushed nothing that the primary wrote after c. The
// heartbeat was written after Began; so a standby that has flushed it was not cut before Began. P3:
// so the cut came after Began, the lease ends L after Began on this clock, which is less than Wait
// on the leader's, and the leader waits Wait from the cut.
//
// pg_stat_replication alone proves nothing: it shows a standby that is gone as streaming for up to
// wal_sender_timeout.
type Proof struct {
	Epoch topology.Epoch
	// Began is when the proof's first question was sent, on the member's clock.
	Began time.Duration
	// Heartbeat is the position after a commit that this member began after Began, on the server
	// that is the epoch's primary: same system identifier, same timeline, not in recovery. 0: there
	// was none.
	Heartbeat topology.LSN
	// Flushed is how far each standby has flushed what it streamed from this primary: flush_lsn of
	// its connection in the primary's pg_stat_replication, or flushed_lsn in its own
	// pg_stat_wal_receiver while that streams this timeline from this primary. What it replayed
	// does not count: log also comes from an archive, and from other primaries.
	Flushed map[topology.NodeID]topology.LSN
	// Standbys is what the member's log says of the epoch.
	Standbys record.Standbys
	// Weakness is for the simulator, which shows that it notices; anybody else leaves it alone.
	Weakness Weakness
}

// Weakness leaves a guard out. The zero Weakness leaves out none.
type Weakness int

const (
	Sound Weakness = iota
	// AnyFlush believes a standby that has flushed anything at all.
	AnyFlush
)

// Holds says whether the proof is complete.
func (p *Proof) Holds() bool {
	if p.Heartbeat == 0 {
		return false
	}
	var streaming []topology.NodeID
	for id, flushed := range p.Flushed {
		if flushed >= p.Heartbeat || p.Weakness == AnyFlush && flushed > 0 {
			streaming = append(streaming, id)
		}
	}
	return p.Standbys.Proves(streaming)
}
