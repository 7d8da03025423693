// Package topology is what the data plane and the control plane both know: nodes, log positions,
// timelines, epochs, and the View, the one value in which they meet. The agent (package ha) is the
// only publisher of Views; everything else reads them from a Board. A View is immutable: a change
// is a new View. Standard library only, and nothing of ours is imported here.
package topology

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// NodeID names one PostgreSQL server within its cluster. 0 is "none".
type NodeID int

// Epoch numbers the choice of a primary; strictly rising, at most one primary in each.
type Epoch uint64

// LSN is a position in the write-ahead log, in bytes.
type LSN uint64

// ParseLSN reads PostgreSQL's text form "16/B374D848".
func ParseLSN(s string) (LSN, error) {
	hi, lo, ok := strings.Cut(s, "/")
	if !ok {
		return 0, fmt.Errorf("parse LSN %q: want the form 16/B374D848", s)
	}
	h, err := strconv.ParseUint(hi, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("parse LSN %q: %w", s, err)
	}
	l, err := strconv.ParseUint(lo, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("parse LSN %q: %w", s, err)
	}
	return LSN(h<<32 | l), nil
}

func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint64(l)>>32, uint32(l)) }

// Node is one PostgreSQL server as configured. Comparable, so that a reload can tell what changed.
type Node struct {
	ID   NodeID
	Host string
	Port int
	// Weight is the node's share of the reads, relative to the other standbys. 0: no reads.
	Weight int
	// NoLoadBalance keeps reads away from the node whatever its weight (tag noloadbalance).
	NoLoadBalance bool
	// OSUser, PGData and AppName serve the control plane: the account that owns the data
	// directory, the directory, and the application_name under which the standby streams.
	OSUser, PGData, AppName string
}

// Address is "host:port", IPv6 hosts in brackets; it is how cstlb names a backend.
func (n Node) Address() string { return net.JoinHostPort(n.Host, strconv.Itoa(n.Port)) }

// Role is what a node says of itself, as far as that is believed.
type Role int

const (
	RoleUnknown Role = iota // never answered, or what it says contradicts the rest
	RoleStandby
	RolePrimary
)

func (r Role) String() string {
	switch r {
	case RolePrimary:
		return "primary"
	case RoleStandby:
		return "standby"
	}
	return "unknown"
}

// Health says whether a node takes queries and, if not, why. The zero value takes none.
type Health int

const (
	HealthUnknown Health = iota // not probed yet
	Healthy                     // takes queries of its role
	Down                        // probes fail
	Lagging                     // behind a lag limit; returns by itself, with hysteresis
	Foreign                     // another system identifier, or a timeline history that is no prefix of the primary's
	Detached                    // taken out by an operator
	Draining                    // leaving: running sessions finish, no new ones
	Starting                    // answers with "the database system is starting up"
	NotStreaming                // a standby that replays but receives nothing for too long
)

var healthNames = [...]string{"unknown", "healthy", "down", "lagging", "foreign", "detached", "draining", "starting", "not streaming"}

func (h Health) String() string {
	if h < 0 || int(h) >= len(healthNames) {
		return "unknown"
	}
	return healthNames[h]
}
