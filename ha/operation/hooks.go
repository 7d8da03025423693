package operation

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/hook"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// runHook: at (To, Promote) with the old primary as its node, or at (To, After) with the new one. Programs run
// on this host, and nothing on any other is touched but by them, so no ratchet can refuse a late one. In its
// place a majority confirms, right before the program begins, that this member leads, and the record is read
// after that: a leader that wakes late, or whose step is over, runs nothing. Only a freeze in the
// microseconds from there to exec, or of the program itself, goes unnoticed. A successor of the leader runs it
// again; see package hook.
func (e *Executor) runHook(ctx context.Context, a decide.Action, n Node) error {
	if e.cfg.Record == nil {
		return fmt.Errorf("hook %s: nobody tells what is to be told", a.Mode)
	}
	if err := e.confirm(ctx); err != nil {
		return fmt.Errorf("hook %s is not run: %w", a.Mode, err)
	}
	told, err := e.event(a)
	switch {
	case err != nil:
		return fmt.Errorf("hook %s is not run: %w", a.Mode, err)
	case a.Mode == hook.TriggerFunc:
		return e.trigger(ctx, n, told)
	case a.Mode == hook.PreFence:
		return e.cutOff(ctx, a, told)
	}
	return e.program(ctx, a, told)
}

// askVoters is the pause before a majority that did not answer in time is asked again: a lost message must not
// cost a hook. ctx ends with the leadership.
const askVoters = 200 * time.Millisecond

func (e *Executor) confirm(ctx context.Context) error {
	for {
		err := e.cfg.Confirm(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(askVoters):
		}
	}
}

func (e *Executor) program(ctx context.Context, a decide.Action, told hook.Event) error {
	return e.cfg.Hooks.Run(ctx, a.Mode, told, func(line string) {
		if e.cfg.Progress != nil {
			e.cfg.Progress(a, a.Mode+": "+line)
		}
	})
}

// cutOff runs the program that may cut the old primary's power, and kills it when the operation has ended
// without its epoch: then that primary may be the one that takes writes. What the program had done by then
// stays done.
func (e *Executor) cutOff(ctx context.Context, a decide.Action, told hook.Event) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { cancel(e.overturned(ctx, a)) })
	defer watching.Wait()
	defer cancel(nil)
	return e.program(ctx, a, told)
}

// overturned returns when a's operation has ended, or is led back, without its epoch, or when ctx has ended.
func (e *Executor) overturned(ctx context.Context, a decide.Action) error {
	for {
		changed := e.cfg.Changed()
		c := e.cfg.Record()
		if op := c.Find(a.Operation); c.Epoch.Operation != a.Operation && (op == nil || op.Step > record.After) {
			return fmt.Errorf("operation %d has not made the present epoch", a.Operation)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// event is what an action's hook is told. The error says that the step it belongs to is over; what belongs to
// Promote may begin in After, which a promotion soon leads to.
func (e *Executor) event(a decide.Action) (hook.Event, error) {
	c := e.cfg.Record()
	op := c.Find(a.Operation)
	switch {
	case op == nil:
		return hook.Event{}, fmt.Errorf("operation %d is over", a.Operation)
	case op.Step < a.Step || op.Step > record.After || op.Step < record.Promote:
		return hook.Event{}, fmt.Errorf("operation %d is at step %s, not %s", op.ID, op.Step, a.Step)
	}
	told := hook.Event{Cluster: e.cfg.Cluster, Kind: string(op.Kind), Operation: uint64(op.ID), Epoch: uint64(op.To),
		OldID: int(op.Former), OldAddress: e.address(op.Former)}
	told.NewID, told.NewAddress = int(op.Candidate), e.address(op.Candidate)
	if a.Step == record.After {
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
