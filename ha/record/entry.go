package record

import (
	"time"

	"github.com/cstproxy/cstproxy/ha/topology"
)

// Entry is a proposal to the log. Exactly one of the pointers is set; Cluster names the cluster that
// it is about, and is empty for Found.
type Entry struct {
	// At is when the leader appended the entry to its log, which keeps it; by its clock, the same for
	// everybody who reads the entry. It is shown, and nothing depends on it.
	At      time.Time `json:"-"`
	Cluster string    `json:"cluster,omitempty"`
	// Proposer is the member that proposed it, for the history.
	Proposer string   `json:"proposer,omitempty"`
	Found    *Found   `json:"found,omitempty"`
	Adopt    *Adopt   `json:"adopt,omitempty"`
	Begin    *Begin   `json:"begin,omitempty"`
	Advance  *Advance `json:"advance,omitempty"`
	Froze    *Frozen  `json:"froze,omitempty"`
	Mark     *Marking `json:"mark,omitempty"`
	Standbys *Publish `json:"standbys,omitempty"`
	Amend    *Amend   `json:"amend,omitempty"`
	Appoint  *Appoint `json:"appoint,omitempty"`
}

// Found gives the fleet its name; it counts once. Floors are the epochs that each cluster must begin
// above, when a fleet is re-created over servers that another one managed.
type Found struct {
	Fleet  string                    `json:"fleet"`
	Floors map[string]topology.Epoch `json:"floors,omitempty"`
}

// Adopt makes an epoch of what was observed: the first primary, or one that was promoted by hand. It
// counts while Current is the cluster's epoch and no operation is under way. Its number is above every
// one that was given; it may leave some out.
type Adopt struct {
	Current topology.Epoch `json:"current"`
	Epoch   Epoch          `json:"epoch"`
	Why     string         `json:"why"`
}

// Begin starts an operation at step Intent. Its ID must be LastOperation+1 and its From the current
// epoch; a failover's or switch's To must be LastEpoch+1, any other kind's LastEpoch. Nothing
// begins beside a failover or switch, and at most one task for each node; a failover or switch ends
// the tasks of the epoch before it (Outcome "failed", Note "overtaken").
type Begin struct {
	Operation Operation `json:"operation"`
}

// Advance moves an operation on. It counts while the operation is the cluster's present one (for a
// task: the node's) and stands at the step From. The operation becomes To's value: ID, Kind, From,
// To, Node, Accept and By must be the same, whoever was recruited stays so, the Candidate is set
// with Promote for good, and Step follows the ways that Step names. Epoch is set exactly when a
// failover or switch moves to After: the new epoch, whose Standbys everybody who learns of it learns
// with it. With Step Done the operation moves to Past. What an operation means for a node is marked
// in the same stroke: a failover's old primary is in quarantine from After on, a candidate whose
// promotion was given up is barred, a repair that is done clears the node's mark, and one that
// failed counts in it.
type Advance struct {
	From  Step      `json:"from"`
	To    Operation `json:"to"`
	Epoch *Epoch    `json:"epoch,omitempty"`
}

// Frozen sets or, with nil, lifts an operator's froze.
type Frozen struct {
	Froze *Froze `json:"froze"`
}

// Marking replaces the mark of a node; nil removes it.
type Marking struct {
	Node topology.NodeID `json:"node"`
	Mark *Mark           `json:"mark"`
}

// Publish replaces the epoch's published standbys, and says which version of them every member is
// known to have read. It counts while Epoch and Version are current and no operation is under way.
// Standbys equal to the current ones only make former ones below Known forgotten. Settings replace
// the epoch's unless they are not known.
type Publish struct {
	Epoch    topology.Epoch `json:"epoch"`
	Version  uint64         `json:"version"`
	Known    uint64         `json:"known,omitempty"`
	Settings Settings       `json:"settings"`
	Standbys
}
