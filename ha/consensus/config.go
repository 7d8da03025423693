// Package consensus is the fleet's log: what its members agree on, in one order, on the disks of a
// majority before it counts. It is the only importer of hashicorp/raft. A Log applies committed
// entries to a record.State, says who leads, and proves on demand that a majority still follows.
// Being leader is no permission to touch a server: leadership can have been lost without this
// member knowing, so every action carries its epoch and is checked where it takes effect.
package consensus

import (
	"fmt"
	"time"

	"github.com/cstproxy/cstproxy/ha/peer"
)

// Config is what a Log obeys.
type Config struct {
	// Name is this member's, Address the "host:port" at which the others reach its link.
	Name, Address string
	// Dir holds the log's file. Empty keeps it in memory, which only a member alone may do.
	Dir string
	// Voters are the members that found the fleet: all of them must have met once, with nothing on
	// their disks. After that the log itself says who votes, and this list is not looked at.
	Voters []peer.Member
	// Heartbeat is how long a follower goes without a word from the leader before it stands for
	// election, Election how long an election may take before it is repeated. Both add to the time
	// that a fleet is without a leader; too short, and a slow disk or a busy machine costs one.
	Heartbeat, Election time.Duration
	// LeaderLease is how long a leader goes without a majority before it steps down. Shorter than
	// Heartbeat, so that a leader that was cut off has stopped before the next one begins, if clocks
	// run; nothing depends on that.
	LeaderLease time.Duration
	// SnapshotEvery is after how many entries the log is replaced by a snapshot, Trailing how many
	// entries are kept nevertheless for members that are a little behind. What is proposed takes two: see
	// Propose.
	SnapshotEvery, Trailing uint64
}

// minTiming is below what a fsync and a round trip take on ordinary machines.
const minTiming = 20 * time.Millisecond

// DefaultConfig returns the defaults for a member; Address, Dir and Voters are the caller's.
func DefaultConfig(name string) Config {
	return Config{
		Name:      name,
		Heartbeat: 700 * time.Millisecond, Election: 700 * time.Millisecond, LeaderLease: 350 * time.Millisecond,
		SnapshotEvery: 2048, Trailing: 512,
	}
}

// Validate says what is wrong with the configuration of a member that is alone, when link is nil,
// or has a link.
func (c *Config) Validate(link *peer.Link) error {
	if err := peer.CheckName(c.Name); err != nil {
		return err
	}
	switch {
	case c.LeaderLease < minTiming:
		return fmt.Errorf("consensus: leader lease %s is below %s", c.LeaderLease, minTiming)
	case c.LeaderLease > c.Heartbeat:
		return fmt.Errorf("consensus: leader lease %s is above heartbeat %s: two members would lead at once", c.LeaderLease, c.Heartbeat)
	case c.Election < c.Heartbeat:
		return fmt.Errorf("consensus: election %s is below heartbeat %s: elections would not end", c.Election, c.Heartbeat)
	case c.SnapshotEvery < 1:
		return fmt.Errorf("consensus: a snapshot after %d entries", c.SnapshotEvery)
	}
	if link == nil {
		return nil
	}
	return c.validateFleet(link)
}

func (c *Config) validateFleet(link *peer.Link) error {
	switch {
	case c.Dir == "":
		return fmt.Errorf("consensus: a member of a fleet needs a directory: what it has promised must outlive it")
	case c.Address == "":
		return fmt.Errorf("consensus: member %s has no address", c.Name)
	case link.Name() != c.Name:
		return fmt.Errorf("consensus: member %s has the link of %s", c.Name, link.Name())
	case len(c.Voters) == 0:
		return fmt.Errorf("consensus: no voters")
	}
	names, addresses := map[string]bool{}, map[string]bool{}
	for _, v := range c.Voters {
		if err := peer.CheckName(v.Name); err != nil {
			return err
		}
		if v.Address == "" || names[v.Name] || addresses[v.Address] {
			return fmt.Errorf("consensus: voter %s: name and address must be there and its own", v)
		}
		names[v.Name], addresses[v.Address] = true, true
	}
	return nil
}
