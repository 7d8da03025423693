package operation

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/pgnode"
	"github.com/cstproxy/cstproxy/ha/remote"
	"github.com/cstproxy/cstproxy/ha/topology"
)

func unreachable(err error) bool {
	var away *remote.Unreachable
	return errors.As(err, &away) || errors.Is(err, remote.ErrNoWrapper)
}

// upstream is the node that a follows, and how.
func (e *Executor) upstream(a decide.Action, n Node) (Node, pgnode.Upstream, error) {
	up, ok := e.nodes[a.Upstream]
	if !ok || up.ID == n.ID {
		return up, pgnode.Upstream{}, fmt.Errorf("node %d cannot follow node %d", n.ID, a.Upstream)
	}
	return up, pgnode.Upstream{Host: up.Node.Host, Port: up.Port, AppName: n.AppName, Slot: pgnode.SlotName(n.Node), Base: e.cfg.Replication}, nil
}

// slotOn makes the slot that the standby will use, on its upstream. A server that has none to give
// (max_replication_slots) is followed without one.
func (e *Executor) slotOn(ctx context.Context, up Node, to *pgnode.Upstream) error {
	c, err := up.SQL.Connect(ctx)
	if err != nil {
		return fmt.Errorf("ask upstream %s: %w", up.Address(), err)
	}
	defer c.Close(ctx)
	if err := c.MakeSlot(ctx, to.Slot); err != nil {
		if c.Broken() {
			return err
		}
		to.Slot = ""
	}
	return nil
}

// follow: Release at (To, Undo) with the old primary, Follow at (To, After) or in a repair. On a running
// standby by SQL (see pgnode.Follow); on a stopped server by its files, under the ratchet, and it is
// started. A running primary is refused: it has to be stopped first. When it dies, a repeat goes on;
// when it wakes late, marker or ratchet refuse it.
func (e *Executor) follow(ctx context.Context, a decide.Action, n Node) error {
	up, to, err := e.upstream(a, n)
	if err != nil {
		return err
	}
	if err := e.slotOn(ctx, up, &to); err != nil {
		// An upstream that is away for now, as in an undo, is followed all the same when it is back.
		if a.Verb != decide.Release {
			return fmt.Errorf("follow: %w", err)
		}
		to.Slot = ""
	}
	err = e.besides(ctx, a, n, func(ctx context.Context) error {
		_, err := n.SQL.Follow(ctx, a.Epoch, to)
		return err
	})
	down := pgnode.CauseOf(err) == pgnode.Refused || pgnode.CauseOf(err) == pgnode.Reset
	switch {
	case errors.Is(err, pgnode.ErrNeedsRestart):
		was, err := n.SQL.KeepConninfo(ctx)
		if err != nil {
			return fmt.Errorf("follow: ask for primary_conninfo: %w", err)
		}
		return e.followByFiles(ctx, a, restarted{to, was, "restart=yes"})
	case down && n.Host != nil:
		return e.followByFiles(ctx, a, restarted{to, nil, "restart=no"})
	}
	return err
}

// restarted is whom a server follows that reads it from its files: was is the connection string that it
// had, nil where nobody can be asked; restart is the script's word.
type restarted struct {
	to      pgnode.Upstream
	was     pgnode.Conninfo
	restart string
}

func (e *Executor) followByFiles(ctx context.Context, a decide.Action, r restarted) error {
	lines, err := followSettings(a.Epoch, r.to, r.was)
	if err != nil {
		return err
	}
	if err := e.act(ctx, a, script{followScript, []string{r.restart, patience(ctx)}, secrets("", lines...)}); err != nil {
		return err
	}
	return e.awaitStream(ctx, a, r.to)
}

// awaitStream waits until the node streams from its upstream.
func (e *Executor) awaitStream(ctx context.Context, a decide.Action, to pgnode.Upstream) error {
	want := pgnode.Address(to.Host, fmt.Sprint(to.Port))
	return e.awaitServer(ctx, e.nodes[a.Node], func(o pgnode.Observation, f pgnode.Facts) error {
		switch {
		case o.Role != topology.RoleStandby:
			return errors.New("it came up as a primary")
		case !f.Streaming || f.Upstream != want:
			return fmt.Errorf("it runs, but does not stream from %s yet", want)
		}
		return nil
	})
}

// start: of a repair, of a restart, or of a switchover's old primary at (epoch, After); by the leader that holds
// the step, never of the epoch's primary, which goes by revive. By a script under the ratchet, and as a standby
// whatever its directory says: one that was lost with its host left nothing there that keeps it from coming up
// writable beside the primary. When the leader dies, it is down or a standby. Refused where a rewind was
// interrupted. Repeats and late wakers find it running, and leave it as it is, or the ratchet refuses them.
func (e *Executor) start(ctx context.Context, a decide.Action, n Node) error {
	if err := e.act(ctx, a, script{text: startScript, words: []string{"role=standby", patience(ctx)}}); err != nil {
		return err
	}
	role := topology.RoleUnknown
	err := e.awaitServer(ctx, n, func(o pgnode.Observation, _ pgnode.Facts) error { role = o.Role; return nil })
	if err == nil && role == topology.RolePrimary {
		return errors.New("start: it runs as a primary")
	}
	return err
}

// revive: of the crashed primary of this epoch, as long as nothing was promoted, and at (To, Undo) of
// one that Stop has stopped, or not: the standby.signal that Stop left goes. By a script under the
// ratchet, which is what keeps it from bringing back a primary whose successor was recruited.
func (e *Executor) revive(ctx context.Context, a decide.Action, n Node) error {
	if err := e.act(ctx, a, script{text: startScript, words: []string{"role=primary", patience(ctx)}}); err != nil {
		return err
	}
	return e.awaitServer(ctx, n, func(o pgnode.Observation, _ pgnode.Facts) error {
		if o.Role != topology.RolePrimary {
			return errors.New("it came up as a standby")
		}
		return nil
	})
}

// source is what a repair must know of the server that it copies from.
type source struct {
	pgnode.Observation
	needKB int64
}

// askSource also makes it take a checkpoint, before version 16: pg_rewind reads the timeline from the
// control file, which tells of a promotion only after the next one.
func (e *Executor) askSource(ctx context.Context, up Node) (source, error) {
	c, err := up.SQL.Connect(ctx)
	if err != nil {
		return source{}, fmt.Errorf("ask upstream %s: %w", up.Address(), err)
	}
	defer c.Close(ctx)
	o, err := c.Probe(ctx)
	if err != nil {
		return source{}, fmt.Errorf("ask upstream %s: %w", up.Address(), err)
	}
	if o.Role == topology.RolePrimary && o.Version < rewindsByRecovery {
		if err := c.Checkpoint(ctx); err != nil {
			return source{}, fmt.Errorf("upstream %s: %w", up.Address(), err)
		}
	}
	size, err := c.Size(ctx)
	return source{Observation: o, needKB: size>>10 + size>>13}, err
}

// rewind: of a repair, at (epoch, After). By a script under the ratchet; see scripts/rewind.sh for what
// happens when it dies. While it runs the directory has another name. Errors for which Impossible is true
// have changed nothing; after one for which Interrupted is true only a rebuild helps. The log that the
// new primary does not have is kept in cstproxy-lost, beside the data directory.
func (e *Executor) rewind(ctx context.Context, a decide.Action, n Node) error {
	up, to, err := e.upstream(a, n)
	if err != nil {
		return err
	}
	from, err := e.askSource(ctx, up)
	if err != nil {
		return fmt.Errorf("rewind: %w", err)
	}
	if err := e.slotOn(ctx, up, &to); err != nil {
		return fmt.Errorf("rewind: %w", err)
	}
	lines, err := followSettings(a.Epoch, to, nil)
	if err != nil {
		return fmt.Errorf("rewind: %w", err)
	}
	login := e.cfg.Superuser.With("host", up.Node.Host).With("port", fmt.Sprint(up.Port)).Default("dbname", "postgres")
	err = e.act(ctx, a, script{rewindScript, []string{
		"source=" + login.Without("password").String(), fmt.Sprintf("source_timeline=%d", from.Timeline), "forks=" + forks(from.History),
		repairName(a), patience(ctx),
	}, secrets(login.Get("password"), lines...)})
	if err != nil {
		return err
	}
	return e.awaitStream(ctx, a, to)
}

// forks is a history for the script: "timeline:position" of each branch point, oldest first.
func forks(h topology.History) string {
	words := make([]string, len(h.Forks))
	for i, f := range h.Forks {
		words[i] = fmt.Sprintf("%d:%s", f.Timeline, f.End)
	}
	return strings.Join(words, " ")
}

// repairName is what a finished repair leaves in the directory, so that a repeat is recognized.
func repairName(a decide.Action) string {
	return fmt.Sprintf("repair=%s %d", a.Verb, a.Operation)
}

// rebuild: of a repair or a clone, at (epoch, After). By a script under the ratchet; see
// scripts/rebuild.sh for what happens when it dies. The new copy is made beside the old directory, which is
// then renamed; Mode "replace" removes it first, for want of space, once room, login and slot of the copy are
// proved, and "clone" refuses where there is one, anything else keeps it. That another healthy node holds all that the old one does is the decision's business.
func (e *Executor) rebuild(ctx context.Context, a decide.Action, n Node) error {
	mode := a.Mode
	switch mode {
	case "clone", "replace":
	default:
		mode = "beside"
	}
	up, to, err := e.upstream(a, n)
	if err != nil {
		return err
	}
	from, err := e.askSource(ctx, up)
	if err != nil {
		return fmt.Errorf("rebuild: %w", err)
	}
	if err := e.slotOn(ctx, up, &to); err != nil {
		return fmt.Errorf("rebuild: %w", err)
	}
	lines, err := followSettings(a.Epoch, to, nil)
	if err != nil {
		return fmt.Errorf("rebuild: %w", err)
	}
	login, err := to.Conninfo(nil)
	if err != nil {
		return fmt.Errorf("rebuild: %w", err)
	}
	err = e.act(ctx, a, script{rebuildScript, []string{
		"source=" + login.Without("password").String(), fmt.Sprintf("source_major=%d", from.Version/10000), fmt.Sprintf("need_kb=%d", from.needKB),
		"mode=" + mode, repairName(a), patience(ctx),
	}, secrets(login.Get("password"), lines...)})
	if err != nil {
		return err
	}
	return e.awaitStream(ctx, a, to)
}
