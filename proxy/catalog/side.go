package catalog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/cstproxy/cstproxy/ha/topology"
	"github.com/cstproxy/cstproxy/proxy/backend"
	"github.com/cstproxy/cstproxy/proxy/wire"
)

// maxRow bounds one message of an answer, in bytes: the longest honest one is a view's text.
const maxRow = 16 << 20

var errNoCancel = errors.New("side connections send no cancel requests")

// side is one side connection.
type side struct {
	*pgconn.PgConn
	primary topology.NodeID // at the time of connecting
}

// nodes lists whom to ask: the primary first, because standbys may lag, then standbys in
// rotation, then the rest that is known to be ours and alive.
func nodes(v *topology.View) []topology.Node {
	var order [3][]topology.Node
	for i := range v.Nodes {
		n := &v.Nodes[i]
		switch {
		case n.Health == topology.Down || n.Health == topology.Foreign || n.Health == topology.HealthUnknown || n.Health == topology.Starting:
		case n.ID == v.Primary:
			order[0] = append(order[0], n.Node)
		case n.Health == topology.Healthy && n.Role == topology.RoleStandby:
			order[1] = append(order[1], n.Node)
		case n.Role == topology.RoleStandby:
			order[2] = append(order[2], n.Node)
		}
	}
	return append(append(order[0], order[1]...), order[2]...)
}

// connect opens a side connection to the first node that takes it. encoding is its
// client_encoding. Errors: *backend.ServerError when the last node asked refused.
func (s *Store) connect(ctx context.Context, database, encoding string) (*side, error) {
	if s.cfg.AuthUser == "" {
		return nil, errors.New("auth_user is not set")
	}
	v := s.board.View()
	list := nodes(v)
	if len(list) == 0 {
		return nil, errors.New("no node is known to be alive")
	}
	req := backend.DialRequest{Database: database, User: s.cfg.AuthUser,
		Credential: backend.Credential{Password: s.cfg.AuthPassword}, Parameters: s.settings(encoding)}
	var err error
	for i, n := range list {
		// A node that does not answer leaves half of the time to the others.
		attempt, cancel := ctx, context.CancelFunc(func() {})
		if i < len(list)-1 {
			attempt, cancel = context.WithTimeout(ctx, s.cfg.Timeout/2)
		}
		req.Node = n
		var pg *pgconn.PgConn
		pg, err = s.connectTo(attempt, req)
		cancel()
		if err == nil {
			return &side{PgConn: pg, primary: v.Primary}, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

// connectTo logs in at one node and gives the connection to pgconn.
func (s *Store) connectTo(ctx context.Context, req backend.DialRequest) (*pgconn.PgConn, error) {
	conn, login, err := s.dialer.DialConn(ctx, req)
	if err != nil {
		return nil, err
	}
	statuses := make(map[string]string, len(login.Parameters))
	for _, p := range login.Parameters {
		statuses[p.Name] = p.Value
	}
	// The dialler, not pgconn, logs in: one place for TLS and passwords, and no PG* variable of
	// the environment has a say.
	pg, err := pgconn.Construct(&pgconn.HijackedConn{
		Conn: conn, PID: login.PID, SecretKey: login.Secret, ParameterStatuses: statuses, TxStatus: 'I',
		Config: &pgconn.Config{
			BuildFrontend:             func(r io.Reader, w io.Writer) *pgproto3.Frontend { return pgproto3.NewFrontend(r, w) },
			MaxProtocolMessageBodyLen: maxRow,
			// pgconn would dial for cancel requests past the dialler's TLS; statement_timeout ends
			// an abandoned query instead.
			DialFunc: func(context.Context, string, string) (net.Conn, error) { return nil, errNoCancel },
			BuildContextWatcherHandler: func(pg *pgconn.PgConn) ctxwatch.Handler {
				return &pgconn.DeadlineContextWatcherHandler{Conn: pg.Conn()}
			},
		},
	})
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("build a side connection: %w", err)
	}
	return pg, nil
}

// settings make names resolve in pg_catalog alone and answers come in one form, whatever
// ALTER ROLE or ALTER DATABASE set: start-up parameters win over those.
func (s *Store) settings(encoding string) []wire.Parameter {
	ms := strconv.FormatInt(s.cfg.Timeout.Milliseconds(), 10)
	return []wire.Parameter{
		{Name: "application_name", Value: "cstproxy catalog"},
		{Name: "search_path", Value: "pg_catalog"},
		{Name: "client_encoding", Value: encoding},
		{Name: "DateStyle", Value: "ISO"},
		{Name: "TimeZone", Value: "UTC"},
		{Name: "standard_conforming_strings", Value: "on"},
		{Name: "quote_all_identifiers", Value: "off"},
		{Name: "default_transaction_read_only", Value: "on"},
		{Name: "default_transaction_isolation", Value: "read committed"},
		{Name: "statement_timeout", Value: ms},
		{Name: "lock_timeout", Value: "1000"},
		{Name: "idle_in_transaction_session_timeout", Value: ms},
	}
}

// major reads the major version in a server_version: 10 in "10.23 (Debian 10.23-1)", 19 in "19beta1".
func major(version string) (n int, known bool) {
	n, err := strconv.Atoi(version[:len(version)-len(strings.TrimLeft(version, "0123456789"))])
	return n, err == nil
}

// rows runs a query and hands over each row; the values are valid until each returns.
func (c *side) rows(ctx context.Context, sql string, args [][]byte, each func(row [][]byte) error) error {
	result := c.ExecParams(ctx, sql, args, nil, nil, nil)
	var err error
	for err == nil && result.NextRow() {
		err = each(result.Values())
	}
	_, closed := result.Close()
	if closed != nil {
		return closed
	}
	return err
}

// close ends the connection in order if that takes no time.
func (c *side) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbye)
	defer cancel()
	_ = c.Close(ctx) // the server may be gone
}
