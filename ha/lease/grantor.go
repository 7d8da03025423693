package lease

import (
	"time"

	"github.com/cstproxy/cstproxy/ha/record"
)

// Grantor is the leader's side of the leases of one cluster. It lives as long as one leadership:
// a member that becomes leader again makes a new one.
//
// G2: a lease counts only from a quorum round that began after its request had arrived. A quorum
// that still obeyed this leader after r cannot have elected another one before r. So whatever an
// older leader granted was sent before the election of the next one, and has lapsed Wait after it
// (G1); the next one waits that long although it never heard of that lease.
type Grantor struct {
	terms Terms
	since time.Duration
	until map[string]time.Duration
}

// NewGrantor is for a leadership that was established (its barrier passed) at since.
func NewGrantor(terms Terms, since time.Duration) *Grantor {
	return &Grantor{terms: terms, since: since, until: map[string]time.Duration{}}
}

// Ticket is a request that waits for its quorum round.
type Ticket struct {
	Member  string
	Request Request
	arrived time.Duration
}

// Arrived notes a member's request. The quorum round must begin after this call.
func (g *Grantor) Arrived(member string, r Request, now time.Duration) Ticket {
	return Ticket{Member: member, Request: r, arrived: now}
}

// Grant answers a request after a quorum round that began after it arrived. c is what the leader's
// log says when the round has ended. It refuses while an operation is at Freeze or beyond, and to a
// member that goes by standbys which are not even among the former ones any more.
//
// G3: the request was sent before it arrived, so the lease has ended Wait after its arrival (G1).
// That is noted before the reply leaves, whether or not it will reach the member. So it does no harm
// that a Freeze may be on its way to the log: the promotion that follows it looks at Until then.
func (g *Grantor) Grant(t Ticket, c *record.Cluster) (Reply, bool) {
	e := &c.Epoch
	oldest := e.Version
	if len(e.Former) > 0 {
		oldest = e.Former[0].Version
	}
	if c.Frozen(e.Number) != 0 || t.Request.Epoch != e.Number || t.Request.Known < oldest {
		return Reply{}, false
	}
	g.until[t.Member] = max(g.until[t.Member], t.arrived+g.terms.Wait())
	return Reply(t.Request), true
}

// Until is when every lease that member can have of anybody has lapsed, on the leader's clock: the
// last one of this leader, and any of a leader before.
func (g *Grantor) Until(member string) time.Duration {
	return max(g.until[member], g.since+g.terms.Wait())
}

// Lapsed says whether nobody can hold a granted lease at now. It does not cover leases that members
// took by their own proofs; see Proof.
func (g *Grantor) Lapsed(now time.Duration) bool {
	if now < g.since+g.terms.Wait() {
		return false
	}
	for _, until := range g.until {
		if now < until {
			return false
		}
	}
	return true
}
