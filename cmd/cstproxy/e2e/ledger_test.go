package e2e

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/lib/pq"

	"github.com/cstproxy/cstproxy/ha/pglocal"
)

// ledger is one client of each driver that writes numbered rows through the proxy, every second one in a
// transaction block, each over the one connection that it began with. What it was told to repeat, or was
// not told the end of (40001, 08007), it writes again.
type ledger struct {
	*testing.T
	world   *world
	clients []*scribe
	stop    chan struct{}
	running sync.WaitGroup
}

// scribe is one client. Its rows are 1 to acked, without a gap.
type scribe struct {
	name            string
	acked, repeated atomic.Int64
	ended           chan struct{} // closed when it writes no more
	failed          error         // valid from then on
}

const insertRow = "INSERT INTO ledger VALUES ($1, $2) ON CONFLICT DO NOTHING"

// openLedger begins to write.
func (w *world) openLedger(t *testing.T) *ledger {
	t.Helper()
	if _, err := w.cluster.Nodes()[w.picture(t).Primary-1].PsqlIn(t.Context(), appDB, "DROP TABLE IF EXISTS ledger; "+
		"CREATE TABLE ledger (client text, number bigint, PRIMARY KEY (client, number)); GRANT ALL ON ledger TO "+appUser); err != nil {
		t.Fatal(err)
	}
	l := &ledger{T: t, world: w, stop: make(chan struct{})}
	for name, write := range map[string]func(*scribe) error{"pgx": l.writePgx, "pq": l.writePq, "psycopg": l.writePsycopg} {
		s := &scribe{name: name, ended: make(chan struct{})}
		l.clients = append(l.clients, s)
		l.running.Go(func() { defer close(s.ended); s.failed = write(s) })
	}
	t.Cleanup(l.end)
	l.awaitRows()
	return l
}

func (l *ledger) end() {
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.running.Wait()
}

// close ends the clients; one that has failed, or lost its connection, fails the test.
func (l *ledger) close() {
	l.Helper()
	l.end()
	for _, s := range l.clients {
		if s.failed != nil {
			l.Errorf("%s, after %d rows: %v", s.name, s.acked.Load(), s.failed)
		}
	}
}

// awaitRows waits until each client was told of some more rows.
func (l *ledger) awaitRows() {
	l.Helper()
	for _, s := range l.clients {
		before := s.acked.Load()
		await(l.T, "rows of "+s.name, func() bool {
			select {
			case <-s.ended:
				l.Fatalf("%s, after %d rows: %v", s.name, s.acked.Load(), s.failed)
			default:
			}
			return s.acked.Load() >= before+5
		})
	}
}

// repeats is how often clients had to write again.
func (l *ledger) repeats() (n int64) {
	for _, s := range l.clients {
		n += s.repeated.Load()
	}
	return n
}

// compare looks for every acknowledged row of a closed ledger on a node, which may have to replay it yet.
func (l *ledger) compare(n *pglocal.Node) {
	l.Helper()
	for _, s := range l.clients {
		want, got := fmt.Sprint(s.acked.Load()), ""
		var err error
		holds := func() bool {
			got, err = n.PsqlIn(l.Context(), appDB, fmt.Sprintf("SELECT count(*) FROM ledger WHERE client = '%s' AND number <= %s", s.name, want))
			return err == nil && got == want
		}
		if n.ID == l.world.picture(l.T).Primary {
			if !holds() {
				l.Errorf("%s has %s of the %s rows that %s was told of: %v", n.Name, got, want, s.name, err)
			}
			continue
		}
		await(l.T, fmt.Sprintf("the %s rows of %s on %s", want, s.name, n.Name), holds)
	}
}

// write has insert write row after row.
func (l *ledger) write(s *scribe, insert func(number int64) error, code func(error) string) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for number := int64(1); ; number++ {
		for err := insert(number); err != nil; err = insert(number) {
			if c := code(err); c != "40001" && c != "08007" {
				return fmt.Errorf("row %d: %w", number, err)
			}
			s.repeated.Add(1)
		}
		s.acked.Store(number)
		select {
		case <-l.stop:
			return nil
		case <-tick.C:
		}
	}
}

func (l *ledger) writePgx(s *scribe) error {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, l.world.through())
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	return l.write(s, func(number int64) error {
		if number%2 == 1 {
			_, err := conn.Exec(ctx, insertRow, s.name, number)
			return err
		}
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, insertRow, s.name, number)
			return err
		})
	}, sqlState)
}

func (l *ledger) writePq(s *scribe) error {
	ctx := context.Background()
	db, err := sql.Open("postgres", l.world.through()+"?sslmode=disable")
	if err != nil {
		return err
	}
	defer db.Close()
	conn, err := db.Conn(ctx) // one session, which database/sql does not replace
	if err != nil {
		return err
	}
	defer conn.Close()
	code := func(err error) string {
		var e *pq.Error
		if errors.As(err, &e) {
			return string(e.Code)
		}
		return ""
	}
	return l.write(s, func(number int64) error {
		if number%2 == 1 {
			_, err := conn.ExecContext(ctx, insertRow, s.name, number)
			return err
		}
		tx, err := conn.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, insertRow, s.name, number); err != nil {
			return errors.Join(err, tx.Rollback())
		}
		return tx.Commit()
	}, code)
}

func (l *ledger) writePsycopg(s *scribe) error {
	cmd := exec.Command("/usr/bin/python3", "testdata/ledger.py", l.world.through(), s.name)
	cmd.Env = append(os.Environ(), "PGSSLMODE=disable", "PYTHONDONTWRITEBYTECODE=1")
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	l.running.Go(func() { // the end of its input tells it to end
		select {
		case <-l.stop:
		case <-ended:
		}
		_ = in.Close()
	})
	defer close(ended)
	if err := s.listen(out); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%w: %s", err, complaints.Bytes())
	}
	return nil
}

// listen reads what ledger.py prints.
func (s *scribe) listen(out io.Reader) error {
	for lines := bufio.NewScanner(out); lines.Scan(); {
		text, repeats := strings.CutPrefix(lines.Text(), "repeated ")
		number, err := strconv.ParseInt(text, 10, 64)
		switch {
		case err != nil:
			return err
		case repeats:
			s.repeated.Store(number)
		default:
			s.acked.Store(number)
		}
	}
	return nil
}
