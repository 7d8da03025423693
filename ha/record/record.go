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
	// LastTimeline is the highest timeline that may exist: that of an epoch, or one that the
	// candidate of an abandoned operation may have begun.
	LastTimeline topology.Timeline `json:"last_timeline"`
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
	// Appointment is a switchover for later, nil when there is none; Appointments are the last that are over,
	// oldest first.
	Appointment  *Appointment  `json:"appointment,omitempty"`
	Appointments []Appointment `json:"appointments,omitempty"`
	// Starts are when the last epochs began, oldest first.
	Starts []Start `json:"starts,omitempty"`
	// Meta are the policies that operators have changed; nil until the first change.
	Meta *Meta `json:"meta,omitempty"`
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
	Standbys
	// Settings are the primary's, as last seen: a candidate is compared with them when the primary
	// cannot be asked any more.
	Settings Settings `json:"settings"`
	// Version numbers the published Standbys of this epoch, from 1.
	Version uint64 `json:"version"`
	// Former are the sets that were published earlier in this epoch and that some member may still
	// go by, oldest first.
	Former []Former `json:"former,omitempty"`
}

// Start is when an epoch began, for the history that people read: clocks of different members do not
// compare, and nothing depends on it.
type Start struct {
	Epoch    topology.Epoch    `json:"epoch"`
	Timeline topology.Timeline `json:"timeline"`
	Primary  topology.NodeID   `json:"primary"`
	// At is the leader's time of then, in milliseconds since 1970.
	At int64 `json:"at"`
}

// Settings are those that a standby must have at least as high as its primary. 0: not known.
type Settings struct {
	MaxConnections int `json:"max_connections,omitempty"`
	MaxWorkers     int `json:"max_worker_processes,omitempty"`
	MaxSenders     int `json:"max_wal_senders,omitempty"`
	MaxPrepared    int `json:"max_prepared_transactions,omitempty"`
	MaxLocks       int `json:"max_locks_per_transaction,omitempty"`
}

// Standbys are those that a promotion and a member without quorum reckon with; see Proves.
type Standbys struct {
	Sync SyncSet `json:"sync"`
	// Eligible are the standbys that may be promoted when this primary is lost.
	Eligible []topology.NodeID `json:"eligible"`
}

// Former is a set of standbys that was replaced by a newer version.
type Former struct {
	Version uint64 `json:"version"`
	Standbys
}

// SyncSet is a parsed synchronous_standby_names. The zero value is asynchronous replication.
type SyncSet struct {
	Method string   `json:"method,omitempty"` // "first" or "any"
	Count  int      `json:"count,omitempty"`
	Names  []string `json:"names,omitempty"`
	// Nodes are the nodes that stream under the names, as far as the names are nodes of ours.
	Nodes []topology.NodeID `json:"nodes,omitempty"`
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

// MakesEpoch says whether the kind ends an epoch (failover, switch); the others are tasks, about
// one node within an epoch.
func (k Kind) MakesEpoch() bool { return k == Failover || k == Switch }

func (k Kind) known() bool {
	return k.MakesEpoch() || k == Repair || k == Clone || k == Restart
}

// Step is how far an operation has come. It is committed before the step's first action, so that a
// successor of the leader knows what may have happened. Steps only rise within an operation; what
// the hosts' ratchets compare is (Operation.To, Operation.Ratchet()). A failover or switch goes
// through Intent, Freeze, Fence, Promote, After, Done, or leaves for Undo or Done before After; a
// task through Intent, After, Done.
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

func (s Step) String() string {
	names := [...]string{"none", "intent", "freeze", "fence", "promote", "after", "undo", "done"}
	if s < 0 || int(s) >= len(names) {
		return "task" // Ratchet of a task
	}
	return names[s]
}

// Operation is a journaled action of the leader.
type Operation struct {
	ID   OperationID `json:"id"`
	Kind Kind        `json:"kind"`
	// From is the epoch when it began, To the one that it makes (failover, switch) or the highest
	// number given (task): hosts may have seen that of an operation that was given up.
	From topology.Epoch `json:"from"`
	To   topology.Epoch `json:"to"`
	Step Step           `json:"step"`
	// Node is whom an operator named, or whom a repair is about; 0: the best.
	Node topology.NodeID `json:"node,omitempty"`
	// Recruited are the standbys that were told to leave From's primary, whether or not they
	// answered; each is released or re-pointed before the operation ends, or is a matter of repair.
	Recruited []topology.NodeID `json:"recruited,omitempty"`
	// Candidate and Expected are set with Promote: who, and what it must have received at least.
	Candidate topology.NodeID `json:"candidate,omitempty"`
	Expected  topology.LSN    `json:"expected,omitempty"`
	// Former is the primary of From, and Left its timeline; set by the record.
	Former topology.NodeID   `json:"former,omitempty"`
	Left   topology.Timeline `json:"left,omitempty"`
	// Lost is how much log, at least, the old primary had written that Candidate has not received,
	// as far as anybody saw it; bytes, set with Promote.
	Lost uint64 `json:"lost,omitempty"`
	// Timeline is the least number that the timeline of To may have, set with Promote. PostgreSQL
	// takes the next one that it knows nothing of; after a candidate was given up that can be the one
	// that this candidate began, at the very same position: nothing could tell the two apart.
	Timeline topology.Timeline `json:"timeline,omitempty"`
	// Accept is what an operator agreed to lose.
	Accept Accept `json:"accept,omitempty"`
	// Appointment is the one that a switchover keeps; 0: none.
	Appointment OperationID `json:"appointment,omitempty"`
	// Mode narrows what the kind may do ("reattach", "rewind", "rebuild" of a repair).
	Mode string `json:"mode,omitempty"`
	// Why says what began it, By who: a member's name, or an operator's.
	Why string `json:"why"`
	By  string `json:"by"`
	// Outcome is empty until the end; with Undo it is what the end will be.
	Outcome Outcome `json:"outcome,omitempty"`
	// Note is a sentence about the outcome.
	Note string `json:"note,omitempty"`
}

// Heir is who is to be primary of To, as far as it can be known: the candidate, or before one was committed
// the only standby that was recruited; 0: nobody yet.
func (o *Operation) Heir() topology.NodeID {
	if o.Candidate == 0 && len(o.Recruited) == 1 {
		return o.Recruited[0]
	}
	return o.Candidate
}

// Ratchet is the second number that the hosts' ratchets compare, beside To. A task acts in an epoch
// whose operation has ended, so it lies above every Step, and a later task above an earlier one: a
// command of an overtaken task that arrives late is refused.
func (o *Operation) Ratchet() Step {
	if o.Kind.MakesEpoch() {
		return o.Step
	}
	return Done + Step(o.ID)
}

// Outcome is how an operation ended.
type Outcome string

const (
	Open      Outcome = ""       // it has not ended
	Completed Outcome = "done"   // it did what it was for
	Undone    Outcome = "undone" // everything is as it was before
	Failed    Outcome = "failed" // it was given up; the Note says what is left
	Waits     Outcome = "waits"  // for a decision of an operator, which the Note names
)

func (o Outcome) final() bool {
	return o == Completed || o == Undone || o == Failed || o == Waits
}

func (o Outcome) known() bool { return o == Open || o.final() }

// Accept is what an operator agreed to lose by --accept-data-loss.
type Accept string

const (
	AcceptNothing Accept = ""
	AcceptLoss    Accept = "data-loss"
)

func (a Accept) known() bool { return a == AcceptNothing || a == AcceptLoss }

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
	// Barred: a promotion was given up there. Until the node was healthy once more, others that have
	// as much log go first.
	Barred string `json:"barred,omitempty"`
	// Twin: it was a primary on a timeline that has the number and the origin of one on the epoch's
	// way, and is another: no history shows that. Only a new copy helps.
	Twin bool `json:"twin,omitempty"`
	// Tries are the repairs that failed since it last was healthy.
	Tries int `json:"tries,omitempty"`
}
