// Package record is the fleet's truth: what the consensus log agrees on, as a value. A State changes
// only by Apply of an Entry, which is a pure function, so that every member that has read the same
// log holds the same State. An Entry says what must still be true for it to count; one that comes
// too late changes nothing and its proposer is told. No clock is read here: times of different
// members do not compare.
package record

import "github.com/cstproxy/cstproxy/ha/topology"

// State is everything that the fleet has agreed on.
type State struct {
	// Fleet names this fleet; random, given at its birth. The hosts' ratchets are kept by it.
	Fleet    string              `json:"fleet"`
	Clusters map[string]*Cluster `json:"clusters"`
}

// Cluster is what was agreed about one cluster.
type Cluster struct {
	Epoch Epoch `json:"epoch"`
	// LastEpoch is the highest number that an epoch or an operation's To ever had; the next one is
	// higher. An abandoned failover uses its number up: its candidate may turn out promoted.
	LastEpoch topology.Epoch `json:"last_epoch"`
	// Operation is the failover or switchover under way, nil when none is.
	Operation *Operation `json:"operation,omitempty"`
	// Tasks are the operations on single nodes (repair, clone, restart), at most one for each.
	Tasks map[topology.NodeID]*Operation `json:"tasks,omitempty"`
	// LastOperation is the highest operation number given.
	LastOperation OperationID `json:"last_operation"`
	// Froze stops everything automatic; nil when not.
	Froze *Froze `json:"froze,omitempty"`
	// Nodes are marks on nodes, by id; a node without a mark is ordinary.
	Nodes map[topology.NodeID]*Mark `json:"nodes,omitempty"`
	// Past are the last operations that ended, oldest first.
	Past []Operation `json:"past,omitempty"`
}

// Epoch is one choice of a primary.
type Epoch struct {
	Number    topology.Epoch   `json:"number"`
	Operation OperationID      `json:"operation"` // that made it; 0 when it was observed
	Primary   topology.NodeID  `json:"primary"`
	Address   string           `json:"address"`
	SystemID  uint64           `json:"system_id,string"`
	History   topology.History `json:"history"`
	// Switch is where the epoch's timeline left the one before; 0 for the first.
	Switch topology.LSN `json:"switch"`
	Sync   SyncSet      `json:"sync"`
	// Eligible are the standbys that may be promoted when this primary is lost. A member that has
	// lost the quorum needs to see them stream; see package lease.
	Eligible []topology.NodeID `json:"eligible"`
}

// SyncSet is a parsed synchronous_standby_names. The zero value is asynchronous replication.
type SyncSet struct {
	Method string   `json:"method,omitempty"` // "first" or "any"
	Count  int      `json:"count,omitempty"`
	Names  []string `json:"names,omitempty"`
	// Any says that a '*' is among the names: nobody knows who has the last commit.
	Any bool `json:"any,omitempty"`
}

// OperationID numbers the operations of one cluster, rising.
type OperationID uint64

// Kind says what an operation is for.
type Kind string

const (
	Failover Kind = "failover"
	Switch   Kind = "switch"
	Repair   Kind = "repair"
	Clone    Kind = "clone"
	Restart  Kind = "restart"
)

// Step is how far an operation has come. It is committed before the step's first action, so that a
// successor of the leader knows what may have happened. Steps only rise within an operation, and
// (Operation.To, Step) is what the hosts' ratchets compare.
type Step int

const (
	Intent  Step = iota + 1 // nothing was touched
	Freeze                  // members route no writes of From; their leases lapse
	Fence                   // standbys are cut off From's primary, that one is stopped if it can be
	Promote                 // Candidate may be primary of To from here on
	After                   // To is the epoch; VIPs, re-pointing, hooks, the old primary
	Undo                    // nothing was promoted: everybody goes back to From
	Done                    // ended; Outcome says how
)

// Operation is a journaled action of the leader.
type Operation struct {
	ID   OperationID `json:"id"`
	Kind Kind        `json:"kind"`
	// From is the epoch when it began, To the one that it makes (failover, switch) or the same.
	From topology.Epoch `json:"from"`
	To   topology.Epoch `json:"to"`
	Step Step           `json:"step"`
	// Node is whom an operator named, or whom a repair is about; 0: the best.
	Node topology.NodeID `json:"node,omitempty"`
	// Recruited are the standbys that were told to leave From's primary, whether or not they
	// answered; each must be released or re-pointed before the operation ends.
	Recruited []topology.NodeID `json:"recruited,omitempty"`
	// Candidate and Expected are set with Promote: who, and what it must have received at least.
	Candidate topology.NodeID `json:"candidate,omitempty"`
	Expected  topology.LSN    `json:"expected,omitempty"`
	// Accept is what an operator agreed to lose.
	Accept Accept `json:"accept,omitempty"`
	// Mode narrows what the kind may do ("reattach", "rewind", "rebuild" of a repair).
	Mode string `json:"mode,omitempty"`
	// Why says what began it, By who: a member's name, or an operator's.
	Why string `json:"why"`
	By  string `json:"by"`
	// Outcome is empty until the end: "done", "undone", "failed", "waits" (for a named decision of an
	// operator, in Note).
	Outcome string `json:"outcome,omitempty"`
	Note    string `json:"note,omitempty"`
}

// Accept is what an operator agreed to lose by --accept-data-loss.
type Accept string

const (
	AcceptNothing Accept = ""
	AcceptLoss    Accept = "data-loss"
)

// Froze is an operator's order to do nothing automatic.
type Froze struct {
	By  string `json:"by"`
	Why string `json:"why,omitempty"`
}

// Mark is what the fleet remembers of a node.
type Mark struct {
	// Fault: it left the rotation as broken and returns when repaired (CLup's state).
	Fault string `json:"fault,omitempty"`
	// Quarantine: it may hold log that the cluster does not; nothing is started there but a repair.
	Quarantine string `json:"quarantine,omitempty"`
	// Tries are the automatic repairs since it last was healthy.
	Tries int `json:"tries,omitempty"`
}
