package e2e

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cstproxy/cstproxy/cmd/cstproxy/stand"
)

// narrow is a proxy whose sessions must share two servers per node.
func narrow(t *testing.T, w *world) string {
	t.Helper()
	return w.secondProxy(t, stand.Options{Proxy: "pool_size = 2"}).URL(appUser, appPassword, appDB)
}

// identity is the state that a session sets and must always find again, and nobody else.
type identity struct {
	id   int
	conn *pgx.Conn
}

func (s identity) zone() string { return fmt.Sprintf("Etc/GMT+%d", s.id%12) }
func (s identity) name() string { return fmt.Sprintf("session-%d", s.id) }

func (s identity) introduce(ctx context.Context) error {
	for _, sql := range []string{
		fmt.Sprintf("SET application_name = '%s'", s.name()),
		fmt.Sprintf("SET TIME ZONE '%s'", s.zone()),
		fmt.Sprintf("SET statement_timeout = %d", 100001+s.id),
		fmt.Sprintf("SET search_path = schema_%d, public", s.id),
	} {
		if _, err := s.conn.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

// recognize reads the session's state on whatever server it gets, and inside a transaction, after
// a rolled-back SET, and after SET LOCAL.
func (s identity) recognize(ctx context.Context, i int) error {
	const sql = "SELECT current_setting('application_name') || ' ' || current_setting('statement_timeout') || ' ' || current_setting('TimeZone') || ' ' || current_setting('search_path') FROM pgbench_branches WHERE bid = 1"
	want := fmt.Sprintf("%s %dms %s schema_%d, public", s.name(), 100001+s.id, s.zone(), s.id)
	ask := func(q interface {
		QueryRow(context.Context, string, ...any) pgx.Row
	}) error {
		var got string
		if err := q.QueryRow(ctx, sql).Scan(&got); err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("session %d is %q, got %q", s.id, want, got)
		}
		return nil
	}
	if err := ask(s.conn); err != nil {
		return err
	}
	if i%5 != 0 {
		return nil
	}
	tx, err := s.conn.Begin(ctx)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, "SET LOCAL application_name = 'local'"); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, "SET search_path = nowhere"); err != nil {
		return err
	}
	if err := tx.Rollback(ctx); err != nil {
		return err
	}
	return ask(s.conn)
}

func TestNoSessionSeesAnothersSettings(t *testing.T) {
	w := sharedWorld(t)
	url := narrow(t, w)
	ctx, cancel := context.WithTimeout(t.Context(), span(4*time.Second, time.Minute))
	defer cancel()
	var wg sync.WaitGroup
	for id := range 24 {
		s := identity{id: id, conn: connect(t, url)}
		wg.Go(func() {
			if err := s.introduce(t.Context()); err != nil {
				t.Error(err)
				return
			}
			for i := 0; ctx.Err() == nil; i++ {
				if err := s.recognize(t.Context(), i); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// What lives on one server stays with its session, while others pass through the same two.
func TestWhatBelongsToOneSessionStaysWithIt(t *testing.T) {
	w := sharedWorld(t)
	url := narrow(t, w)
	ctx, stop := context.WithCancel(t.Context())
	var noise sync.WaitGroup
	for range 4 {
		conn := connect(t, url)
		noise.Go(func() {
			for ctx.Err() == nil {
				if _, err := conn.Exec(ctx, "SELECT count(*) FROM pgbench_tellers"); err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
			}
		})
	}
	defer noise.Wait()
	defer stop()
	for _, c := range []struct{ name, begin, ask, want, end string }{
		{"temporary table", "CREATE TEMP TABLE mine AS SELECT 7 AS n", "SELECT n FROM mine", "7", "DROP TABLE mine"},
		{"prepared statement", "PREPARE mine AS SELECT 8 AS n", "EXECUTE mine", "8", "DEALLOCATE mine"},
		{"cursor WITH HOLD", "BEGIN; DECLARE mine CURSOR WITH HOLD FOR SELECT 9 FROM generate_series(1, 100); COMMIT", "FETCH 1 FROM mine", "9", "CLOSE mine"},
		{"advisory lock", "SELECT pg_advisory_lock(4711)", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()", "1", "SELECT pg_advisory_unlock_all()"},
		{"sequence's last value in a transaction", "CREATE SEQUENCE IF NOT EXISTS mine_seq; BEGIN; SELECT nextval('mine_seq')", "SELECT currval('mine_seq') > 0", "t", "COMMIT"},
		{"setting of its own", "SET my.thing = 'x'", "SELECT current_setting('my.thing')", "x", "RESET my.thing"},
		{"role", "SET ROLE app", "SELECT current_user", "app", "RESET ROLE"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := connect(t, url)
			mustExec(t, conn, c.begin)
			for range 20 {
				r, err := conn.PgConn().Exec(t.Context(), c.ask).ReadAll()
				if err != nil {
					t.Fatalf("%s: %v", c.ask, err)
				}
				if got := string(r[0].Rows[0][0]); got != c.want {
					t.Fatalf("%s gave %s, want %s", c.ask, got, c.want)
				}
			}
			mustExec(t, conn, c.end)
		})
	}
}
