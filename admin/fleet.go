package admin

import (
	"context"
	"errors"
	"time"
)

// Fleet is the control plane's side of the admin port: orders to the fleet, and what it says of
// itself. It is the same fleet whichever member is asked.
type Fleet interface {
	Orders
	Tasks
	Council
	Keeper
	Policymaker
}

// Orders are what operators want done.
type Orders interface {
	// Order begins a task and returns it; the zero Task for froze, unfroze and cancel, which are done at once.
	// It begins at most once, also when its answer was lost on the way. With Order.DryRun it returns
	// what would begin, and begins nothing.
	Order(ctx context.Context, o Order) (Task, error)
	// Voter changes who votes.
	Voter(ctx context.Context, c VoterChange) error
	// Adopt takes the cluster over from a fleet that is no more.
	Adopt(ctx context.Context, o Adoption) (Adopted, error)
}

// Tasks are the operations on a cluster.
type Tasks interface {
	// Tasks are those under way and the last that ended, oldest first.
	Tasks(cluster string) ([]Task, error)
	// TaskLog are lines of a task's log, from the member that leads; when there are none yet it waits
	// for some until ctx ends.
	TaskLog(ctx context.Context, p TaskPlace) (TaskLog, error)
}

// Council is who is in the fleet, and why it does what it does.
type Council interface {
	// Status is this member's own view; nobody else is asked.
	Status() FleetStatus
	// Members are those in the log, with what the leader has heard of them. With ErrNoLeader the list
	// is what this member knows.
	Members(ctx context.Context) ([]Member, error)
	// Evidence is why the leader did, or did not do, something about the cluster.
	Evidence(ctx context.Context, cluster string) (Evidence, error)
}

// Keeper knows what was agreed on, and prepares hosts.
type Keeper interface {
	// Meta is what the fleet has agreed on about the cluster, as this member has read it. It answers
	// from memory: every picture of the cluster asks for it.
	Meta(cluster string) (Meta, error)
	// Init prepares the cluster's hosts and databases; line gets what is done and found.
	Init(ctx context.Context, cluster string, line func(string)) error
}

// Further errors that choose the HTTP status.
var (
	// ErrNoLeader: nobody leads the fleet; nothing was begun (503).
	ErrNoLeader = errors.New("no leader")
	// ErrOutcome: the order may have been taken or not (504).
	ErrOutcome = errors.New("outcome unknown")
)

// Order is what an operator wants done.
type Order struct {
	Cluster string `json:"cluster"`
	// Verb is "switch", "failover", "repair", "clone", "restart", "froze", "unfroze", or "cancel": it calls
	// off the switch that is planned.
	Verb string `json:"verb"`
	// Node is the node's id; 0: the best, or none.
	Node int    `json:"node,omitempty"`
	By   string `json:"by,omitempty"`
	Why  string `json:"why,omitempty"`
	// AcceptDataLoss lets a failover lose what no standby has received.
	AcceptDataLoss bool `json:"accept_data_loss,omitempty"`
	// Mode is the one rung of a repair to take: "reattach", "rewind" or "rebuild"; empty: as needed.
	Mode   string `json:"mode,omitempty"`
	DryRun bool   `json:"dry_run,omitempty"`
	// At is when a switch shall begin; the zero time is now. The task that is returned is the plan: its
	// step is "planned", and when it has begun another one does what it was for.
	At time.Time `json:"at,omitzero"`
}

// Task is an operation on a cluster.
type Task struct {
	// ID is 0 when nothing had to begin.
	ID      uint64 `json:"id"`
	Cluster string `json:"cluster"`
	// Kind is "failover", "switch", "repair", "clone" or "restart".
	Kind string `json:"kind,omitempty"`
	// At is when a planned switch shall begin.
	At *time.Time `json:"at,omitempty"`
	// Step is "planned", "intent", "freeze", "fence", "promote", "after", "undo" or "done".
	Step string `json:"step,omitempty"`
	// Node is whom the order named, Candidate who becomes the primary, Former who was it before.
	Node      int `json:"node,omitempty"`
	Candidate int `json:"candidate,omitempty"`
	Former    int `json:"former,omitempty"`
	// From and To are the epochs before and after.
	From uint64 `json:"from,omitempty"`
	To   uint64 `json:"to,omitempty"`
	// LostBytes is how much log, at least, the former primary had written that the candidate lacks.
	LostBytes uint64 `json:"lost_bytes,omitempty"`
	Mode      string `json:"mode,omitempty"`
	Why       string `json:"why,omitempty"`
	By        string `json:"by,omitempty"`
	// Outcome is empty while it goes on, then "done", "undone", "failed" or "waits"; Note says more.
	Outcome string `json:"outcome,omitempty"`
	Note    string `json:"note,omitempty"`
}

// Ended says that nothing more will be done for the task.
func (t *Task) Ended() bool { return t.Step == "done" }

// TaskPlace is where a reader of a task's log stands; see TaskLog.
type TaskPlace struct {
	Cluster string
	ID      uint64
	Log     string
	From    int
}

// TaskLog is a part of a task's log.
type TaskLog struct {
	// Log names the log. When it is another one than before, another leader goes on with the task, and
	// Lines begin anew with what the fleet's record says. Next is the From of the next question.
	Log   string     `json:"log"`
	Next  int        `json:"next"`
	Lines []TaskLine `json:"lines"`
	Task  Task       `json:"task"`
}

// TaskLine is one line of a task's log.
type TaskLine struct {
	Number int       `json:"number"`
	At     time.Time `json:"at"`
	// Kind is "leader", "step", "why", "begin", "end", "progress" or "outcome".
	Kind string `json:"kind"`
	Step string `json:"step,omitempty"`
	Node int    `json:"node,omitempty"`
	// Seconds is how long an action took, with the kind "end".
	Seconds float64 `json:"seconds,omitempty"`
	Failed  bool    `json:"failed,omitempty"`
	Text    string  `json:"text"`
}

// Member is a member of the fleet.
type Member struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	// Role is "voter" or "follower".
	Role    string `json:"role"`
	Leads   bool   `json:"leads"`
	Witness bool   `json:"witness,omitempty"`
	// HeardSeconds is how long ago the leader heard of it last; absent when it never did, or cannot be
	// asked.
	HeardSeconds *float64 `json:"heard_seconds,omitempty"`
}

// VoterChange changes who votes.
type VoterChange struct {
	// Verb is "add", "remove" or "readmit".
	Verb string `json:"verb"`
	Name string `json:"name"`
	// Address is "host:port" of the member's fleet port; not needed to remove.
	Address string `json:"address,omitempty"`
	// Role of one to add is "voter", also when empty, or "follower".
	Role string `json:"role,omitempty"`
}

// Adoption takes a cluster over; its first epoch is Epoch at least.
type Adoption struct {
	Cluster string `json:"cluster"`
	Epoch   uint64 `json:"epoch,omitempty"`
	By      string `json:"by,omitempty"`
}

// Adopted is what came of an Adoption.
type Adopted struct {
	Fleet string `json:"fleet"`
	// Floors are the epochs above which each cluster begins.
	Floors map[string]uint64 `json:"floors"`
	// Former are the fleets that acted on the hosts before, Missing why some hosts could not be read.
	Former  []string `json:"former,omitempty"`
	Missing []string `json:"missing,omitempty"`
}

// FleetStatus is a member's view of its part in the fleet.
type FleetStatus struct {
	Member string `json:"member"`
	Fleet  string `json:"fleet,omitempty"`
	Leader string `json:"leader,omitempty"`
	Term   uint64 `json:"term"`
	Alone  bool   `json:"alone,omitempty"`
	// Waiting says why the member has no part in a fleet yet, Trouble why its disk takes no writes.
	Waiting  string        `json:"waiting,omitempty"`
	Trouble  string        `json:"trouble,omitempty"`
	Members  []Member      `json:"members"`
	Clusters []MemberShare `json:"clusters"`
}

// MemberShare is a member's part in one cluster.
type MemberShare struct {
	Cluster string `json:"cluster"`
	Epoch   uint64 `json:"epoch"`
	Primary int    `json:"primary"`
	// LeaseSeconds is how much longer writes may be routed without asking; absent when no lease is
	// needed (a member alone) or wanted (a witness).
	LeaseSeconds *float64 `json:"lease_seconds,omitempty"`
	// Held says why writes are held; empty when they are not.
	Held  string `json:"held,omitempty"`
	Froze *Froze `json:"froze,omitempty"`
}

// Froze is an operator's order to do nothing automatic.
type Froze struct {
	By  string `json:"by"`
	Why string `json:"why,omitempty"`
}

// Evidence is why the leader did what it did, or did nothing.
type Evidence struct {
	Cluster   string     `json:"cluster"`
	Leader    string     `json:"leader"`
	Since     time.Time  `json:"since"`
	Alarm     string     `json:"alarm,omitempty"`
	Decisions []Decision `json:"decisions"`
	Sights    []Sight    `json:"sights"`
	Facts     []Fact     `json:"facts"`
	// Addresses are where the leader has seen the virtual addresses.
	Addresses []Holding `json:"addresses,omitempty"`
}

// Holding is which hosts were seen with a virtual address AgoSeconds ago; none when Hosts is empty.
type Holding struct {
	// Kind is "write" or "read".
	Kind       string   `json:"kind"`
	Address    string   `json:"address"`
	Hosts      []string `json:"hosts"`
	AgoSeconds float64  `json:"ago_seconds"`
}

// Decision is one decision, and its actions in a few words each.
type Decision struct {
	At      time.Time `json:"at"`
	Why     string    `json:"why"`
	Alarm   string    `json:"alarm,omitempty"`
	Actions []string  `json:"actions,omitempty"`
}

// Sight is what one member sees of one node: Class ("answers", "refused", "silent", "starting",
// "denied", "full", "stuck") for SinceSeconds, as it said AgoSeconds ago. Host is "up", "down" or
// empty when it was not asked.
type Sight struct {
	Member       string  `json:"member"`
	Node         int     `json:"node"`
	Class        string  `json:"class"`
	SinceSeconds float64 `json:"since_seconds"`
	AgoSeconds   float64 `json:"ago_seconds"`
	Host         string  `json:"host,omitempty"`
	Why          string  `json:"why,omitempty"`
}

// Fact is what a node said of itself last, AgoSeconds ago; absent: it never said anything.
type Fact struct {
	Node       int      `json:"node"`
	Role       string   `json:"role"`
	AgoSeconds *float64 `json:"ago_seconds,omitempty"`
	Timeline   uint32   `json:"timeline,omitempty"`
	// LSN is a primary's write position and what a standby has received, ReplayLSN what it replayed.
	LSN       string `json:"lsn,omitempty"`
	ReplayLSN string `json:"replay_lsn,omitempty"`
	Streaming bool   `json:"streaming"`
	// Recruited is the epoch for which it was cut off from its primary.
	Recruited uint64 `json:"recruited,omitempty"`
	// Mark is what the fleet remembers against it.
	Mark string `json:"mark,omitempty"`
}

// Meta is what the fleet has agreed on about a cluster, and the part of this member's file about it.
type Meta struct {
	Cluster   string `json:"cluster"`
	Fleet     string `json:"fleet"`
	Epoch     uint64 `json:"epoch"`
	LastEpoch uint64 `json:"last_epoch"`
	Primary   int    `json:"primary"`
	Address   string `json:"address,omitempty"`
	SystemID  string `json:"system_id,omitempty"`
	Timeline  uint32 `json:"timeline,omitempty"`
	// SwitchLSN is where the epoch's timeline left the one before.
	SwitchLSN string   `json:"switch_lsn,omitempty"`
	Sync      MetaSync `json:"sync"`
	// Eligible are the standbys that may be promoted when this primary is lost.
	Eligible []int             `json:"eligible"`
	Settings map[string]int    `json:"settings,omitempty"`
	Froze    *Froze            `json:"froze,omitempty"`
	Marks    map[string]string `json:"marks,omitempty"` // by the node's id
	// Former are the timelines before, oldest first.
	Former []Fork `json:"former_timelines,omitempty"`
	// Task is the failover or switch under way.
	Task *Task `json:"task,omitempty"`
	// Planned is a switch for later.
	Planned *Task `json:"planned,omitempty"`
	// WriteVIP and ReadVIP are as configured.
	WriteVIP string `json:"write_vip,omitempty"`
	ReadVIP  string `json:"read_vip,omitempty"`
	// Configuration is the cluster's part of this member's file, without secrets.
	Configuration any `json:"configuration,omitempty"`
	// Policies are the values by which the fleet decides, without their changes; they win over
	// Configuration. Only the server sets them, for `ctl get_meta`.
	Policies *Policies `json:"policies,omitempty"`
}

// MetaSync is synchronous_standby_names as agreed on.
type MetaSync struct {
	Method string   `json:"method,omitempty"`
	Count  int      `json:"count,omitempty"`
	Names  []string `json:"names,omitempty"`
	Nodes  []int    `json:"nodes,omitempty"`
}

// Fork is where a timeline ended. Why is that of the task that ended it, Primary who was the primary then,
// and At when that epoch began; absent when it is not remembered.
type Fork struct {
	Timeline uint32 `json:"timeline"`
	End      uint64 `json:"end,string"`
	LSN      string `json:"lsn"`
	Why      string `json:"why,omitempty"`
	Primary  int    `json:"primary,omitempty"`
	// At is by the clock of the member that led.
	At *time.Time `json:"at,omitempty"`
}

// Process is what a running cstproxy says of itself.
type Process struct {
	Version    string    `json:"version"`
	PID        int       `json:"pid"`
	Host       string    `json:"host"`
	Executable string    `json:"executable"`
	Started    time.Time `json:"started"`
	// Draining says why no new clients are taken; empty while they are.
	Draining string       `json:"draining,omitempty"`
	Fleet    *FleetStatus `json:"fleet,omitempty"`
}
