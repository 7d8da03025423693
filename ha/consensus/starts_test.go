package consensus

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

func TestAllMembersHoldTheSameTimeOfAnEpoch(t *testing.T) {
	f := newFleet(t, "m1", "m2", "m3")
	f.start()
	f.propose(founding("F"), f.members...)
	f.propose(record.Entry{Cluster: "c", Adopt: &record.Adopt{Epoch: record.Epoch{Number: 1, Primary: 1, History: topology.History{Timeline: 1}}}}, f.members...)
	same := ""
	held := func() error {
		for _, n := range f.members {
			state, _ := n.log.State()
			c := state.Clusters["c"]
			if c == nil {
				return fmt.Errorf("%s has not read it", n.name)
			}
			if len(c.Starts) != 1 || c.Starts[0].At == 0 {
				t.Fatalf("%s: %+v", n.name, c.Starts)
			}
			text, err := json.Marshal(state)
			must(t, err)
			if same == "" {
				same = string(text)
			}
			if string(text) != same {
				t.Fatalf("%s: %s, want %s", n.name, text, same)
			}
		}
		return nil
	}
	f.await(held)
	for _, n := range f.members {
		n.down()
	}
	f.start()
	f.await(held)
}
