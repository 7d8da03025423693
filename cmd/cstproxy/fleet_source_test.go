package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/admin"
	"github.com/cstproxy/cstproxy/ha"
	"github.com/cstproxy/cstproxy/ha/consensus"
	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/fleet"
	"github.com/cstproxy/cstproxy/ha/lease"
	"github.com/cstproxy/cstproxy/ha/operation"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// lone is a real fleet of one member, whose three servers exist here only and do what they are told.
type lone struct {
	fleet *fleet.Fleet
	facts chan map[topology.NodeID]decide.Fact // holds them; taken out to be changed
}

func newLone(t *testing.T) *lone {
	t.Helper()
	l := &lone{facts: make(chan map[topology.NodeID]decide.Fact, 1)}
	facts := map[topology.NodeID]decide.Fact{}
	cluster := fleet.Cluster{Name: "cluster01", Policy: decide.Policy{OnCrash: "failover", RestartBudget: time.Second, Gray: 5 * time.Second, MaxLag: 1 << 20, MaxRepairs: 3, SwitchBudget: 20 * time.Second}}
	for id := topology.NodeID(1); id <= 3; id++ {
		facts[id] = decide.Fact{Role: topology.RoleStandby, SystemID: 7, History: topology.History{Timeline: 1}, Receive: 0x5000000, Replay: 0x5000000, Streaming: true, Upstream: 1, Running: true, Complete: true}
		cluster.Nodes = append(cluster.Nodes, decide.Node{Node: topology.Node{ID: id, Host: fmt.Sprintf("192.168.56.%d", 40+id), Port: 5432}, Managed: true})
	}
	facts[1] = decide.Fact{Role: topology.RolePrimary, SystemID: 7, History: topology.History{Timeline: 1}, Write: 0x5000000, Running: true, Complete: true}
	l.facts <- facts
	cluster.Servers = fleet.Servers{Look: l.look, Rule: func(ha.Ruling) {}, Do: l.do, Check: l.check}
	log, err := consensus.New(consensus.DefaultConfig("m1"), nil, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	terms := lease.Terms{Length: 300 * time.Millisecond, Drift: 0.01}
	l.fleet, err = fleet.New(fleet.Config{Name: "m1", Terms: terms, Evidence: 50, Clusters: []fleet.Cluster{cluster}}, fleet.Parts{Log: log}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.fleet.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return l
}

func (l *lone) look() []fleet.Seen {
	facts := <-l.facts
	defer func() { l.facts <- facts }()
	var all []fleet.Seen
	for id, f := range facts {
		all = append(all, fleet.Seen{Node: id, Sight: decide.Sight{Class: decide.Answers, Since: time.Minute, Host: "up"}, Fact: &f})
	}
	return all
}

func (l *lone) do(_ context.Context, _ string, a decide.Action) (decide.Result, operation.Report) {
	facts := <-l.facts
	defer func() { l.facts <- facts }()
	f := facts[a.Node]
	switch a.Verb {
	case decide.Recruit:
		f.Streaming, f.Upstream, f.Recruited = false, 0, a.Epoch
	case decide.PromoteIt:
		f.Role, f.Recruited, f.Write = topology.RolePrimary, 0, f.Receive+100
		f.History = topology.History{Timeline: a.Timeline, Forks: []topology.Fork{{Timeline: 1, End: f.Receive}}}
	case decide.Stop:
		f = decide.Fact{SystemID: 7, History: f.History, Write: f.Write, Complete: true, Stopped: true}
	case decide.Follow, decide.Start, decide.Rewind:
		up := a.Upstream
		if up == 0 {
			up = 2
		}
		f = decide.Fact{Role: topology.RoleStandby, SystemID: 7, History: facts[up].History, Receive: facts[up].Write, Replay: facts[up].Write, Streaming: true, Upstream: up, Running: true, Complete: true}
	}
	f.At = fleet.Now()
	facts[a.Node] = f
	return decide.Result{Action: a}, operation.Report{Fact: f}
}

func TestOperatorsSteerARealFleetThroughHTTP(t *testing.T) {
	l := newLone(t)
	source := newFleetSource(l.fleet, func(_ context.Context, cluster string, line func(string)) error {
		line("looked at " + cluster)
		return errors.New("node 3: no key")
	}, func(string) clusterFile {
		return clusterFile{WriteVIP: "192.168.56.40", Values: map[string]string{"nodes": "3", "name": `"a b"`, "hooks": "[x"}}
	}, l.policies)
	f := manual{}
	file, address := servePort(t, admin.Parts{Observer: f, Backends: f, Nodes: f, Replication: f, Fleet: source})
	ctl := func(want int, args string) string {
		t.Helper()
		code, out, errOut := cstproxy(append([]string{"ctl", "-f", file}, strings.Fields(args)...)...)
		if code != want {
			t.Fatalf("%s: exit code %d, want %d\n%s%s", args, code, want, out, errOut)
		}
		return out + errOut
	}
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(ctl(0, "get_meta"), "epoch: 1\n"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("there is no first epoch\n" + ctl(0, "evidence"))
		}
	}
	ctl(0, "froze --why test")
	if out := ctl(0, "show"); !strings.Contains(out, "(test)") {
		t.Errorf("show does not say that it is frozen:\n%s", out)
	}
	ctl(0, "unfroze")
	if out := ctl(4, "switch --cancel"); !strings.Contains(out, "no switchover of cluster01 is planned") {
		t.Error(out)
	}
	for _, order := range []string{"switch -i 9", "failover -i 9", "repair -i 9", "clone -i 9", "node restart -i 9"} {
		if out := ctl(2, order+" --yes"); !strings.Contains(out, "has no node 9") {
			t.Errorf("%s: %s", order, out)
		}
	}
	if out := ctl(4, "switch -i 1 --yes"); !strings.Contains(out, "node 1 is the primary already") {
		t.Error(out)
	}
	if out := ctl(0, "switch -i 2 --at 2099-01-02T03:04:05Z --yes --why patches"); !strings.Contains(out, "planned") {
		t.Error(out)
	}
	if out := ctl(0, "show"); !strings.Contains(out, "switch to node 2 planned at 2099-01-02") {
		t.Error(out)
	}
	if out := ctl(0, "show_task"); !strings.Contains(out, "planned") || !strings.Contains(out, "patches") {
		t.Error(out)
	}
	ctl(4, "switch -i 2 --at +1h --yes")
	ctl(0, "switch --cancel")
	if out := ctl(0, "show_task 1"); !strings.Contains(out, "called off by") {
		t.Error(out)
	}
	if out := ctl(0, "failover -i 2 --accept-data-loss --yes --why drill"); !strings.Contains(out, "promote  step") || !strings.Contains(out, "outcome") {
		t.Errorf("the failover said\n%s", out)
	}
	if out := ctl(0, "show_task 2 -o json"); !strings.Contains(out, `"candidate": 2`) || !strings.Contains(out, `"outcome": "done"`) {
		t.Error(out)
	}
	if out := ctl(0, "task_log 2"); !strings.Contains(out, "promote node 2: done") {
		t.Error(out)
	}
	if out := ctl(0, "get_meta -o json"); !strings.Contains(out, `"primary": 2`) || !strings.Contains(out, `"nodes": 3`) || !strings.Contains(out, `"name": "a b"`) || !strings.Contains(out, `"hooks": "[x"`) || !strings.Contains(out, `"write_vip": "192.168.56.40"`) {
		t.Error(out)
	}
	for _, c := range []struct {
		code int
		args string
		says string
	}{
		{0, "change_meta gray_after=3s max_repairs=5 --why drill --yes", `"3s"`},
		{4, "change_meta gray_after=9s --version 0 --yes", "the policies of cluster01 are at version 1, not 0: "},
		{2, "change_meta switch_drain=6s --yes", "switch_budget is 5s, must be at least 6.5s"},
		{2, "change_meta ssh_user=x --yes", "stays in the file"},
		{0, "get_meta -o json", `"changed": true`},
		{0, "change_meta --unset max_repairs --yes", "file"},
		{0, "change_meta --unset max_repairs --yes", "cluster01       2       0"},
		{0, "change_meta --history", "max_repairs unset (was 5)"},
	} {
		if out := ctl(c.code, c.args); !strings.Contains(out, c.says) {
			t.Errorf("%s: %s", c.args, out)
		}
	}
	if out := ctl(0, "evidence"); !strings.Contains(out, "answers") {
		t.Error(out)
	}
	if out := ctl(1, "init"); !strings.Contains(out, "looked at cluster01") || !strings.Contains(out, "node 3: no key") {
		t.Error(out)
	}
	ctl(4, "adopt --yes")
	ctl(4, "voter add m2 h:1 --yes")
	if out := ctl(0, "members"); !strings.Contains(out, "m1") || !strings.Contains(out, "leads") {
		t.Error(out)
	}
	resp, err := http.Get("http://" + address + "/history")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("history: %d", resp.StatusCode)
	}
}
