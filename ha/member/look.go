package member

import (
	"time"

	"github.com/cstproxy/cstproxy/ha"
	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/fleet"
	"github.com/cstproxy/cstproxy/ha/pgnode"
	"github.com/cstproxy/cstproxy/ha/remote"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// Eyes are what a member sees of one cluster beside its agent's probes. The zero Eyes see nothing.
type Eyes struct {
	// Hosts are the ways to the nodes' hosts; a node without one has none.
	Hosts map[topology.NodeID]*remote.Host
	// Scouts have the standbys' hosts try the primary; may be nil.
	Scouts *Scouts
	// Traffic says whether transactions of clients have committed on the primary within the last probe
	// interval; may be nil.
	Traffic func() bool
}

// Look says what this member sees of each node, from memory. The facts of a node that does not answer
// stay, and age.
func Look(s ha.Snapshot, e Eyes) []fleet.Seen {
	list := make([]fleet.Seen, len(s.Nodes))
	for i := range s.Nodes {
		n := &s.Nodes[i]
		seen := fleet.Seen{Node: n.ID, Sight: decide.Sight{Class: n.Class, Since: since(s.Taken, n.Since), Host: host(e.Hosts[n.ID]), Why: n.Failure}}
		seen.Sight.Traffic = n.ID == s.Accepted && e.Traffic != nil && e.Traffic()
		if o := &n.Observation; !o.At.IsZero() {
			fact := factOf(o, s.Nodes)
			fact.DiskFull = n.DiskFull
			seen.Fact, seen.Age = &fact, since(s.Taken, o.At)
		}
		if answer, ok := e.Scouts.answer(n.ID, s.Accepted); ok {
			if seen.Fact == nil {
				// Only Primary counts of it: a fact as old as can be is older than any other.
				seen.Fact, seen.Age = &decide.Fact{}, unknownAge
			}
			seen.Fact.Primary, seen.PrimaryAge = answer.class, since(s.Taken, answer.asked)
		}
		list[i] = seen
	}
	return list
}

// unknownAge is of a fact that was never read.
const unknownAge = 300 * 24 * time.Hour

// since is how long before now at was; never negative, and 0 when at is never.
func since(now, at time.Time) time.Duration {
	if at.IsZero() {
		return 0
	}
	return max(now.Sub(at), 0)
}

func host(h *remote.Host) string {
	if h == nil {
		return ""
	}
	if up, _, _ := h.Up(); up {
		return "up"
	}
	return "down"
}

// factOf is what a server said of itself, as package operation's Look reads it.
func factOf(o *pgnode.Observation, nodes []ha.NodeStatus) decide.Fact {
	f := decide.Fact{
		Role: o.Role, SystemID: o.SystemID, History: o.History, Write: o.Write, Receive: o.Receive, Replay: o.Replay,
		Streaming: o.Receiver == "streaming", Running: true, Complete: o.Complete, Marked: o.Marker.Epoch,
		Settings: decide.Settings{MaxConnections: o.Settings.MaxConnections, MaxWorkers: o.Settings.MaxWorkers,
			MaxSenders: o.Settings.MaxSenders, MaxPrepared: o.Settings.MaxPrepared, MaxLocks: o.Settings.MaxLocks},
	}
	if o.Marker.Epoch != 0 && !o.Marker.Released {
		// One that is recruited is cut off only when nothing is left that could stream yet.
		f.Recruited, f.Streaming = o.Marker.Epoch, o.Receiving
	}
	if set, err := pgnode.ParseSyncNames(o.Settings.SyncNames); err == nil && o.Role == topology.RolePrimary {
		f.Sync = set
	}
	for i := range nodes {
		if o.Upstream != "" && nodes[i].Address() == o.Upstream {
			f.Upstream = nodes[i].ID
		}
	}
	return f
}
