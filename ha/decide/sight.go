package decide

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cstproxy/cstproxy/ha/topology"
)

// condition is what the voters together make of the primary.
type condition int

const (
	unclear     condition = iota // no quorum says that it is well, and none that it is not
	healthy                      // a quorum reaches it
	crashed                      // its host answers, nobody listens
	starting                     // it comes up, and lets nobody in yet
	lost                         // silence, and no sign of life from anywhere
	unreachable                  // silence for a quorum, but it lives
	gray                         // it answers, but takes no writes
)

// finding is a condition, how long a quorum has agreed on it, and a sentence about it.
type finding struct {
	is    condition
	since time.Duration
	why   string
}

// tally sorts what the members that were heard lately see of one node.
type tally struct {
	voters, quorum   int
	heard            int // voters
	by               map[Class]int
	failing          []time.Duration // how long, for each voter that it does not work for
	longest          time.Duration
	texts            []string
	alive, trafficAt []string // members, whether or not they vote
	hostUp           bool
}

func (p *Picture) tally(id topology.NodeID) tally {
	t := tally{by: map[Class]int{}}
	for i := range p.Members {
		m := &p.Members[i]
		if m.Voter {
			t.voters++
		}
		s, seen := m.Sights[id]
		if !seen || s.Class == Unprobed || p.Now-m.Heard > p.lease() {
			continue
		}
		t.hostUp = t.hostUp || s.Host == "up"
		lives := s.Class == Answers || s.Class == Full || s.Class == Denied
		if lives {
			t.alive = append(t.alive, m.Name)
		}
		if s.Traffic {
			t.trafficAt = append(t.trafficAt, m.Name)
		}
		if !m.Voter {
			continue
		}
		t.heard++
		t.by[s.Class]++
		if !lives {
			t.failing = append(t.failing, s.Since)
			t.longest = max(t.longest, s.Since)
			text := fmt.Sprintf("%s: %s", m.Name, s.Class)
			if s.Since >= time.Millisecond {
				text += " for " + short(s.Since)
			}
			t.texts = append(t.texts, text)
		}
	}
	t.quorum = t.voters/2 + 1
	slices.SortFunc(t.failing, func(a, b time.Duration) int { return cmp.Compare(b, a) })
	return t
}

// agreed is how long a quorum has seen the node fail.
func (t *tally) agreed() time.Duration {
	if len(t.failing) < t.quorum {
		return 0
	}
	return t.failing[t.quorum-1]
}

func (t *tally) String() string {
	return fmt.Sprintf("%d of %d voters (%s)", len(t.failing), t.voters, strings.Join(t.texts, ", "))
}

// find says what the voters make of the epoch's primary.
func (p *Picture) find() finding {
	id := p.Record.Epoch.Primary
	t := p.tally(id)
	lives := t.by[Answers] + t.by[Full] + t.by[Denied]
	gone := t.by[Refused] + t.by[Silent]
	switch {
	case t.heard < t.quorum:
		return finding{unclear, 0, fmt.Sprintf("only %d of %d voters have reported on node %d", t.heard, t.voters, id)}
	case lives >= t.quorum:
		return finding{healthy, 0, t.praise(id, lives)}
	case len(t.failing) < t.quorum:
		return finding{unclear, 0, fmt.Sprintf("node %d does not work for %s: fewer than the %d that it takes", id, &t, t.quorum)}
	case len(t.trafficAt) > 0 && t.by[Refused] < t.quorum: // a process that is gone has committed what it committed
		return finding{unclear, t.agreed(), fmt.Sprintf("probes of node %d fail for %s, but transactions of clients at %s commit there", id, &t, strings.Join(t.trafficAt, ", "))}
	case gone >= t.quorum:
		return p.findGone(id, &t)
	case t.by[Starting] > 0 && gone+t.by[Starting] >= t.quorum:
		return finding{starting, t.agreed(), fmt.Sprintf("node %d lets nobody in yet: %s", id, &t)}
	case len(t.alive) > 0:
		return finding{unclear, 0, fmt.Sprintf("node %d takes no writes of %s, but of %s", id, &t, strings.Join(t.alive, ", "))}
	}
	return finding{gray, t.agreed(), fmt.Sprintf("node %d takes no writes, as seen by %s", id, &t)}
}

// praise says how well a living node is: alive is not all that a DBA wants to know.
func (t *tally) praise(id topology.NodeID, lives int) string {
	text := fmt.Sprintf("%d of %d voters reach node %d", lives, t.voters, id)
	if n := t.by[Full]; n > 0 {
		text += fmt.Sprintf("; %d find it out of connections", n)
	}
	if n := t.by[Denied]; n > 0 {
		text += fmt.Sprintf("; it does not let %d in", n)
	}
	return text
}

// findGone tells the reasons apart for which a quorum does not reach the primary at all.
func (p *Picture) findGone(id topology.NodeID, t *tally) finding {
	signs := p.signsOfLife(t)
	switch {
	case len(signs) > 0:
		return finding{unreachable, t.agreed(), fmt.Sprintf("node %d cannot be reached by %s, but lives: %s", id, t, strings.Join(signs, ", "))}
	case t.by[Refused] > 0:
		return finding{crashed, t.agreed(), fmt.Sprintf("nobody listens on node %d: %s", id, t)}
	case p.hostsAskedLater(t):
		return finding{unclear, t.agreed(), fmt.Sprintf("node %d is silent for %s; its standbys' hosts have not said yet whether they reach it", id, t)}
	}
	return finding{lost, t.agreed(), fmt.Sprintf("node %d is silent for %s", id, t)}
}

const (
	// moving is how long after the last byte a standby counts as still receiving: more than a probe.
	moving = 700 * time.Millisecond
	// askedWithin is how long a standby's host is believed that it reaches the primary.
	askedWithin = 2 * time.Second
	// askHosts is how long a failover waits for the standbys' hosts to say whether they do.
	askHosts = 2 * time.Second
)

// signsOfLife are what others than the failing voters know of the primary since it fell silent.
func (p *Picture) signsOfLife(t *tally) []string {
	var signs []string
	if len(t.alive) > 0 {
		signs = append(signs, fmt.Sprintf("%s can", strings.Join(t.alive, ", ")))
	}
	began := p.Now - t.longest
	for i := range p.Nodes {
		n := &p.Nodes[i]
		f := &n.Fact
		switch {
		case n.ID == p.Record.Epoch.Primary:
		case f.Primary == Answers && f.PrimaryAt > began && p.Now-f.PrimaryAt < askedWithin:
			signs = append(signs, fmt.Sprintf("the host of node %d can", n.ID))
		case f.Streaming && f.Moved > began && p.Now-f.Moved < moving:
			signs = append(signs, fmt.Sprintf("node %d receives its log", n.ID))
		}
	}
	return signs
}

// hostsAskedLater says whether the newest answer of a standby's host is that it reaches the primary,
// from before the silence, so that another one is to be expected.
func (p *Picture) hostsAskedLater(t *tally) bool {
	if t.longest >= askHosts {
		return false
	}
	began := p.Now - t.longest
	for i := range p.Nodes {
		f := &p.Nodes[i].Fact
		if p.Nodes[i].ID != p.Record.Epoch.Primary && f.Primary == Answers && f.PrimaryAt <= began && p.fresh(f) {
			return true
		}
	}
	return false
}

// outdated says whether what is known of the node is from before a quorum lost it: by now it may be
// something else.
func (p *Picture) outdated(n *Node) bool {
	t := p.tally(n.ID)
	return len(t.failing) >= t.quorum && n.Fact.At <= p.Now-t.agreed()
}

// hostAway says whether SSH to the node's host is known not to work: some member has tried, and none has
// a connection.
func (p *Picture) hostAway(id topology.NodeID) bool {
	tried := false
	for i := range p.Members {
		m := &p.Members[i]
		s, seen := m.Sights[id]
		if !seen || p.Now-m.Heard > p.lease() {
			continue
		}
		if s.Host == "up" {
			return false
		}
		tried = tried || s.Host == "down"
	}
	return tried
}

// reached says whether some member that was heard lately reaches the node.
func (p *Picture) reached(id topology.NodeID) bool {
	t := p.tally(id)
	return len(t.alive) > 0
}
