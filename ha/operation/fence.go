package operation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/pgnode"
	"github.com/cstproxy/cstproxy/ha/remote"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// besides runs act while the host's ratchet is raised, and returns the error of either; the ratchet's
// refusal comes first.
func (e *Executor) besides(ctx context.Context, a decide.Action, n Node, act func(context.Context) error) error {
	raised := make(chan error, 1)
	raising, enough := context.WithCancel(ctx)
	go func() { raised <- e.raise(raising, a, n) }() // received below, on every way out
	err := act(ctx)
	if err == nil {
		// A host that is slow to answer must not hold up a failover that SQL has done.
		timer := time.AfterFunc(raiseGrace, enough)
		defer timer.Stop()
	} else {
		enough()
	}
	refused := <-raised
	enough()
	if refused != nil {
		return refused
	}
	return err
}

// raiseGrace is how long an action that SQL has done waits for the ratchet to be raised as well. The
// host goes on raising it when nobody waits any more.
const raiseGrace = 100 * time.Millisecond

// recruit: a failover's or switchover's leader, at (To, Fence). By SQL (see pgnode.Recruit), and the
// host's ratchet is raised beside it. When it dies, the standby is recruited or not, which its marker
// tells; the next leader repeats it or releases it. When it wakes late, the marker refuses it.
// Before version 13 the standby is restarted by its host, under the ratchet.
func (e *Executor) recruit(ctx context.Context, a decide.Action, n Node) error {
	first, cancel := ctx, context.CancelFunc(func() {})
	if end, ok := ctx.Deadline(); ok && n.Host != nil {
		first, cancel = context.WithDeadline(ctx, time.Now().Add(time.Until(end)/2))
	}
	defer cancel()
	err := e.besides(first, a, n, func(ctx context.Context) error {
		_, err := n.SQL.Recruit(ctx, a.Epoch)
		return err
	})
	switch {
	case errors.Is(err, pgnode.ErrNeedsRestart):
		// What cannot be kept is built anew from the configuration.
		if _, err := n.SQL.KeepConninfo(ctx); err != nil {
			e.log.Warn("primary_conninfo could not be kept", zap.Int("node", int(n.ID)), zap.String("why", err.Error()))
		}
		return e.act(ctx, a, script{followScript, []string{"restart=yes", patience(ctx)}, secrets("",
			settingLine(pgnode.MarkerSetting, pgnode.Marker{Epoch: a.Epoch}.String()),
			settingLine("primary_conninfo", ""))})
	case err == nil || first.Err() == nil || n.Host == nil || ctx.Err() != nil:
		return err
	}
	// The startup process waits for something and has not read the new setting: its receiver goes on
	// streaming. It is ended from outside, and is not started again with an empty conninfo.
	if err := e.act(ctx, a, script{text: unplugScript}); err != nil {
		return err
	}
	_, err = n.SQL.Recruit(ctx, a.Epoch)
	return err
}

// stop: at (To, Fence) on the old primary, in a switchover with Mode "fast", or in a repair. By a
// script, under the ratchet: it leaves standby.signal before it stops anything, so that the host's own
// boot never makes a primary of it, and returns when no process of the server is left, so that its
// sockets refuse. When it dies, the server runs or not; a repeat goes on. When it wakes late, the
// ratchet refuses it. Mode "immediate" ends with SIGKILL what does not end; "fast" gives up when time is
// over and takes standby.signal away again, if it is new.
//
// The same command reads the facts of the directory when all has ended: a switchover holds the writes
// meanwhile, and another login would cost as much as the shutdown.
func (e *Executor) stop(ctx context.Context, a decide.Action, n Node) (*HostFacts, error) {
	mode := a.Mode
	switch mode {
	case "fast":
	case "", "immediate":
		mode = "immediate"
	default:
		return nil, fmt.Errorf("stop: no mode %q", a.Mode)
	}
	words := []string{"mode=" + mode, patience(ctx)}
	if mode == "immediate" {
		// One that does not end within two seconds is not going to.
		words[1] = "patience=2"
	}
	shed := make(chan error, 1)
	go func() { shed <- e.shedVIP(ctx, a) }() // received below
	found, err := e.actAndLook(ctx, a, script{text: stopScript, words: words})
	if failed := <-shed; failed != nil {
		e.log.Warn("the VIP could not be taken off", zap.Int("node", int(a.Node)), zap.String("why", failed.Error()))
	}
	return found, err
}

// shedVIP takes the VIP off a node that is being stopped. That it cannot must not fail the stop: whose
// server is gone serves nobody under any address.
func (e *Executor) shedVIP(ctx context.Context, a decide.Action) error {
	n := e.nodes[a.Node]
	if !configured(e.cfg.Addresses.Write) || n.Host == nil {
		return nil
	}
	a.Verb = decide.DropVIP
	return e.moveVIP(ctx, a, n)
}

// promote: at (To, Promote), on the operation's candidate alone. By SQL first, which waits for no login and
// no program of the host; by pg_ctl on its host, under the ratchet, when SQL does not do it. Then it waits for a
// timeline above the standby's and for a commit there. When it dies, the server is promoted or is not;
// the candidate is fixed by then, and a repeat finds out.
//
// When it wakes late: the ratchet is not what refuses the SQL. The statement itself is, because it reads on
// the server, as it runs, whether the marker still is that of recruiting for To, unreleased. Whoever decides
// anything later about this node writes the marker first: a later operation recruits it for a higher epoch,
// an undo and a repair release it, and a decision that only its host can be told of (stop, rewind, rebuild)
// ends the server, and with it the connection that the statement would come by. The ratchet is for the
// scripts: what an older step left on its way to this host must not touch the new primary. Recruit has
// raised it to (To, Fence) already, Promote raises it beside the SQL, and every later script raises it to
// its own step before it begins. So nothing of an older step can come between, whether or not the raise
// that nobody waits for any longer arrives.
func (e *Executor) promote(ctx context.Context, a decide.Action, n Node) error {
	c, err := n.SQL.Connect(ctx)
	if err != nil {
		return fmt.Errorf("promote: ask node %d first: %w", n.ID, err)
	}
	defer c.Close(ctx)
	before, err := c.Probe(ctx)
	if err != nil {
		return fmt.Errorf("promote: ask node %d first: %w", n.ID, err)
	}
	above := before.Timeline
	switch {
	case before.Role == topology.RolePrimary:
		above-- // a repeat
	case a.Timeline > above+mostPassedOver:
		return fmt.Errorf("promote: from timeline %d to %d is too far to be true", above, a.Timeline)
	default:
		if err := e.signalPromotion(ctx, a, n, passing{c, above}); err != nil {
			return err
		}
		above = max(above, a.Timeline-min(a.Timeline, 1))
	}
	if _, err := c.AwaitPrimary(ctx, above); err != nil {
		return fmt.Errorf("promote node %d: %w", n.ID, err)
	}
	return nil
}

// mostPassedOver bounds how many timeline numbers a promotion leaves out: each costs a file that
// every standby asks for.
const mostPassedOver = 1000

// passing is a connection to a standby on a timeline.
type passing struct {
	*pgnode.Conn
	from topology.Timeline
}

func (e *Executor) signalPromotion(ctx context.Context, a decide.Action, n Node, c passing) error {
	err := e.besides(ctx, a, n, func(ctx context.Context) error {
		if err := c.PassOver(ctx, c.from, a.Timeline); err != nil {
			return err
		}
		return c.Promote(ctx, a.Epoch)
	})
	var refused *remote.Refused
	var late *pgnode.Late
	switch {
	case err == nil || n.Host == nil || errors.As(err, &refused):
		return err
	case errors.As(err, &late) && late.Seen.Passed(late.Want):
		return err
	}
	if up, _, _ := n.Host.Up(); !up {
		return err
	}
	// It was recruited by its files, or cannot be promoted by SQL (before version 12).
	byHost := e.act(ctx, a, script{text: promoteScript, words: []string{fmt.Sprintf("epoch=%d", a.Epoch), fmt.Sprintf("from=%d", c.from), fmt.Sprintf("timeline=%d", a.Timeline)}})
	if unreachable(byHost) {
		return err
	}
	return byHost
}

// checkpoint: before a switchover or a rewind, by anybody; it changes nothing that matters.
func (e *Executor) checkpoint(ctx context.Context, n Node) error {
	c, err := n.SQL.Connect(ctx)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	defer c.Close(ctx)
	return c.Checkpoint(ctx)
}
