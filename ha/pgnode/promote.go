package pgnode

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/cstproxy/cstproxy/ha/topology"
)

// Promote asks a standby that is recruited for epoch to become a primary, and does not wait. It is
// one statement whose guard reads the marker: one that lay in a buffer while another epoch came by
// does nothing, and *Late says so. A server that is a primary already is left alone, without an
// error. Nothing to undo when the caller dies: the server is promoted or it is not. From version 12.
func (c *Conn) Promote(ctx context.Context, epoch topology.Epoch) error {
	mark := Marker{Epoch: epoch}
	rows, err := c.query(ctx, "SELECT pg_promote(false) WHERE pg_is_in_recovery() AND current_setting('"+MarkerSetting+"', true) = "+quoted(mark.String()))
	if err != nil {
		return fmt.Errorf("promote: %w", err)
	}
	if len(rows) > 0 && string(rows[0][0]) == "t" {
		return nil
	}
	facts, err := c.Facts(ctx)
	switch {
	case err != nil:
		return err
	case !facts.Standby:
		return nil
	case facts.Marker != mark:
		return &Late{Seen: facts.Marker, Want: mark}
	}
	return errors.New("promote: the server could not signal its postmaster")
}

// PassOver has the next promotion of a standby on timeline from begin a timeline that is not below to.
// PostgreSQL takes the first number above its own for which it finds no history file, so the numbers in
// between get one, of a comment alone. They stay: standbys ask for all of them. It is done before the
// promotion; when that comes to nothing, the files must go again (forgetPassedOver): at its next start the
// standby would look for log of the highest number. Needs a superuser.
func (c *Conn) PassOver(ctx context.Context, from, to topology.Timeline) error {
	for t := from + 1; t < to; t++ {
		row, err := c.one(ctx, "SELECT (pg_stat_file('pg_wal/"+t.HistoryFile()+"', true)).size IS NULL, current_setting('data_directory')", 2)
		if err != nil {
			return fmt.Errorf("pass over timeline %d: %w", t, err)
		}
		if string(row[0]) != "t" {
			continue
		}
		_, err = c.query(ctx, "COPY (SELECT '"+passedOver+": this number may have been used on another server') TO "+
			quoted(string(row[1])+"/pg_wal/"+t.HistoryFile()))
		if err != nil {
			err = fmt.Errorf("pass over timeline %d: %w", t, err)
			return errors.Join(err, c.forgetPassedOver(ctx)) // it may have been written in part
		}
	}
	return nil
}

// passedOver begins the history file of a timeline that a promotion is to pass over.
const passedOver = "# passed over by cstproxy"

// forgetPassedOver takes away what PassOver left on a standby whose promotion came to nothing: files of the
// highest numbers, above which there is no real timeline. Needs a superuser.
func (c *Conn) forgetPassedOver(ctx context.Context) error {
	rows, err := c.query(ctx, "SELECT name, pg_read_file('pg_wal/' || name, 0, "+fmt.Sprint(len(passedOver))+", true) FROM pg_ls_dir('pg_wal') name "+
		`WHERE name ~ '^[0-9A-F]{8}\.history$' ORDER BY name DESC`)
	if err != nil {
		return fmt.Errorf("look for timelines that were passed over: %w", err)
	}
	for _, row := range rows {
		if text := string(row[1]); text != "" && text != passedOver {
			return nil
		}
		if _, err := c.query(ctx, "COPY (SELECT WHERE false) TO PROGRAM 'rm -f pg_wal/"+string(row[0])+"'"); err != nil {
			return fmt.Errorf("take %s away: %w", row[0], err)
		}
	}
	return nil
}

// AwaitPrimary waits until the server has left recovery on a timeline above the given one and has
// committed something there, at most until ctx ends. A connection to a standby stays one over the
// promotion.
func (c *Conn) AwaitPrimary(ctx context.Context, above topology.Timeline) (Observation, error) {
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		o, err := c.Probe(ctx)
		if err != nil {
			return o, err
		}
		if o.Role == topology.RolePrimary {
			if o.Timeline <= above {
				return o, fmt.Errorf("the new primary is on timeline %d, not above %d: it was promoted on a stale branch", o.Timeline, above)
			}
			return o, c.CommitSomething(ctx)
		}
		select {
		case <-ctx.Done():
			return o, fmt.Errorf("wait for the promotion: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// CommitSomething writes one record of log and commits it on the server's own disk; no table is
// needed, and no standby is waited for.
func (c *Conn) CommitSomething(ctx context.Context) error {
	const sql = "SET LOCAL synchronous_commit = local; SELECT pg_logical_emit_message(true, 'cstproxy', 'probe')"
	if _, err := c.query(ctx, sql); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// Checkpoint runs a CHECKPOINT, or on a standby a restart point. It takes as long as dirty buffers
// take to be written, so it is bounded by ctx alone: give it an end.
func (c *Conn) Checkpoint(ctx context.Context) error {
	if _, err := c.patiently(ctx, "CHECKPOINT"); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return nil
}

// CheckpointTimeline is the timeline of the server's last checkpoint, or restart point, by its control file. On
// a primary it stays behind Observation.Timeline from the promotion to the end of the first checkpoint.
func (c *Conn) CheckpointTimeline(ctx context.Context) (topology.Timeline, error) {
	row, err := c.one(ctx, "SELECT timeline_id FROM pg_control_checkpoint()", 1)
	if err != nil {
		return 0, fmt.Errorf("ask for the last checkpoint: %w", err)
	}
	n, err := strconv.ParseUint(string(row[0]), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("ask for the last checkpoint: %w", err)
	}
	return topology.Timeline(n), nil
}

// patiently is query for what takes longer than Config.Timeout: ctx alone bounds it.
func (c *Conn) patiently(ctx context.Context, sql string) ([][][]byte, error) {
	if _, err := c.query(ctx, "SELECT set_config('statement_timeout', '0', false)"); err != nil {
		return nil, err
	}
	results, err := c.pg.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, classify(err, c.timeout)
	}
	if len(results) == 0 {
		return nil, nil
	}
	return results[len(results)-1].Rows, nil
}

// Confirmed names the standbys, by application_name, that stream from here and have reported since
// that they have flushed the log up to lsn. With the position of a Heartbeat it proves that they
// received something after it began; pg_stat_replication alone shows a dead standby for as long as
// wal_sender_timeout.
func (c *Conn) Confirmed(ctx context.Context, lsn topology.LSN) ([]string, error) {
	rows, err := c.query(ctx, "SELECT DISTINCT application_name FROM pg_stat_replication WHERE state = 'streaming' AND flush_lsn >= "+quoted(lsn.String())+" ORDER BY 1")
	if err != nil {
		return nil, err
	}
	names := make([]string, len(rows))
	for i, row := range rows {
		names[i] = string(row[0])
	}
	return names, nil
}

// Size is how many bytes the server's databases take, which is about what a copy of it takes. The
// server looks at every file for it, so it is bounded by ctx alone: give it an end.
func (c *Conn) Size(ctx context.Context) (int64, error) {
	rows, err := c.patiently(ctx, "SELECT sum(pg_database_size(oid)) FROM pg_database")
	if err != nil {
		return 0, fmt.Errorf("ask for the size: %w", err)
	}
	if len(rows) != 1 {
		return 0, errors.New("ask for the size: the server answered with nothing")
	}
	f := fields{row: rows[0]}
	return f.int64(), f.err
}
