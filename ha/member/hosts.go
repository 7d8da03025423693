package member

import (
	"context"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/cstproxy/cstproxy/ha/remote"
)

// hosts are the ways to the hosts of all nodes, one for each host and account.
type hosts struct {
	log  *zap.Logger
	ways map[remote.Config]*remote.Host
}

func newHosts(log *zap.Logger) hosts {
	return hosts{log: log, ways: map[remote.Config]*remote.Host{}}
}

func (h *hosts) way(cfg remote.Config) (*remote.Host, error) {
	if w := h.ways[cfg]; w != nil {
		return w, nil
	}
	w, err := remote.New(cfg, h.log)
	if err == nil {
		h.ways[cfg] = w
	}
	return w, err
}

// run keeps all connections until ctx ends.
func (h *hosts) run(ctx context.Context) error {
	var all errgroup.Group
	for _, w := range h.ways {
		all.Go(func() error { return w.Run(ctx) })
	}
	return all.Wait()
}
