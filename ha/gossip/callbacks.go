package gossip

import (
	"errors"
	"fmt"
	"sync"

	"github.com/hashicorp/memberlist"
	"go.uber.org/zap"
)

// callbacks is what memberlist calls, partly under its own lock and from many goroutines, also for
// a moment after its Shutdown. So nothing here blocks or calls memberlist back: it writes down and
// posts.
type callbacks struct {
	gossip *Gossip
	queue  memberlist.TransmitLimitedQueue
	mu     sync.Mutex
	seen   seen
}

func newCallbacks(g *Gossip) *callbacks {
	c := &callbacks{gossip: g, seen: seen{runs: map[run]*window{}}}
	c.queue = memberlist.TransmitLimitedQueue{NumNodes: g.roster.size, RetransmitMult: retransmit}
	return c
}

// passed is a frame in the queue; each is its own.
type passed []byte

func (passed) Invalidates(memberlist.Broadcast) bool { return false }
func (p passed) Message() []byte                     { return p }
func (passed) Finished()                             {}
func (passed) UniqueBroadcast()                      {}

// pass has a frame repeated by gossip.
func (c *callbacks) pass(encoded []byte) {
	c.queue.QueueBroadcast(passed(encoded))
	c.queue.Prune(maxQueued)
}

func (c *callbacks) NodeMeta(int) []byte { return c.gossip.meta.Load().encode() }

func (c *callbacks) GetBroadcasts(overhead, limit int) [][]byte {
	return c.queue.GetBroadcasts(overhead, limit)
}

// NotifyMsg takes one frame. b is memberlist's after the return.
func (c *callbacks) NotifyMsg(b []byte) {
	f, err := decodeFrame(b)
	if err != nil {
		c.gossip.log.Debug("a message was not understood", zap.Error(err))
		return
	}
	if f.origin == c.gossip.config.Name || !c.first(f) {
		return
	}
	encoded := append([]byte(nil), b...)
	c.pass(encoded)
	switch f.kind {
	case message:
		payload := encoded[len(encoded)-len(f.payload):]
		c.gossip.post(Event{Kind: Message, Member: Member{Name: f.origin}, Payload: append([]byte(nil), payload...)})
	case delta:
		c.merge(f.payload, f.origin)
	case goodbye:
		c.gossip.roster.goodbye(f.origin)
	}
}

func (c *callbacks) first(f frame) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen.first(f)
}

func (c *callbacks) merge(encoded []byte, from string) {
	keys, err := c.gossip.ledger.Merge(encoded)
	if err != nil {
		c.gossip.log.Warn("another member's ledger was not understood", zap.String("member", from), zap.Error(err))
		return
	}
	if len(keys) > 0 {
		c.gossip.post(Event{Kind: Amended, Member: Member{Name: from}, Keys: keys})
	}
}

// LocalState is this side of a full exchange.
func (c *callbacks) LocalState(bool) []byte { return c.gossip.ledger.Encode() }

// MergeRemoteState is the other side's.
func (c *callbacks) MergeRemoteState(encoded []byte, _ bool) { c.merge(encoded, "") }

func (c *callbacks) member(n *memberlist.Node) Member {
	m := Member{Name: n.Name, Address: n.Address()}
	meta, err := decodeMeta(n.Meta)
	if err != nil {
		c.gossip.log.Debug("a member's description was not understood", zap.String("member", n.Name), zap.Error(err))
	}
	m.Meta = meta
	return m
}

func (c *callbacks) NotifyJoin(n *memberlist.Node) {
	if n.Name == c.gossip.config.Name {
		return
	}
	m := c.gossip.roster.join(c.member(n))
	c.gossip.log.Info("a member is there", zap.String("member", m.Name), zap.String("address", m.Address))
	c.gossip.post(Event{Kind: Joined, Member: m})
}

func (c *callbacks) NotifyLeave(n *memberlist.Node) {
	m, known := c.gossip.roster.depart(n.Name)
	if !known {
		return
	}
	c.gossip.log.Info("a member is not there any more", zap.String("member", m.Name), zap.String("why", m.Presence.String()))
	c.gossip.post(Event{Kind: Departed, Member: m})
}

func (c *callbacks) NotifyUpdate(n *memberlist.Node) {
	if m, known := c.gossip.roster.describe(c.member(n)); known {
		c.gossip.post(Event{Kind: Changed, Member: m})
	}
}

// NotifyConflict is called when two members have one name; the first one stays.
func (c *callbacks) NotifyConflict(existing, other *memberlist.Node) {
	c.gossip.log.Error("two members have the same name: give one of them another",
		zap.String("member", existing.Name), zap.String("address", existing.Address()), zap.String("other", other.Address()))
}

// NotifyAlive refuses members that cannot be ours.
func (c *callbacks) NotifyAlive(n *memberlist.Node) error {
	switch {
	case n.Name == "" || len(n.Name) > maxName:
		return fmt.Errorf("a name has 1 to %d bytes, not %d", maxName, len(n.Name))
	case len(n.Addr) != 4 && len(n.Addr) != 16:
		return fmt.Errorf("an address of %d bytes is none", len(n.Addr))
	case !c.gossip.roster.admit(n.Name):
		return errors.New("the fleet is full")
	}
	return nil
}
