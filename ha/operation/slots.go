package operation

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/cstproxy/cstproxy/ha/pgnode"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// Slots keeps the physical slots of the standbys in order, in quiet times. Every node bears one for every
// other, so that whoever is promoted has the log that the others have not got yet; those that nobody streams
// from are moved on by hand, since log piles up behind them. It is the leader's, made when it is elected.
// One goroutine uses it.
//
// A slot that nobody moves on can fill a disk: when all members are away, too. So it is made only on a
// server whose max_slot_wal_keep_size bounds that. Elsewhere there are only those that standbys stream by,
// which were made when they were told to follow; one of those is given up once it holds back more than
// Config.SlotLimit.
type Slots struct {
	e    *Executor
	lost map[topology.NodeID]string
}

// NewSlots is for one reign of a leader.
func NewSlots(e *Executor) *Slots { return &Slots{e: e, lost: map[topology.NodeID]string{}} }

const (
	// slotsWithin bounds a step.
	slotsWithin = 5 * time.Second
	// slotsFrom is the version that can move a slot on.
	slotsFrom = 110000
)

// bearer is a node that answers, and what it was seen to have. Its connection is open during a step.
type bearer struct {
	Node
	conn  *pgnode.Conn
	seen  pgnode.Observation
	slots []pgnode.Slot
	limit int64 // negative: none
}

// Step puts the slots in order, and says of which standbys the log that they need is gone from the primary:
// only a new copy helps those, unless they have an archive. Call it every ten seconds; it does nothing while
// an operation is under way, while an operator has frozen the cluster, or when the primary does not answer.
// It may wait for servers for up to five seconds. Whatever it does may be repeated by anybody at any time: a
// slot is never moved beyond what its standby has flushed on the epoch's timeline.
func (s *Slots) Step(ctx context.Context, c *record.Cluster) (lost map[topology.NodeID]string, err error) {
	if c == nil || c.Epoch.Number == 0 || c.Operation != nil || c.Froze != nil {
		return maps.Clone(s.lost), nil
	}
	ctx, cancel := context.WithTimeout(ctx, slotsWithin)
	defer cancel()
	bearers, errs := s.e.bearers(ctx)
	defer func() {
		for _, b := range bearers {
			b.conn.Close(ctx)
		}
	}()
	primary := bearers[c.Epoch.Primary]
	if primary == nil || primary.seen.Role != topology.RolePrimary {
		return maps.Clone(s.lost), errors.Join(errs...)
	}
	s.judge(primary, bearers)
	for _, id := range slices.Sorted(maps.Keys(bearers)) {
		b := bearers[id]
		if b != primary && (b.seen.Role != topology.RoleStandby || c.Mark(id).Quarantine != "") || b.seen.Version < slotsFrom {
			continue
		}
		if err := b.conn.KeepSlots(ctx, b.slots, s.wanted(b, primary, bearers, c)); err != nil {
			errs = append(errs, fmt.Errorf("slots of node %d: %w", id, err))
		}
	}
	return maps.Clone(s.lost), errors.Join(errs...)
}

// bearers asks every node at once. Who does not answer is not among them.
func (e *Executor) bearers(ctx context.Context) (map[topology.NodeID]*bearer, []error) {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		all  = map[topology.NodeID]*bearer{}
		errs []error
	)
	for id, n := range e.nodes {
		wg.Go(func() {
			b, err := n.bearer(ctx)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				all[id] = b
			case pgnode.CauseOf(err) == pgnode.Unclassified:
				errs = append(errs, fmt.Errorf("slots of node %d: %w", id, err)) // others say that it is down
			}
		})
	}
	wg.Wait()
	return all, errs
}

func (n Node) bearer(ctx context.Context) (*bearer, error) {
	c, err := n.SQL.Connect(ctx)
	if err != nil {
		return nil, err
	}
	b := &bearer{Node: n, conn: c}
	if b.seen, err = c.Probe(ctx); err == nil {
		b.slots, err = c.Slots(ctx)
	}
	if err == nil {
		b.limit, err = c.SlotLimit(ctx)
	}
	if err != nil {
		c.Close(ctx)
		return nil, err
	}
	return b, nil
}

// slot is the one that a bearer has for a standby; nil when it has none.
func (b *bearer) slot(of topology.Node) *pgnode.Slot {
	name := pgnode.SlotName(of)
	for i := range b.slots {
		if b.slots[i].Name == name {
			return &b.slots[i]
		}
	}
	return nil
}

// judge notes whose log the primary has given up, until they stream again.
func (s *Slots) judge(primary *bearer, bearers map[topology.NodeID]*bearer) {
	for id, n := range s.e.nodes {
		if b := bearers[id]; id == primary.ID || b != nil && b.streams(primary) {
			delete(s.lost, id)
			continue
		}
		slot := primary.slot(n.Node)
		switch {
		case slot == nil:
		case slot.Lost:
			s.lost[id] = fmt.Sprintf("node %d has removed log that node %d needs: max_slot_wal_keep_size is %d MB", primary.ID, id, primary.limit>>20)
		case primary.limit < 0 && s.e.cfg.SlotLimit > 0 && slot.Restart != 0 && !slot.Active && primary.seen.Write > slot.Restart+topology.LSN(s.e.cfg.SlotLimit):
			s.lost[id] = fmt.Sprintf("node %d has held back %d MB for node %d, which does not stream, and holds them back no longer", primary.ID, (primary.seen.Write-slot.Restart)>>20, id)
		}
	}
}

// streams says whether a standby receives what the primary writes now.
func (b *bearer) streams(primary *bearer) bool {
	return b.seen.Role == topology.RoleStandby && b.seen.Receiver == "streaming" && b.seen.Timeline == primary.seen.Timeline &&
		b.seen.SystemID == primary.seen.SystemID
}

// wanted are the slots of a bearer: by name, how far each may be moved on; 0: it stays where it is.
func (s *Slots) wanted(b, primary *bearer, bearers map[topology.NodeID]*bearer, c *record.Cluster) map[string]topology.LSN {
	want := map[string]topology.LSN{}
	for id, n := range s.e.nodes {
		if id == b.ID {
			continue
		}
		other, to := bearers[id], topology.LSN(0)
		switch {
		case id == primary.ID:
			to = primary.seen.Flush // for the day on which it follows b
		case c.Tasks[id] != nil:
		case other != nil && other.streams(primary):
			to = other.seen.Receive
		}
		have := b.slot(n.Node)
		switch {
		case b == primary && c.Tasks[id] != nil: // it is being made to follow by this slot, and waits for ever without
		case s.lost[id] != "" && c.Tasks[id] == nil:
			continue // what it held is gone, or is to be
		case have == nil && (b.limit < 0 || to == 0):
			continue // nothing would bound it, or nobody is known to need it
		case have != nil && b != primary && b.limit < 0 && to == 0:
			continue // a leftover of the time when b was the primary
		}
		want[pgnode.SlotName(n.Node)] = to
	}
	return want
}
