package member

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/ha"
	"github.com/cstproxy/cstproxy/ha/lease"
	"github.com/cstproxy/cstproxy/ha/pgnode"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

const (
	// proofPoll is how often the primary is asked again who has flushed the heartbeat. A standby near
	// by says so within a millisecond or two after its disk has it.
	proofPoll = 3 * time.Millisecond
	// proofIdle is how long the connection is kept after the last proof. Proofs come every third of a
	// lease or not at all; an old connection could have died silently.
	proofIdle = 5 * time.Second
)

// Prover collects the proofs by which a member without a leader keeps its lease of one cluster; see
// lease.Proof. It asks the epoch's primary alone: who streams from there, and how far each has flushed.
type Prover struct {
	agent   *ha.Agent
	cluster string
	member  string
	log     *zap.Logger

	mu   sync.Mutex // held during a proof
	conn *pgnode.Conn
	to   *pgnode.Server // that conn leads to
	used time.Time
}

// NewProver is for the member of that name.
func NewProver(agent *ha.Agent, cluster, member string, log *zap.Logger) *Prover {
	return &Prover{agent: agent, cluster: cluster, member: member, log: log}
}

// Run closes the connection when no proofs are asked for, and at the end.
func (p *Prover) Run(ctx context.Context) error {
	tick := time.NewTicker(proofIdle)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
		p.mu.Lock()
		if ctx.Err() != nil || time.Since(p.used) >= proofIdle {
			p.hangUp(ctx)
		}
		p.mu.Unlock()
	}
	return nil
}

// hangUp is called with mu held.
func (p *Prover) hangUp(ctx context.Context) {
	if p.conn != nil {
		p.conn.Close(ctx)
		p.conn = nil
	}
}

// Prove completes proof, which has just begun: it commits a heartbeat on the primary of e and waits
// until so many standbys have flushed it that the proof holds, or ctx ends. Without a Heartbeat in it
// the primary was not reached, or was not that of e any more.
func (p *Prover) Prove(ctx context.Context, e record.Epoch, proof lease.Proof) lease.Proof {
	p.mu.Lock()
	defer p.mu.Unlock()
	proof.Heartbeat, proof.Flushed = 0, nil
	lsn, err := p.stamp(ctx, e)
	p.used = time.Now()
	if err != nil {
		p.log.Debug("the primary took no heartbeat for a proof", zap.Error(err))
		if p.conn != nil && p.conn.Broken() {
			p.hangUp(ctx)
		}
		return proof
	}
	nodes := p.nodes()
	tick := time.NewTicker(proofPoll)
	defer tick.Stop()
	for {
		s, err := p.conn.Streams(ctx)
		p.used = time.Now()
		if err != nil {
			p.hangUp(ctx)
			return proof // what was seen before still holds
		}
		// This is asked after the write, on the connection that wrote: whoever is this primary now was
		// it then, because timelines only rise and a standby writes nothing.
		if !s.Primary || s.SystemID != e.SystemID || s.Timeline != e.History.Timeline {
			proof.Heartbeat, proof.Flushed = 0, nil
			return proof
		}
		proof.Heartbeat, proof.Flushed = lsn, flushed(nodes, s.Senders)
		if proof.Holds() {
			return proof
		}
		select {
		case <-ctx.Done():
			return proof
		case <-tick.C:
		}
	}
}

// stamp commits a record that needs no table and no lock, on a new connection when the kept one turns
// out to have ended.
func (p *Prover) stamp(ctx context.Context, e record.Epoch) (topology.LSN, error) {
	server, err := p.agent.Server(p.cluster, e.Primary)
	if err != nil {
		return 0, err
	}
	if server != p.to {
		p.hangUp(ctx)
		p.to = server
	}
	if p.conn != nil {
		lsn, err := p.conn.Stamp(ctx, p.text(e))
		if err == nil || !p.conn.Broken() || ctx.Err() != nil {
			return lsn, err
		}
		p.hangUp(ctx)
	}
	if p.conn, err = server.Connect(ctx); err != nil {
		p.conn = nil
		return 0, err
	}
	return p.conn.Stamp(ctx, p.text(e))
}

func (p *Prover) text(e record.Epoch) string { return fmt.Sprintf("%s epoch %d", p.member, e.Number) }

func (p *Prover) nodes() []topology.Node {
	s, err := p.agent.Snapshot(p.cluster)
	if err != nil {
		return nil
	}
	nodes := make([]topology.Node, len(s.Nodes))
	for i := range s.Nodes {
		nodes[i] = s.Nodes[i].Node
	}
	return nodes
}

// walReceiver is the application_name of a standby that was given none.
const walReceiver = "walreceiver"

// flushed finds each standby's sender, by the application_name that the configuration gives it; where
// it gives none, by the address of a nameless standby that is the only one there. A name or address
// that fits several is nobody's: a backup that streams to a standby's host must not vouch for it.
func flushed(nodes []topology.Node, senders []pgnode.StreamSender) map[topology.NodeID]topology.LSN {
	fits := func(n *topology.Node, s *pgnode.StreamSender) bool {
		if n.AppName != "" {
			return n.AppName == s.AppName
		}
		return s.AppName == walReceiver && n.Host == s.ClientAddr
	}
	found := map[topology.NodeID]topology.LSN{}
	for i := range nodes {
		n := &nodes[i]
		var mine []*pgnode.StreamSender
		for j := range senders {
			if fits(n, &senders[j]) {
				mine = append(mine, &senders[j])
			}
		}
		if len(mine) != 1 {
			continue
		}
		others := slices.ContainsFunc(nodes, func(o topology.Node) bool { return o.ID != n.ID && fits(&o, mine[0]) })
		if !others {
			found[n.ID] = mine[0].Flush
		}
	}
	return found
}
