package pgnode

import (
	"context"

	"github.com/cstproxy/cstproxy/ha/topology"
)

// Position is how far a primary has come, for one round.
type Position struct {
	Insert   topology.LSN
	Flush    topology.LSN
	Timeline topology.Timeline
}

const positionSQL = `SELECT pg_is_in_recovery(),
 CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_insert_lsn() END,
 CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_flush_lsn() END,
 CASE WHEN pg_is_in_recovery() THEN NULL ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint END`

// errNotPrimary says that a server that was asked as the primary is in recovery.
var errNotPrimary = &Failure{Cause: Unclassified, Message: "the server is in recovery"}

// Position asks a primary. The error is a *Failure.
func (c *Conn) Position(ctx context.Context) (Position, error) {
	row, err := c.one(ctx, positionSQL, 4)
	if err != nil {
		return Position{}, err
	}
	f := fields{row: row}
	if f.isTrue() {
		return Position{}, errNotPrimary
	}
	p := Position{Insert: f.lsn(), Flush: f.lsn(), Timeline: f.timeline()}
	if f.err != nil {
		return Position{}, &Failure{Cause: Unclassified, Message: f.err.Error(), err: f.err}
	}
	return p, nil
}

// Replayed is how far a standby has come, for one round.
type Replayed struct {
	// Standby is false once the server has left recovery.
	Standby bool
	Replay  topology.LSN
	// Received is the timeline that the WAL receiver streams, 0 when there is no receiver. A
	// standby cannot stream a timeline that it does not descend to: the startup process refuses
	// one that forked off before its own position.
	Received topology.Timeline
}

const replayedSQL = `SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn(), (SELECT received_tli FROM pg_stat_wal_receiver)`

// Replayed asks a standby. The error is a *Failure.
func (c *Conn) Replayed(ctx context.Context) (Replayed, error) {
	row, err := c.one(ctx, replayedSQL, 3)
	if err != nil {
		return Replayed{}, err
	}
	f := fields{row: row}
	r := Replayed{Standby: f.isTrue(), Replay: f.lsn(), Received: f.timeline()}
	if f.err != nil {
		return Replayed{}, &Failure{Cause: Unclassified, Message: f.err.Error(), err: f.err}
	}
	return r, nil
}
