package proxy

import (
	"sync/atomic"
	"time"

	"github.com/cstproxy/cstproxy/balancer"
	"github.com/cstproxy/cstproxy/ha/topology"
	"github.com/cstproxy/cstproxy/proxy/auth"
	"github.com/cstproxy/cstproxy/proxy/backend"
	"github.com/cstproxy/cstproxy/proxy/catalog"
	"github.com/cstproxy/cstproxy/proxy/params"
	"github.com/cstproxy/cstproxy/router"
)

// Cluster is what the data plane is given of one cluster.
type Cluster struct {
	Name    string
	Board   *topology.Board
	Catalog Catalog
	// Balancer is the policy of ordinary sessions; ReadOnly that of read-only listeners.
	Balancer, ReadOnly *balancer.Balancer
	// Failed is told when a node could not be reached, so that the agent probes it at once.
	Failed func(topology.NodeID)
}

// Catalog answers from memory what is known of roles and databases; catalog.Store is one.
type Catalog interface {
	Verifier(user string, done func(*auth.Verifier, error))
	Mock(user string) *auth.Verifier
	Forget(user string)
	Knowledge(database string) *router.Knowledge
	Changed(database string)
}

var _ Catalog = (*catalog.Store)(nil)

// cluster is one cluster on the loop.
type cluster struct {
	Cluster
	proxy       *Proxy
	view        *topology.View
	lastPrimary topology.NodeID // also while the View has none
	classifier  *router.Classifier
	balancer    *balancer.Balancer
	readOnly    *balancer.Balancer
	catalog     Catalog
	pools       *backend.Pools
	credentials credentials
	greetings   map[greetingKey]*greeting
	acceptedBy  map[acceptance]struct{}
	queue       holdQueue  // who waits for a node to exist, or for the permission to use the primary
	asked       time.Time  // when they last asked again, all of them
	unleased    bool       // somebody waits for the lease
	gated       []*session // whose answers wait for it (gate.go), oldest first
	episode     episode
	counters    map[turnKey]*atomic.Uint64
	schema      uint64        // counts the schema changes that were seen
	writes      atomic.Int64  // OpenWrites; only the loop writes it
	commits     atomic.Uint64 // Commits; likewise
	inquiries   map[topology.NodeID]*inquiry
}

func (c *cluster) schemaChanged() { c.schema++ }

// acceptance: a node has once taken these settings without an error.
type acceptance struct {
	set  *params.Set
	node topology.NodeID
}

// maxAccepted bounds what is remembered of accepted settings.
const maxAccepted = 20000

func (c *cluster) accept(set *params.Set, node topology.NodeID) {
	if len(c.acceptedBy) >= maxAccepted {
		clear(c.acceptedBy)
	}
	c.acceptedBy[acceptance{set, node}] = struct{}{}
}

func (c *cluster) isAccepted(set *params.Set, node topology.NodeID) bool {
	_, ok := c.acceptedBy[acceptance{set, node}]
	return ok
}

// acquire asks the pool of a node for a server for this session.
func (c *cluster) acquire(s *session, node topology.NodeID) (*backend.Server, error) {
	return c.pools.Acquire(c.key(s, node), &s.wait, s)
}

func (c *cluster) key(s *session, node topology.NodeID) backend.Key {
	return backend.Key{Cluster: c.Name, Node: node, Database: s.database, User: s.user}
}

// loginNode is where a first login asks: the primary, or any node that takes reads.
func (c *cluster) loginNode(mode ListenerMode) topology.NodeID {
	if mode != ListenStandby && c.view.Primary != 0 && c.closed() == "" {
		return c.view.Primary
	}
	for i := range c.view.Nodes {
		if c.view.Nodes[i].TakesReads() {
			return c.view.Nodes[i].ID
		}
	}
	return c.view.Primary
}

// viewChanged takes a new View over: connections to nodes that left end, and held turns go on.
func (c *cluster) viewChanged(v *topology.View) {
	old := c.view
	c.view = v
	if v.Epoch != old.Epoch || v.SystemID != old.SystemID {
		clear(c.greetings)
		clear(c.acceptedBy)
	}
	epochOver := v.Epoch != old.Epoch
	c.pools.ViewChanged(c.Name, func(id topology.NodeID, made topology.Epoch) backend.Fate {
		n := v.Node(id)
		switch {
		case n == nil:
			return backend.Cut
		case id == v.Heir && n.Health == topology.Foreign:
			return backend.Keep // promoted, and this member has not read yet that the epoch has begun
		case n.Health == topology.Foreign:
			return backend.Cut
		case epochOver && id == c.lastPrimary && made != v.Epoch && (id != v.Primary || made != 0 && old.Lease != nil):
			return backend.Cut // nothing that an ended epoch began may go on
		case id == v.Primary:
			return backend.Keep
		case n.Health == topology.Down && id == c.lastPrimary:
			// A primary that is only slow to answer probes may still answer its sessions; one that
			// is dead breaks their connections itself, or the system's timeouts do.
			return backend.Finish
		case n.Health == topology.Down:
			return backend.Cut
		case n.Role == topology.RolePrimary || n.Health != topology.Healthy && n.Health != topology.Lagging:
			return backend.Finish
		}
		return backend.Keep
	})
	if v.Primary != 0 {
		c.lastPrimary = v.Primary
	}
	c.regrant(old)
	if v.Frozen != "" && old.Frozen == "" {
		c.holdWaiters()
	}
	c.wakeHeld()
	c.welcome()
}

// credentials are the SCRAM keys that clients' logins left behind, by user.
type credentials map[string]*auth.Keys

func (c credentials) learn(user string, keys *auth.Keys) { c[user] = keys }
