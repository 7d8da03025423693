package fleet

import (
	"time"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// Elsewhere says whether another member that takes clients may reach the node: one has lately reported so, or
// this member has not led for long enough to have heard them all. Only the leader hears reports: whoever does
// not lead, or leads no more, is told that it may be, and so does nothing for a node that it does not reach.
func (f *Fleet) Elsewhere(cluster string, id topology.NodeID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.reign == nil || f.reign.seats[cluster] == nil {
		return true
	}
	return f.reign.seats[cluster].elsewhere(f.cfg.Name, id, Now()-f.cfg.Terms.Length)
}

// elsewhere goes by reports not older than since, as a leader of before since.
func (s *seat) elsewhere(own string, id topology.NodeID, since time.Duration) bool {
	for name, m := range s.members {
		class := m.Sights[id].Class
		if name != own && !m.Witness && m.Heard >= since && (class == decide.Answers || class == decide.Full) {
			return true
		}
	}
	return s.since > since
}
