package fleet

import (
	"context"
	"sync"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/ha/lease"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// prove renews the leases that no leader has renewed lately, by this member's own proofs that nobody
// can have been promoted: losing the quorum must not stop a healthy primary.
func (f *Fleet) prove(ctx context.Context) {
	if f.alone() || f.cfg.Witness || f.role(f.cfg.Name) == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Terms.Length/3)
	defer cancel()
	var all sync.WaitGroup
	defer all.Wait()
	for _, c := range f.clusters {
		if e, due := f.lapsing(c); due {
			all.Go(func() { f.proveOne(ctx, c, e) })
		}
	}
}

// lapsing says whether two renewals in a row have not come, for an epoch in which writes are routed.
func (f *Fleet) lapsing(c *cluster) (record.Epoch, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	due := f.out == 0 && c.Servers.Prove != nil && c.epoch.Number != 0 && c.holder.Frozen() == 0 && c.holder.Until()-Now() < f.cfg.Terms.Length/2
	return c.epoch, due
}

func (f *Fleet) proveOne(ctx context.Context, c *cluster, e record.Epoch) {
	began := Now()
	p := c.Servers.Prove(ctx, e, lease.Proof{Epoch: e.Number, Began: began, Flushed: map[topology.NodeID]topology.LSN{}, Standbys: e.Standbys})
	p.Epoch, p.Began, p.Standbys = e.Number, began, e.Standbys
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.out != 0 || c.epoch.Version != e.Version || !c.holder.Proven(p) {
		return
	}
	c.lease.Renew(int64(c.holder.Until()))
	f.log.Debug("lease proven", zap.String("cluster", c.Name), zap.Uint64("epoch", uint64(e.Number)), zap.Duration("lasted", Now()-began))
}
