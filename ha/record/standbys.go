package record

import (
	"slices"

	"github.com/cstproxy/cstproxy/ha/topology"
)

// quorum says whether the set names synchronous standbys that can be counted. With '*' nobody knows
// how many there are: such a set counts as asynchronous.
func (s *SyncSet) quorum() bool { return s.Count > 0 && !s.Any && len(s.Names) >= s.Count }

// Proves says whether a primary is certainly not being succeeded while those of streaming certainly
// receive what it writes now: k of n synchronous standbys, or with asynchronous replication every
// eligible one. No eligible standby at all is proof, too: nobody is there to be promoted.
func (s *Standbys) Proves(streaming []topology.NodeID) bool {
	if s.Sync.quorum() {
		return count(s.Sync.Nodes, streaming) >= s.Sync.Count
	}
	return count(s.Eligible, streaming) == len(s.Eligible)
}

// Broken says whether nobody can have the proof of Proves any more once those of cut have left the
// primary: n−k+1 of n synchronous standbys, or one eligible standby. The first also means that one
// of cut has the last commit that the synchronous standbys confirmed: any k of n and any n−k+1 of n
// have one in common. Names that are nobody's node count among n: they may be streaming.
func (s *Standbys) Broken(cut []topology.NodeID) bool {
	if s.Sync.quorum() {
		return count(s.Sync.Nodes, cut) >= len(s.Sync.Names)-s.Sync.Count+1
	}
	return count(s.Eligible, cut) > 0
}

// Synchronous says whether every acknowledged commit is on k of n known standbys.
func (s *Standbys) Synchronous() bool { return s.Sync.quorum() }

// BrokenForAll says whether Broken holds for the published standbys and for all that some member
// may still go by.
func (e *Epoch) BrokenForAll(cut []topology.NodeID) bool {
	if !e.Standbys.Broken(cut) {
		return false
	}
	for i := range e.Former {
		if !e.Former[i].Broken(cut) {
			return false
		}
	}
	return true
}

// Equal compares what two sets mean; the order of Eligible does not count.
func (s *Standbys) Equal(o Standbys) bool {
	return s.Sync.Method == o.Sync.Method && s.Sync.Count == o.Sync.Count && s.Sync.Any == o.Sync.Any &&
		slices.Equal(s.Sync.Names, o.Sync.Names) && slices.Equal(s.Sync.Nodes, o.Sync.Nodes) &&
		len(s.Eligible) == len(o.Eligible) && count(s.Eligible, o.Eligible) == len(s.Eligible)
}

func (s *Standbys) clone() Standbys {
	c := *s
	c.Sync.Names, c.Sync.Nodes, c.Eligible = slices.Clone(s.Sync.Names), slices.Clone(s.Sync.Nodes), slices.Clone(s.Eligible)
	return c
}

// count is how many different nodes of list are among those of in.
func count(list, in []topology.NodeID) int {
	n := 0
	for i, id := range list {
		if slices.Contains(in, id) && !slices.Contains(list[:i], id) {
			n++
		}
	}
	return n
}
