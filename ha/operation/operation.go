// Package operation does to the servers what package decide wants done: one Action at a time, by SQL
// (package pgnode) where a running server can do it to itself, by a script on its host (package
// remote) where not. It decides nothing and remembers nothing. Each verb may be repeated by any leader that holds
// the same (epoch, step), may die anywhere, and may wake an hour later:
//
//   - Scripts run under the host's ratchet, which refuses a lower (epoch, step) and ends one that still
//     runs. A verb that works by SQL raises the ratchet as well, when the host can be reached.
//   - SQL checks the marker cstproxy.epoch on the server itself (pgnode.Marker).
//   - A directory that must not be started bears another name until it may (scripts/prelude.sh).
//
// Whom a standby follows is in postgresql.auto.conf and standby.signal, because that is where ALTER
// SYSTEM and pg_basebackup -R put it, and because it wins over every file that a user writes: nothing
// that the user wrote is touched. Before version 12 it is recovery.conf.
package operation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/hook"
	"github.com/cstproxy/cstproxy/ha/pgnode"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/remote"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// Config says which servers there are and how they are reached.
type Config struct {
	// Fleet and Cluster name the hosts' ratchets.
	Fleet, Cluster string
	Nodes          []Node
	// Replication is what a primary_conninfo is built on where the server has never had one: user,
	// password or passfile, TLS. Host, port and application_name are added.
	Replication pgnode.Conninfo
	// Superuser is as whom pg_rewind reads its source: user, password, dbname, TLS.
	Superuser pgnode.Conninfo
	// SlotLimit is how many bytes of log the primary holds back for a standby that does not stream, where
	// its own max_slot_wal_keep_size sets no limit; 0: none. See Slots.
	SlotLimit uint64
	// Now is the leader's monotonic clock, the one of decide.Picture.
	Now       func() time.Duration
	Addresses Addresses
	Hooks     hook.Config
	// Record is what the log says of the cluster now; hooks are told of it. nil where no hook is run.
	Record func() *record.Cluster
	// Changed is closed at the next change of Record, and Confirm is nil when a majority, asked after the call,
	// took this member for the leader. They go with Record.
	Changed func() <-chan struct{}
	Confirm func(context.Context) error
	// Progress is called with each line that a long action writes; from another goroutine than Do's,
	// never after Do has returned. May be nil.
	Progress func(a decide.Action, line string)
}

// Node is one server with the ways to it.
type Node struct {
	topology.Node
	// SQL leads to the database postgres as a superuser.
	SQL *pgnode.Server
	// Trigger leads to the database in which Hooks.TriggerFunc is called; nil: SQL does.
	Trigger *pgnode.Server
	// Host is the way to its host; nil: there is none, and what needs it fails.
	Host *remote.Host
	// Login is the account of Host. When it is root, commands are run as Node.OSUser by runuser;
	// otherwise it must be that user: PostgreSQL's programs refuse to run as root.
	Login string
	// Elevate stands before a command that changes the host's addresses, where Login is not root: "sudo",
	// "-n", or a wrapper of the user's. Empty: the command itself uses sudo -n for ip, arping and python3.
	Elevate []string
	// BinDir is the folder of PostgreSQL's programs on the host; empty: it is searched for.
	BinDir string
}

// Executor carries out actions. It holds no connection and no state; any goroutine may use it.
type Executor struct {
	cfg   Config
	nodes map[topology.NodeID]Node
	log   *zap.Logger
}

// New checks the configuration. Nothing is connected.
func New(cfg Config, log *zap.Logger) (*Executor, error) {
	e := &Executor{cfg: cfg, nodes: map[topology.NodeID]Node{}, log: log.Named("operation").With(zap.String("cluster", cfg.Cluster))}
	for _, n := range cfg.Nodes {
		switch {
		case n.SQL == nil:
			return nil, fmt.Errorf("node %d has no way to its server", n.ID)
		case n.Host != nil && n.PGData == "":
			return nil, fmt.Errorf("node %d: pgdata must be given, for commands on its host", n.ID)
		case n.Host != nil && n.Login != "root" && n.Login != n.OSUser:
			return nil, fmt.Errorf("node %d: log in as %s, or as root: %s cannot act on its data directory", n.ID, n.OSUser, n.Login)
		case n.Host != nil && n.OSUser == "root":
			return nil, fmt.Errorf("node %d: os_user is root, as whom PostgreSQL does not run", n.ID)
		}
		e.nodes[n.ID] = n
	}
	if cfg.Now == nil {
		return nil, errors.New("operations need the leader's clock")
	}
	if err := cfg.Addresses.validate(); err != nil {
		return nil, err
	}
	if err := cfg.Hooks.Validate(); err != nil {
		return nil, err
	}
	return e, nil
}

// Report is what was seen of a node around an action.
type Report struct {
	// Fact is for the decision; its At is zero when nothing answered.
	Fact decide.Fact
	// Host is what its host says; nil when it did not answer, or was not waited for because the server
	// had: then nothing new is known of Fact.DiskFull.
	Host *HostFacts
	// VIPKnown: its host said what addresses it has; otherwise nothing new is known of Fact.NoVIP.
	VIPKnown bool
	// Warnings are settings that make a repair impossible or long; one sentence each.
	Warnings []string
}

// timeouts bound an action that brings none of its own.
func timeout(a decide.Action) time.Duration {
	if a.Timeout > 0 {
		return a.Timeout
	}
	switch a.Verb {
	case decide.Look:
		return 3 * time.Second
	case decide.Rewind:
		return 30 * time.Minute
	case decide.Rebuild:
		return 24 * time.Hour
	case decide.Start, decide.Revive, decide.Checkpoint:
		return 5 * time.Minute
	}
	return 30 * time.Second
}

// Do carries out a, waits for its end, and looks at the node once more. It returns when it is done,
// when it has failed, or when a.Timeout has passed; ctx ends it early, and what it began on a host may
// then go on there: a repeat waits for that.
func (e *Executor) Do(ctx context.Context, a decide.Action) (decide.Result, Report) {
	n, ok := e.nodes[a.Node]
	if !ok {
		return e.result(a, fmt.Errorf("no node %d is configured", a.Node)), Report{}
	}
	began := time.Now()
	found, err := e.within(ctx, a, n)
	result := e.result(a, err)
	fields := []zap.Field{zap.String("verb", string(a.Verb)), zap.Int("node", int(a.Node)), zap.Uint64("epoch", uint64(a.Epoch)),
		zap.Uint64("operation", uint64(a.Operation)), zap.Duration("lasted", time.Since(began))}
	switch {
	case err != nil:
		e.log.Warn("action failed", append(fields, zap.String("why", result.Err))...)
	case a.Verb != decide.Look:
		e.log.Info("action done", fields...)
	}
	if found != nil {
		r := Report{Host: found, Fact: ofHost(*found)}
		r.Fact.At = result.At
		return result, r
	}
	looking, cancel := context.WithTimeout(ctx, timeout(decide.Action{Verb: decide.Look}))
	defer cancel()
	grace := time.Duration(0)
	switch {
	case a.Verb == decide.Look && a.Mode == decide.ServerAlone:
		n.Host = nil
	case a.Verb == decide.Look:
		grace = hostGrace
	}
	r := e.look(looking, n, grace)
	if err == nil && (a.Verb == decide.TakeVIP || a.Verb == decide.DropVIP && !e.shared(n)) {
		r.Fact.NoVIP, r.VIPKnown = a.Verb == decide.DropVIP, true
	}
	return result, r
}

func (e *Executor) result(a decide.Action, err error) decide.Result {
	r := decide.Result{Action: a, At: e.cfg.Now()}
	if err == nil {
		return r
	}
	r.Err = err.Error()
	var refused *remote.Refused
	var late *pgnode.Late
	r.Refused = errors.As(err, &refused) || errors.As(err, &late) || exitCode(err) == exitLate
	return r
}

// within carries out a in its time. What it has already seen of a server that it stopped is returned, too.
func (e *Executor) within(ctx context.Context, a decide.Action, n Node) (*HostFacts, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout(a))
	defer cancel()
	if a.Verb == decide.Stop {
		return e.stop(ctx, a, n)
	}
	return nil, e.carryOut(ctx, a, n)
}

func (e *Executor) carryOut(ctx context.Context, a decide.Action, n Node) error {
	switch a.Verb {
	case decide.Look:
		return nil
	case decide.Recruit:
		return e.recruit(ctx, a, n)
	case decide.Release, decide.Follow:
		return e.follow(ctx, a, n)
	case decide.Start:
		return e.start(ctx, a, n)
	case decide.Revive:
		return e.revive(ctx, a, n)
	case decide.Checkpoint:
		return e.checkpoint(ctx, n)
	case decide.PromoteIt:
		return e.promote(ctx, a, n)
	case decide.Rewind:
		return e.rewind(ctx, a, n)
	case decide.Rebuild:
		return e.rebuild(ctx, a, n)
	case decide.TakeVIP, decide.DropVIP:
		return e.moveVIP(ctx, a, n)
	case decide.Hook:
		return e.runHook(ctx, a, n)
	}
	return fmt.Errorf("nobody here can do %q", a.Verb)
}
