package member

import (
	"testing"

	"go.uber.org/zap/zaptest"

	"github.com/cstproxy/cstproxy/ha"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// An agent that nobody rules takes whoever answers as primary for one: between its first probes and the
// first word of the log that could be a former primary.
func TestNobodyIsPrimaryBeforeTheLogHasBeenRead(t *testing.T) {
	log, board := zaptest.NewLogger(t), topology.NewBoard("c1")
	watch := ha.DefaultConfig()
	watch.StateDir = t.TempDir()
	c, n := ha.DefaultCluster(), ha.DefaultNode()
	n.ID, n.Host, n.PGData = 1, "127.0.0.1", "/nowhere"
	c.Name, c.Operation.Enabled, c.Nodes = "c1", true, []ha.NodeConfig{n}
	watch.Clusters = []ha.ClusterConfig{c}
	agent, err := ha.New(watch, map[string]*topology.Board{"c1": board}, nil, log)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(DefaultConfig(), watch, Parts{Agent: agent}, log); err != nil {
		t.Fatal(err)
	}
	if got := board.View().WhyNoPrimary; got != "the fleet has not agreed on a primary yet" {
		t.Errorf("before anything runs there is no primary because %q", got)
	}
}
