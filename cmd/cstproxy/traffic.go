package main

import (
	"sync"
	"time"

	"github.com/cstproxy/cstproxy/proxy"
	"github.com/cstproxy/cstproxy/router"
)

// traffic tells whether the clients' own work gets done on a cluster's primary.
type traffic struct {
	proxy    *proxy.Proxy
	interval time.Duration

	mu   sync.Mutex
	seen map[string]count // by cluster
}

// count is how many turns had ended on primaries, and when that was last seen to rise.
type count struct {
	turns uint64
	rose  time.Time
}

func newTraffic(p *proxy.Proxy, interval time.Duration) *traffic {
	return &traffic{proxy: p, interval: interval, seen: map[string]count{}}
}

// flows says whether turns ended on the cluster's primary within the last interval. It is asked more
// often than that.
func (t *traffic) flows(cluster string) bool {
	var turns uint64
	for _, n := range t.proxy.Stats().Turns() {
		if n.Cluster == cluster && n.Target == router.Primary.String() {
			turns += n.Count
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now, last := time.Now(), t.seen[cluster]
	if turns != last.turns {
		last = count{turns: turns, rose: now}
		t.seen[cluster] = last
	}
	return now.Sub(last.rose) <= t.interval
}
