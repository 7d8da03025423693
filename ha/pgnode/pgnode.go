// Package pgnode asks one PostgreSQL server what the control plane must know: is it up, which role
// does it play, of which system and timeline is it, how far has it written, received and replayed.
// It holds the only SQL of the control plane. It decides nothing: an Observation is what the server
// said, a Failure is why it said nothing. Every call ends by its context or by Config.Timeout.
package pgnode

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cstproxy/cstproxy/ha/topology"
)

// Config says where the server is and as whom to ask it.
type Config struct {
	Host string
	Port int
	// User may read pg_control_system(), pg_stat_wal_receiver and pg_stat_replication (member of
	// pg_monitor) and, after a promotion, pg_wal's history files (superuser, or a grant of
	// pg_read_binary_file); without the latter a standby that is still on the old timeline takes
	// no reads until it has followed.
	User string
	// Password is tried first; empty means ~/.pgpass or PGPASSFILE.
	Password string
	Database string
	// SSLMode and SSLRootCert are libpq's.
	SSLMode, SSLRootCert string
	// Timeout bounds each call, connecting included.
	Timeout time.Duration
}

// Server is one PostgreSQL server as seen from here. It holds no connection; any goroutine may use
// it.
type Server struct {
	cfg     *pgconn.Config
	timeout time.Duration // of connecting
	answer  time.Duration // of each question
	locks   time.Duration // how long a Beat waits for a lock
}

// New checks the configuration. It does not connect.
func New(c Config) (*Server, error) {
	settings := map[string]string{
		"host": c.Host, "port": strconv.Itoa(c.Port), "user": c.User, "dbname": c.Database,
		"sslmode": c.SSLMode, "sslrootcert": c.SSLRootCert,
		// The environment (PGTARGETSESSIONATTRS) must not choose servers for us.
		"target_session_attrs": "any",
	}
	var words []string
	for name, value := range settings {
		if value != "" {
			words = append(words, name+"='"+quoter.Replace(value)+"'")
		}
	}
	cfg, err := pgconn.ParseConfig(strings.Join(words, " "))
	if err != nil {
		return nil, fmt.Errorf("read connection settings of %s: %w", net.JoinHostPort(c.Host, strconv.Itoa(c.Port)), err)
	}
	if c.Password != "" {
		cfg.Password = c.Password
	}
	millis := strconv.FormatInt(max(c.Timeout.Milliseconds(), 1), 10)
	cfg.RuntimeParams = map[string]string{
		"application_name": "cstproxy",
		// Nothing that a user put into a schema may be called by the names below.
		"search_path":     "pg_catalog",
		"client_encoding": "UTF8",
		// A call that this side gave up must not stay behind in the server.
		"statement_timeout": millis,
		"lock_timeout":      millis,
	}
	cfg.DialFunc = notingDial(cfg.DialFunc)
	return &Server{cfg: cfg, timeout: c.Timeout, answer: c.Timeout, locks: c.Timeout / 2}, nil
}

// dialed is where a dial under a context leaves that the host took the connection.
type dialed struct{}

func notingDial(dial pgconn.DialFunc) pgconn.DialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if taken, ok := ctx.Value(dialed{}).(*atomic.Bool); ok && err == nil {
			taken.Store(true)
		}
		return conn, err
	}
}

var quoter = strings.NewReplacer(`\`, `\\`, `'`, `\'`)

// Connect opens a connection and logs in. The caller owns the Conn and closes it. The error is a
// *Failure.
func (s *Server) Connect(ctx context.Context) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	var taken atomic.Bool
	pg, err := pgconn.ConnectConfig(context.WithValue(ctx, dialed{}, &taken), s.cfg)
	if err != nil {
		f := classify(err, s.timeout)
		if taken.Load() {
			f.afterDial()
		}
		return nil, f
	}
	return &Conn{pg: pg, timeout: s.answer, locks: s.locks}, nil
}

// afterDial corrects the cause of a login that failed when the host had taken the connection. What
// then stops on our side (a certificate, a password) says that the server is there.
func (f *Failure) afterDial() {
	var pg *pgconn.PgError
	switch {
	case f.Cause == Silent:
		f.Cause = Hung
	case f.Cause == Unclassified && !errors.As(f.err, &pg):
		f.Cause = Denied
	}
}

// Knock finds out whether the server lets somebody in now: it logs in and leaves. A server can
// answer on old connections long after it has stopped taking new ones. The error is a *Failure.
func (s *Server) Knock(ctx context.Context) error {
	c, err := s.Connect(ctx)
	if err != nil {
		return err
	}
	c.Close(ctx)
	return nil
}

// Conn is one connection that asks. One goroutine at a time; after an error for which Broken is
// true it is of no more use. Nothing survives a restart of the server in it: as long as it
// answers, the server has not restarted since Connect.
type Conn struct {
	pg      *pgconn.PgConn
	timeout time.Duration
	locks   time.Duration
	probes  int // from the second on they are prepared
	history topology.History
	// askedHistory keeps a server that refuses to show the file from logging the refusal at
	// every probe.
	askedHistory time.Time
}

// Broken says whether the connection has ended.
func (c *Conn) Broken() bool { return c.pg.IsClosed() }

// Close says goodbye, also when ctx has ended, or just hangs up when that would have to wait.
func (c *Conn) Close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbye)
	defer cancel()
	// There is nobody left whom an error would help.
	_ = c.pg.Close(ctx)
}

// goodbye bounds Close; a hung server's socket takes the few bytes anyway.
const goodbye = 100 * time.Millisecond

// Await returns nil when ctx ends, and a *Failure as soon as the connection breaks before that: a
// server process that dies is noticed at once instead of at the next probe.
func (c *Conn) Await(ctx context.Context) error {
	for ctx.Err() == nil {
		err := c.pg.WaitForNotification(ctx)
		if err != nil && (c.pg.IsClosed() || ctx.Err() == nil) {
			if !c.pg.IsClosed() {
				c.Close(ctx)
			}
			return classify(err, c.timeout)
		}
	}
	return nil
}

// query runs sql by the simple protocol and returns the rows of its last statement, in text form;
// NULL is nil.
func (c *Conn) query(ctx context.Context, sql string) ([][][]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	results, err := c.pg.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, classify(err, c.timeout)
	}
	if len(results) == 0 {
		return nil, &Failure{Cause: Unclassified, Message: "the server answered with nothing"}
	}
	return results[len(results)-1].Rows, nil
}

// one is query for exactly one row of columns columns.
func (c *Conn) one(ctx context.Context, sql string, columns int) ([][]byte, error) {
	rows, err := c.query(ctx, sql)
	if err != nil {
		return nil, err
	}
	return exactlyOne(rows, columns)
}

func exactlyOne(rows [][][]byte, columns int) ([][]byte, error) {
	if len(rows) != 1 || len(rows[0]) != columns {
		return nil, &Failure{Cause: Unclassified, Message: "the server answered with an unexpected number of rows or columns"}
	}
	return rows[0], nil
}

// fields reads text columns one after the other and keeps the first error.
type fields struct {
	row [][]byte
	err error
}

func (f *fields) text() string {
	if len(f.row) == 0 {
		f.fail(errors.New("too few columns"))
		return ""
	}
	b := f.row[0]
	f.row = f.row[1:]
	return string(b)
}

func (f *fields) fail(err error) {
	if f.err == nil {
		f.err = err
	}
}

// fieldOf parses the next column; NULL and the empty string are the zero value.
func fieldOf[T any](f *fields, parse func(string) (T, error)) T {
	var zero T
	s := f.text()
	if s == "" {
		return zero
	}
	v, err := parse(s)
	if err != nil {
		f.fail(err)
		return zero
	}
	return v
}

func (f *fields) lsn() topology.LSN { return fieldOf(f, topology.ParseLSN) }
func (f *fields) int() int          { return fieldOf(f, strconv.Atoi) }
func (f *fields) isTrue() bool      { return f.text() == "t" }

func (f *fields) int64() int64 {
	return fieldOf(f, func(s string) (int64, error) { return strconv.ParseInt(s, 10, 64) })
}

func (f *fields) timeline() topology.Timeline {
	return fieldOf(f, func(s string) (topology.Timeline, error) {
		n, err := strconv.ParseUint(s, 10, 32)
		return topology.Timeline(n), err
	})
}

// seconds reads an extract(epoch …).
func (f *fields) seconds() time.Duration {
	return fieldOf(f, func(s string) (time.Duration, error) {
		n, err := strconv.ParseFloat(s, 64)
		return time.Duration(n * float64(time.Second)), err
	})
}

// setting reads a duration as current_setting shows it: "200ms", "1s", "5min", "0".
func (f *fields) setting() time.Duration { return fieldOf(f, parseSetting) }

var settingUnits = [...]struct {
	suffix string
	unit   time.Duration
}{
	{"us", time.Microsecond}, {"ms", time.Millisecond}, {"min", time.Minute},
	{"s", time.Second}, {"h", time.Hour}, {"d", 24 * time.Hour}, {"", time.Millisecond},
}

func parseSetting(s string) (time.Duration, error) {
	for _, u := range settingUnits {
		digits, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("parse setting %q: %w", s, err)
		}
		return time.Duration(n) * u.unit, nil
	}
	return 0, fmt.Errorf("parse setting %q: unknown unit", s)
}

// megabytes reads a size of log as current_setting shows it: "512MB", "1GB", "0".
func (f *fields) megabytes() int64 { return fieldOf(f, parseMegabytes) }

func parseMegabytes(s string) (int64, error) {
	digits := strings.TrimRight(s, "kMGTB")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("parse size %q: %w", s, err)
	}
	switch s[len(digits):] {
	case "MB", "":
		return n, nil
	case "GB":
		return n << 10, nil
	case "TB":
		return n << 20, nil
	case "kB":
		return n >> 10, nil
	}
	return 0, fmt.Errorf("parse size %q: unknown unit", s)
}
