package ha

import (
	"fmt"
	"maps"

	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// Ruling is what the fleet has agreed on about a cluster. A cluster that is ruled has the primary of
// the agreed epoch or none: the agent still says what every node is good for, and no longer who is
// primary.
type Ruling struct {
	Epoch record.Epoch
	// Lease is this member's permission to route writes of Epoch; nil when it needs none.
	Lease *topology.Lease
	// Frozen is why no new write may be routed in Epoch; empty when one may.
	Frozen string
	// Heir is who is about to be promoted; 0 while that is open, or nobody is.
	Heir topology.NodeID
	// Faults are nodes that take no reads until they were repaired, with the reason.
	Faults map[topology.NodeID]string
}

func (r *Ruling) equal(o *Ruling) bool {
	return o != nil && r.Lease == o.Lease && r.Frozen == o.Frozen && r.Heir == o.Heir && maps.Equal(r.Faults, o.Faults) &&
		r.Epoch.Number == o.Epoch.Number && r.Epoch.Primary == o.Epoch.Primary &&
		r.Epoch.SystemID == o.Epoch.SystemID && r.Epoch.History.Equal(o.Epoch.History)
}

// Rule puts a ruling in force, in the next View before it returns. From the first one on the cluster
// is ruled. The error is ErrUnknown.
func (a *Agent) Rule(cluster string, r Ruling) error {
	c, err := a.cluster(cluster)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.equal(c.ruling) {
		return nil
	}
	anew := c.ruling == nil || c.ruling.Epoch.Number != r.Epoch.Number
	c.ruling = &r
	c.rejudge()
	if anew {
		// What the nodes said before may be about the epoch before.
		for _, e := range c.entries {
			wake(e.urge)
		}
	}
	return nil
}

// Observed makes the agent call notice after every probe of every node. notice is called under the
// agent's lock: it may post to a channel and nothing else. Observed must be called before Run.
func (a *Agent) Observed(notice func(cluster string)) {
	for name, c := range a.clusters {
		c.notice = func() { notice(name) }
	}
}

// obey takes the primary from the ruling: the node that was agreed on, while it answers as the
// primary of the agreed timeline.
func (v *verdict) obey(p picture) {
	e := &p.ruling.Epoch
	v.known.epoch, v.known.primary, v.known.system = e.Number, e.Primary, e.SystemID
	if v.known.history.Timeline != e.History.Timeline {
		v.known.history, v.known.last = e.History, 0
	}
	v.known.confirmed = e.Number != 0
	v.faults = p.ruling.Faults
	if e.Number == 0 {
		v.why, v.early = "the fleet has not agreed on a primary yet", true
		return
	}
	var accepted *fact
	for i := range p.facts {
		f := &p.facts[i]
		switch {
		case !v.claims(f):
		case f.node.ID != e.Primary && p.ruling.Frozen != "":
			// The candidate of what is under way, before this member has read that it has won.
		case f.node.ID != e.Primary:
			v.alarm = fmt.Sprintf("node %d claims to be primary on timeline %d while the fleet agreed on node %d (epoch %d)",
				f.node.ID, f.pulse.observed.Timeline, e.Primary, e.Number)
		case f.pulse.observed.Timeline != e.History.Timeline:
			v.why = fmt.Sprintf("node %d is primary on timeline %d, and the fleet agreed on timeline %d",
				f.node.ID, f.pulse.observed.Timeline, e.History.Timeline)
		default:
			accepted = f
		}
	}
	if accepted == nil {
		if v.why == "" {
			v.why = absence(p.fact(e.Primary))
		}
		return
	}
	v.primary = e.Primary
	v.known.last = max(v.known.last, accepted.pulse.observed.Write)
	if accepted.pulse.observed.History.Known() {
		v.known.history = accepted.pulse.observed.History
	}
}

func (p *picture) fact(id topology.NodeID) *fact {
	for i := range p.facts {
		if p.facts[i].node.ID == id {
			return &p.facts[i]
		}
	}
	return nil
}
