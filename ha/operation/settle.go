package operation

import (
	"context"
	"fmt"
	"time"

	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

const (
	// settleWithin bounds a checkpoint that nobody waits for.
	settleWithin = 5 * time.Minute
	// rewindsByRecovery is the version from which on pg_rewind knows of a promotion without a checkpoint after it.
	rewindsByRecovery = 160000
)

// Settle has the epoch's primary take a checkpoint when its last one is from before its promotion, and says
// whether there is nothing more to do in this epoch. A promoted server begins one by itself, and takes minutes
// over it; pg_rewind before version 16 goes by the timeline of the last that ended. One that is lost before, with
// log that its successor lacks, could only be copied anew.
//
// Any leader may call it, as often as it likes. It does nothing while an operation is under way, so never while
// one makes an epoch, nor while an operator has frozen the cluster. When the leader dies there, the server goes on
// with the checkpoint, and the next leader finds it done, or asks for it again. Wakes late: what it asks of a
// server that is the primary no more is a restart point, which changes nothing that matters.
func (e *Executor) Settle(ctx context.Context, c *record.Cluster) (settled bool, err error) {
	if c == nil || c.Epoch.Number == 0 || c.Operation != nil || c.Froze != nil {
		return false, nil
	}
	n, ok := e.nodes[c.Epoch.Primary]
	if !ok {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, settleWithin)
	defer cancel()
	conn, err := n.SQL.Connect(ctx)
	if err != nil {
		return false, fmt.Errorf("ask node %d: %w", n.ID, err)
	}
	defer conn.Close(ctx)
	o, err := conn.Probe(ctx)
	switch {
	case err != nil:
		return false, fmt.Errorf("ask node %d: %w", n.ID, err)
	case o.Role != topology.RolePrimary:
		return false, nil
	case o.Version >= rewindsByRecovery:
		return true, nil
	}
	if last, err := conn.CheckpointTimeline(ctx); err != nil || last >= o.Timeline {
		return err == nil, err
	}
	err = conn.Checkpoint(ctx)
	return err == nil, err
}
