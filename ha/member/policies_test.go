package member

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/cstproxy/cstproxy/ha"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// lone is a member that does not run, of one cluster with one node.
func lone(t *testing.T) (*Member, ha.Config, *topology.Board) {
	t.Helper()
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
	m, err := New(DefaultConfig(), watch, Parts{Agent: agent}, log)
	if err != nil {
		t.Fatal(err)
	}
	return m, watch, board
}

// reloads is the watch with another [cluster.operation].
func reloads(watch ha.Config, change func(*ha.OperationConfig)) ha.Config {
	watch.Clusters = []ha.ClusterConfig{watch.Clusters[0]}
	change(&watch.Clusters[0].Operation)
	return watch
}

func TestChangedPoliciesWinOverTheFile(t *testing.T) {
	m, watch, _ := lone(t)
	c := m.clusters["c1"]
	before := c.setup()
	values := map[string]string{"switch_budget": `"8s"`, "switch_drain": `"6s"`, "failover_when_unreachable": "false", "node.1.priority": "7", "node.9.priority": "3"}
	c.amend(values)
	in := c.setup()
	if p := in.policy(); p.SwitchBudget != 8*time.Second || p.Drain != 6*time.Second || p.Unreachable != 0 || p.MaxRepairs != 3 || in.decided()[0].Priority != 7 {
		t.Errorf("in force: %+v", p)
	}
	select {
	case <-before.replaced:
	default:
		t.Error("who keeps the cluster in order is not told")
	}

	// A reload changes what the log leaves open.
	if err := m.Apply(reloads(watch, func(o *ha.OperationConfig) { o.MaxRepairs, o.SwitchDrain = 9, time.Second })); err != nil {
		t.Fatal(err)
	}
	if p := c.setup().policy(); p.MaxRepairs != 9 || p.Drain != 6*time.Second {
		t.Errorf("after a reload: %+v", p)
	}
	shown, err := m.Policies("c1", values)
	if err != nil || shown.Trouble != "" || shown.InForce[7] != (ha.Policy{Key: "switch_drain", Value: `"6s"`}) || shown.File[7].Value != `"1s"` {
		t.Errorf("shown: %+v, %v", shown, err)
	}
	if _, err := m.Policies("c2", nil); !errors.Is(err, ha.ErrUnknown) {
		t.Errorf("of another cluster: %v", err)
	}
	c.amend(nil)
	if p := c.setup().policy(); p.Drain != time.Second || p.SwitchBudget != 5*time.Second || c.setup().decided()[0].Priority != 0 {
		t.Errorf("taken back: %+v", p)
	}
}

func TestAFileThatDoesNotFitTheLogKeepsThePoliciesOfBefore(t *testing.T) {
	m, watch, _ := lone(t)
	c := m.clusters["c1"]
	if err := m.Apply(reloads(watch, func(o *ha.OperationConfig) { o.SwitchBudget = 8 * time.Second })); err != nil {
		t.Fatal(err)
	}
	values := map[string]string{"switch_drain": `"6s"`}
	c.amend(values)
	if err := m.Apply(reloads(watch, func(o *ha.OperationConfig) { o.SSHFolder = "elsewhere" })); err != nil { // switch_budget is 5s again
		t.Fatal(err)
	}
	in := c.setup()
	if p := in.policy(); p.Drain != 6*time.Second || p.SwitchBudget != 8*time.Second || in.conf.Operation.SSHFolder != "elsewhere" {
		t.Errorf("in force: %+v, folder %s", p, in.conf.Operation.SSHFolder)
	}
	shown, err := m.Policies("c1", values)
	if err != nil || !strings.Contains(shown.Trouble, "do not fit this member's file") || !strings.Contains(shown.Trouble, "switch_budget is 5s, must be at least 6.5s") || c.trouble != shown.Trouble {
		t.Errorf("shown: %+v, %v", shown, err)
	}
	// What an operator changes in the log can put it right.
	c.amend(map[string]string{"switch_drain": `"6s"`, "switch_budget": `"7s"`})
	if p := c.setup().policy(); p.SwitchBudget != 7*time.Second || c.trouble != "" {
		t.Errorf("put right: %+v, %q", p, c.trouble)
	}

	// The time in which silence is noticed is a matter of [ha].
	c.amend(map[string]string{"gray_after": `"3s"`})
	slow := reloads(watch, func(o *ha.OperationConfig) { o.GrayAfter = 20 * time.Second })
	slow.ProbeTimeout = 4 * time.Second
	if err := m.Apply(slow); err != nil {
		t.Fatal(err)
	}
	if o := c.setup().conf.Operation; o.GrayAfter != 20*time.Second || !strings.Contains(c.trouble, "gray_after is 3s, must be at least dead_after") {
		t.Errorf("in force: %s, %q", o.GrayAfter, c.trouble)
	}
}

func TestAMemberObeysWhatItKnowsOfANewerBuildsPolicies(t *testing.T) {
	m, _, _ := lone(t)
	c := m.clusters["c1"]
	c.amend(map[string]string{"max_repairs": "7", "warp": "9"})
	if c.setup().policy().MaxRepairs != 7 || !strings.Contains(c.trouble, "knows no policy warp; update this member") {
		t.Errorf("in force: %+v, %q", c.setup().policy(), c.trouble)
	}
}

func TestPoliciesAreCheckedBesideThoseThatStay(t *testing.T) {
	m, watch, _ := lone(t)
	c := m.clusters["c1"]
	kept := map[string]string{"switch_drain": `"6s"`, "switch_budget": `"7s"`, "node.9.priority": "3"}
	got, err := c.check(kept, map[string]string{"switch_budget": "6500ms", "node.1.nofailover": "true"})
	if err != nil || !maps.Equal(got, map[string]string{"switch_budget": `"6.5s"`, "node.1.nofailover": "true"}) {
		t.Errorf("%v, %v", got, err)
	}
	for change, want := range map[string]string{"switch_budget=6s": "must be at least 6.5s", "gray_after=1s": "must be at least dead_after", "node.9.priority=4": `has no node "9"`} {
		key, value, _ := strings.Cut(change, "=")
		if _, err := c.check(kept, map[string]string{key: value}); !errors.Is(err, ha.ErrPolicy) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", change, err)
		}
	}
	_, err = c.check(map[string]string{"switch_drain": `"6s"`}, map[string]string{"max_repairs": "1"})
	if !errors.Is(err, ha.ErrPolicy) || !strings.Contains(err.Error(), "the file of member alone, which leads, does not fit what the log has changed before: switch_budget is 5s") {
		t.Errorf("beside values that do not fit the file: %v", err)
	}
	watch.Clusters[0].Operation.Enabled = false
	off, err := m.newSetup(&watch.Clusters[0], 0)
	if err != nil {
		t.Fatal(err)
	}
	c.current.Store(off)
	if _, err := c.check(nil, map[string]string{"max_repairs": "1"}); !errors.Is(err, ha.ErrRefused) {
		t.Errorf("of a cluster that is watched only: %v", err)
	}
}
