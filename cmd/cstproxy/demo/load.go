package demo

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cstproxy/cstproxy/ha/pglocal"
)

// load is a handful of clients that read and write through the proxy. Each answer carries the name
// of the server that gave it: pglocal writes a parameter pglocal.node into every configuration.
type load struct {
	url   string
	nodes []*pglocal.Node

	mu    sync.Mutex
	total tally
	spent []time.Duration // of the reads since the last call of now
	last  error

	acked   map[int]int64     // by writer: the number of its last acknowledged transfer; it leaves none out
	began   map[int]time.Time // by writer: when the write began that it waits for
	longest time.Duration     // of a write since the last call of waited
}

// tally counts answers by node name.
type tally struct {
	Reads, Writes map[string]int
	// Errors are what an application would have failed with, Lost the connections among them. Repeats
	// are transactions that a client was told to repeat, or whose end it had to find out, and did.
	Errors, Lost, Repeats int
}

func newLoad(url string, nodes []*pglocal.Node) *load {
	return &load{
		url: url, nodes: nodes, total: tally{Reads: map[string]int{}, Writes: map[string]int{}},
		acked: map[int]int64{}, began: map[int]time.Time{},
	}
}

// The statements name their server. The read is the classic one: a row by its key. A transfer has a
// number of its writer's, so that one that is repeated is made once.
const (
	readSQL  = "SELECT balance, current_setting('pglocal.node') FROM account WHERE id = $1"
	writeSQL = "UPDATE account SET balance = balance + $2 WHERE id = $1 RETURNING balance, current_setting('pglocal.node')"
	logSQL   = "INSERT INTO transfer (account, number, amount) VALUES ($1, $2, 1) ON CONFLICT DO NOTHING"
)

// pace is how a client of the load behaves.
type pace struct {
	every time.Duration // 0: as fast as it goes
	write bool
	id    int // the account that a writer alone writes
}

// run has the clients work until ctx ends.
func (l *load) run(ctx context.Context, clients []pace) {
	var wg sync.WaitGroup
	for _, p := range clients {
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := l.client(ctx, p); err != nil && ctx.Err() == nil {
					rest(ctx, 100*time.Millisecond)
				}
			}
		})
	}
	wg.Wait()
}

// client is one connection; it returns at the first error.
func (l *load) client(ctx context.Context, p pace) (err error) {
	conn, err := pgx.Connect(ctx, l.url)
	if err != nil {
		if ctx.Err() == nil {
			l.failed(err, 0)
		}
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(ctx) // a failed statement has already been told
	}()
	for {
		if p.write {
			err = l.write(ctx, conn, p.id)
		} else {
			err = l.read(ctx, conn, rand.IntN(accounts)+1)
		}
		if err != nil {
			if ctx.Err() == nil {
				l.failed(err, map[bool]int{true: 1}[conn.IsClosed()])
			}
			return err
		}
		if !rest(ctx, p.every) {
			return nil
		}
	}
}

// rest sleeps; false when ctx ended.
func rest(ctx context.Context, d time.Duration) bool {
	if d == 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func (l *load) read(ctx context.Context, conn *pgx.Conn, id int) error {
	var balance int64
	var node string
	began := time.Now()
	if err := conn.QueryRow(ctx, readSQL, id).Scan(&balance, &node); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total.Reads[node]++
	l.spent = append(l.spent, time.Since(began))
	return nil
}

// errStale means that a client did not see what it had written itself.
var errStale = errors.New("a session read something older than its own write")

// write is a transaction, and a read of what it wrote: the promise of read-your-writes. A transaction
// that a failover rolled back, or whose end it hid, is repeated on the same connection, as a careful
// application does.
func (l *load) write(ctx context.Context, conn *pgx.Conn, id int) error {
	number := l.begin(id)
	var wrote, seen int64
	var node, reader string
	for {
		err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			inserted, err := tx.Exec(ctx, logSQL, id, number)
			if err != nil {
				return err
			}
			return tx.QueryRow(ctx, writeSQL, id, inserted.RowsAffected()).Scan(&wrote, &node)
		})
		if err == nil {
			break
		}
		if !repeatable(err) || conn.IsClosed() {
			return fmt.Errorf("write: %w", err)
		}
		l.repeats()
	}
	l.wrote(id, node)
	if err := conn.QueryRow(ctx, readSQL, id).Scan(&seen, &reader); err != nil {
		return fmt.Errorf("read after write: %w", err)
	}
	if seen < wrote {
		return fmt.Errorf("%w: wrote %d on %s, read %d on %s", errStale, wrote, node, seen, reader)
	}
	return nil
}

// repeatable says whether an error asks for the transaction again: rolled back, or nobody knows.
func repeatable(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && (e.Code == "40001" || e.Code == "08007")
}

func (l *load) begin(id int) (number int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.began[id].IsZero() {
		l.began[id] = time.Now()
	}
	return l.acked[id] + 1
}

func (l *load) wrote(id int, node string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total.Writes[node]++
	l.acked[id]++
	l.longest = max(l.longest, time.Since(l.began[id]))
	delete(l.began, id)
}

func (l *load) repeats() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total.Repeats++
}

// waited is the longest that a write has taken since the last call, repeats included; waiting is how
// long one has waited that is not answered yet.
func (l *load) waited() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	longest := l.longest
	l.longest = 0
	return longest
}

func (l *load) waiting() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	var longest time.Duration
	for _, began := range l.began {
		longest = max(longest, time.Since(began))
	}
	return longest
}

// receipts are the numbers of the last acknowledged transfer of each writer.
func (l *load) receipts() map[int]int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.acked)
}

// failed counts an error that cost so many connections.
func (l *load) failed(err error, lost int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total.Errors++
	l.total.Lost += lost
	l.last = err
}

// totals is a copy of the tally.
func (l *load) totals() tally {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total.copied()
}

func (t tally) copied() tally {
	t.Reads, t.Writes = maps.Clone(t.Reads), maps.Clone(t.Writes)
	return t
}

// now is a copy of the tally, how long the reads since the last call took, and the last error that
// a client met.
func (l *load) now() (tally, []time.Duration, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	spent := l.spent
	l.spent = nil
	return l.total.copied(), spent, l.last
}

// since is what happened between two tallies.
func (t tally) since(before tally) tally {
	diff := tally{Reads: map[string]int{}, Writes: map[string]int{}}
	diff.Errors, diff.Lost, diff.Repeats = t.Errors-before.Errors, t.Lost-before.Lost, t.Repeats-before.Repeats
	for node, n := range t.Reads {
		diff.Reads[node] = n - before.Reads[node]
	}
	for node, n := range t.Writes {
		diff.Writes[node] = n - before.Writes[node]
	}
	return diff
}

func sortedKeys(counts map[string]int) []string { return slices.Sorted(maps.Keys(counts)) }

func sum(counts map[string]int) int {
	n := 0
	for _, c := range counts {
		n += c
	}
	return n
}

// quantile of durations, in milliseconds.
func quantile(spent []time.Duration, q float64) float64 {
	if len(spent) == 0 {
		return 0
	}
	slices.Sort(spent)
	return float64(spent[int(q*float64(len(spent)-1))].Microseconds()) / 1000
}
