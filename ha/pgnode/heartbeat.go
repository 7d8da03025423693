package pgnode

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cstproxy/cstproxy/ha/topology"
)

// HeartbeatDatabase and HeartbeatTable are where the write probe writes: one row for each member, so
// that members do not wait for one another.
//
//	id     int         the row's writer, chosen by the caller
//	epoch  bigint      the epoch in which the member believes
//	member text        its name
//	beat   timestamptz the server's clock at the write
//	lsn    pg_lsn      the server's log position before the write
const (
	HeartbeatDatabase = "cs_sys_ha"
	HeartbeatTable    = "cs_sys_heartbeat"
)

const heartbeatDDL = `CREATE TABLE IF NOT EXISTS public.cs_sys_heartbeat (
 id int PRIMARY KEY, epoch bigint NOT NULL, member text NOT NULL, beat timestamptz NOT NULL, lsn pg_lsn NOT NULL)`

// Heartbeat is one member's sign of life.
type Heartbeat struct {
	ID     int
	Epoch  topology.Epoch
	Member string
}

// Writes is what a heartbeat says about a primary. Only Stuck and DiskFull speak against it.
type Writes int

const (
	WritesUnknown Writes = iota // the connection failed; Pulse.Err says how
	Commits                     // the write is on the server's disk
	ReadOnly                    // it refuses writes: a standby, or told so
	DiskFull                    // 53100: no space for tables or log
	Stuck                       // no end within the timeout although nothing visible was in the way
	Blocked                     // somebody holds a lock on the table: that is load, not death
	NoTable                     // database or table is not there, or not as above
)

var writesNames = [...]string{"unknown", "commits", "read-only", "disk full", "stuck", "blocked", "no table"}

func (w Writes) String() string {
	if w < 0 || int(w) >= len(writesNames) {
		return writesNames[WritesUnknown]
	}
	return writesNames[w]
}

// Pulse is how a heartbeat ended.
type Pulse struct {
	Writes Writes
	// LSN lies after the write's own record: a standby that has flushed it received something that
	// was written after the heartbeat began. Set when it Commits.
	LSN  topology.LSN
	Took time.Duration
	Err  error // nil when it Commits
}

// Heart leads to HeartbeatDatabase on the same server. A Beat there may take patience, for callers
// that look meanwhile whether it has ended: a slow disk is told from a dead one by waiting. Locks are
// still waited for during half of Config.Timeout.
func (s *Server) Heart(patience time.Duration) *Server {
	to := *s
	to.cfg = s.cfg.Copy()
	to.cfg.Database = HeartbeatDatabase
	to.cfg.RuntimeParams["statement_timeout"] = strconv.FormatInt(max(patience.Milliseconds(), 1), 10)
	to.answer = patience
	return &to
}

// Beat writes h on a connection to HeartbeatDatabase. The commit waits for the server's own disk and
// for no standby: a primary whose synchronous standbys are away is not dead. A lock is waited for
// during half of the timeout, so that it ends before the statement does and is told apart.
func (c *Conn) Beat(ctx context.Context, h Heartbeat) Pulse {
	began := time.Now()
	// One string is one transaction: nothing stays open when this side is paused in the middle.
	sql := fmt.Sprintf(`SET LOCAL synchronous_commit = local; SET LOCAL lock_timeout = %d;
INSERT INTO public.cs_sys_heartbeat AS h VALUES (%d, %d, %s, clock_timestamp(), pg_current_wal_insert_lsn())
ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch, member = excluded.member, beat = excluded.beat, lsn = excluded.lsn
RETURNING pg_current_wal_insert_lsn()`, max(c.locks.Milliseconds(), 1), h.ID, h.Epoch, quoted(h.Member))
	p := Pulse{}
	row, err := c.one(ctx, sql, 1)
	if err == nil {
		p.LSN, err = topology.ParseLSN(string(row[0]))
	}
	p.Took, p.Err, p.Writes = time.Since(began), err, writesOf(err)
	return p
}

func writesOf(err error) Writes {
	if err == nil {
		return Commits
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch pg.Code {
		case "25006":
			return ReadOnly
		case "53100":
			return DiskFull
		case "55P03":
			return Blocked
		case "42P01", "3D000", "42703", "42804", "42P10":
			return NoTable
		}
	}
	if cause := CauseOf(err); cause == Silent || cause == Hung {
		return Stuck
	}
	return WritesUnknown
}

// Stamp commits one record of log on the server's own disk, without any table, and returns a position
// after that record: a standby that has flushed it received something that was written after Stamp
// began. The error is a *Failure; a standby refuses. Everybody may do it.
func (c *Conn) Stamp(ctx context.Context, text string) (topology.LSN, error) {
	row, err := c.one(ctx, "SET LOCAL synchronous_commit = local; SELECT pg_logical_emit_message(true, 'cstproxy', "+quoted(text)+")", 1)
	if err != nil {
		return 0, err
	}
	lsn, err := topology.ParseLSN(string(row[0]))
	if err != nil {
		return 0, &Failure{Cause: Denied, Message: err.Error(), err: err}
	}
	return lsn, nil
}

// NoWay is what a failed login says about writes: only of a server that takes the connection and does
// not go on, and of a missing database, more than that it could not be tried.
func NoWay(err error) Writes {
	if w := writesOf(err); w == NoTable || w == Stuck && CauseOf(err) == Hung {
		return w
	}
	return WritesUnknown
}

// MakeHeartbeat makes the database and the table where they are missing. s leads to
// HeartbeatDatabase; the database is made from the database postgres. On a standby, or without the
// right to create, it is an error. Two members may do it at once. ctx alone bounds it: give it an end.
func (s *Server) MakeHeartbeat(ctx context.Context) error {
	if err := s.makeTable(ctx); writesOf(err) != NoTable {
		return err
	}
	from := *s
	from.cfg = s.cfg.Copy()
	from.cfg.Database = "postgres"
	c, err := from.Connect(ctx)
	if err != nil {
		return fmt.Errorf("make database %s: %w", HeartbeatDatabase, err)
	}
	defer c.Close(ctx)
	// Another member may be making it, which takes a busy server its time.
	if _, err := c.query(ctx, "SET synchronous_commit = local; SET lock_timeout = 0"); err != nil {
		return err
	}
	_, err = c.patiently(ctx, "CREATE DATABASE "+HeartbeatDatabase) // copies a database
	if err != nil && !already(err) {
		return fmt.Errorf("make database %s: %w", HeartbeatDatabase, err)
	}
	return s.makeTable(ctx)
}

func (s *Server) makeTable(ctx context.Context) error {
	c, err := s.Connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	_, err = c.query(ctx, "SET synchronous_commit = local")
	if err == nil {
		_, err = c.query(ctx, heartbeatDDL)
	}
	if err != nil && !already(err) {
		return fmt.Errorf("make table %s: %w", HeartbeatTable, err)
	}
	return nil
}

// already says that somebody else made it in the same moment: the database, the table, the table's row
// type, or a row of their catalogues.
func already(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == "42P04" || pg.Code == "42P07" || pg.Code == "42710" || pg.Code == "23505")
}
