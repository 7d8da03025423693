package pgnode

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// ErrNeedsRestart is a change of whom a standby follows before version 13: primary_conninfo is read
// only at the start (from recovery.conf before 12), so it takes the host's shell.
var ErrNeedsRestart = errors.New("before PostgreSQL 13 a standby changes its upstream only by a restart")

// setting is one line for postgresql.auto.conf; an empty value is written as such.
type setting struct{ name, value string }

// follows is who a server follows from now on: the marker it is left with, and the settings. The
// old primary_conninfo is kept in a file when saves is set.
type follows struct {
	marker   Marker
	settings []setting
}

// writerIdle is how long the connection that writes settings may be silent between two statements
// before the server ends it (idle_session_timeout, version 14). ALTER SYSTEM cannot carry a guard,
// so the guard is a statement before it: a client that was paused in between and wakes later finds
// no session. Before version 14 such a late ALTER SYSTEM takes no effect by itself, because
// pg_reload_conf is guarded again, and the next Recruit or Follow overwrites it.
const writerIdle = time.Second

// alter writes the settings by ALTER SYSTEM and reloads, unless the server's marker says that it is
// too late (*Late). It dies harmlessly anywhere: nothing takes effect before the reload, and
// repeating it writes the same. The marker comes first: with a marker and the old conninfo a
// standby still streams and is not taken for recruited.
func (s *Server) alter(ctx context.Context, to follows) error {
	c, err := s.Connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	facts, err := c.Facts(ctx)
	if err != nil {
		return err
	}
	if facts.Version < 130000 {
		return ErrNeedsRestart
	}
	if err := c.hush(ctx, facts.Version); err != nil {
		return err
	}
	if err := c.keepConninfo(ctx, facts); err != nil {
		return err
	}
	if err := c.guard(ctx, to.marker); err != nil {
		return err
	}
	for _, set := range append([]setting{{MarkerSetting, to.marker.String()}}, to.settings...) {
		if _, err := c.query(ctx, `ALTER SYSTEM SET "`+set.name+`" = `+quoted(set.value)); err != nil {
			return fmt.Errorf("write %s: %w", set.name, err)
		}
	}
	if err := c.release(ctx); err != nil {
		return err
	}
	rows, err := c.query(ctx, "SELECT pg_reload_conf() WHERE "+guardSQL(to.marker))
	if err != nil {
		return fmt.Errorf("reload: %w", err)
	}
	if len(rows) == 0 {
		return c.late(ctx, to.marker)
	}
	return nil
}

// hush keeps the password in a primary_conninfo out of what is recorded of statements: the server's
// log, pg_stat_statements, pgaudit. It also has the server end a session that falls silent. What it
// cannot change: a server that reads a new primary_conninfo logs its value as it is ("parameter
// changed to"), whoever wrote it; a passfile in it, in place of a password, keeps that line harmless.
func (c *Conn) hush(ctx context.Context, version int) error {
	sets := []setting{
		{"log_statement", "none"}, {"log_min_duration_statement", "-1"}, {"log_min_error_statement", "panic"},
		{"log_duration", "off"},
		{"pg_stat_statements.track", "none"}, {"pg_stat_statements.track_utility", "off"}, {"pgaudit.log", "none"},
	}
	if version >= 120000 {
		sets = append(sets, setting{"log_transaction_sample_rate", "0"})
	}
	if version >= 130000 {
		sets = append(sets, setting{"log_min_duration_sample", "-1"})
	}
	if version >= 140000 {
		sets = append(sets, setting{"idle_session_timeout", fmt.Sprint(writerIdle.Milliseconds())})
	}
	var calls []string
	for _, set := range sets {
		calls = append(calls, "set_config("+quoted(set.name)+", "+quoted(set.value)+", false)")
	}
	if _, err := c.query(ctx, "SELECT "+strings.Join(calls, ", ")); err != nil {
		return fmt.Errorf("keep the password out of the server's log: %w", err)
	}
	return nil
}

// guardSQL is true on a server whose marker is not later than what by would leave. What is there
// but is no marker is false, by way of NULL.
func guardSQL(by Marker) string {
	value := "coalesce(nullif(current_setting('" + MarkerSetting + "', true), ''), '0')"
	epoch := "substring(" + value + " FROM '^[0-9]{1,18}')::bigint"
	later := fmt.Sprintf("%s < %d", epoch, by.Epoch)
	if by.Released {
		return fmt.Sprintf("%s <= %d", epoch, by.Epoch)
	}
	return fmt.Sprintf("(%s OR %s = '%d')", later, value, by.Epoch)
}

func (c *Conn) guard(ctx context.Context, by Marker) error {
	rows, err := c.query(ctx, "SELECT 1 WHERE "+guardSQL(by))
	if err != nil {
		return err
	}
	if len(rows) == 0 {
		return c.late(ctx, by)
	}
	// Before version 17 ALTER SYSTEM takes a setting of nobody's only if the session knows it.
	if _, err := c.query(ctx, "SELECT set_config('"+MarkerSetting+"', coalesce(current_setting('"+MarkerSetting+"', true), ''), false)"); err != nil {
		return fmt.Errorf("prepare the marker: %w", err)
	}
	return nil
}

// release gives up the session's own copy of the marker, which hides the server's.
func (c *Conn) release(ctx context.Context) error {
	_, err := c.query(ctx, `RESET "`+MarkerSetting+`"`)
	return err
}

func (c *Conn) late(ctx context.Context, by Marker) error {
	row, err := c.one(ctx, "SELECT current_setting('"+MarkerSetting+"', true)", 1)
	if err != nil {
		return err
	}
	seen, err := ParseMarker(string(row[0]))
	if err != nil {
		return err
	}
	return &Late{Seen: seen, Want: by}
}
