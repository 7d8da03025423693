package catalog

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/proxy/auth"
)

// goodbye is how long ending a side connection may take.
const goodbye = 500 * time.Millisecond

// maxName is the longest role name a server can have, in bytes (NAMEDATALEN - 1).
const maxName = 63

// Verifier finds the password verifier of a user. done is called exactly once: at once on the
// caller's goroutine when the answer is in memory, later on another one when it is not. Errors:
// ErrUnknownUser, ErrUnavailable. A role without a SCRAM password gets a verifier that nothing
// satisfies (Mocked).
func (s *Store) Verifier(user string, done func(*auth.Verifier, error)) {
	if len(user) > maxName || user == "" {
		done(nil, ErrUnknownUser)
		return
	}
	if s.cfg.AuthUser == "" {
		done(nil, fmt.Errorf("%w: auth_user is not set", ErrUnavailable))
		return
	}
	if v, err, wait := s.users.ask(user, time.Now(), done); !wait {
		done(v, err)
	}
}

// Forget makes the next Verifier ask the servers: a login failed, so the password may be another
// one by now.
func (s *Store) Forget(user string) { s.users.forget(user) }

// lookUp answers the queue until ctx ends. It keeps one connection open.
func (s *Store) lookUp(ctx context.Context) {
	var conn *side
	defer func() {
		if conn != nil {
			conn.close(ctx)
		}
		for _, done := range s.users.end() {
			done(nil, ErrUnavailable)
		}
	}()
	failing := false
	for {
		user, ok := s.users.next()
		if !ok {
			select {
			case <-ctx.Done():
				return
			case <-s.users.wake:
			}
			continue
		}
		v, err := s.find(ctx, &conn, user)
		down := err != nil && !errors.Is(err, ErrUnknownUser)
		if down {
			err = fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		if down != failing {
			failing = down
			s.report(err)
		}
		waiting := s.users.landed(user, v, err, time.Now())
		if down {
			// Whoever waits behind would fail likewise, one timeout later each.
			waiting = append(waiting, s.users.drain()...)
		}
		for _, done := range waiting {
			done(v, err)
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// report says once that lookups fail, and once that they work again.
func (s *Store) report(err error) {
	if err != nil && !errors.Is(err, ErrUnknownUser) {
		s.log.Warn("password lookups fail", zap.String("cluster", s.board.View().Cluster), zap.String("why", err.Error()))
		return
	}
	s.log.Info("password lookups work again", zap.String("cluster", s.board.View().Cluster))
}

// find asks for one user, over the connection of the last time if it still serves. A server that
// was restarted has closed it: then one more try.
func (s *Store) find(ctx context.Context, conn **side, user string) (v *auth.Verifier, err error) {
	defer func() {
		if r := recover(); r != nil {
			v, err = nil, fmt.Errorf("panic in a password lookup: %v", r)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	if c := *conn; c != nil && (c.IsClosed() || c.primary != s.board.View().Primary) {
		c.close(ctx)
		*conn = nil
	}
	for old := *conn != nil; ; old = false {
		if *conn == nil {
			// Role names have no encoding of their own: bytes are compared, as the server does
			// with a start-up packet.
			if *conn, err = s.connect(ctx, s.cfg.AuthDatabase, "SQL_ASCII"); err != nil {
				*conn = nil
				return nil, err
			}
		}
		v, err = s.query(ctx, *conn, user)
		if (*conn).IsClosed() {
			*conn = nil
			if old && ctx.Err() == nil {
				continue
			}
		}
		return v, err
	}
}

func (s *Store) query(ctx context.Context, conn *side, user string) (*auth.Verifier, error) {
	v, err := (*auth.Verifier)(nil), ErrUnknownUser
	failed := conn.rows(ctx, s.cfg.AuthQuery, [][]byte{[]byte(user)}, func(row [][]byte) error {
		if len(row) < 2 {
			return errors.New("auth_query returns less than two columns")
		}
		if string(row[0]) == user { // and nobody else, whatever the query says
			v, err = s.verifier(user, row)
		}
		return nil
	})
	var refusal *pgconn.PgError
	if errors.As(failed, &refusal) && refusal.Code == "22021" { // not a text in the server's encoding
		return nil, ErrUnknownUser
	}
	if failed != nil {
		return nil, fmt.Errorf("auth_query: %w", failed)
	}
	return v, err
}

// verifier reads name, secret, VALID UNTIL, may log in.
func (s *Store) verifier(user string, row [][]byte) (*auth.Verifier, error) {
	v, err := auth.ParseVerifier(string(row[1]))
	if err != nil {
		// md5, or no password at all: no SCRAM proof can be right.
		s.log.Debug("role has no SCRAM verifier", zap.String("user", user))
		v = s.Mock(user)
	} else {
		s.model.CompareAndSwap(nil, v) // the first one stays: a mock that changes is none
	}
	v.User = user
	if len(row) > 2 && row[2] != nil {
		if v.ValidUntil, err = parseUntil(string(row[2])); err != nil {
			return nil, err
		}
	}
	if len(row) > 3 {
		v.CanLogin = string(row[3]) == "t"
	}
	return v, nil
}

// parseUntil reads a timestamptz in ISO style and UTC. Zero is "never expires".
func parseUntil(s string) (time.Time, error) {
	switch {
	case s == "infinity":
		return time.Time{}, nil
	case s == "-infinity", strings.HasSuffix(s, " BC"):
		return time.Unix(0, 0), nil
	}
	year, _, ok := strings.Cut(s, "-")
	if n, err := strconv.Atoi(year); ok && err == nil && n > 9999 {
		return time.Time{}, nil // time.Parse reads four digits, and nobody waits for the year 10000
	}
	t, err := time.Parse("2006-01-02 15:04:05.999999-07", s)
	if err != nil {
		return time.Time{}, fmt.Errorf("read VALID UNTIL: %w", err)
	}
	return t, nil
}
