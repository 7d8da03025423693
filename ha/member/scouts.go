package member

import (
	"context"
	"sync"
	"time"

	"github.com/cstproxy/cstproxy/ha"
	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/remote"
	"github.com/cstproxy/cstproxy/ha/topology"
)

const (
	// scoutPause is the least time between two questions to one host, scoutLook how often it is looked
	// whether there is something to ask: answers must be there when the second probe has failed.
	scoutPause = time.Second
	scoutLook  = 100 * time.Millisecond
)

// Scouts have the standbys' hosts connect to the primary, over their kept SSH connections, while it
// does not answer this member: that tells a primary that is gone from one that this member cannot
// reach. The nil Scouts know nothing.
type Scouts struct {
	snapshot func() ha.Snapshot
	hosts    func() map[topology.NodeID]*remote.Host
	stopping func() bool

	mu      sync.Mutex
	answers map[topology.NodeID]sighting // by the node whose host was asked
	asked   map[topology.NodeID]time.Time
}

// sighting is what one host found when it connected.
type sighting struct {
	of    topology.NodeID
	class decide.Class
	asked time.Time
}

// NewScouts takes the agent's snapshots of the cluster, the ways to its nodes' hosts, and what says whether
// the fleet itself is stopping the primary, of which nobody has to be told.
func NewScouts(snapshot func() ha.Snapshot, hosts func() map[topology.NodeID]*remote.Host, stopping func() bool) *Scouts {
	return &Scouts{snapshot: snapshot, hosts: hosts, stopping: stopping, answers: map[topology.NodeID]sighting{}, asked: map[topology.NodeID]time.Time{}}
}

// Run sends the scouts until ctx ends.
func (s *Scouts) Run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	tick := time.NewTicker(scoutLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := s.snapshot()
		primary := now.Node(now.Accepted)
		if primary == nil || primary.Failures == 0 && lives(primary.Class) || s.stopping() {
			continue
		}
		for id, h := range s.hosts() {
			if id != primary.ID && s.due(id) {
				all.Go(func() { s.send(ctx, id, h, primary.Node) })
			}
		}
	}
}

// lives says whether a node of the class needs no second opinion.
func lives(c decide.Class) bool {
	return c == decide.Answers || c == decide.Full || c == decide.Denied
}

// due says whether the host may be asked now, and notes that it is. A question takes no longer than
// remote.Config.AskTimeout, so that a slow host has a few at once at most.
func (s *Scouts) due(id topology.NodeID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); now.Sub(s.asked[id]) >= scoutPause {
		s.asked[id] = now
		return true
	}
	return false
}

func (s *Scouts) send(ctx context.Context, id topology.NodeID, by *remote.Host, to topology.Node) {
	asked := time.Now()
	reach, _, err := by.ProbeFrom(ctx, to.Host, to.Port)
	class := decide.Unprobed
	switch {
	case err != nil:
		return // the host did not say anything
	case reach == remote.Connected:
		class = decide.Answers
	case reach == remote.Closed:
		class = decide.Refused
	case reach == remote.Silent:
		class = decide.Silent
	default:
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if asked.After(s.answers[id].asked) {
		s.answers[id] = sighting{of: to.ID, class: class, asked: asked}
	}
}

// answer is what the host of id found last about the primary.
func (s *Scouts) answer(id, primary topology.NodeID) (sighting, bool) {
	if s == nil {
		return sighting{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := s.answers[id]
	return a, ok && a.of == primary
}
