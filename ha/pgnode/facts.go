package pgnode

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/cstproxy/cstproxy/ha/topology"
)

// Facts are what an operation must know of a server beside its Observation.
type Facts struct {
	Version int
	Standby bool
	Marker  Marker
	// Conninfo is primary_conninfo with its password; nil where it is empty or kept elsewhere
	// (recovery.conf, before version 12). Never log it.
	Conninfo Conninfo
	// Upstream is the "host:port" that its WAL receiver has connected to, or without a receiver the
	// one that primary_conninfo names; empty when neither is known.
	Upstream string
	Slot     string // primary_slot_name; before version 12 that of the WAL receiver
	DataDir  string
	// Receiver: a WAL receiver process exists, in whatever state; Streaming: it has connected to
	// Upstream. One whose upstream then refuses it (another branch, no slot) is gone within
	// milliseconds; ReceiverPID tells whether it is still the same.
	Receiver, Streaming bool
	ReceiverPID         int
	// Receive and Replay are a standby's positions.
	Receive, Replay topology.LSN
	// Complete: it was not begun as a copy that is still waiting for the log of its backup.
	Complete bool
	// Warnings are settings that will make a later repair impossible or long, one sentence each.
	Warnings []string
}

// Columns that a version does not have are NULL by way of to_jsonb. A receiver that is still
// connecting is not in pg_stat_wal_receiver, but its process is in pg_stat_activity.
const factsSQL = `SELECT current_setting('server_version_num'), pg_is_in_recovery(),
 current_setting('cstproxy.epoch', true), ` + conninfoColumn + `, ` + slotColumn + `,
 current_setting('data_directory'),
 w.j->>'status', w.j->>'pid', ` + senderColumns + `,
 EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'walreceiver'),
 pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn(),
 ` + completeColumn + `,
 ` + warningColumns + `
FROM (SELECT (SELECT to_jsonb(r) FROM pg_stat_wal_receiver AS r) AS j) AS w, pg_control_recovery() AS k`

const (
	factsColumns = 21
	// conninfoColumn is NULL for whom the setting is secret.
	conninfoColumn = `CASE WHEN pg_has_role('pg_read_all_settings', 'MEMBER') THEN current_setting('primary_conninfo', true) END`
	slotColumn     = `coalesce(current_setting('primary_slot_name', true), w.j->>'slot_name')`
	// senderColumns are whom the WAL receiver w.j has connected to. Version 10 tells it only within the
	// connection string: with its values unquoted, or after a change of timeline as it was written.
	senderColumns = `coalesce(w.j->>'sender_host', substring(w.j->>'conninfo' FROM '(?:^| )host *= *''?([^ '']+)'), substring(w.j->>'conninfo' FROM '(?:^| )hostaddr *= *''?([^ '']+)')),
 coalesce(w.j->>'sender_port', substring(w.j->>'conninfo' FROM '(?:^| )port *= *''?([0-9]+)'))`
	// completeColumn is about k, pg_control_recovery. A server in recovery that answers has replayed
	// to where its directory is consistent; min_recovery_end_lsn is no sign: it rises with what is
	// being replayed, ahead of the position that is shown, for as long as a conflict holds it up.
	completeColumn = `NOT (pg_is_in_recovery() AND (k.end_of_backup_record_required OR k.backup_start_lsn <> '0/0'))`
	// warningColumns are for repairWarnings; pg_settings would give plain numbers, and costs a
	// millisecond.
	warningColumns = `current_setting('wal_log_hints'), current_setting('data_checksums'), current_setting('full_page_writes'),
 current_setting('wal_keep_size', true), current_setting('wal_keep_segments', true),
 current_setting('max_slot_wal_keep_size', true), current_setting('max_wal_size')`
)

// Facts asks. It needs a superuser or a member of pg_monitor. The error is a *Failure.
func (c *Conn) Facts(ctx context.Context) (Facts, error) {
	row, err := c.one(ctx, factsSQL, factsColumns)
	if err != nil {
		return Facts{}, err
	}
	facts, err := parseFacts(row)
	if err != nil {
		return Facts{}, &Failure{Cause: Unclassified, Message: fmt.Sprintf("read the facts: %v", err), err: err}
	}
	return facts, nil
}

func parseFacts(row [][]byte) (Facts, error) {
	f := fields{row: row}
	facts := Facts{Version: f.int(), Standby: f.isTrue()}
	facts.Marker = fieldOf(&f, ParseMarker)
	facts.Conninfo = fieldOf(&f, ParseConninfo)
	facts.Slot, facts.DataDir = f.text(), f.text()
	status := f.text()
	facts.ReceiverPID = f.int()
	host, port := f.text(), f.text()
	facts.Streaming = status == "streaming"
	facts.Receiver = f.isTrue() || status != ""
	facts.Upstream = upstreamOf(facts.Conninfo, host, port)
	facts.Receive, facts.Replay = f.lsn(), f.lsn()
	facts.Complete = f.isTrue()
	facts.Warnings = repairWarnings(&f)
	return facts, f.err
}

// upstreamOf is whom a standby's WAL receiver has connected to, or without one who is configured.
func upstreamOf(c Conninfo, host, port string) string {
	if host != "" {
		return Address(host, port)
	}
	return c.Upstream()
}

// enoughWAL is in megabytes how much log a primary should keep for standbys without a slot.
const enoughWAL = 512

func repairWarnings(f *fields) []string {
	hints, checksums, pages := f.text(), f.text(), f.text()
	keep, segments, slotKeep, maxWAL := f.megabytes(), f.text(), f.text(), f.megabytes()
	setting := "wal_keep_size"
	if segments != "" { // before version 13
		setting = "wal_keep_segments"
		n, _ := strconv.ParseInt(segments, 10, 64) // the server's own number
		keep = n * 16
	}
	var list []string
	if hints != "on" && checksums != "on" {
		list = append(list, "neither wal_log_hints nor data checksums are on: pg_rewind is impossible, a repair copies everything")
	}
	if pages != "on" {
		list = append(list, "full_page_writes is off: pg_rewind is impossible, and a power failure may corrupt pages")
	}
	if keep < enoughWAL {
		list = append(list, fmt.Sprintf("%s is %d MB: a standby that is away a little longer than that needs a rewind or a copy unless it has a slot", setting, keep))
	}
	if slotKeep == "-1" {
		list = append(list, "max_slot_wal_keep_size is unlimited: the slot of a standby that does not return fills the primary's disk")
	} else if n, err := parseMegabytes(slotKeep); slotKeep != "" && err == nil && n < maxWAL {
		list = append(list, fmt.Sprintf("max_slot_wal_keep_size (%d MB) is lower than max_wal_size (%d MB): a slot loses its log within one checkpoint", n, maxWAL))
	}
	return list
}

// quoted is s as an SQL string literal, whatever standard_conforming_strings says.
func quoted(s string) string {
	s = strings.ReplaceAll(s, "'", "''")
	if strings.Contains(s, `\`) {
		return " E'" + strings.ReplaceAll(s, `\`, `\\`) + "'"
	}
	return "'" + s + "'"
}
