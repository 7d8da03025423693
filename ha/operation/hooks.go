package operation

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/hook"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// runHook: at (To, Fence) with the old primary as its node, or at (To, After) with the new one. Programs run
// on this host, and nothing on any other is touched but by them, so no ratchet is asked. A successor of the
// leader runs it again; see package hook.
func (e *Executor) runHook(ctx context.Context, a decide.Action, n Node) error {
	told, err := e.event(a)
	if err != nil {
		return fmt.Errorf("hook %s: %w", a.Mode, err)
	}
	if a.Mode == hook.TriggerFunc {
		return e.trigger(ctx, n, told)
	}
	return e.cfg.Hooks.Run(ctx, a.Mode, told, func(line string) {
		if e.cfg.Progress != nil {
			e.cfg.Progress(a, a.Mode+": "+line)
		}
	})
}

// event is what an action's hook is told.
func (e *Executor) event(a decide.Action) (hook.Event, error) {
	if e.cfg.Record == nil {
		return hook.Event{}, errors.New("nobody tells what is to be told")
	}
	c := e.cfg.Record()
	var op *record.Operation
	if c != nil {
		op = c.Find(a.Operation)
	}
	if op == nil {
		return hook.Event{}, fmt.Errorf("operation %d is over", a.Operation)
	}
	told := hook.Event{Cluster: e.cfg.Cluster, Kind: string(op.Kind), Operation: uint64(op.ID), Epoch: uint64(op.To),
		OldID: int(op.Former), OldAddress: e.address(op.Former)}
	heir := op.Candidate
	if heir == 0 {
		heir = op.Node // whom an operator named; 0: not known yet
	}
	told.NewID, told.NewAddress = int(heir), e.address(heir)
	if op.Step == record.After {
		told.Timeline = uint32(c.Epoch.History.Timeline)
	}
	return told, nil
}

// address is "host:port" of a node, empty when it is not configured.
func (e *Executor) address(id topology.NodeID) string {
	if n, ok := e.nodes[id]; ok {
		return net.JoinHostPort(n.Node.Host, strconv.Itoa(n.Port))
	}
	return ""
}

// trigger calls the user's function on the new primary.
func (e *Executor) trigger(ctx context.Context, n Node, told hook.Event) error {
	to := n.Trigger
	if to == nil {
		to = n.SQL
	}
	c, err := to.Connect(ctx)
	if err != nil {
		return fmt.Errorf("hook %s: connect to node %d: %w", hook.TriggerFunc, n.ID, err)
	}
	defer c.Close(ctx)
	old, heir := e.nodes[topology.NodeID(told.OldID)], e.nodes[topology.NodeID(told.NewID)]
	if err := c.Call(ctx, e.cfg.Hooks.Function(), told.Cluster, told.Kind, old.Node.Host, heir.Node.Host); err != nil {
		return fmt.Errorf("hook %s on node %d: %w", hook.TriggerFunc, n.ID, err)
	}
	return nil
}
