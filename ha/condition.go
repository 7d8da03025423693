package ha

import (
	"time"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/pgnode"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// condition is what the probes of one node add up to.
type condition int

const (
	conditionUnknown  condition = iota // no probe has ended yet
	conditionUp                        // answers, and lets somebody in
	conditionSuspect                   // failed, but not often enough; what it said last still counts
	conditionDeaf                      // old connections answer, new ones hang
	conditionFull                      // alive, out of connections
	conditionDenied                    // alive, does not talk to us
	conditionStarting                  // alive, takes nobody yet or any more
	conditionDown
)

// speaks says whether the node's last observation still holds.
func (c condition) speaks() bool {
	return c == conditionUp || c == conditionSuspect || c == conditionDeaf || c == conditionFull
}

// probe is the outcome of one look at a node. Both signals matter: a query on a kept connection
// (asked) and a new login (knocked).
type probe struct {
	at       time.Time
	observed pgnode.Observation // valid when asked is nil
	asked    error
	knocked  error
	heart    heartbeat
}

// pulse is a node's condition with what led to it.
type pulse struct {
	condition condition
	// failures counts failed probes in a row, refusals those of them that need no second opinion.
	failures, refusals int
	why                string
	cause              pgnode.Cause // of the last failure
	seen, tried        time.Time
	observed           pgnode.Observation
	// stuck counts heartbeats that failed since the last one that said otherwise; full: the last
	// of them for want of space.
	stuck int
	full  bool
	class decide.Class
	// since is when class became what it is; of one that speaks against the server, when the first of
	// the failures in a row began.
	since time.Time
	// troubled is when that was; zero while nothing fails.
	troubled time.Time
}

// beat is the pulse after one more probe. A probe that failed in a way that shows a living server
// (starting, denied, full) is believed at once; a refused or cut connection twice in a row, the
// second time without a pause; silence after deadAfter probes.
func (p pulse) beat(b probe, deadAfter int) pulse {
	was := p
	p = p.weigh(b, deadAfter)
	p = p.feel(b.heart)
	p.class = p.classify(was.class)
	switch {
	case p.failures == 0 && p.stuck == 0:
		p.troubled = time.Time{}
	case p.troubled.IsZero():
		p.troubled = b.at
	}
	switch {
	case speaksAgainst(p.class) && !p.troubled.IsZero():
		p.since = p.troubled
	case p.class != was.class || p.since.IsZero():
		p.since = b.at
	}
	return p
}

// feel takes in what became of heartbeats. That none could be written, or nothing new is known, takes
// nothing back: a server on which nothing can be tried any more has not recovered by that. A server
// that went down has forgotten what was stuck.
func (p pulse) feel(h heartbeat) pulse {
	switch {
	case h.duty == dutyNone, p.condition == conditionDown, p.condition == conditionStarting:
		p.stuck, p.full = 0, false
	case h.writes == pgnode.Stuck, h.writes == pgnode.DiskFull:
		p.stuck++
		p.full = h.writes == pgnode.DiskFull
		if p.why == "" {
			p.why = h.why
		}
	case h.writes == pgnode.Commits, h.writes == pgnode.ReadOnly, h.writes == pgnode.Blocked:
		p.stuck, p.full = 0, false
	}
	return p
}

// secondFailure is how many failures in a row make a class that speaks against a server.
const secondFailure = 2

// classify is what the pulse means to a decision; before is what it meant. A node of which nothing is
// known but one failed probe is not yet dead to it: all members may have just begun.
func (p *pulse) classify(before decide.Class) decide.Class {
	class := p.classNow()
	switch class {
	case decide.Answers, decide.Full, decide.Denied:
		if p.stuck >= secondFailure {
			return decide.Stuck
		}
		if p.condition == conditionSuspect {
			return before
		}
	case decide.Refused, decide.Silent, decide.Starting, decide.Stuck:
		if p.failures < secondFailure && !speaksAgainst(before) {
			return before
		}
	}
	return class
}

func speaksAgainst(c decide.Class) bool {
	return c == decide.Refused || c == decide.Silent || c == decide.Starting || c == decide.Stuck
}

// classNow is the class of the condition alone.
func (p *pulse) classNow() decide.Class {
	switch p.condition {
	case conditionUnknown:
		return decide.Unprobed
	case conditionUp, conditionSuspect:
		return decide.Answers
	case conditionDeaf:
		return decide.Stuck
	case conditionFull:
		return decide.Full
	case conditionDenied:
		return decide.Denied
	case conditionStarting:
		return decide.Starting
	}
	switch p.cause {
	case pgnode.Refused, pgnode.Reset:
		return decide.Refused
	case pgnode.Hung, pgnode.Unclassified: // it takes connections, or answers nonsense
		return decide.Stuck
	}
	return decide.Silent
}

func (p pulse) weigh(b probe, deadAfter int) pulse {
	p.tried = b.at
	failure := b.asked
	if failure == nil {
		p.seen, p.observed = b.at, b.observed
		failure = b.knocked
	}
	if failure == nil {
		p.condition, p.failures, p.refusals, p.why = conditionUp, 0, 0, ""
		return p
	}
	p.why = failure.Error()
	cause := pgnode.CauseOf(failure)
	p.cause = cause
	p.failures++
	if cause.AtOnce() {
		p.refusals++
	} else {
		p.refusals = 0
	}
	answers := b.asked == nil
	switch {
	case cause == pgnode.Starting:
		p.condition = conditionStarting
	case answers && (cause == pgnode.Full || cause == pgnode.Denied):
		p.condition, p.failures = conditionUp, 0
	case cause == pgnode.Full && p.condition.speaks():
		p.condition, p.failures = conditionFull, 0
	case cause == pgnode.Full:
		p.condition = conditionDenied // alive again, but what it is now is not known
	case cause == pgnode.Denied:
		p.condition = conditionDenied
	case p.failures < deadAfter && p.refusals < 2:
		if p.condition == conditionUp || p.condition == conditionFull {
			p.condition = conditionSuspect
		} else if p.condition == conditionUnknown {
			p.condition = conditionDown // it never was up: nothing is lost by saying so
		}
	case answers && p.refusals < 2:
		p.condition = conditionDeaf
		p.why = "takes no new connections: " + p.why
	default:
		p.condition = conditionDown
	}
	return p
}

// fact is one node as the judgement sees it.
type fact struct {
	node  topology.Node
	slot  int
	pulse pulse
	order order
	lag   lag
	// lagging is the previous verdict, for hysteresis.
	lagging bool
}

// order is what an operator has said about a node. The zero value lets the node do what the rest
// allows: an operator's word can only take away.
type order int

const (
	orderNone order = iota
	orderDetached
	orderDraining
)

func (o order) String() string {
	switch o {
	case orderDetached:
		return "detached"
	case orderDraining:
		return "draining"
	}
	return ""
}

// lag is how far a standby is behind; see NodeStatus.
type lag struct {
	known bool
	bytes int64
	time  time.Duration
}

// limits take a standby out of the reads when its lag is above them.
type limits struct {
	bytes int64
	time  time.Duration
}

func (l limits) exceeded(g lag) bool { return g.bytes > l.bytes || g.time > l.time }

// halved are the limits below which a standby that is out comes back.
func (l limits) halved() limits { return limits{bytes: l.bytes / 2, time: l.time / 2} }

// lags says whether f is behind the limits, g being its lag.
func (f *fact) lags(g lag, l limits) bool {
	switch {
	case !g.known:
		return f.lagging
	case f.lagging:
		return l.halved().exceeded(g)
	}
	return l.exceeded(g)
}
