package ha

import (
	"testing"
	"time"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/pgnode"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// ruled is a on timeline 1 as the fleet's primary of epoch 4, with two standbys.
func ruled(t *testing.T) *world {
	w := newWorld(t)
	w.primary(1, 1, 0x900)
	w.standby(2, 1, 0x900)
	w.standby(3, 1, 0x900)
	w.rule(1, 4, 1)
	w.expect("ruled", 1, 4, "healthy, healthy, healthy")
	return w
}

// rule makes node the agreed primary of an epoch on timeline tl.
func (w *world) rule(node topology.NodeID, epoch topology.Epoch, tl topology.Timeline) {
	w.ruling = &Ruling{Epoch: record.Epoch{Number: epoch, Primary: node, SystemID: 7, History: history(tl)}}
}

func TestWithoutAnAgreementThereIsNoPrimary(t *testing.T) {
	w := ruled(t)
	w.ruling = &Ruling{}
	w.known = standing{}
	w.expect("not agreed yet", 0, 0, "unknown, unknown, unknown")
}

func TestARulingIsNotOverriddenByWhatIsSeen(t *testing.T) {
	w := ruled(t)
	w.is(1, conditionDown, "connection refused")
	w.primary(2, 2, 0x1800)
	w.expect("a hand-made promotion waits for the fleet", 0, 4, "down, foreign, healthy")
	w.alarmed("a hand-made promotion", "node 2 claims to be primary on timeline 2")
	w.rule(2, 5, 2)
	w.expect("the fleet agreed", 2, 5, "down, healthy, healthy")
}

func TestAnAgreedPrimaryCountsWhenItIsSeenAsOne(t *testing.T) {
	w := ruled(t)
	w.is(1, conditionDown, "no answer")
	w.rule(2, 5, 2)
	w.expect("agreed, still seen as a standby", 0, 5, "down, healthy, healthy")
	w.primary(2, 1, 0x1000)
	w.expect("primary, not yet of the new timeline", 0, 5, "down, foreign, healthy")
	w.primary(2, 2, 0x1800)
	w.expect("seen", 2, 5, "down, healthy, healthy")
}

func TestAFaultyStandbyTakesNoReadsUntilTheMarkIsGone(t *testing.T) {
	w := ruled(t)
	w.ruling.Faults = map[topology.NodeID]string{1: "never of a primary", 2: "to be repaired"}
	w.expect("marked", 1, 4, "healthy, down, healthy")
	w.ruling.Faults = nil
	w.expect("mark removed", 1, 4, "healthy, healthy, healthy")
}

func TestAReturningPrimaryOfAnOldEpochTakesNothing(t *testing.T) {
	w := ruled(t)
	w.primary(2, 2, 0x1800)
	w.standby(3, 2, 0x1800)
	w.rule(2, 5, 2)
	w.expect("the old primary answers as one", 2, 5, "foreign, healthy, healthy")
	w.alarmed("two primaries", "node 1 claims to be primary on timeline 1 while the fleet agreed on node 2 (epoch 5)")
}

func TestTheFirstFailedProbeOfANodeSaysNothingYet(t *testing.T) {
	silent := probe{at: time.Unix(1_700_000_000, 0), asked: &pgnode.Failure{Cause: pgnode.Silent}, knocked: &pgnode.Failure{Cause: pgnode.Silent}}
	p := pulse{}.beat(silent, 2)
	if got := p.class; got != decide.Unprobed {
		t.Errorf("after one silent probe: %q", got)
	}
	p = p.beat(silent, 2)
	if got := p.class; got != decide.Silent {
		t.Errorf("after two: %q", got)
	}
}

func TestWhatAProbeMeansToADecision(t *testing.T) {
	failed := func(c pgnode.Cause) error { return &pgnode.Failure{Cause: c, Message: "x"} }
	at := time.Unix(1_700_000_000, 0)
	for _, c := range []struct {
		what           string
		asked, knocked error
		want           decide.Class
	}{
		{"answers", nil, nil, decide.Answers},
		{"refused", failed(pgnode.Refused), failed(pgnode.Refused), decide.Refused},
		{"silent", failed(pgnode.Silent), failed(pgnode.Silent), decide.Silent},
		{"starting", failed(pgnode.Starting), failed(pgnode.Starting), decide.Starting},
		{"denied", failed(pgnode.Denied), failed(pgnode.Denied), decide.Denied},
		{"out of connections", nil, failed(pgnode.Full), decide.Answers},
		{"old connections alone answer", nil, failed(pgnode.Silent), decide.Stuck},
	} {
		p := pulse{}
		for i := range 3 {
			p = p.beat(probe{at: at.Add(time.Duration(i) * time.Second), asked: c.asked, knocked: c.knocked}, 2)
		}
		if got := p.class; got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
		if p.since.IsZero() || p.since.After(at.Add(time.Second)) {
			t.Errorf("%s: since %s", c.what, p.since)
		}
	}
}
