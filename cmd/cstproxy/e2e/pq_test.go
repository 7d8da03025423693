package e2e

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/lib/pq"
)

func TestPqSeesNoDifference(t *testing.T) {
	w := sharedWorld(t)
	direct := runPq(t, w, w.direct(w.cluster.Primary()))
	compare(t, direct, runPq(t, w, w.through()))
}

func runPq(t *testing.T, w *world, url string) []string {
	t.Helper()
	s := &pqScript{ctx: t.Context(), world: w, url: url + "?sslmode=disable"}
	db, err := sql.Open("postgres", s.url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(4)
	s.db = db
	for _, part := range []func(){s.schema, s.queries, s.transactions, s.copies, s.listen, s.cancels, s.parallel} {
		part()
	}
	return s.lines
}

type pqScript struct {
	transcript
	ctx   context.Context
	world *world
	url   string
	db    *sql.DB
}

func (s *pqScript) told(err error) string {
	var e *pq.Error
	switch {
	case err == nil:
		return "no error"
	case errors.As(err, &e):
		return fmt.Sprintf("%s %s %q detail=%q", e.Severity, e.Code, e.Message, e.Detail)
	}
	return err.Error()
}

func (s *pqScript) exec(query string, args ...any) {
	r, err := s.db.ExecContext(s.ctx, query, args...)
	if err != nil {
		s.add("%s: %s", clip(query), s.told(err))
		return
	}
	n, err := r.RowsAffected()
	s.add("%s: %d %v", clip(query), n, err)
}

func (s *pqScript) schema() {
	s.exec("DROP TABLE IF EXISTS pq_item; CREATE TABLE pq_item (id serial PRIMARY KEY, name text UNIQUE, at timestamptz, n int)")
}

func (s *pqScript) queries() {
	for i := range 5 {
		var id int
		err := s.db.QueryRowContext(s.ctx, "INSERT INTO pq_item (name, at, n) VALUES ($1, $2, $3) RETURNING id", fmt.Sprint("name ", i), time.Unix(int64(i)*1e6, 0), i).Scan(&id)
		s.add("inserted %d: %s", id, s.told(err))
	}
	stmt, err := s.db.PrepareContext(s.ctx, "SELECT name, at, n FROM pq_item WHERE id = $1")
	if err != nil {
		s.add("prepare: %s", s.told(err))
		return
	}
	defer stmt.Close()
	for id := range 7 {
		var name string
		var at time.Time
		var n sql.NullInt64
		err := stmt.QueryRowContext(s.ctx, id).Scan(&name, &at, &n)
		s.add("row %d: %s %s %v %s", id, name, at.UTC(), n, s.told(err))
	}
	s.exec("INSERT INTO pq_item (name) VALUES ($1)", "name 1")
	s.exec("SELECT $1::int", "not a number")
	s.exec("SELECT 1; SELECT 2")
	rows, err := s.db.QueryContext(s.ctx, "SELECT 1; SELECT 'second result', 2")
	if err != nil {
		s.add("results: %s", s.told(err))
		return
	}
	defer rows.Close()
	for more := true; more; more = rows.NextResultSet() {
		columns, _ := rows.Columns()
		for rows.Next() {
			s.add("result with %v", columns)
		}
	}
	s.add("results: %s", s.told(rows.Err()))
}

func (s *pqScript) transactions() {
	tx, err := s.db.BeginTx(s.ctx, &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelRepeatableRead})
	if err != nil {
		s.add("begin: %s", s.told(err))
		return
	}
	var n int
	s.add("read only: %s", s.told(tx.QueryRow("SELECT count(*) FROM pq_item").Scan(&n)))
	_, err = tx.Exec("DELETE FROM pq_item")
	s.add("%d rows; delete: %s; commit: %s", n, s.told(err), s.told(tx.Commit()))
	tx, _ = s.db.BeginTx(s.ctx, nil)
	_, err = tx.Exec("UPDATE pq_item SET n = n + 1")
	s.add("update: %s; rollback: %s", s.told(err), s.told(tx.Rollback()))
	s.add("sum: %s", s.told(s.db.QueryRow("SELECT sum(n) FROM pq_item").Scan(&n)))
	s.add("sum is %d", n)
}

func (s *pqScript) copies() {
	for _, bad := range []int{-1, 500} {
		tx, err := s.db.BeginTx(s.ctx, nil)
		if err != nil {
			s.add("begin: %s", s.told(err))
			return
		}
		stmt, err := tx.Prepare("COPY pq_item (name, n) FROM STDIN")
		if err != nil {
			s.add("copy: %s", s.told(err))
			return
		}
		for i := range 1000 {
			value := any(i)
			if i == bad {
				value = "no number"
			}
			if _, err = stmt.Exec(fmt.Sprintf("copied %d", i), value); err != nil {
				break
			}
		}
		_, err = stmt.Exec()
		s.add("copy: %s; close: %s; commit: %s", s.told(err), s.told(stmt.Close()), s.told(tx.Commit()))
	}
	var n int
	s.add("count: %s", s.told(s.db.QueryRow("SELECT count(*) FROM pq_item").Scan(&n)))
	s.add("count is %d", n)
}

func (s *pqScript) listen() {
	l := pq.NewListener(s.url, time.Second, 10*time.Second, nil)
	defer l.Close()
	s.add("listen: %s", s.told(l.Listen("pq_news")))
	s.exec("SELECT pg_notify('pq_news', 'extra')")
	select {
	case n := <-l.Notify:
		s.add("notified: %s %s", n.Channel, n.Extra)
	case <-time.After(20 * time.Second):
		s.add("no notification")
	}
	s.add("ping: %s", s.told(l.Ping()))
}

func (s *pqScript) cancels() {
	const sleep = "SELECT pg_sleep(30)"
	ctx, cancel := context.WithCancel(s.ctx)
	seen := make(chan error, 1)
	go func() {
		defer cancel()
		seen <- s.world.awaitRunning(s.ctx, sleep)
	}()
	_, err := s.db.ExecContext(ctx, sleep)
	s.add("cancelled: %s; seen: %v", s.told(err), <-seen)
	s.exec("SELECT 1")
}

// parallel has more goroutines than connections.
func (s *pqScript) parallel() {
	errs := make(chan error)
	for i := range 20 {
		go func() {
			_, err := s.db.ExecContext(s.ctx, "UPDATE pq_item SET n = $1 WHERE id = $2", i, i)
			errs <- err
		}()
	}
	for range 20 {
		s.add("parallel: %s", s.told(<-errs))
	}
	s.exec("DROP TABLE pq_item")
}
