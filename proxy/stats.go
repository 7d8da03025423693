package proxy

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/cstproxy/cstproxy/ha/topology"
	"github.com/cstproxy/cstproxy/router"
)

// Stats are counters that any goroutine may read while the loop counts.
type Stats struct {
	Clients       atomic.Int64  // sessions now, those that log in counted
	Accepted      atomic.Uint64 // connections since the start
	Logins        atomic.Uint64
	LoginFailures atomic.Uint64
	Cancels       atomic.Uint64
	CancelsLost   atomic.Uint64 // wrong key, or too many
	RerunLost     atomic.Uint64 // reads run again because their server was lost
	HeldTurns     atomic.Int64  // sessions whose request, or login, waits for a node or for the lease
	HeldAnswers   atomic.Int64  // sessions whose primary's answer waits for the lease
	RerunRefused  atomic.Uint64 // turns run again on the primary because a standby refused them

	mu       sync.Mutex
	turns    map[turnKey]*atomic.Uint64
	refusals map[string]*atomic.Uint64
	pinned   map[string]int // sessions that keep their server now, by reason
}

// notePin keeps account of why the session keeps its server. Pins come and go rarely, so the lock
// is not on the way of ordinary turns.
func (s *session) notePin(reason string) {
	if s.pin == reason {
		return
	}
	st := s.proxy.stats
	st.mu.Lock()
	defer st.mu.Unlock()
	if s.pin != "" {
		st.pinned[s.pin]--
	}
	if reason != "" {
		st.pinned[reason]++
	}
	s.pin = reason
}

// Pins counts the sessions that keep their server connection outside transactions, by reason.
func (st *Stats) Pins() map[string]int {
	st.mu.Lock()
	defer st.mu.Unlock()
	return maps.Clone(st.pinned)
}

type turnKey struct {
	cluster string
	node    topology.NodeID
	target  router.Target
}

func newStats() *Stats {
	return &Stats{turns: map[turnKey]*atomic.Uint64{}, refusals: map[string]*atomic.Uint64{}, pinned: map[string]int{}}
}

func (st *Stats) loggedIn()      { st.Logins.Add(1) }
func (st *Stats) loginFailed()   { st.LoginFailures.Add(1) }
func (st *Stats) cancelSent()    { st.Cancels.Add(1) }
func (st *Stats) cancelIgnored() { st.CancelsLost.Add(1) }

func (st *Stats) rerun(why string) {
	if why == "lost" {
		st.RerunLost.Add(1)
		return
	}
	st.RerunRefused.Add(1)
}

// turn counts a finished turn by node and target. Only the loop writes the map's entries; the lock
// is for readers.
func (st *Stats) turn(s *session, t *turn) {
	s.cluster.counter(t).Add(1)
}

// counter finds the counter of the turn's node and target without a lock or an allocation.
func (c *cluster) counter(t *turn) *atomic.Uint64 {
	target := t.route.Target
	if target == router.Pinned {
		target = router.Primary
		if t.node != c.view.Primary {
			target = router.Standby
		}
	}
	key := turnKey{c.Name, t.node, target}
	if n := c.counters[key]; n != nil {
		return n
	}
	n := &atomic.Uint64{}
	c.counters[key] = n
	c.proxy.stats.mu.Lock()
	defer c.proxy.stats.mu.Unlock()
	c.proxy.stats.turns[key] = n
	return n
}

func (st *Stats) refused(code string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	n := st.refusals[code]
	if n == nil {
		n = &atomic.Uint64{}
		st.refusals[code] = n
	}
	n.Add(1)
}

// TurnCount is how many turns of one kind a node has answered.
type TurnCount struct {
	Cluster string
	Node    topology.NodeID
	Target  string // "primary" (may write) or "standby" (proven reads)
	Count   uint64
}

// Turns lists the turns by node and target.
func (st *Stats) Turns() []TurnCount {
	st.mu.Lock()
	defer st.mu.Unlock()
	out := make([]TurnCount, 0, len(st.turns))
	for k, n := range st.turns {
		out = append(out, TurnCount{k.cluster, k.node, k.target.String(), n.Load()})
	}
	return out
}

// Refusals counts the errors that the proxy itself gave, by SQLSTATE.
func (st *Stats) Refusals() map[string]uint64 {
	st.mu.Lock()
	defer st.mu.Unlock()
	out := map[string]uint64{}
	for code, n := range st.refusals {
		out[code] = n.Load()
	}
	return out
}
