package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"
)

// Way is how clients reach a database.
type Way struct {
	Addrs []string // host:port, tried in this order for every new connection
	Attrs string   // target_session_attrs: "read-write" finds the primary where nothing else does
}

// Load is what the clients on one host do. All of them connect anew when their connection is lost.
type Load struct {
	Way     Way
	Writers int           // insert a row each, again and again
	Pause   time.Duration // of a writer, a reader and a pinned client between two statements
	Readers int           // insert a row and look for it
	Idle    int           // connect, and say nothing until the end
	Pinned  int           // keep a temporary table and read it
	Blocks  int           // insert a row in a transaction that stays open for a while
}

// The network settings of all clients: with the system's own, a client of a host that lost its power
// waits for a quarter of an hour, whatever the database does. Connecting takes 2 s at most for each
// address, the least that libpq takes for its connect_timeout.
const (
	userTimeout    = 2 * time.Second // TCP_USER_TIMEOUT
	keepAlive      = time.Second     // until the first probe, and between two
	connectTimeout = 2 * time.Second
	retryPause     = 50 * time.Millisecond
)

// Workload is a Load at work. Its rows are in the table workload of the database postgres.
type Workload struct {
	load   Load
	client *Host
	ids    atomic.Int64
	ledger ledger

	lost struct{ idle, busy, pinned atomic.Int64 } // connections
	ends closings
}

// prepare makes the table anew, on the primary. It has no unique key: a row that was inserted twice
// must be seen.
const prepare = `DROP TABLE IF EXISTS workload; CREATE TABLE workload (id bigint NOT NULL)`

func newWorkload(client *Host, load Load) *Workload { return &Workload{client: client, load: load} }

// Run works until ctx ends, lets the statements that are on their way end, and returns when all
// connections are closed. It fails when a reader misses what it has written.
func (w *Workload) Run(ctx context.Context) error {
	var all sync.WaitGroup
	errs := make(chan error, w.load.Readers)
	for i := range w.load.Writers {
		all.Go(func() { w.write(ctx, i) })
	}
	for range w.load.Readers {
		all.Go(func() { errs <- w.read(ctx) })
	}
	for range w.load.Idle {
		all.Go(func() { w.idle(ctx) })
	}
	for range w.load.Pinned {
		all.Go(func() { w.pinned(ctx) })
	}
	for range w.load.Blocks {
		all.Go(func() { w.block(ctx) })
	}
	all.Wait()
	close(errs)
	var missed error
	for err := range errs {
		missed = errors.Join(missed, err)
	}
	return missed
}

// config is a connection of the workload. Mode is how statements are sent.
func (w *Workload) config(mode string) (*pgx.ConnConfig, error) {
	var hosts, ports []string
	for _, addr := range w.load.Way.Addrs {
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		hosts, ports = append(hosts, host), append(ports, port)
	}
	dsn := fmt.Sprintf("host=%s port=%s user=postgres password=%s dbname=postgres sslmode=disable connect_timeout=%d default_query_exec_mode=%s",
		strings.Join(hosts, ","), strings.Join(ports, ","), Password, int(connectTimeout.Seconds()), mode)
	if w.load.Way.Attrs != "" {
		dsn += " target_session_attrs=" + w.load.Way.Attrs
	}
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	cfg.DialFunc = w.client.dialAsApplication
	return cfg, nil
}

func (h *Host) dialAsApplication(ctx context.Context, network, addr string) (net.Conn, error) {
	dialer := net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: keepAlive, Interval: keepAlive, Count: 2},
		Control: func(_, _ string, c syscall.RawConn) error {
			var set error
			err := c.Control(func(fd uintptr) {
				set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
			})
			return errors.Join(err, set)
		},
	}
	var conn net.Conn
	err := h.Do(func() (err error) {
		conn, err = dialer.DialContext(ctx, network, addr)
		return err
	})
	return conn, err
}

// connect tries until it is connected; nil when ctx ended before.
func (w *Workload) connect(ctx context.Context, mode string) *pgx.Conn {
	cfg, err := w.config(mode)
	if err != nil {
		w.ledger.note(attempt{Done: time.Now(), Err: err})
		return nil
	}
	for ctx.Err() == nil {
		began := time.Now()
		conn, err := pgx.ConnectConfig(ctx, cfg)
		if err == nil {
			return conn
		}
		if ctx.Err() == nil {
			w.ledger.note(attempt{Began: began, Done: time.Now(), Err: err})
		}
		pause(ctx, retryPause)
	}
	return nil
}

// write inserts rows. Every second writer sends the simple protocol.
func (w *Workload) write(ctx context.Context, number int) {
	mode := [...]string{"cache_statement", "simple_protocol"}[number%2]
	var conn *pgx.Conn
	defer func() { w.ends.hangUp(conn) }()
	for ctx.Err() == nil {
		if conn == nil {
			if conn = w.connect(ctx, mode); conn == nil {
				return
			}
		}
		if _, err := w.insert(conn); err != nil && conn.IsClosed() {
			w.lost.busy.Add(1)
			w.ends.hangUp(conn)
			conn = nil
			pause(ctx, retryPause)
			continue
		}
		pause(ctx, w.load.Pause)
	}
}

// insert writes one row in a transaction of its own. It does not end with the workload: what was asked
// is answered.
func (w *Workload) insert(conn *pgx.Conn) (id int64, err error) {
	id = w.ids.Add(1)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	began := time.Now()
	var server string
	err = conn.QueryRow(ctx, "INSERT INTO workload (id) VALUES ($1) RETURNING host(inet_server_addr())", id).Scan(&server)
	w.ledger.note(attempt{ID: id, Server: server, Began: began, Done: time.Now(), Err: err})
	return id, err
}

// read looks for a row that it has just written, on the same connection, wherever that is read.
func (w *Workload) read(ctx context.Context) error {
	var conn *pgx.Conn
	defer func() { w.ends.hangUp(conn) }()
	for ctx.Err() == nil {
		if conn == nil {
			if conn = w.connect(ctx, "cache_statement"); conn == nil {
				return nil
			}
		}
		id, err := w.insert(conn)
		if err == nil {
			var n int
			bounded, cancel := context.WithTimeout(context.Background(), patience)
			began := time.Now()
			err = conn.QueryRow(bounded, "SELECT count(*) FROM workload WHERE id = $1", id).Scan(&n)
			cancel()
			w.ledger.noteRead(attempt{Began: began, Done: time.Now(), Err: err})
			if err == nil && n != 1 {
				return fmt.Errorf("row %d was acknowledged and is %d times in what the same client reads then", id, n)
			}
		}
		if err != nil && conn.IsClosed() {
			w.lost.busy.Add(1)
			w.ends.hangUp(conn)
			conn = nil
		}
		pause(ctx, w.load.Pause)
	}
	return nil
}

// idle is a connection that must outlive everything: it is asked once, at the end.
func (w *Workload) idle(ctx context.Context) {
	conn := w.connect(ctx, "simple_protocol")
	if conn == nil {
		return
	}
	defer w.ends.hangUp(conn)
	<-ctx.Done()
	bounded, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := conn.Exec(bounded, "SELECT 1"); err != nil {
		w.lost.idle.Add(1)
	}
}

// pinned holds a temporary table: its session cannot be moved to another server, and must be told.
func (w *Workload) pinned(ctx context.Context) {
	for ctx.Err() == nil {
		conn := w.connect(ctx, "simple_protocol")
		if conn == nil {
			return
		}
		w.stay(ctx, conn)
		w.ends.hangUp(conn)
		pause(ctx, retryPause)
	}
}

func (w *Workload) stay(ctx context.Context, conn *pgx.Conn) {
	for sql := "CREATE TEMPORARY TABLE pinned AS SELECT 1"; ctx.Err() == nil; sql = "SELECT * FROM pinned" {
		bounded, cancel := context.WithTimeout(context.Background(), patience)
		_, err := conn.Exec(bounded, sql)
		cancel()
		if err != nil {
			w.lost.pinned.Add(1)
			return
		}
		pause(ctx, w.load.Pause)
	}
}

// closings are connections that were given up. pgx takes some 15 s to believe that a silent server does
// not want to be told.
type closings struct {
	mu   sync.Mutex
	done []<-chan struct{}
}

// hangUp closes a connection whose server may be gone; nil is none.
func (c *closings) hangUp(conn *pgx.Conn) {
	if conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done = append(c.done, conn.PgConn().CleanupDone())
}

// wait returns when nothing is left of them.
func (c *closings) wait() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, done := range c.done {
		<-done
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
