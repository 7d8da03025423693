package topology

import (
	"sync"
	"sync/atomic"
)

// NodeView is one node as the View's publisher sees it.
type NodeView struct {
	Node
	Role   Role
	Health Health
	// Why is a short phrase for people when Health is not Healthy ("connection refused").
	Why string
	// Slot is the node's place in the cluster's Rounds; stable while the node is configured.
	Slot int
}

// TakesReads says whether reads may go to the node as a standby.
func (n *NodeView) TakesReads() bool {
	return n.Role == RoleStandby && n.Health == Healthy && n.Weight > 0 && !n.NoLoadBalance
}

// View is everything that the data plane needs to know of one cluster, as one member sees it at
// one moment. Immutable after Publish.
type View struct {
	Cluster string
	// Version rises with every View of this cluster that this process publishes.
	Version uint64
	Epoch   Epoch
	// Primary is the node that takes the writes, 0 while there is none (starting, failover,
	// or two nodes that both claim the role).
	Primary NodeID
	// WhyNoPrimary is the phrase an operator and the held client read while Primary is 0.
	WhyNoPrimary string
	// SystemID is the cluster's system identifier, 0 until the primary was seen.
	SystemID uint64
	// Lease is the permission to route writes of Epoch; nil when none is needed (one member alone).
	Lease *Lease
	// Frozen is why no new write may be sent although there is a primary (a failover or a switchover
	// of this epoch is under way); empty when none is. Writes wait; reads on standbys go on.
	Frozen string
	// Heir is the node that is about to become the primary of the next epoch, 0 while that is open: it
	// takes no writes yet, but connections to it can be made meanwhile.
	Heir NodeID
	// Nodes are all configured nodes, by rising ID.
	Nodes []NodeView
	// Rounds is where the monitor writes how far each node has replayed.
	Rounds *Rounds
}

// Node finds a node by its id; nil when there is none.
func (v *View) Node(id NodeID) *NodeView {
	for i := range v.Nodes {
		if v.Nodes[i].ID == id {
			return &v.Nodes[i]
		}
	}
	return nil
}

// Board holds the newest View of one cluster. Any goroutine may load; the agent publishes.
type Board struct {
	current atomic.Pointer[View]
	mu      sync.Mutex // orders Publish and guards watchers
	wakers  map[int]func(*View)
	next    int
}

// NewBoard returns a board that shows an empty View: no primary, no nodes.
func NewBoard(cluster string) *Board {
	b := &Board{wakers: map[int]func(*View){}}
	b.current.Store(&View{Cluster: cluster, WhyNoPrimary: "no node has been probed yet", Rounds: NewRounds()})
	return b
}

// View is the newest View; never nil.
func (b *Board) View() *View { return b.current.Load() }

// Publish makes v the newest View, sets its Version and tells the watchers, in order.
func (b *Board) Publish(v *View) {
	b.mu.Lock()
	defer b.mu.Unlock()
	v.Version = b.current.Load().Version + 1
	b.current.Store(v)
	for _, wake := range b.wakers {
		wake(v)
	}
}

// Watch calls wake after each Publish, on the publisher's goroutine: it must not block (post to a
// loop or a channel). The returned function ends the watch.
func (b *Board) Watch(wake func(*View)) (unwatch func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	id := b.next
	b.next++
	b.wakers[id] = wake
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.wakers, id)
	}
}
