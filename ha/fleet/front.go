package fleet

import (
	"time"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// front is the leader's choice of the one member that holds the members' own address. It is a lease
// like those of epochs: what a member was given lapses on its own clock before the leader gives it to
// another. Its holder keeps it as long as it reports. Fleet.mu guards it.
type front struct {
	holder string
	until  time.Duration // when the holder has certainly given up
	since  time.Duration // when what a leader before gave has certainly lapsed
}

// claim is what a member's report says of the address; held: it has it already, of a leader before. Who
// is blind does not go on holding it.
type claim struct {
	member      string
	held, blind bool
}

// choose says whether the member that reports at now holds the address for a lease's length from the
// report's sending.
func (f *front) choose(c claim, now, wait time.Duration) bool {
	switch {
	case c.blind:
		return false
	case f.holder == c.member:
	case f.holder == "" && (c.held || now >= f.since):
	case f.holder != "" && now >= f.until:
	default:
		return false
	}
	f.holder, f.until = c.member, now+wait
	return true
}

// blind says whether the member does not reach the primary, and another one that takes clients does: its
// clients would be better off there.
func (s *seat) blind(name string, primary topology.NodeID, since time.Duration) bool {
	lives := func(c decide.Class) bool { return c == decide.Answers || c == decide.Full || c == decide.Denied }
	own := s.members[name]
	if own == nil || own.Sights[primary].Class == decide.Unprobed || lives(own.Sights[primary].Class) {
		return false
	}
	for other, h := range s.members {
		if other != name && !h.Witness && h.Heard >= since && lives(h.Sights[primary].Class) {
			return true
		}
	}
	return false
}

// Front says whether this member holds the members' own address now. Alone it always does, a witness
// never.
func (f *Fleet) Front() bool {
	if f.alone() || f.cfg.Witness {
		return f.alone()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return Now() < f.frontUntil
}
