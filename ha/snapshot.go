package ha

import (
	"errors"
	"time"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/pgnode"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// Errors that a caller of the agent tells apart; all others are failures of the moment.
var (
	// ErrUnknown: there is no such cluster, node or backend.
	ErrUnknown = errors.New("unknown")
	// ErrRefused: understood, but the state of the servers forbids it; the text says why.
	ErrRefused = errors.New("refused")
	// ErrAddress: the text is no "host:port".
	ErrAddress = errors.New("malformed address")
)

// Snapshot is everything that the agent knows of one cluster at one moment. It shares nothing that
// changes; the reader may keep it.
type Snapshot struct {
	Cluster string
	Epoch   topology.Epoch
	// Primary is 0 while there is none; WhyNoPrimary then says why.
	Primary      topology.NodeID
	WhyNoPrimary string
	// Accepted is the node that is primary of Epoch, whether or not it answers as one; 0 when none
	// ever was.
	Accepted topology.NodeID
	// Alarm is what an operator has to look at now ("nodes 1 and 2 both claim to be primary …"),
	// empty when nothing.
	Alarm    string
	SystemID uint64
	Timeline topology.Timeline
	// Taken is when the snapshot was made; ages count from here.
	Taken time.Time
	// Nodes are by rising id.
	Nodes []NodeStatus
}

// Node finds a node by its id; nil when there is none.
func (s *Snapshot) Node(id topology.NodeID) *NodeStatus {
	for i := range s.Nodes {
		if s.Nodes[i].ID == id {
			return &s.Nodes[i]
		}
	}
	return nil
}

// NodeStatus is one node of a Snapshot.
type NodeStatus struct {
	topology.NodeView
	// Observation is what the node said last; its At is zero when it never said anything. It stays
	// when the node falls silent.
	Observation pgnode.Observation
	// LastSeen is when it last answered a probe, LastTried when it was last asked.
	LastSeen, LastTried time.Time
	// Failure is what the last probe ended with, empty when it succeeded.
	Failure string
	// Failures is how many probes in a row have failed.
	Failures int
	// Class is what the probes and heartbeats mean to a decision, Since when that began.
	Class decide.Class
	Since time.Time
	// DiskFull: the last heartbeat failed because there was no space.
	DiskFull bool
	// Warnings are settings that will make a repair impossible or long, one sentence each; of a server
	// that is operated.
	Warnings []string
	// LagBytes and Lag are how far replay is behind the primary, in bytes of log and as the time
	// since the oldest log that is missing was seen on the primary (as fine as the rounds are).
	// Both count only when LagKnown.
	LagBytes int64
	Lag      time.Duration
	LagKnown bool
	// Proved is the newest round of this epoch that the node is known to have replayed.
	Proved topology.Round
	// InRotation says that reads go there as to a standby.
	InRotation bool
	// Added says that an operator added the node at run time; it is not in the configuration.
	Added bool
	Tags  Tags
}

// LSN is how far the node has come: a primary's write position, a standby's replay position.
func (n *NodeStatus) LSN() topology.LSN {
	if n.Observation.Role == topology.RolePrimary {
		return n.Observation.Write
	}
	return n.Observation.Replay
}

// Delay is how far one node is behind the primary, as the primary sees it at this moment.
type Delay struct {
	Node topology.Node
	// Primary: the node is the primary itself; Sender is empty then.
	Primary bool
	// CurrentLSN is the primary's write position.
	CurrentLSN topology.LSN
	// Streaming says that a WAL sender serves the node; Sender is empty otherwise.
	Streaming bool
	Sender    pgnode.Sender
}

// NodeLSN is where one node is at this moment.
type NodeLSN struct {
	Node     topology.Node
	Role     topology.Role
	Timeline topology.Timeline
	// LSN is a primary's write position; of a standby the larger of what it has received and
	// what it has replayed.
	LSN topology.LSN
	// Replay is a standby's replay position, 0 on a primary.
	Replay topology.LSN
	// Err says why the node did not answer; the rest is zero then.
	Err error
}
