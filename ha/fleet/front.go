package fleet

import (
	"time"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/lease"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// frontLeases is for how many leases' length the address is given. An address that moves cuts all clients of
// its holder, who may have lost nothing but the leader: one lease is over before others follow another leader in
// half of all elections, two are not. Each lease more is as much time in which the address of a lost holder is
// nowhere.
const frontLeases = 2

// frontTerms are the leases' for the members' address.
func (f *Fleet) frontTerms() lease.Terms {
	return lease.Terms{Length: frontLeases * f.cfg.Terms.Length, Drift: f.cfg.Terms.Drift}
}

// front is the leader's choice of the one member that holds the members' own address. It is a lease
// like those of epochs: what a member was given lapses on its own clock before the leader gives it to
// another. Its holder keeps it as long as it reports. Fleet.mu guards it.
//
// Only a leader gives it, within a quorum round that began after the report had come (lease.G2). When it dies,
// the holder goes on until its lease has lapsed, and the next leader gives the address to nobody else for
// that long. One that wakes late gives nothing: no round succeeds any more, and of an answer that comes late
// nothing is left, because it counts from the report's sending.
//
// A holder that hears no leader gives it up when the lease has lapsed, unlike the leases of epochs, which go on
// by proofs. A proof shows that no standby was promoted; nothing shows a member without a majority that the
// others have not chosen a leader, who gives the address to one of them. Between two voters its own vote would,
// if it knew that no other voter has been agreed on since.
type front struct {
	holder string
	until  time.Duration // when the holder has certainly given up
	since  time.Duration // when what a leader before gave has certainly lapsed
	// lost is whose hold lapsed last, as far as this leader has heard while it gave the address to nobody.
	lost struct {
		member    string
		at, heard time.Duration
	}
}

// claim is what a member's report says of the address; held: it has it already, of a leader before. Who
// is blind does not go on holding it. lapsed is how long ago its hold lapsed; 0: it holds it, or never did.
type claim struct {
	member      string
	held, blind bool
	lapsed      time.Duration
}

// hear notes whose hold lapsed last. Ages that come later look younger by the time they took: which of two
// members gets the address back is no matter of safety.
func (f *front) hear(c claim, now time.Duration) {
	switch lost := &f.lost; {
	case c.blind && lost.member == c.member:
		lost.member = ""
	case c.blind || c.lapsed == 0:
	case lost.member == "" || lost.member == c.member || now-c.lapsed > lost.at:
		lost.member, lost.at, lost.heard = c.member, now-c.lapsed, now
	}
}

// kept says whether the address waits for another member, which had it last and still reports.
func (f *front) kept(member string, now, wait time.Duration) bool {
	return f.lost.member != "" && f.lost.member != member && now < f.lost.heard+wait
}

// choose says whether the member that reports at now holds the address for a lease of wait from the
// report's sending.
func (f *front) choose(c claim, now, wait time.Duration) bool {
	f.hear(c, now)
	switch {
	case c.blind:
		return false
	case f.holder == c.member:
	case f.holder == "" && (c.held || now >= f.since && !f.kept(c.member, now, wait)):
	case f.holder != "" && now >= f.until:
	default:
		return false
	}
	f.holder, f.until = c.member, now+wait
	f.lost.member = ""
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

// Front says whether this member holds the members' own address for at least ahead from now. Alone it always
// does, a witness never.
func (f *Fleet) Front(ahead time.Duration) bool {
	if f.alone() || f.cfg.Witness {
		return f.alone()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return Now()+ahead < f.frontUntil
}

// frontLapsed is how long ago this member's hold on the address lapsed; 0: it has it, or never had. Fleet.mu is
// held.
func (f *Fleet) frontLapsed(now time.Duration) time.Duration {
	if f.frontUntil == 0 || now <= f.frontUntil {
		return 0
	}
	return min(now-f.frontUntil, maxAge)
}
