package member

import (
	"slices"
	"testing"
	"time"

	"github.com/cstproxy/cstproxy/ha"
	"github.com/cstproxy/cstproxy/ha/topology"
)

func TestALeaderThatIsBlindEmptiesNoLoadBalancer(t *testing.T) {
	node := func(id topology.NodeID, health topology.Health, failures int) ha.NodeStatus {
		n := ha.NodeStatus{Failures: failures, LastSeen: time.Unix(1, 0)}
		n.Node, n.Health = topology.Node{ID: id, Host: "h", Port: int(id)}, health
		return n
	}
	never := node(2, topology.HealthUnknown, 0)
	never.LastSeen = time.Time{}
	for name, c := range map[string]struct {
		nodes     []ha.NodeStatus
		elsewhere bool
		want      []string
	}{
		"all is well":                      {[]ha.NodeStatus{node(1, topology.Healthy, 0), node(2, topology.Healthy, 0)}, true, nil},
		"one is down":                      {[]ha.NodeStatus{node(1, topology.Healthy, 0), node(2, topology.Down, 3)}, false, []string{}},
		"one is down from here alone":      {[]ha.NodeStatus{node(1, topology.Healthy, 0), node(2, topology.Down, 3)}, true, []string{"h:2"}},
		"an operator has taken it out":     {[]ha.NodeStatus{node(1, topology.Healthy, 0), node(2, topology.Detached, 3)}, true, nil},
		"this member reaches nobody":       {[]ha.NodeStatus{node(1, topology.Down, 3), node(2, topology.Down, 3)}, false, []string{"h:1", "h:2"}},
		"it has begun, and asked one node": {[]ha.NodeStatus{node(1, topology.Down, 3), never}, false, []string{"h:1", "h:2"}},
	} {
		if got := unseen(ha.Snapshot{Nodes: c.nodes}, func(topology.NodeID) bool { return c.elsewhere }); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
