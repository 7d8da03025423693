package admin

import "time"

// The JSON that the server writes and the Client reads. Names are part of the interface.

// Cluster is one cluster as this member sees it.
type Cluster struct {
	Name string `json:"name"`
	// State is "normal", "degraded" (a node is missing) or "no primary".
	State string `json:"state"`
	// Why says in a few words what is wrong when State is not "normal".
	Why   string `json:"why,omitempty"`
	Epoch uint64 `json:"epoch"`
	// Primary is the id of the node that takes the writes, 0 while there is none.
	Primary int `json:"primary"`
	// SystemID is PostgreSQL's system identifier in decimal; a text, because JSON readers round
	// numbers of 64 bits. Empty until it is known.
	SystemID string `json:"system_id,omitempty"`
	// Backends are the addresses that take reads now, in round-robin order.
	Backends []string `json:"backends"`
	// Froze is the operator's order to do nothing automatic, Task the failover or switch under way;
	// absent when there is none, and where clusters are watched only.
	Froze *Froze `json:"froze,omitempty"`
	Task  *Task  `json:"task,omitempty"`
	// Planned is a switch for later.
	Planned *Task `json:"planned,omitempty"`
	// WriteVIP and ReadVIP are as configured.
	WriteVIP string `json:"write_vip,omitempty"`
	ReadVIP  string `json:"read_vip,omitempty"`
	// WriteVIPAt and ReadVIPAt are where the leader has seen them; absent while nobody leads, or it has not
	// looked yet. Only GET /api/v1/clusters has them.
	WriteVIPAt *Holding `json:"write_vip_at,omitempty"`
	ReadVIPAt  *Holding `json:"read_vip_at,omitempty"`
	Nodes      []Node   `json:"nodes"`
}

// The values of Cluster.State.
const (
	StateNormal    = "normal"
	StateDegraded  = "degraded"
	StateNoPrimary = "no primary"
)

// Node is one PostgreSQL server.
type Node struct {
	ID   int    `json:"id"`
	Host string `json:"host"`
	Port int    `json:"port"`
	// Role is "primary", "standby" or "unknown".
	Role string `json:"role"`
	// Health is "healthy" or the reason why the node takes no queries, in one or two words.
	Health string `json:"health"`
	// Why is what was last heard when the node is not healthy.
	Why           string `json:"why,omitempty"`
	InRotation    bool   `json:"in_rotation"`
	Weight        int    `json:"weight"`
	NoLoadBalance bool   `json:"noloadbalance,omitempty"`
	// Timeline is 0 until it is known.
	Timeline uint32 `json:"timeline,omitempty"`
	// LSN is the insert position of a primary and the replay position of a standby.
	LSN string `json:"lsn,omitempty"`
	// LagBytes is how far replay is behind the primary; absent when unknown.
	LagBytes *int64 `json:"lag_bytes,omitempty"`
	// LagSeconds is how old the newest replayed transaction is while there is something to replay.
	LagSeconds *float64 `json:"lag_seconds,omitempty"`
	// LastSeen is when the node last answered a probe; absent when it never did.
	LastSeen *time.Time `json:"last_seen,omitempty"`
	OSUser   string     `json:"os_user,omitempty"`
	PGData   string     `json:"pgdata,omitempty"`
	AppName  string     `json:"repl_app_name,omitempty"`
	// Warnings are settings that will make a repair impossible or long, one sentence each.
	Warnings []string `json:"warnings,omitempty"`
	// Mark is what the fleet remembers against the node ("quarantine: …"), SwitchTo the node that
	// takes over from it while that is under way.
	Mark     string `json:"mark,omitempty"`
	SwitchTo int    `json:"switch_to,omitempty"`
}

// NodeLSN is one line of ctl get_last_lsn.
type NodeLSN struct {
	ID      int    `json:"id"`
	Host    string `json:"host"`
	Port    int    `json:"port"`
	Primary bool   `json:"primary"`
	// Timeline and LSN are 0 and empty when the node did not answer; Error says why.
	Timeline uint32 `json:"timeline"`
	LSN      string `json:"lsn"`
	Error    string `json:"error,omitempty"`
}

// NodeDelay is one line of ctl repl_delay. The delays are bytes of WAL behind the primary's
// current position; absent for the primary and for a node that receives nothing.
type NodeDelay struct {
	ID          int    `json:"id"`
	Host        string `json:"host"`
	Port        int    `json:"port"`
	Primary     bool   `json:"primary"`
	CurrentLSN  string `json:"current_lsn,omitempty"`
	SentDelay   *int64 `json:"sent_delay,omitempty"`
	WriteDelay  *int64 `json:"write_delay,omitempty"`
	FlushDelay  *int64 `json:"flush_delay,omitempty"`
	ReplayDelay *int64 `json:"replay_delay,omitempty"`
	// IsSync is pg_stat_replication.sync_state: sync, async, potential or quorum.
	IsSync string `json:"is_sync,omitempty"`
	// State is "normal" while WAL streams, else what PostgreSQL says (startup, catchup, backup) or
	// "not streaming".
	State string `json:"state,omitempty"`
	// Error says why the line is incomplete.
	Error string `json:"error,omitempty"`
}

// Outcome answers a request that changed something.
type Outcome struct {
	Cluster string `json:"cluster"`
	Node    int    `json:"node"`
	Done    string `json:"done"`
}

// failure is the body of every answer under /api that is not 200.
type failure struct {
	Error string `json:"error"`
}
