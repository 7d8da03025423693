package main

import (
	"sync"
	"time"

	"github.com/cstproxy/cstproxy/proxy"
)

// traffic tells whether the clients' own writes get done on a cluster's primary. Reads do not count: they
// end on a primary that cannot write any more, too.
type traffic struct {
	proxy    *proxy.Proxy
	interval time.Duration

	mu   sync.Mutex
	seen map[string]count // by cluster
}

// count is how many commits there had been, and when that was last seen to rise.
type count struct {
	commits uint64
	rose    time.Time
}

func newTraffic(p *proxy.Proxy, interval time.Duration) *traffic {
	return &traffic{proxy: p, interval: interval, seen: map[string]count{}}
}

// flows says whether the cluster's primary acknowledged a client's write within the last interval. It is
// asked more often than that.
func (t *traffic) flows(cluster string) bool {
	commits := t.proxy.Commits(cluster)
	t.mu.Lock()
	defer t.mu.Unlock()
	now, last := time.Now(), t.seen[cluster]
	if commits != last.commits {
		last = count{commits: commits, rose: now}
		t.seen[cluster] = last
	}
	return now.Sub(last.rose) <= t.interval
}
