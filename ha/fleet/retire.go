package fleet

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/ha/peer"
)

// A member that is taken out of the log may not learn of it there: nothing is sent to it any more. It
// would go on with proofs of its own, by standbys that the others take for forgotten. So it is told, and
// proves nothing until a leader grants it a lease again; after a restart it proves nothing by itself
// (lease.Holder.Proven).
const (
	retireMethod = "fleet/retire"
	retireTime   = 2 * time.Second
)

// retire tells a member that it was taken out. When it cannot be told, the operator has to end it.
func (f *Fleet) retire(ctx context.Context, m peer.Member) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), retireTime)
	defer cancel()
	if _, err := f.parts.Link.Call(ctx, m, retireMethod, nil); err != nil {
		f.log.Warn("member was taken out of the log and could not be told; stop its process: without a leader it may go on by itself",
			zap.String("member", m.Name), zap.Error(err))
	}
}

// retired is what another member says to one that was taken out. Only a member of the log as this one
// knows it may say so, which every holder of the fleet's key is.
func (f *Fleet) retired(_ context.Context, from string, _ []byte) ([]byte, error) {
	f.mu.Lock()
	f.out = Now()
	for _, c := range f.clusters {
		c.lease.Suspend()
	}
	f.mu.Unlock()
	f.log.Warn("this member was taken out of the fleet's log: it routes no writes", zap.String("member", f.cfg.Name), zap.String("why", "told by "+from))
	return nil, nil
}
