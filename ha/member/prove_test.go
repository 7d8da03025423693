package member

import (
	"context"
	"fmt"
	"strconv"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/cstproxy/cstproxy/ha"
	"github.com/cstproxy/cstproxy/ha/fleet"
	"github.com/cstproxy/cstproxy/ha/lease"
	"github.com/cstproxy/cstproxy/ha/pglocal"
	"github.com/cstproxy/cstproxy/ha/pgnode"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// ample is how long anything may take that is not what a test is about.
const ample = 30 * time.Second

// proving is a primary with two standbys, and a member that proves that nobody succeeds it.
type proving struct {
	t      *testing.T
	pg     *pglocal.Cluster
	agent  *ha.Agent
	prover *Prover
	epoch  record.Epoch
}

func newProving(t *testing.T) *proving {
	p := &proving{t: t, pg: pglocal.ForTest(t, pglocal.Options{Standbys: 2, Auth: pglocal.Trust})}
	cfg := ha.DefaultConfig()
	cluster := ha.DefaultCluster()
	cluster.Name, cluster.SSLMode = "c1", "disable"
	for _, n := range p.pg.Nodes() {
		node := ha.DefaultNode()
		node.ID, node.Host, node.Port, node.AppName = n.ID, n.Host, n.Port, n.Name
		cluster.Nodes = append(cluster.Nodes, node)
	}
	cfg.Clusters = []ha.ClusterConfig{cluster}
	var err error
	if p.agent, err = ha.New(cfg, map[string]*topology.Board{"c1": topology.NewBoard("c1")}, nil, zaptest.NewLogger(t)); err != nil {
		t.Fatal(err)
	}
	conn, err := p.server(1).Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	o, err := conn.Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.epoch = record.Epoch{Number: 3, Primary: 1, SystemID: o.SystemID, History: o.History, Standbys: record.Standbys{Eligible: []topology.NodeID{2, 3}}}
	p.prover = NewProver(p.agent, "c1", "m1", zaptest.NewLogger(t))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.prover.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	return p
}

func (p *proving) server(id topology.NodeID) *pgnode.Server {
	p.t.Helper()
	s, err := p.agent.Server("c1", id)
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

// prove proves once, within the time that a member has for it.
func (p *proving) prove() (lease.Proof, time.Duration) {
	began := fleet.Now()
	ctx, cancel := context.WithTimeout(p.t.Context(), 500*time.Millisecond)
	defer cancel()
	proof := p.prover.Prove(ctx, p.epoch, lease.Proof{Epoch: p.epoch.Number, Began: began, Standbys: p.epoch.Standbys})
	return proof, fleet.Now() - began
}

// holds waits for a proof that holds: a busy machine may need several.
func (p *proving) holds() {
	p.t.Helper()
	for end := time.Now().Add(ample); ; {
		proof, _ := p.prove()
		if proof.Holds() {
			return
		}
		if time.Now().After(end) {
			p.t.Fatalf("no proof holds: %+v", proof)
		}
	}
}

func (p *proving) fails(why string) lease.Proof {
	p.t.Helper()
	for range 2 {
		if proof, _ := p.prove(); proof.Holds() {
			p.t.Fatalf("%s: %+v", why, proof)
		}
	}
	proof, _ := p.prove()
	return proof
}

func TestAPrimaryWhoseStandbysStreamIsProvenNotToBeSucceeded(t *testing.T) {
	p := newProving(t)
	p.holds()
	best := time.Hour
	for range 20 {
		proof, lasted := p.prove()
		if !proof.Holds() || len(proof.Flushed) != 2 {
			t.Errorf("%+v", proof)
		}
		best = min(best, lasted)
	}
	t.Logf("a proof takes %s", best)

	p.epoch.Sync = record.SyncSet{Method: "any", Count: 1, Names: []string{"b", "c"}, Nodes: []topology.NodeID{2, 3}}
	recv := p.receiver(2)
	signal(t, recv, syscall.SIGSTOP)
	p.holds()
	p.epoch.Sync = record.SyncSet{}
	proof := p.fails("with a standby that receives nothing")
	if proof.Heartbeat == 0 || proof.Flushed[3] < proof.Heartbeat || proof.Flushed[2] >= proof.Heartbeat {
		t.Errorf("%+v", proof)
	}
	got, err := p.pg.Primary().Psql(t.Context(), "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")
	if err != nil || got != "2" {
		t.Errorf("%s standbys seem to stream, %v", got, err)
	}
	signal(t, recv, syscall.SIGCONT)
	p.holds()
}

func TestAProofDoesNotHoldOnceAStandbyWasRecruited(t *testing.T) {
	p := newProving(t)
	p.holds()
	ctx, cancel := context.WithTimeout(t.Context(), ample)
	defer cancel()
	if _, err := p.server(3).Recruit(ctx, 4); err != nil {
		t.Fatal(err)
	}
	if proof := p.fails("with a recruited standby"); proof.Heartbeat == 0 {
		t.Errorf("%+v", proof)
	}
	p.epoch.Eligible = []topology.NodeID{2}
	p.holds()
}

func TestAProofIsAboutThePrimaryOfTheEpoch(t *testing.T) {
	p := newProving(t)
	p.holds()
	right := p.epoch
	for what, wrong := range map[string]func(*record.Epoch){
		"another system":   func(e *record.Epoch) { e.SystemID++ },
		"another timeline": func(e *record.Epoch) { e.History = topology.History{Timeline: 2} },
		"a standby":        func(e *record.Epoch) { e.Primary = 2 },
		"an unknown node":  func(e *record.Epoch) { e.Primary = 9 },
	} {
		p.epoch = right
		wrong(&p.epoch)
		p.epoch.Eligible = nil // then the heartbeat alone would do
		if proof := p.fails(what); proof.Heartbeat != 0 {
			t.Errorf("%s: %+v", what, proof)
		}
	}
	p.epoch = right
	p.holds()
	// A restart ends the kept connection; the next proof finds a new one by itself.
	if err := p.pg.Primary().Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.fails("without a primary")
	if err := p.pg.Primary().Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.holds()
}

func TestANameThatFitsSeveralVouchesForNobody(t *testing.T) {
	nodes := []topology.Node{
		{ID: 1, Host: "10.0.0.1"}, {ID: 2, Host: "10.0.0.2", AppName: "b"}, {ID: 3, Host: "10.0.0.3"},
		{ID: 4, Host: "10.0.0.4", Port: 1}, {ID: 5, Host: "10.0.0.4", Port: 2},
	}
	sender := func(name, addr string) pgnode.StreamSender {
		return pgnode.StreamSender{AppName: name, ClientAddr: addr, Flush: 7}
	}
	for _, c := range []struct {
		senders []pgnode.StreamSender
		want    string
	}{
		{[]pgnode.StreamSender{sender("b", "10.9.9.9"), sender(walReceiver, "10.0.0.3")}, "map[2:0/7 3:0/7]"},
		{[]pgnode.StreamSender{sender("b", "10.0.0.2"), sender("b", "10.0.0.7")}, "map[]"},
		{[]pgnode.StreamSender{sender("pg_receivewal", "10.0.0.3"), sender(walReceiver, "10.0.0.2")}, "map[]"},
		{[]pgnode.StreamSender{sender(walReceiver, "10.0.0.4")}, "map[]"},
		{[]pgnode.StreamSender{sender(walReceiver, "10.0.0.3"), sender(walReceiver, "10.0.0.3")}, "map[]"},
	} {
		if got := fmt.Sprint(flushed(nodes, c.senders)); got != c.want {
			t.Errorf("%+v: %s, want %s", c.senders, got, c.want)
		}
	}
}

// receiver is the process of a standby's WAL receiver.
func (p *proving) receiver(id int) string {
	p.t.Helper()
	pid, err := p.pg.Nodes()[id-1].Psql(p.t.Context(), "SELECT pid FROM pg_stat_wal_receiver")
	if err != nil {
		p.t.Fatal(err)
	}
	return pid
}

func signal(t *testing.T, pid string, sig syscall.Signal) {
	t.Helper()
	n, err := strconv.Atoi(pid)
	if err == nil {
		err = syscall.Kill(n, sig)
	}
	if err != nil {
		t.Fatal(err)
	}
}
