package pgnode

import (
	"context"
	"time"

	"github.com/cstproxy/cstproxy/ha/topology"
)

// Sender is one row of a server's pg_stat_replication, with the distances to the server's own
// position worked out.
type Sender struct {
	AppName    string
	ClientAddr string
	State      string // "streaming", "catchup", "backup" …
	SyncState  string // "async", "potential", "sync", "quorum"
	// Bytes between the primary's write position and what was sent, written, flushed, replayed.
	SentDelay, WriteDelay, FlushDelay, ReplayDelay int64
	// The standby's own answer times; 0 when nothing was sent for a while.
	WriteLag, FlushLag, ReplayLag time.Duration
}

// A cascading standby has no write position; there the distances count from what it received.
const replicationSQL = `SELECT application_name, coalesce(host(client_addr), 'local'), state, sync_state,
 (pos - sent_lsn)::bigint, (pos - write_lsn)::bigint, (pos - flush_lsn)::bigint, (pos - replay_lsn)::bigint,
 extract(epoch FROM write_lag), extract(epoch FROM flush_lag), extract(epoch FROM replay_lag)
FROM pg_stat_replication,
 (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END AS pos) AS p
ORDER BY application_name, pid`

// Replication lists who streams from the server. The error is a *Failure.
func (c *Conn) Replication(ctx context.Context) ([]Sender, error) {
	rows, err := c.query(ctx, replicationSQL)
	if err != nil {
		return nil, err
	}
	senders := make([]Sender, 0, len(rows))
	for _, row := range rows {
		f := fields{row: row}
		s := Sender{
			AppName: f.text(), ClientAddr: f.text(), State: f.text(), SyncState: f.text(),
			SentDelay: f.int64(), WriteDelay: f.int64(), FlushDelay: f.int64(), ReplayDelay: f.int64(),
			WriteLag: f.seconds(), FlushLag: f.seconds(), ReplayLag: f.seconds(),
		}
		if f.err != nil {
			return nil, &Failure{Cause: Unclassified, Message: f.err.Error(), err: f.err}
		}
		senders = append(senders, s)
	}
	return senders, nil
}

// Streams is what a server says for a proof that it is a certain primary and is not being succeeded:
// who it is now, and how far those have flushed that stream from it.
type Streams struct {
	Primary  bool // not in recovery
	SystemID uint64
	Timeline topology.Timeline // 0 in recovery
	Senders  []StreamSender
}

// StreamSender is one standby that streams.
type StreamSender struct {
	AppName, ClientAddr string
	Flush               topology.LSN // 0 when it has said nothing yet
}

const streamsSQL = `SELECT NOT p.r, (SELECT system_identifier FROM pg_control_system()),
 CASE WHEN p.r THEN NULL ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint END,
 s.application_name, coalesce(host(s.client_addr), 'local'), s.flush_lsn
FROM (SELECT pg_is_in_recovery() AS r) AS p LEFT JOIN pg_stat_replication AS s ON s.state = 'streaming'`

// Streams asks. The error is a *Failure.
func (c *Conn) Streams(ctx context.Context) (Streams, error) {
	rows, err := c.query(ctx, streamsSQL)
	if err != nil {
		return Streams{}, err
	}
	var out Streams
	for _, row := range rows {
		f := fields{row: row}
		out.Primary, out.SystemID, out.Timeline = f.isTrue(), uint64(f.int64()), f.timeline()
		s := StreamSender{AppName: f.text(), ClientAddr: f.text(), Flush: f.lsn()}
		if f.err != nil {
			return Streams{}, &Failure{Cause: Unclassified, Message: f.err.Error(), err: f.err}
		}
		if s.AppName != "" || s.Flush != 0 {
			out.Senders = append(out.Senders, s)
		}
	}
	return out, nil
}
