package pgnode

import (
	"context"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/cstproxy/cstproxy/ha/topology"
)

// Observation is what a server said of itself at one moment.
type Observation struct {
	// At is when it was asked, by this host's clock; Took is how long the answer needed.
	At   time.Time
	Took time.Duration
	Role topology.Role
	// Version is server_version_num, 150019 for 15.19.
	Version  int
	SystemID uint64
	// Timeline is the one a primary writes, or the newest that a standby is known to follow: what
	// its WAL receiver streams or what its last restart point lay on.
	Timeline topology.Timeline
	// History is how Timeline came to be; not Known when the server did not show the file.
	History topology.History
	// Insert, Write and Flush are a primary's positions: reserved, handed to the system, on disk.
	Insert, Write, Flush topology.LSN
	// Receive and Replay are a standby's positions: flushed by the WAL receiver, applied.
	Receive, Replay topology.LSN
	// ReplayAge is the age of the last replayed commit while something received waits for replay,
	// else 0. It is the server's own figure: an upper bound that jumps when an idle primary
	// writes again. The agent measures lag in another way.
	ReplayAge time.Duration
	// Receiver is the WAL receiver's state ("streaming"), empty when there is none.
	Receiver string
	// Receiving: a WAL receiver process exists, also one that is still connecting. The latter is
	// looked for only on a server that is marked as recruited.
	Receiving bool
	// Marker, Upstream, Slot, Complete and Warnings are as in Facts; what is no marker is a warning.
	Marker   Marker
	Upstream string
	Slot     string
	Complete bool
	Warnings []string
	Settings Settings
}

// Settings are the server's parameters that somebody here must know.
type Settings struct {
	// WALWriterDelay bounds when an asynchronous commit reaches the disk: three times this.
	WALWriterDelay time.Duration
	// MinApplyDelay is a standby's recovery_min_apply_delay.
	MinApplyDelay time.Duration
	SyncNames     string // synchronous_standby_names
	// A standby stops replay when one of these is lower than the primary's.
	MaxConnections, MaxWorkers, MaxSenders, MaxPrepared, MaxLocks int
}

// On a primary pg_control_checkpoint() keeps showing the old timeline until the first checkpoint
// after a promotion, therefore its timeline is that of the WAL file being written. A standby's
// replayed timeline has no function: the receiver's is ahead of or equal to it, the control file's
// behind or equal. The CASEs keep functions that fail during recovery (and the reverse) from being
// called. Columns of versions 10 to 18; those that a version lacks are NULL by way of to_jsonb.
// Without a receiver the files tell which timeline was received last, see receivedColumn.
// pg_stat_activity costs as much as there are connections, so it is asked only where it counts.
const probeSQL = `SELECT r.r,
 current_setting('server_version_num'),
 (SELECT system_identifier FROM pg_control_system()),
 CASE WHEN r.r THEN NULL ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint END,
 CASE WHEN r.r THEN greatest(w.received_tli,
   (SELECT timeline_id FROM pg_control_checkpoint()), k.min_recovery_end_timeline, ` + receivedColumn + `) END,
 CASE WHEN r.r THEN NULL ELSE pg_current_wal_insert_lsn() END,
 CASE WHEN r.r THEN NULL ELSE pg_current_wal_lsn() END,
 CASE WHEN r.r THEN NULL ELSE pg_current_wal_flush_lsn() END,
 CASE WHEN r.r THEN pg_last_wal_receive_lsn() END,
 CASE WHEN r.r THEN pg_last_wal_replay_lsn() END,
 CASE WHEN r.r AND pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn()
   THEN extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) END,
 w.status,
 current_setting('wal_writer_delay'),
 current_setting('recovery_min_apply_delay', true),
 current_setting('synchronous_standby_names'),
 current_setting('max_connections'), current_setting('max_worker_processes'),
 current_setting('max_wal_senders'), current_setting('max_prepared_transactions'),
 current_setting('max_locks_per_transaction'),
 current_setting('cstproxy.epoch', true), ` + conninfoColumn + `, ` + slotColumn + `,
 ` + senderColumns + `,
 w.pid IS NOT NULL OR CASE WHEN r.r AND current_setting('cstproxy.epoch', true) ~ '^[0-9]+$'
   THEN EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'walreceiver') ELSE false END,
 ` + completeColumn + `,
 ` + warningColumns + `
FROM (SELECT pg_is_in_recovery() AS r) AS r CROSS JOIN pg_control_recovery() AS k LEFT JOIN (SELECT r.*, to_jsonb(r) AS j FROM pg_stat_wal_receiver AS r) AS w ON true`

// receivedColumn is the timeline of the newest log that a standby without a receiver has: a receiver
// writes each segment under the timeline that it streams, from the segment's begin on, so that the one
// that holds the last position bears it. The control file learns of it minutes later, at the next
// restart point.
const receivedColumn = `CASE WHEN r.r AND w.pid IS NULL THEN (
   SELECT max(('x' || substr(f.name, 1, 8))::bit(32)::bigint)
   FROM (SELECT div(greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0'::pg_lsn - 1, s.size)::bigint AS number,
           (4294967296 / s.size)::bigint AS per
         FROM (SELECT pg_size_bytes(current_setting('wal_segment_size'))::numeric AS size) AS s) AS p, pg_ls_waldir() AS f
   WHERE f.name ~ '^[0-9A-F]{24}$'
     AND substr(f.name, 9) = upper(lpad(to_hex(p.number / p.per), 8, '0') || lpad(to_hex(p.number % p.per), 8, '0'))) END`

const probeColumns = 34

// Probe asks the server for everything in one round trip, and for the timeline's history when that
// is new. The error is a *Failure.
func (c *Conn) Probe(ctx context.Context) (Observation, error) {
	at := time.Now()
	row, err := c.probeRow(ctx)
	if err != nil {
		return Observation{}, err
	}
	o, err := parseProbe(row)
	if err != nil {
		return Observation{}, &Failure{Cause: Denied, Message: fmt.Sprintf("read the probe's answer: %v", err), err: err}
	}
	o.At, o.Took = at, time.Since(at)
	o.History, err = c.historyOf(ctx, o.Timeline)
	return o, err
}

// probeName is the prepared probe's.
const probeName = "cstproxy_probe"

// probeRow has the server plan the probe once for all that follow the first: planning takes it longer
// than answering does.
func (c *Conn) probeRow(ctx context.Context) ([][]byte, error) {
	c.probes++
	if c.probes == 1 {
		return c.one(ctx, probeSQL, probeColumns)
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	if c.probes == 2 {
		if _, err := c.pg.Prepare(ctx, probeName, probeSQL, nil); err != nil {
			c.probes = 0
			return nil, classify(err, c.timeout)
		}
	}
	result := c.pg.ExecPrepared(ctx, probeName, nil, nil, nil).Read()
	if result.Err != nil {
		return nil, classify(result.Err, c.timeout)
	}
	return exactlyOne(result.Rows, probeColumns)
}

func parseProbe(row [][]byte) (Observation, error) {
	f := fields{row: row}
	o := Observation{Role: topology.RolePrimary}
	if f.isTrue() {
		o.Role = topology.RoleStandby
	}
	o.Version = f.int()
	o.SystemID = uint64(f.int64())
	primary, standby := f.timeline(), f.timeline()
	o.Timeline = max(primary, standby)
	o.Insert, o.Write, o.Flush = f.lsn(), f.lsn(), f.lsn()
	o.Receive, o.Replay = f.lsn(), f.lsn()
	o.ReplayAge = f.seconds()
	o.Receiver = f.text()
	o.Settings = Settings{
		WALWriterDelay: f.setting(), MinApplyDelay: f.setting(), SyncNames: f.text(),
		MaxConnections: f.int(), MaxWorkers: f.int(), MaxSenders: f.int(), MaxPrepared: f.int(), MaxLocks: f.int(),
	}
	o.Marker, o.Warnings = markerOf(f.text())
	// A primary_conninfo that cannot be read leads nowhere that anybody here knows.
	conninfo, _ := ParseConninfo(f.text())
	o.Slot = f.text()
	o.Upstream = upstreamOf(conninfo, f.text(), f.text())
	o.Receiving = f.isTrue()
	o.Complete = f.isTrue()
	o.Warnings = append(o.Warnings, repairWarnings(&f)...)
	return o, f.err
}

// markerOf takes what is no marker for none, with a warning: it must not make the server unknown.
func markerOf(text string) (Marker, []string) {
	m, err := ParseMarker(text)
	if err != nil {
		return Marker{}, []string{fmt.Sprintf("%s is set to %q by somebody else: nothing can be done to the server by SQL", MarkerSetting, text)}
	}
	return m, nil
}

// historyRetry is how long a refusal to show the history file is believed.
const historyRetry = 30 * time.Second

// historyOf is the history of t, asked once per connection; not Known when the server does not
// have the file or does not show it. An error means that the connection is of no more use.
func (c *Conn) historyOf(ctx context.Context, t topology.Timeline) (topology.History, error) {
	if t <= 1 || c.history.Timeline == t && (c.history.Known() || time.Since(c.askedHistory) < historyRetry) {
		if t <= 1 {
			return topology.History{Timeline: t}, nil
		}
		return c.history, nil
	}
	c.history, c.askedHistory = topology.History{Timeline: t}, time.Now()
	row, err := c.one(ctx, "SELECT pg_read_binary_file('pg_wal/"+t.HistoryFile()+"', 0, 1000000, true)", 1)
	if err != nil {
		if c.Broken() {
			return topology.History{}, err
		}
		return c.history, nil
	}
	content, err := parseBytea(row[0])
	if err != nil {
		return c.history, nil
	}
	if h, err := topology.ParseHistory(t, content); err == nil {
		c.history = h
	}
	return c.history, nil
}

// parseBytea reads the hex form, which is the only one that a server sends unless told otherwise.
func parseBytea(b []byte) ([]byte, error) {
	if len(b) < 2 || b[0] != '\\' || b[1] != 'x' {
		return nil, fmt.Errorf("parse bytea: want \\x and hexadecimal digits")
	}
	return hex.AppendDecode(nil, b[2:])
}
