package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// pgxScript is one run of everything that pgx users do.
type pgxScript struct {
	transcript
	ctx   context.Context
	world *world
	conn  *pgx.Conn
	pg    *pgconn.PgConn
}

func TestPgxSeesNoDifference(t *testing.T) {
	w := sharedWorld(t)
	direct := runPgx(t, w, w.direct(w.cluster.Primary()))
	compare(t, direct, runPgx(t, w, w.through()))
}

func runPgx(t *testing.T, w *world, url string) []string {
	t.Helper()
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	s := &pgxScript{ctx: t.Context(), world: w}
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { s.add("notice %s %s: %s", n.Severity, n.Code, n.Message) }
	if s.conn, err = pgx.ConnectConfig(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	defer s.conn.Close(t.Context())
	s.pg = s.conn.PgConn()
	for _, part := range []func(){
		s.schema, s.modes, s.values, s.batches, s.pipelines, s.copies, s.large, s.errors, s.transactions, s.notices, s.listen, s.cancels, s.multiple, s.settings,
	} {
		part()
	}
	return s.lines
}

// exec runs simple-protocol SQL and writes everything that came back.
func (s *pgxScript) exec(sql string) {
	results, err := s.pg.Exec(s.ctx, sql).ReadAll()
	for _, r := range results {
		s.add("%s -> %s", clip(sql), r.CommandTag)
		for _, row := range r.Rows {
			s.add("  %q", row)
		}
	}
	if err != nil {
		s.add("%s -> %s", clip(sql), describe(err))
	}
}

func clip(sql string) string {
	if len(sql) > 60 {
		return sql[:60] + "…"
	}
	return sql
}

// describe is an error with the fields that a server sent.
func describe(err error) string {
	if err == nil {
		return "no error"
	}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return "error " + err.Error()
	}
	return fmt.Sprintf("%s %s %q detail=%q hint=%q pos=%d where=%q table=%q column=%q constraint=%q type=%q routine=%q",
		pg.Severity, pg.Code, pg.Message, pg.Detail, pg.Hint, pg.Position, pg.Where, pg.TableName, pg.ColumnName, pg.ConstraintName, pg.DataTypeName, pg.Routine)
}

func (s *pgxScript) schema() {
	s.exec("SET client_min_messages = warning")
	s.exec("DROP TABLE IF EXISTS item, child; CREATE TABLE item (id int PRIMARY KEY, name text NOT NULL UNIQUE, at timestamptz, tags text[], doc jsonb, amount numeric(12, 2), raw bytea)")
	s.exec("CREATE TABLE child (id int PRIMARY KEY, item int REFERENCES item DEFERRABLE INITIALLY DEFERRED)")
	s.exec("RESET client_min_messages")
}

func (s *pgxScript) modes() {
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		for i := range 3 {
			var sum int
			err := s.conn.QueryRow(s.ctx, "SELECT $1::int + $2::int", mode, i, 40).Scan(&sum)
			s.add("mode %v: %d %v", mode, sum, err)
			tag, err := s.conn.Exec(s.ctx, "INSERT INTO item (id, name) VALUES ($1, $2) ON CONFLICT DO NOTHING", mode, int(mode)*10+i, fmt.Sprintf("mode %d/%d", mode, i))
			s.add("mode %v: %v %v", mode, tag, err)
		}
	}
	_, err := s.conn.Prepare(s.ctx, "by name", "SELECT name FROM item WHERE id = $1")
	s.add("prepare: %v", err)
	for range 3 {
		var name string
		err := s.conn.QueryRow(s.ctx, "by name", 11).Scan(&name)
		s.add("prepared: %s %v", name, err)
	}
	s.add("deallocate: %v", s.conn.Deallocate(s.ctx, "by name"))
	_, err = s.pg.Prepare(s.ctx, "twice", "SELECT 1", nil)
	s.add("prepare: %v", err)
	_, err = s.pg.Prepare(s.ctx, "twice", "SELECT 2", nil)
	s.add("prepare again: %s", describe(err))
	r := s.pg.ExecPrepared(s.ctx, "never prepared", nil, nil, nil).Read()
	s.add("unknown statement: %s", describe(r.Err))
}

func (s *pgxScript) values() {
	at := time.Date(2024, 2, 29, 12, 34, 56, 789000, time.UTC)
	_, err := s.conn.Exec(s.ctx, "INSERT INTO item VALUES (100, 'values', $1, $2, $3, $4, $5)", at, []string{"a", "b\"c", "ü"}, map[string]any{"k": []int{1, 2}}, "123.45", []byte{0, 1, 255})
	s.add("insert values: %v", err)
	var (
		name, amount string
		back         time.Time
		tags         []string
		doc          map[string]any
		raw          []byte
	)
	err = s.conn.QueryRow(s.ctx, "SELECT name, at, tags, doc, amount::text, raw FROM item WHERE id = 100").Scan(&name, &back, &tags, &doc, &amount, &raw)
	s.add("values: %s %s %q %v %s %x %v", name, back.UTC(), tags, doc, amount, raw, err)
	sd, err := s.pg.Prepare(s.ctx, "", "SELECT i.*, $1::date FROM item i WHERE id = ANY($2::int[])", nil)
	if err != nil {
		s.add("describe: %v", err)
		return
	}
	s.add("parameters %v", sd.ParamOIDs)
	for _, f := range sd.Fields {
		s.add("  column %s type %d size %d mod %d attribute %d", f.Name, f.DataTypeOID, f.DataTypeSize, f.TypeModifier, f.TableAttributeNumber)
	}
}

func (s *pgxScript) batches() {
	for _, bad := range []bool{false, true} {
		b := &pgx.Batch{}
		for i := range 20 {
			b.Queue("SELECT $1::int * 2", i)
		}
		b.Queue("INSERT INTO item (id, name) VALUES (200, 'batch') ON CONFLICT DO NOTHING")
		if bad {
			b.Queue("SELECT 1 / $1::int", 0)
		}
		b.Queue("SELECT name FROM item WHERE id = 200")
		results := s.conn.SendBatch(s.ctx, b)
		for i := range b.Len() {
			rows, err := results.Query()
			if err != nil {
				s.add("batch %d: %s", i, describe(err))
				continue
			}
			values, err := pgx.CollectRows(rows, pgx.RowTo[any])
			s.add("batch %d: %v %v", i, values, err)
		}
		if err := results.Close(); err != nil {
			s.add("batch: %s", describe(err))
		}
	}
}

func (s *pgxScript) pipelines() {
	p := s.pg.StartPipeline(s.ctx)
	p.SendQueryParams("SELECT 1", nil, nil, nil, nil)
	p.SendQueryParams("INSERT INTO item (id, name) VALUES (300, 'pipeline')", nil, nil, nil, nil)
	p.Flush()
	p.SendQueryParams("SELECT name FROM item WHERE id = 300", nil, nil, nil, nil)
	p.SendPipelineSync()
	p.SendQueryParams("SELECT nonsense", nil, nil, nil, nil)
	p.SendQueryParams("SELECT 'skipped'", nil, nil, nil, nil)
	p.SendPipelineSync()
	p.SendPrepare("piped", "SELECT $1::int", nil)
	p.SendQueryPrepared("piped", [][]byte{[]byte("7")}, nil, nil)
	p.SendDeallocate("piped")
	p.SendPipelineSync()
	p.SendQueryParams("SELECT count(*) FROM item WHERE id = 300", nil, nil, nil, nil)
	p.SendPipelineSync()
	if err := p.Flush(); err != nil {
		s.add("pipeline: %v", err)
	}
	for range 30 {
		r, err := p.GetResults()
		if err != nil {
			s.add("pipeline: %s", describe(err))
			continue
		}
		if r == nil {
			break
		}
		switch r := r.(type) {
		case *pgconn.ResultReader:
			got := r.Read()
			s.add("pipeline: %q %s %v", got.Rows, got.CommandTag, got.Err)
		case *pgconn.PipelineSync:
			s.add("pipeline: sync")
		default:
			s.add("pipeline: %T", r)
		}
	}
	if err := p.Close(); err != nil {
		s.add("pipeline close: %s", describe(err))
	}
}

func (s *pgxScript) copies() {
	rows := make([][]any, 5000)
	for i := range rows {
		rows[i] = []any{1000 + i, fmt.Sprintf("copied %d", i)}
	}
	n, err := s.conn.CopyFrom(s.ctx, pgx.Identifier{"item"}, []string{"id", "name"}, pgx.CopyFromRows(rows))
	s.add("copy in: %d %v", n, err)
	n, err = s.conn.CopyFrom(s.ctx, pgx.Identifier{"item"}, []string{"id", "name"}, pgx.CopyFromRows([][]any{{9000, "ok"}, {1000, "duplicate"}}))
	s.add("copy in twice: %d %s", n, describe(err))
	var out bytes.Buffer
	tag, err := s.pg.CopyTo(s.ctx, &out, "COPY (SELECT id, name FROM item WHERE id >= 1000 ORDER BY id) TO STDOUT")
	s.add("copy out: %v %v %s", tag, err, digest(out.Bytes()))
	tag, err = s.pg.CopyFrom(s.ctx, strings.NewReader("9001\tnine\nnot a number\n"), "COPY item (id, name) FROM STDIN")
	s.add("bad copy in: %v %s", tag, describe(err))
	tag, err = s.pg.CopyTo(s.ctx, &out, "COPY no_such_table TO STDOUT")
	s.add("bad copy out: %v %s", tag, describe(err))
	_, err = s.pg.CopyFrom(s.ctx, failingReader{}, "COPY item (id, name) FROM STDIN")
	s.add("aborted copy in: %s", describe(err))
	s.exec("SELECT count(*) FROM item")
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errors.New("the reader failed") }

func (s *pgxScript) large() {
	rows, err := s.conn.Query(s.ctx, "SELECT g, repeat(md5(g::text), 10) FROM generate_series(1, 50000) g")
	if err != nil {
		s.add("large: %v", err)
		return
	}
	var all []byte
	for rows.Next() {
		all = append(all, rows.RawValues()[1]...)
	}
	s.add("large: %s %v", digest(all), rows.Err())
	var wide string
	err = s.conn.QueryRow(s.ctx, "SELECT repeat('wide', 5000000)").Scan(&wide)
	s.add("wide row: %s %v", digest([]byte(wide)), err)
	var back int
	err = s.conn.QueryRow(s.ctx, "SELECT length($1::text)", wide).Scan(&back)
	s.add("wide parameter: %d %v", back, err)
}

func (s *pgxScript) errors() {
	for _, sql := range []string{
		"SELEC 1", "SELECT * FROM missing", "SELECT missing FROM item", "SELECT missing()", "SELECT 1/0",
		"INSERT INTO item (id, name) VALUES (100, 'again')", "INSERT INTO item (id) VALUES (-1)",
		"SELECT 'x'::int", "", ";", "-- nothing", "SELECT 1; SELECT 2; SELEC; SELECT 3", "SELECT 1; SELECT 1/0; SELECT 3",
		"SET no_such_parameter = 1", "SET timezone = 'Nowhere/Land'", "RESET no_such_parameter", "SHOW no_such_parameter", "LOCK TABLE item",
		"DECLARE c CURSOR FOR SELECT 1", "VACUUM item; SELECT 1", "EXECUTE missing", "DEALLOCATE missing", "FETCH ALL FROM missing", "CLOSE missing",
	} {
		s.exec(sql)
		if sql != "" {
			r := s.pg.ExecParams(s.ctx, sql, nil, nil, nil, nil).Read()
			s.add("extended %q: %q %s", clip(sql), r.Rows, describe(r.Err))
		}
	}
}

func (s *pgxScript) transactions() {
	tx, err := s.conn.Begin(s.ctx)
	s.add("begin: %v %c", err, s.pg.TxStatus())
	_, err = tx.Exec(s.ctx, "INSERT INTO child VALUES (1, 424242)")
	s.add("deferred: %v %c", err, s.pg.TxStatus())
	s.add("commit: %s %c", describe(tx.Commit(s.ctx)), s.pg.TxStatus())
	tx, _ = s.conn.Begin(s.ctx)
	nested, err := tx.Begin(s.ctx)
	s.add("savepoint: %v", err)
	_, err = nested.Exec(s.ctx, "SELECT 1/0")
	s.add("in savepoint: %s %c", describe(err), s.pg.TxStatus())
	_, err = nested.Exec(s.ctx, "SELECT 1")
	s.add("after the error: %s", describe(err))
	s.add("rollback to: %v %c", nested.Rollback(s.ctx), s.pg.TxStatus())
	_, err = tx.Exec(s.ctx, "INSERT INTO child VALUES (2, 100)")
	s.add("insert: %v; commit: %v %c", err, tx.Commit(s.ctx), s.pg.TxStatus())
	for _, o := range []pgx.TxOptions{{AccessMode: pgx.ReadOnly}, {IsoLevel: pgx.Serializable}, {IsoLevel: pgx.Serializable, AccessMode: pgx.ReadOnly, DeferrableMode: pgx.Deferrable}} {
		err := pgx.BeginTxFunc(s.ctx, s.conn, o, func(tx pgx.Tx) error {
			var n int
			err := tx.QueryRow(s.ctx, "SELECT count(*) FROM item").Scan(&n)
			s.add("%v: %d %v", o, n, err)
			_, err = tx.Exec(s.ctx, "DELETE FROM child WHERE id = 77")
			return err
		})
		s.add("%v: %s %c", o, describe(err), s.pg.TxStatus())
	}
	for _, sql := range []string{
		"COMMIT", "ROLLBACK", "BEGIN; BEGIN; SELECT 1; COMMIT", "BEGIN; SELECT 1/0; SELECT 2", "SELECT 3", "COMMIT", "SELECT 4",
		"BEGIN READ ONLY; DECLARE c CURSOR FOR SELECT g FROM generate_series(1, 10) g", "FETCH 3 FROM c", "MOVE 2 IN c", "FETCH ALL FROM c", "COMMIT AND CHAIN", "SHOW transaction_read_only", "ROLLBACK",
		"START TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SHOW transaction_isolation", "SET TRANSACTION READ ONLY", "INSERT INTO child VALUES (5)", "END",
		"SET default_transaction_read_only = on", "INSERT INTO child VALUES (6)", "RESET default_transaction_read_only", "INSERT INTO child VALUES (7) RETURNING *", "DELETE FROM child WHERE id = 7",
	} {
		s.exec(sql)
		s.add("status %c", s.pg.TxStatus())
	}
}

func (s *pgxScript) notices() {
	s.exec("DO $$ BEGIN RAISE NOTICE 'hello %', 1; RAISE WARNING 'careful' USING HINT = 'slowly'; END $$")
	s.exec("CREATE OR REPLACE FUNCTION talk(n int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'got %', n; RETURN n; END $$")
	s.exec("SELECT talk(5)")
	s.exec("DROP TABLE IF EXISTS never_there")
}

func (s *pgxScript) listen() {
	s.exec("LISTEN news")
	s.exec("NOTIFY news, 'first'")
	s.exec("SELECT pg_notify('news', 'second')")
	for range 2 {
		ctx, cancel := context.WithTimeout(s.ctx, 20*time.Second)
		n, err := s.conn.WaitForNotification(ctx)
		cancel()
		if err != nil {
			s.add("notification: %v", err)
			return
		}
		s.add("notification: %s %s", n.Channel, n.Payload)
	}
	s.exec("UNLISTEN *")
}

func (s *pgxScript) cancels() {
	for _, sql := range []string{"SELECT pg_sleep(30)", "SELECT count(*) FROM generate_series(1, 100000000000)", "DO $$ BEGIN PERFORM pg_sleep(30); END $$"} {
		taken := make(chan error, 1)
		go func() {
			err := s.world.awaitRunning(s.ctx, sql)
			if err == nil {
				err = s.pg.CancelRequest(s.ctx)
			}
			taken <- err
		}()
		s.exec(sql)
		// PostgreSQL signals the process and then its group: until it has closed the connection of
		// the request, the second signal may still hit the next statement.
		s.add("cancel request: %v", <-taken)
		s.exec("SELECT 'alive'")
	}
	s.exec("SET statement_timeout = 200")
	s.exec("SELECT pg_sleep(30)")
	s.exec("RESET statement_timeout")
}

func (s *pgxScript) multiple() {
	s.exec("SELECT 1; INSERT INTO item (id, name) VALUES (400, 'multi'); SELECT name FROM item WHERE id = 400; UPDATE item SET name = 'changed' WHERE id = 400 RETURNING name")
	s.exec("INSERT INTO item (id, name) VALUES (401, 'undone'); SELECT 1/0")
	s.exec("SELECT count(*) FROM item WHERE id = 401")
	r := s.pg.ExecParams(s.ctx, "SELECT 1; SELECT 2", nil, nil, nil, nil).Read()
	s.add("two statements: %s", describe(r.Err))
	r = s.pg.ExecParams(s.ctx, "SELECT $1::int, $2::text", [][]byte{[]byte("1"), nil}, nil, nil, []int16{1, 0}).Read()
	s.add("formats: %q %v", r.Rows, r.Err)
}

func (s *pgxScript) settings() {
	for _, sql := range []string{
		"SET application_name = 'one'", "SHOW application_name", "BEGIN; SET application_name = 'two'; ROLLBACK", "SHOW application_name",
		"BEGIN; SET LOCAL application_name = 'three'; SHOW application_name; COMMIT", "SHOW application_name",
		"BEGIN; SAVEPOINT a; SET application_name = 'four'; ROLLBACK TO a; SHOW application_name; COMMIT", "SHOW application_name",
		"SET DateStyle = 'German, DMY'", "SELECT DATE '2024-02-29'", "RESET DateStyle", "SELECT DATE '2024-02-29'",
		"SET TIME ZONE 'Asia/Tokyo'", "SELECT TIMESTAMPTZ '2024-01-01 00:00:00Z'", "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "SHOW default_transaction_read_only",
		"SET search_path = pg_catalog, public", "SHOW search_path", "SET bytea_output = escape", `SELECT '\x00ff'::bytea`, "SET extra_float_digits = 0", "SELECT 0.1::float8 + 0.2",
		"SET standard_conforming_strings = off", `SELECT E'a\nb', 'c'`, "SET standard_conforming_strings = on", "RESET ALL", "SHOW search_path", "SHOW TimeZone",
		"SET IntervalStyle = iso_8601", "SELECT INTERVAL '1 day 2 hours'", "DISCARD ALL", "SHOW IntervalStyle", "SELECT current_user, session_user, current_database()",
	} {
		s.exec(sql)
	}
	for _, name := range []string{"server_version", "server_encoding", "client_encoding", "DateStyle", "TimeZone", "integer_datetimes", "standard_conforming_strings", "IntervalStyle", "is_superuser", "session_authorization", "application_name", "default_transaction_read_only"} {
		s.add("%s = %s", name, s.pg.ParameterStatus(name))
	}
	s.exec("DROP TABLE item, child; DROP FUNCTION talk")
}
