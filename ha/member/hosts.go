package member

import (
	"context"
	"sync"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/cstproxy/cstproxy/ha/remote"
)

// hosts are the ways to the hosts of all nodes, one for each host and account. Any goroutine may use it.
type hosts struct {
	log   *zap.Logger
	fresh chan struct{} // receives something when ways has changed

	mu   sync.Mutex
	ways map[remote.Config]*remote.Host
}

func newHosts(log *zap.Logger) hosts {
	return hosts{log: log, fresh: make(chan struct{}, 1), ways: map[remote.Config]*remote.Host{}}
}

// way is the way to a host; a new one is run from now on.
func (h *hosts) way(cfg remote.Config) (*remote.Host, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if w := h.ways[cfg]; w != nil {
		return w, nil
	}
	w, err := remote.New(cfg, h.log)
	if err != nil {
		return nil, err
	}
	h.ways[cfg] = w
	h.changed()
	return w, nil
}

func (h *hosts) changed() {
	select {
	case h.fresh <- struct{}{}:
	default:
	}
}

// keep ends the ways that are not among those of the setups.
func (h *hosts) keep(setups func() []*setup) {
	used := map[*remote.Host]bool{}
	for _, s := range setups() {
		for _, w := range s.hosts {
			used[w] = true
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for cfg, w := range h.ways {
		if !used[w] {
			delete(h.ways, cfg)
		}
	}
	h.changed()
}

// run keeps all connections until ctx ends.
func (h *hosts) run(ctx context.Context) error {
	var all errgroup.Group
	ends := map[*remote.Host]context.CancelFunc{}
	for ctx.Err() == nil {
		h.mu.Lock()
		present := map[*remote.Host]bool{}
		for _, w := range h.ways {
			present[w] = true
			if ends[w] == nil {
				running, end := context.WithCancel(ctx)
				ends[w] = end
				all.Go(func() error { return w.Run(running) })
			}
		}
		h.mu.Unlock()
		for w, end := range ends {
			if !present[w] {
				end()
				delete(ends, w)
			}
		}
		select {
		case <-ctx.Done():
		case <-h.fresh:
		}
	}
	for _, end := range ends {
		end()
	}
	return all.Wait()
}
