package decide

import (
	"fmt"
	"strings"
	"time"

	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// opening says what a promotion still waits for before it can be committed.
type opening struct {
	// until is when time alone opens it; not later than now when nothing has to lapse.
	until time.Duration
	// shut: time alone does not open it, a member has to be heard or more standbys cut off.
	shut bool
	why  string
	// remedy is what an operator can do about shut.
	remedy string
}

// gate opens when no member can route a write of op.From, or forward an answer of its primary, now
// or later: every member has confirmed the Freeze, or all leases have lapsed and nobody can renew
// one by a proof of his own. Why that is so is written in package lease.
//
// An operator's --accept-data-loss does not open it: that is a word about log that nobody has, not about a
// member that goes on telling its clients of successes. What stands for such a member is `voter remove`, the
// operator's word that its process has ended. It is the leader who asks here, each time anew: one that follows
// it asks again, with the leases of before reckoned from its own beginning, and one that wakes late finds its
// entry refused by the log.
func (p *Picture) gate(op *record.Operation, cut []topology.NodeID) opening {
	if p.Alone || p.Weakness&NoLeaseWait != 0 {
		return opening{}
	}
	length := p.lapse()
	until := max(p.LeaderSince, p.lastCut(cut)) + length
	var missing []string
	for i := range p.Members {
		if m := &p.Members[i]; !m.Witness && m.Frozen != op.ID {
			missing = append(missing, m.Name)
			until = max(until, m.LeaseUntil)
		}
	}
	if len(missing) == 0 {
		return opening{}
	}
	who := strings.Join(missing, ", ")
	broken := p.Record.Epoch.BrokenForAll(cut) || p.Weakness&NoRecruit != 0
	if !broken {
		stopped, ok := p.stoppedAt(op)
		if !ok {
			return opening{shut: true, why: fmt.Sprintf("%s has not confirmed that it writes no more, and may go on with node %d: too few of the standbys that it goes by are cut off",
				who, p.Record.Epoch.Primary),
				remedy: fmt.Sprintf("connect that member, or end its process for certain and then `cstproxy ctl voter remove %s`; no --accept-data-loss stands for that", missing[0])}
		}
		until = max(until, stopped+length)
	}
	if p.Now >= until {
		return opening{}
	}
	return opening{until: until, why: fmt.Sprintf("%s may hold a lease of epoch %d for %s more", who, op.From, short(until-p.Now))}
}

// lapse is how long it takes until whoever renewed a lease just now holds it no more.
func (p *Picture) lapse() time.Duration {
	return p.lease() + time.Duration(float64(p.lease())*p.Policy.Drift)
}

// lastCut is since when nobody can have begun a proof that one of cut flushed something for. This
// leader first saw it as it is at Since: a probe can show that before the recruit's own answer arrives,
// or although it never does; and a node that somebody else promoted was not recruited at all. What was
// so when the leader came is covered by LeaderSince.
//
// A standby that has received nothing since Moved, and is cut off by now, proves nothing that began
// after Moved: the heartbeat of such a proof lies behind all that the primary had written by then, and
// so behind all that this standby ever received. That spares the wait when the primary's host is gone,
// because its standbys stand still long before that is noticed.
func (p *Picture) lastCut(cut []topology.NodeID) time.Duration {
	last := time.Duration(0)
	for _, id := range cut {
		f := &p.node(id).Fact
		cutAt := max(p.LastRecruit, f.Since)
		if f.Moved != 0 {
			cutAt = min(cutAt, f.Moved)
		}
		last = max(last, cutAt)
	}
	if len(cut) == 0 {
		return p.LastRecruit
	}
	return last
}

// stoppedAt is when this leader knew that the operation had stopped the old primary's server.
func (p *Picture) stoppedAt(op *record.Operation) (time.Duration, bool) {
	old := p.primary()
	if old == nil || !old.Fact.Stopped {
		return 0, false
	}
	for i := range p.Finished {
		r := &p.Finished[i]
		if a := r.Action; r.Err == "" && a.Verb == Stop && a.Node == old.ID && a.Operation == op.ID {
			return r.At, true
		}
	}
	return 0, false
}
