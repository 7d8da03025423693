package record

import (
	"testing"

	"github.com/cstproxy/cstproxy/ha/topology"
)

func TestAnHeirIsTheCandidateOrTheOnlyRecruit(t *testing.T) {
	for _, test := range []struct {
		recruited []topology.NodeID
		candidate topology.NodeID
		want      topology.NodeID
	}{{nil, 0, 0}, {[]topology.NodeID{2}, 0, 2}, {[]topology.NodeID{2, 3}, 0, 0}, {[]topology.NodeID{2, 3}, 3, 3}} {
		if got := (&Operation{Recruited: test.recruited, Candidate: test.candidate}).Heir(); got != test.want {
			t.Errorf("recruited %v, candidate %d: %d", test.recruited, test.candidate, got)
		}
	}
}

func TestAnEpochIsBeingMadeUntilItBeginsOrIsGivenUp(t *testing.T) {
	for _, test := range []struct {
		kind Kind
		step Step
		want bool
	}{{Failover, Intent, true}, {Switch, Promote, true}, {Switch, After, false}, {Failover, Undo, false}, {Repair, Intent, false}} {
		c := Cluster{Operation: &Operation{Kind: test.kind, Step: test.step}}
		if got := c.Making() != nil; got != test.want {
			t.Errorf("%s at %s: %t", test.kind, test.step, got)
		}
	}
	if (&Cluster{}).Making() != nil {
		t.Error("nothing makes an epoch")
	}
}
