// Package decide is the decision core: Decide looks at a Picture of one cluster and says what the
// leader does next, and why. It is a pure function: no I/O, no clock, no goroutine, no memory. All
// progress is in the journal (record.Operation) and in facts, so a leader that takes over in the
// middle of an operation decides from the same values as the one that began it. The same code runs
// under the agent and in the simulator.
package decide

import (
	"time"

	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// Picture is everything that a decision is made from. Times are on the leader's own monotonic
// clock; a zero time is "never".
type Picture struct {
	Cluster string
	Now     time.Duration
	Self    string // this member, the leader
	// LeaderSince is when this member's leadership was established (barrier passed).
	LeaderSince time.Duration
	// Alone: the fleet is this one member; it needs no lease.
	Alone   bool
	Record  record.Cluster
	Policy  Policy
	Members []Member
	Nodes   []Node // all configured, by rising id
	// StepSince is when this leader first knew the present operation's Step as committed; without
	// an operation, since when there is none.
	StepSince time.Duration
	// TaskSince is when this leader first knew each task's Step as committed, by node; a task that
	// is not in it has just begun.
	TaskSince map[topology.NodeID]time.Duration
	// EpochSince is when the present epoch began, as this leader saw it or was told by the one before;
	// zero when it does not know.
	EpochSince time.Duration
	// LastRecruit is when the last Recruit of the present operation came back; at least
	// LeaderSince when another leader may have recruited.
	LastRecruit time.Duration
	// Finished are the endings of this leader's actions for the present operation and tasks.
	Finished []Result
	// Running are its actions that have not ended.
	Running []Action
	// Weakness is for the simulator, which shows that it notices; nobody else sets it.
	Weakness Weakness
}

// Weakness leaves guards out, as a set of bits. The zero Weakness leaves out none.
type Weakness uint

const (
	// NoLeaseWait promotes while members may still hold leases.
	NoLeaseWait Weakness = 1 << iota
	// NoRecruit promotes without having cut anybody off from the old primary.
	NoRecruit
)

// Policy is the part of the configuration that decides.
type Policy struct {
	Lease   time.Duration // L
	Drift   float64       // how much two members' clocks may differ in rate: 0.01
	OnCrash string        // "restart" or "failover"
	// RestartBudget is how long a restart of a crashed primary may take before a failover.
	RestartBudget time.Duration
	// Gray is how long a primary may take no writes although it is reachable.
	Gray time.Duration
	// Unreachable is how long no member may reach a primary that still streams, before a failover
	// if FailoverWhenUnreachable; 0: never.
	Unreachable time.Duration
	// AntiFlap is the least time from one automatic failover's end to the next one's begin.
	AntiFlap time.Duration
	// MaxLag is max_lag_on_failover in bytes: how far behind the last position seen on the primary a
	// candidate of an automatic failover may be.
	MaxLag uint64
	// Drain is how long a switchover waits for open transactions.
	Drain time.Duration
	// OnOpen says what a switchover does with transactions that are still open after Drain: "stop"
	// ends them, anything else gives the switchover up.
	OnOpen string
	// SwitchBudget is how long writes may be held by a switchover before it is undone.
	SwitchBudget time.Duration
	// MaxRepairs is how many automatic repairs of a node may fail before a human is asked.
	MaxRepairs int
	// WriteVIP is the address that follows the primary; empty: none.
	WriteVIP string
	// Hooks are the names of the hooks that run when an operation has made an epoch, in this order.
	Hooks []string
	// FenceHooks are the names of those that begin with a failover's Promote; nobody waits for them.
	FenceHooks []string
}

// Member is another member (or this one) as the leader knows it.
type Member struct {
	Name  string
	Voter bool
	// Witness has no data path: it needs no lease and is not waited for.
	Witness bool
	// Heard is when its newest report was sent, on the leader's clock: the time at which the leader
	// received it, minus nothing (an upper bound).
	Heard time.Duration
	// LeaseUntil is when the last lease that this leader granted it has certainly lapsed.
	LeaseUntil time.Duration
	// Frozen is the newest operation whose Freeze it acknowledged: it routes no writes of From.
	Frozen record.OperationID
	// Drains is the newest operation for which it begins no new writes.
	Drains record.OperationID
	// Open counts its open write transactions (switchover).
	Open int
	// Known is the version of the present epoch's Standbys that its log shows; 0: of none.
	Known uint64
	// Sights are what it sees of each node.
	Sights map[topology.NodeID]Sight
}

// Class is what one member makes of its own probes of a node. It leaves Answers only when two
// probes in a row failed; a refused connection is tried again at once.
type Class string

const (
	Unprobed Class = ""
	Answers  Class = "answers"  // reads and, on the primary, the write heartbeat succeed
	Refused  Class = "refused"  // the host answers, nobody listens
	Silent   Class = "silent"   // no answer at all
	Starting Class = "starting" // alive, lets nobody in yet
	Denied   Class = "denied"   // alive, does not talk to us
	Full     Class = "full"     // alive, out of connections
	Stuck    Class = "stuck"    // connects or old sessions answer, new writes do not end
)

// Sight is one member's view of one node.
type Sight struct {
	Class Class
	// Since is how long the class has been that, at Member.Heard.
	Since time.Duration
	// Host: the node's host answers over SSH ("up"), does not ("down"), or was not asked ("").
	Host string
	// Traffic: client transactions have committed there within the last probe interval.
	Traffic bool
	Why     string
}

// Node is one server with the newest facts about it, whoever read them.
type Node struct {
	topology.Node
	NoFailover, NoSync bool
	Priority           int
	Fact               Fact
	// Managed: there is a way to act on it (SSH or SQL), and it may be operated.
	Managed bool
}

// Fact is what a node said of itself, last.
type Fact struct {
	// At is when the question was sent; zero when it never answered.
	At       time.Duration
	Role     topology.Role
	SystemID uint64
	History  topology.History
	// Write is a primary's position, Receive and Replay are a standby's. Of a server that was shut
	// down in order Write is where its shutdown checkpoint begins; 0 when it was not in order.
	Write, Receive, Replay topology.LSN
	// Streaming: a WAL receiver runs and is streaming. Its position is fresh only by Receive.
	Streaming bool
	// Upstream is whom its WAL receiver is configured to follow; 0 when none or unknown.
	Upstream topology.NodeID
	// Recruited is the marker cstproxy.epoch; 0 when it is not recruited. It counts for an
	// operation only with Streaming false.
	Recruited topology.Epoch
	// Marked is the newest epoch that its marker names, also when it was released since.
	Marked topology.Epoch
	// Running: a postmaster runs (by SSH); Stopped: it was seen not to.
	Running, Stopped bool
	// NoVIP: the write VIP was looked for on the node's host, and is not there.
	NoVIP bool
	// Complete: not in the middle of a pg_basebackup or pg_rewind, and consistent.
	Complete bool
	// Halfway: a rewind was left there, before it changed anything or after it had ended, and goes on when
	// it is repeated.
	Halfway bool
	// Vacant: its host says that there is no data directory.
	Vacant bool
	// DiskFull: no space for log.
	DiskFull bool
	Settings Settings
	// Since is when Role, Streaming, Upstream, Recruited or Running was last seen to change.
	Since time.Duration
	// Moved is when Receive was last seen to be another than before.
	Moved time.Duration
	// Primary is what the host of this standby finds when it connects to the epoch's primary from
	// where it stands (Answers: somebody listens), and PrimaryAt when it was asked; zero: never.
	Primary   Class
	PrimaryAt time.Duration
	// Sync is a primary's synchronous_standby_names, without Nodes.
	Sync record.SyncSet
}

// Settings are those that a standby must have at least as high as the primary.
type Settings = record.Settings

// Learn takes in a fact at the time now, unless a newer one is known: facts may come late. What its
// host finds of the primary has an age of its own. Since and Moved follow from the facts before.
func (n *Node) Learn(f Fact, now time.Duration) {
	old := n.Fact
	if f.PrimaryAt <= old.PrimaryAt {
		f.Primary, f.PrimaryAt = old.Primary, old.PrimaryAt
	}
	if f.At < old.At {
		n.Fact.Primary, n.Fact.PrimaryAt = f.Primary, f.PrimaryAt
		return
	}
	f.Since, f.Moved = old.Since, old.Moved
	if f.Role != old.Role || f.Streaming != old.Streaming || f.Upstream != old.Upstream || f.Recruited != old.Recruited || f.Running != old.Running {
		f.Since = now
	}
	if f.Receive != old.Receive {
		f.Moved = now
	}
	n.Fact = f
}

// Verb is what an action does to a node. Every action is idempotent and may be repeated by any
// leader that holds the same (Epoch, Step).
type Verb string

const (
	Look       Verb = "look"       // read fresh facts now, with Mode ServerAlone without the host's
	Recruit    Verb = "recruit"    // leave the upstream, with marker Epoch; wait until the receiver is gone; facts
	Release    Verb = "release"    // undo: follow Upstream again, marker away
	Stop       Verb = "stop"       // stop the server (Mode "immediate" or "fast"), leave standby.signal so that it never boots writable, VIPs off
	Start      Verb = "start"      // start a stopped server as a standby, whatever its directory says
	Revive     Verb = "revive"     // restart the crashed primary of this epoch, as primary
	Checkpoint Verb = "checkpoint" // CHECKPOINT there
	PromoteIt  Verb = "promote"    // promote to a timeline not below Timeline, wait until it takes a write; facts
	Follow     Verb = "follow"     // follow Upstream: conninfo, slot, reload, marker away
	Rewind     Verb = "rewind"     // pg_rewind from Upstream, then follow it
	Rebuild    Verb = "rebuild"    // pg_basebackup from Upstream, then follow it
	TakeVIP    Verb = "take-vip"   // the write VIP onto this node's host, announced
	DropVIP    Verb = "drop-vip"
	Hook       Verb = "hook" // run the hook named Mode
)

// ServerAlone is a Look's Mode.
const ServerAlone = "server"

// Action is one thing to do to one node, for an operation. Comparable: it identifies itself.
type Action struct {
	Verb      Verb
	Node      topology.NodeID
	Operation record.OperationID
	// Epoch and Step are what the host's ratchet compares.
	Epoch    topology.Epoch
	Step     record.Step
	Upstream topology.NodeID
	Mode     string
	// Timeline is the least number of the timeline that a promotion may begin. PostgreSQL takes the
	// first one above its own for which it finds no history file; when that would be lower, files
	// for the numbers between are put there first. A server that is primary already stays so.
	Timeline topology.Timeline
	Timeout  time.Duration
}

// Result is how an action ended. What it found out is in the node's Fact.
type Result struct {
	Action Action
	At     time.Duration
	Err    string // empty: succeeded
	// Refused: the host's ratchet has seen a higher (epoch, step).
	Refused bool
}

// Plan is what the leader does now. At most one of Entry and Actions is set.
type Plan struct {
	// Entry is to be committed; then the leader decides again.
	Entry *record.Entry
	// Actions are to be begun unless they are running.
	Actions []Action
	// Why explains the plan, or why nothing is done, for the log and for `ctl evidence`.
	Why string
	// Alarm is what an operator has to look at, empty when nothing.
	Alarm string
	// Again is how long from Now the leader may wait at most before it decides again although
	// nothing new has arrived; 0: no limit.
	Again time.Duration
}
