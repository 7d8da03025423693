package record

import (
	"slices"
	"time"

	"github.com/cstproxy/cstproxy/ha/topology"
)

// noteStart remembers when the present epoch began. Entries of a log that kept no times leave no trace.
func (c *Cluster) noteStart(at time.Time) {
	if at.IsZero() {
		return
	}
	// Milliseconds are the same wherever the entry was decoded; a time.Time carries a place with it.
	starts := append(slices.Clone(c.Starts), Start{Epoch: c.Epoch.Number, Timeline: c.Epoch.History.Timeline, Primary: c.Epoch.Primary, At: at.UnixMilli()})
	c.Starts = starts[max(0, len(starts)-maxPast):]
}

// StartOf is when the timeline became the cluster's; false when nobody remembers.
func (c *Cluster) StartOf(t topology.Timeline) (Start, bool) {
	i := slices.IndexFunc(c.Starts, func(s Start) bool { return s.Timeline == t })
	if i < 0 {
		return Start{}, false
	}
	return c.Starts[i], true
}

// Time is when it was.
func (s *Start) Time() time.Time { return time.UnixMilli(s.At) }
