package e2e

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// sight is what a node said of itself, asked past every proxy.
type sight struct {
	Node     *Node
	At       time.Time // when it was asked
	Writable bool
	Timeline string // of what a writable node writes, in hexadecimal
}

// observer asks nodes again and again what they are, and keeps what changed.
type observer struct {
	from  *Host
	nodes []*Node

	mu     sync.Mutex
	sights []sight // in the order of the answers
	ends   closings
}

// observing is how often each node is asked; phases are known to this.
const observing = 50 * time.Millisecond

// Run returns when ctx ends.
func (o *observer) Run(ctx context.Context) error {
	var all sync.WaitGroup
	for _, n := range o.nodes {
		all.Go(func() { o.watch(ctx, n) })
	}
	all.Wait()
	return nil
}

func (o *observer) watch(ctx context.Context, n *Node) {
	var conn *pgx.Conn
	defer func() { o.ends.hangUp(conn) }()
	var last sight
	for ; ctx.Err() == nil; pause(ctx, observing) {
		s := sight{Node: n, At: time.Now()}
		bounded, cancel := context.WithTimeout(ctx, time.Second)
		err := error(nil)
		if conn == nil {
			conn, err = o.connect(bounded, n)
		}
		if err == nil {
			err = conn.QueryRow(bounded, `SELECT NOT pg_is_in_recovery(), CASE WHEN pg_is_in_recovery() THEN ''
				ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END`).Scan(&s.Writable, &s.Timeline)
		}
		cancel()
		if err != nil {
			o.ends.hangUp(conn)
			conn = nil
			continue
		}
		if last.Node == nil || s.Writable != last.Writable || s.Timeline != last.Timeline {
			o.mu.Lock()
			o.sights = append(o.sights, s)
			o.mu.Unlock()
		}
		last = s
	}
}

func (o *observer) connect(ctx context.Context, n *Node) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(fmt.Sprintf("host=%s port=%d user=postgres password=%s dbname=postgres sslmode=disable default_query_exec_mode=simple_protocol",
		n.Addr, PGPort, Password))
	if err != nil {
		return nil, err
	}
	cfg.DialFunc = o.from.dialAsApplication
	return pgx.ConnectConfig(ctx, cfg)
}

// seen are the changes since a time.
func (o *observer) seen(since time.Time) []sight {
	o.mu.Lock()
	defer o.mu.Unlock()
	var found []sight
	for _, s := range o.sights {
		if s.At.After(since) {
			found = append(found, s)
		}
	}
	return found
}

// promoted is when a node other than the former primary was first seen writable after the event.
func (o *observer) promoted(former *Node, event time.Time) (time.Time, bool) {
	for _, s := range o.seen(event) {
		if s.Writable && s.Node != former {
			return s.At, true
		}
	}
	return time.Time{}, false
}

// trial is a workload with an observer beside it.
type trial struct {
	*Workload
	watch *observer

	cancel context.CancelFunc
	ended  chan error
}

// begin starts clients of a load, on a host of theirs, and returns when rows are acknowledged.
func begin(t *testing.T, client *Host, load Load, primary *Node, nodes []*Node) *trial {
	t.Helper()
	if _, err := primary.Psql(t.Context(), prepare); err != nil {
		t.Fatalf("make the workload's table: %v", err)
	}
	return launch(t, newWorkload(client, load), nodes)
}

// launch starts clients on a table that is there.
func launch(t *testing.T, w *Workload, nodes []*Node) *trial {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &trial{Workload: w, watch: &observer{from: w.client, nodes: nodes}, cancel: cancel, ended: make(chan error, 1)}
	go func() { // end waits
		errs := make(chan error, 2)
		go func() { errs <- r.Workload.Run(ctx) }()
		go func() { errs <- r.watch.Run(ctx) }()
		r.ended <- errors.Join(<-errs, <-errs)
		close(r.ended)
	}()
	t.Cleanup(func() {
		_ = r.end()
		r.ends.wait()
		r.watch.ends.wait()
	})
	began := time.Now()
	await(t, "the first acknowledged rows", func(context.Context) bool {
		return r.ledger.acknowledged(began) >= 10*w.load.Writers
	})
	return r
}

// end ends the clients; the error is of a reader. A second call returns nil.
func (r *trial) end() error {
	r.cancel()
	return <-r.ended
}

// finish ends the clients and reports, with the rows of the node that is the primary now.
func (r *trial) finish(t *testing.T, event time.Time, primary *Node) Report {
	t.Helper()
	missed := r.end()
	report := r.report(event, rows(t, primary))
	report.Missed = missed
	return report
}

// writable is the node that says that it is the primary, when there is exactly one.
func writable(ctx context.Context, nodes []*Node) *Node {
	var found *Node
	for _, n := range nodes {
		if n.pid.Load() == 0 {
			continue
		}
		bounded, cancel := context.WithTimeout(ctx, 2*time.Second)
		got, err := n.Psql(bounded, "SELECT pg_is_in_recovery()")
		cancel()
		if err == nil && got == "f" {
			if found != nil {
				return nil
			}
			found = n
		}
	}
	return found
}
