package decide

import (
	"fmt"
	"strings"

	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// nearby is how much log the candidate of a switch may lack when writes begin to be held.
const nearby = 16 << 20

// switchOver takes a switch from Intent to Promote. Until then everything can be taken back, and is
// when the writes would be held longer than Policy.SwitchBudget.
func (p *Picture) switchOver(op *record.Operation) Plan {
	n, old := p.node(op.Node), p.primary()
	if n == nil || old == nil {
		return p.giveUp(op, record.Failed, "one of the two nodes was taken out of the configuration")
	}
	switch op.Step {
	case record.Intent:
		return p.prepare(op, n, old)
	case record.Freeze:
		return p.drain(op, n)
	}
	return p.handOver(op, n, old)
}

// prepare writes out what a shutdown would have to write, while nobody waits for it.
func (p *Picture) prepare(op *record.Operation, n, old *Node) Plan {
	if f := p.find(); f.is != healthy {
		return p.giveUp(op, record.Failed, "the primary is not well: "+f.why)
	}
	if why := p.notReady(n); why != "" {
		return p.giveUp(op, record.Failed, fmt.Sprintf("node %d %s", n.ID, why))
	}
	w := p.work(op)
	a := w.action(Checkpoint, old.ID)
	switch state := w.do(a, 2); {
	case state == failed:
		text, _ := w.tried(a)
		return p.giveUp(op, record.Failed, fmt.Sprintf("CHECKPOINT on node %d failed: %s", old.ID, text))
	case state == pending:
		return w.plan("CHECKPOINT on node %d, so that its shutdown is short", old.ID)
	}
	if lag := old.Fact.Write - min(n.Fact.Replay, old.Fact.Write); lag > nearby {
		if p.Now-p.StepSince > Checkpoint.timeout() {
			return p.giveUp(op, record.Failed, fmt.Sprintf("node %d has %s to replay, and does not catch up", n.ID, bytes(uint64(lag))))
		}
		w.wakeAt(p.StepSince + Checkpoint.timeout())
		return w.plan("node %d has %s to replay", n.ID, bytes(uint64(lag)))
	}
	return p.advance(op, record.Freeze, "hold the writes of epoch %d: node %d is ready to take over", op.From, n.ID)
}

// notReady says why the node cannot take over in order; empty when it can.
func (p *Picture) notReady(n *Node) string {
	if why := p.unfit(n, nil); why != "" {
		return why
	}
	if n.Fact.Role != topology.RoleStandby || !n.Fact.Streaming {
		return "does not stream from the primary"
	}
	return ""
}

// drain waits until nobody writes: every member that is heard of has confirmed, and open transactions have
// ended. One that is away has no clients, or they will be told; that it acknowledges nothing any more is
// for the gate to see to (takeOver).
func (p *Picture) drain(op *record.Operation, n *Node) Plan {
	if why := p.notReady(n); why != "" {
		return p.giveUp(op, record.Failed, fmt.Sprintf("node %d %s", n.ID, why))
	}
	if f := p.find(); f.is == crashed || f.is == lost {
		return p.giveUp(op, record.Undone, "the primary was lost meanwhile: "+f.why)
	}
	w := p.work(op)
	open, missing := 0, []string{}
	for i := range p.Members {
		m := &p.Members[i]
		if p.Now-max(m.Heard, p.LeaderSince) > p.lapse() && p.Now >= m.LeaseUntil && !p.Alone {
			continue
		}
		open += m.Open
		if !m.Witness && !p.Alone && m.Drains != op.ID {
			missing = append(missing, m.Name)
		}
	}
	held := p.Now - p.StepSince
	switch {
	case held > p.Policy.SwitchBudget:
		why := fmt.Sprintf("writes were held for %s, and %d write transactions are still open", short(held), open)
		if len(missing) > 0 {
			why = fmt.Sprintf("writes were held for %s, and %s has not confirmed that it holds them", short(held), strings.Join(missing, ", "))
		}
		return p.giveUp(op, record.Undone, why)
	case len(missing) > 0:
		w.wakeAt(p.StepSince + p.Policy.SwitchBudget + 1)
		return w.plan("waiting for %s to confirm that writes are held", strings.Join(missing, ", "))
	case open > 0 && held < p.Policy.Drain:
		w.wakeAt(p.StepSince + p.Policy.Drain)
		return w.plan("%d write transactions are still open", open)
	case open > 0 && p.Policy.OnOpen != "stop":
		return p.giveUp(op, record.Undone, fmt.Sprintf("%d write transactions were still open after %s", open, short(held)))
	}
	next := *op
	next.Step, next.Recruited = record.Fence, []topology.NodeID{n.ID}
	return p.move(op, next, fmt.Sprintf("stop node %d in order (%d write transactions are still open)", p.Record.Epoch.Primary, open))
}

// handOver stops the primary in order, sees that the candidate has its last byte, and cuts the
// candidate off.
func (p *Picture) handOver(op *record.Operation, n, old *Node) Plan {
	w := p.work(op)
	late := p.Now-p.StepSince > p.Policy.SwitchBudget
	stop := w.action(Stop, old.ID)
	stop.Mode = "fast"
	w.wakeAt(p.StepSince + p.Policy.SwitchBudget + 1)
	switch state := w.do(stop, 1); {
	case state == failed:
		text, _ := w.tried(stop)
		return p.giveUp(op, record.Undone, fmt.Sprintf("node %d could not be stopped: %s", old.ID, text))
	case state == pending && late:
		return p.giveUp(op, record.Undone, fmt.Sprintf("node %d did not stop within %s", old.ID, short(p.Policy.SwitchBudget)))
	case state == pending:
		return w.plan("node %d is being stopped", old.ID)
	case old.Fact.At < p.StepSince || !old.Fact.Stopped:
		if late {
			return p.giveUp(op, record.Undone, fmt.Sprintf("node %d was not seen to stop", old.ID))
		}
		w.look(old.ID)
		return w.plan("node %d was stopped; reading how far it wrote", old.ID)
	case old.Fact.Write == 0:
		return p.giveUp(op, record.Undone, fmt.Sprintf("node %d was not shut down in order", old.ID))
	}
	if p.position(n) <= old.Fact.Write {
		if late {
			return p.giveUp(op, record.Undone, fmt.Sprintf("node %d has not received the shutdown checkpoint at %s (it is at %s)", n.ID, old.Fact.Write, p.position(n)))
		}
		w.ask(n.ID)
		return w.plan("node %d is to receive the shutdown checkpoint at %s, and is at %s", n.ID, old.Fact.Write, p.position(n))
	}
	return p.takeOver(w, n)
}

func (p *Picture) takeOver(w *work, n *Node) Plan {
	op := w.op
	late := p.Now-p.StepSince > p.Policy.SwitchBudget
	if !p.cutOff(n, op) {
		state := w.do(w.action(Recruit, n.ID), 3)
		if state == failed || late {
			return p.giveUp(op, record.Undone, fmt.Sprintf("node %d could not be cut off from the old primary", n.ID))
		}
		return w.plan("node %d has everything; it leaves the old primary", n.ID)
	}
	if why := p.unfit(n, op); why != "" {
		return p.giveUp(op, record.Undone, fmt.Sprintf("node %d %s", n.ID, why))
	}
	if g := p.gate(op, p.cut(op)); g.shut || p.Now < g.until {
		if late {
			return p.giveUp(op, record.Undone, g.why)
		}
		w.wakeAt(g.until)
		return w.plan("node %d has everything; %s", n.ID, g.why)
	}
	return p.move(op, p.promotion(op, n), fmt.Sprintf("promote node %d at epoch %d: it has everything up to %s", n.ID, op.To, p.position(n)))
}
