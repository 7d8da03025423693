package ha

import (
	"fmt"
	"time"

	"github.com/cstproxy/cstproxy/ha/topology"
)

// standing is what the agent holds for true about a cluster, from one judgement to the next and,
// by the state file, over a restart.
type standing struct {
	epoch   topology.Epoch
	primary topology.NodeID // 0 when none was ever accepted, or it is no longer configured
	system  uint64
	history topology.History
	// last is the highest position that the primary was seen at.
	last topology.LSN
	// confirmed: this process has seen primary in its role. What only the file says yields to a
	// higher timeline that descends from it, because a failover can have happened meanwhile.
	confirmed bool
	// gone is since when the primary does not answer as one; zero while it does.
	gone time.Time
	// rivals are nodes that claimed to be primary while another one was accepted.
	rivals map[topology.NodeID]rival
}

// rival is a node's claim to be primary next to the accepted one.
type rival struct {
	timeline topology.Timeline
	// since is when the probe began that first heard the claim.
	since time.Time
	// outlived: the primary has answered a probe that began after since, so it was alive when the
	// rival had been promoted. Without that, the promotion may well be the answer to its death.
	outlived bool
}

// outlived are the timelines of the rivals that the primary has outlived.
func (s *standing) outlived() map[topology.NodeID]topology.Timeline {
	list := map[topology.NodeID]topology.Timeline{}
	for id, r := range s.rivals {
		if r.outlived {
			list[id] = r.timeline
		}
	}
	return list
}

// picture is everything that a judgement is made from.
type picture struct {
	facts  []fact // by rising id
	known  standing
	limits limits
	grace  time.Duration // Config.RivalGrace
	ruling *Ruling       // nil: nobody has agreed on anything, judge by what is seen
	now    time.Time
}

// verdict is what follows from a picture.
type verdict struct {
	known standing
	// primary is the node that takes the writes now, 0 when none does; then why says why.
	primary topology.NodeID
	why     string
	// reason is why the epoch changed, empty when it did not.
	reason string
	alarm  string
	nodes  []topology.NodeView
	// early: no primary was seen yet, and not every node has been probed.
	early bool
	// base is the history that a standby's must be a prefix of; mixed says that there is none,
	// because the nodes are of several systems and nobody has said which is the right one.
	base  topology.History
	mixed bool
	// faults are the ruling's.
	faults map[topology.NodeID]string
}

// judge decides who is primary and what every node is good for. It is a pure function.
//
// A hand-made promotion never captures the writes of a living primary: while the accepted primary
// answers as one, it stays. When it does not, the node on the highest timeline that descends from
// the accepted one follows it, in a new epoch. When nobody follows so, there is no primary.
func judge(p picture) verdict {
	v := verdict{known: p.known}
	v.known.rivals = keepRivals(p.known.rivals, p.facts)
	if p.ruling != nil {
		v.obey(p)
	} else {
		v.forgetStrangers(p)
		v.choose(p)
	}
	v.findBase(p.facts)
	v.nodes = make([]topology.NodeView, len(p.facts))
	for i := range p.facts {
		v.nodes[i] = v.viewOf(&p.facts[i], p.limits)
	}
	return v
}

// keepRivals leaves out nodes that are gone from the configuration or have become standbys.
func keepRivals(rivals map[topology.NodeID]rival, facts []fact) map[topology.NodeID]rival {
	kept := map[topology.NodeID]rival{}
	for i := range facts {
		f := &facts[i]
		r, ok := rivals[f.node.ID]
		if ok && !(f.pulse.condition.speaks() && f.pulse.observed.Role == topology.RoleStandby) {
			kept[f.node.ID] = r
		}
	}
	return kept
}

// findBase chooses what the standbys are compared with: the accepted primary's history, or while
// none was ever seen the most advanced standby's.
func (v *verdict) findBase(facts []fact) {
	v.base = v.known.history
	if v.known.system != 0 {
		return
	}
	var system uint64
	for i := range facts {
		f := &facts[i]
		if !f.pulse.condition.speaks() || f.pulse.seen.IsZero() {
			continue
		}
		o := &f.pulse.observed
		v.mixed = v.mixed || system != 0 && system != o.SystemID
		system = o.SystemID
		if o.Timeline > v.base.Timeline {
			v.base = o.History
		}
	}
}

// forgetStrangers drops what the state file says when every node that answers is of one other
// system: the cluster was built anew under the same name.
func (v *verdict) forgetStrangers(p picture) {
	if v.known.confirmed || v.known.system == 0 {
		return
	}
	var other uint64
	for i := range p.facts {
		f := &p.facts[i]
		switch {
		case f.pulse.condition == conditionUnknown:
			return
		case !f.pulse.condition.speaks():
		case f.pulse.observed.SystemID == v.known.system, other != 0 && other != f.pulse.observed.SystemID:
			return
		default:
			other = f.pulse.observed.SystemID
		}
	}
	if other != 0 {
		v.known = standing{epoch: v.known.epoch, rivals: v.known.rivals}
	}
}

// claims says whether the node answers as a primary of this cluster.
func (v *verdict) claims(f *fact) bool {
	return f.pulse.condition.speaks() && f.pulse.observed.Role == topology.RolePrimary &&
		(v.known.system == 0 || f.pulse.observed.SystemID == v.known.system)
}

func (v *verdict) choose(p picture) {
	var current *fact
	var claimants []*fact
	untried := false
	for i := range p.facts {
		f := &p.facts[i]
		if f.node.ID == v.known.primary {
			current = f
		}
		if v.claims(f) {
			claimants = append(claimants, f)
		}
		untried = untried || f.pulse.condition == conditionUnknown
	}
	if current == nil {
		v.known.primary = 0
	}
	if v.known.confirmed && current != nil && v.claims(current) {
		v.keep(current, claimants)
		return
	}
	if v.known.gone.IsZero() {
		v.known.gone = p.now
	}
	if untried && !v.known.confirmed {
		v.why, v.early = "not all nodes have been probed yet", v.known.system == 0
		return
	}
	v.succeed(p, current, claimants)
}

// keep goes on with the accepted primary; everybody else who claims the role is a rival.
func (v *verdict) keep(current *fact, claimants []*fact) {
	o := &current.pulse.observed
	if o.Timeline != v.known.history.Timeline {
		v.accept(current, fmt.Sprintf("node %d went on as primary on timeline %d", current.node.ID, o.Timeline))
	}
	v.known.gone = time.Time{}
	v.primary = current.node.ID
	v.known.last = max(v.known.last, o.Write)
	if o.History.Known() {
		v.known.history = o.History
	}
	for _, c := range claimants {
		if c != current {
			v.noteRival(c, current)
		}
	}
	v.warn(claimants, current)
}

// warn raises the alarm when somebody else claims to be primary too.
func (v *verdict) warn(claimants []*fact, accepted *fact) {
	for _, c := range claimants {
		if c != accepted {
			v.alarm = fmt.Sprintf("node %d claims to be primary on timeline %d while node %d is primary on timeline %d",
				c.node.ID, c.pulse.observed.Timeline, accepted.node.ID, accepted.pulse.observed.Timeline)
		}
	}
}

func (v *verdict) noteRival(c, current *fact) {
	r, ok := v.known.rivals[c.node.ID]
	if !ok || r.timeline != c.pulse.observed.Timeline {
		r = rival{timeline: c.pulse.observed.Timeline, since: c.pulse.seen}
	}
	r.outlived = r.outlived || current.pulse.seen.After(r.since)
	v.known.rivals[c.node.ID] = r
}

// succeed looks for a node that may follow a primary that does not answer as one.
func (v *verdict) succeed(p picture, current *fact, claimants []*fact) {
	var heirs []*fact
	for _, c := range claimants {
		if v.mayFollow(c) && !(v.rivals(c) && current != nil && v.claims(current)) {
			heirs = append(heirs, c)
		}
	}
	heir := newest(heirs)
	switch {
	case heir == nil && len(heirs) > 0:
		v.why = fmt.Sprintf("%d nodes claim to be primary, and none of them descends from the others", len(heirs))
		v.alarm = v.why
		return
	case heir == nil && len(claimants) > 0:
		c := claimants[0]
		v.why = fmt.Sprintf("node %d claims to be primary on timeline %d, which is not known to descend from timeline %d of the last primary",
			c.node.ID, c.pulse.observed.Timeline, v.known.history.Timeline)
		v.alarm = v.why
		return
	case heir == nil:
		v.why = absence(current)
		return
	}
	if v.rivals(heir) && !surrendered(current) && p.now.Sub(v.known.gone) < p.grace {
		v.why = fmt.Sprintf("node %d was promoted while node %d was alive, and node %d has not been gone for %s",
			heir.node.ID, v.known.primary, v.known.primary, p.grace)
		v.alarm = v.why
		return
	}
	v.accept(heir, v.successionReason(heir, current))
	v.warn(claimants, heir)
}

// rivals says whether the node's present claim was made while the accepted primary was alive.
func (v *verdict) rivals(c *fact) bool {
	r := v.known.rivals[c.node.ID]
	return r.outlived && r.timeline == c.pulse.observed.Timeline
}

// mayFollow says whether a node that claims to be primary can be the accepted one: nobody was
// accepted yet, it is the accepted one itself (the file knew it), or its timeline descends from the
// accepted one. When the accepted node is no longer configured, the same timeline will do: its data
// may have moved to another address.
func (v *verdict) mayFollow(c *fact) bool {
	h, known := &c.pulse.observed.History, v.known.history
	switch {
	case known.Timeline == 0, h.Descends(known):
		return true
	case c.node.ID == v.known.primary:
		return h.Timeline == known.Timeline
	case v.known.primary == 0 && h.Equal(known):
		return true
	}
	// Where the accepted timeline itself came from could not be read; where it was left suffices.
	_, left := h.LeftAt(known.Timeline)
	return left && !known.Known()
}

// newest is the one whose history descends from all others', nil when there is none.
func newest(list []*fact) *fact {
	for _, c := range list {
		best := true
		for _, o := range list {
			best = best && (o == c || o.pulse.observed.SystemID == c.pulse.observed.SystemID &&
				c.pulse.observed.History.Descends(o.pulse.observed.History))
		}
		if best {
			return c
		}
	}
	return nil
}

// surrendered says whether the former primary no longer stands against a rival: it was removed, or
// it has become a standby.
func surrendered(current *fact) bool {
	return current == nil || current.pulse.condition.speaks() && current.pulse.observed.Role == topology.RoleStandby
}

func (v *verdict) successionReason(heir, current *fact) string {
	o := &heir.pulse.observed
	switch {
	case v.known.epoch == 0:
		return fmt.Sprintf("node %d is the only primary", heir.node.ID)
	case current == nil || heir == current:
		return fmt.Sprintf("node %d is primary on timeline %d", heir.node.ID, o.Timeline)
	}
	reason := fmt.Sprintf("node %d was promoted to timeline %d from outside while %s", heir.node.ID, o.Timeline, absence(current))
	if left, ok := o.History.LeftAt(v.known.history.Timeline); ok && left < v.known.last {
		reason += fmt.Sprintf("; %d bytes that the old primary had written after %s are not on it", v.known.last-left, left)
	}
	return reason
}

// accept makes f the primary. The epoch rises unless it is the primary of the present epoch.
func (v *verdict) accept(f *fact, reason string) {
	o := &f.pulse.observed
	same := f.node.ID == v.known.primary && o.Timeline == v.known.history.Timeline
	if !same || v.known.epoch == 0 {
		v.known.epoch++
		v.reason = reason
		v.known.last = 0
	}
	v.known.primary, v.primary = f.node.ID, f.node.ID
	v.known.system = o.SystemID
	v.known.history = o.History
	v.known.last = max(v.known.last, o.Write)
	v.known.confirmed = true
	v.known.gone = time.Time{}
	delete(v.known.rivals, f.node.ID)
}

// absence says in a few words why the former primary is none.
func absence(current *fact) string {
	if current == nil {
		return "no node is a primary"
	}
	id := current.node.ID
	switch c := current.pulse.condition; {
	case c.speaks() && current.pulse.observed.Role == topology.RoleStandby:
		return fmt.Sprintf("node %d has become a standby", id)
	case c == conditionStarting:
		return fmt.Sprintf("primary node %d takes no connections: %s", id, current.pulse.why)
	case c == conditionDenied:
		return fmt.Sprintf("primary node %d cannot be asked: %s", id, current.pulse.why)
	}
	return fmt.Sprintf("primary node %d is down: %s", id, current.pulse.why)
}
