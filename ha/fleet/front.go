package fleet

import "time"

// front is the leader's choice of the one member that holds the members' own address. It is a lease
// like those of epochs: what a member was given lapses on its own clock before the leader gives it to
// another. Its holder keeps it as long as it reports. Fleet.mu guards it.
type front struct {
	holder string
	until  time.Duration // when the holder has certainly given up
	since  time.Duration // when what a leader before gave has certainly lapsed
}

// choose says whether the member that reports at now holds the address for a lease's length from the
// report's sending. held: it says that it does already, of a leader before.
func (f *front) choose(member string, held bool, now, wait time.Duration) bool {
	switch {
	case f.holder == member:
	case f.holder == "" && (held || now >= f.since):
	case f.holder != "" && now >= f.until:
	default:
		return false
	}
	f.holder, f.until = member, now+wait
	return true
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
