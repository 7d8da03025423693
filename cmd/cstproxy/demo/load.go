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
}

// tally counts answers by node name.
type tally struct {
	Reads, Writes map[string]int
	Errors        int
}

func newLoad(url string, nodes []*pglocal.Node) *load {
	return &load{url: url, nodes: nodes, total: tally{Reads: map[string]int{}, Writes: map[string]int{}}}
}

// The statements name their server. The read is the classic one: a row by its key.
const (
	readSQL  = "SELECT balance, current_setting('pglocal.node') FROM account WHERE id = $1"
	writeSQL = "UPDATE account SET balance = balance + $2 WHERE id = $1 RETURNING balance, current_setting('pglocal.node')"
	logSQL   = "INSERT INTO transfer (account, amount) VALUES ($1, $2)"
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
					l.failed(err)
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

// write is a transaction, and a read of what it wrote: the promise of read-your-writes.
func (l *load) write(ctx context.Context, conn *pgx.Conn, id int) error {
	var wrote, seen int64
	var node, reader string
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, logSQL, id, 1); err != nil {
			return err
		}
		return tx.QueryRow(ctx, writeSQL, id, 1).Scan(&wrote, &node)
	})
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if err := conn.QueryRow(ctx, readSQL, id).Scan(&seen, &reader); err != nil {
		return fmt.Errorf("read after write: %w", err)
	}
	if seen < wrote {
		return fmt.Errorf("%w: wrote %d on %s, read %d on %s", errStale, wrote, node, seen, reader)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total.Writes[node]++
	return nil
}

func (l *load) failed(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total.Errors++
	l.last = err
}

// now is a copy of the tally, how long the reads since the last call took, and the last error that
// a client met.
func (l *load) now() (tally, []time.Duration, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	spent := l.spent
	l.spent = nil
	t := l.total
	t.Reads, t.Writes = maps.Clone(t.Reads), maps.Clone(t.Writes)
	return t, spent, l.last
}

// since is what happened between two tallies.
func (t tally) since(before tally) tally {
	diff := tally{Reads: map[string]int{}, Writes: map[string]int{}, Errors: t.Errors - before.Errors}
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
