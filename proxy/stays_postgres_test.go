package proxy

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// A server that is killed, stopped or that crashes under load ends no client's connection, and takes no
// acknowledged row along: its clients read what is known of the statement that was cut, as an ERROR, and go
// on when there is a server again. Whom pg_terminate_backend means is ended all the same.
func TestNoClientIsLostWhenItsServerGoes(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	f := newFailover(ctx, t)
	l := f.startLoad(9)
	for _, way := range []struct {
		name string
		end  func() error
	}{
		{"postmaster is killed", func() error { return f.killPostmaster() }},
		{"fast shutdown", func() error { return f.old.Stop(ctx) }},
		{"all is killed", func() error { f.old.Kill(); return nil }},
		{"a server process crashes", func() error {
			_, err := f.old.Psql(ctx, "copy (select 1) to program 'kill -9 $PPID'")
			if err == nil {
				return errors.New("it survived")
			}
			return nil
		}},
	} {
		l.flows(way.name + ": before")
		if err := way.end(); err != nil {
			t.Fatalf("%s: %v", way.name, err)
		}
		f.waitFor("it to start after: "+way.name, func() bool { return f.old.Start(ctx) == nil })
		l.flows(way.name + ": after")
	}
	l.stop()
	t.Logf("%d rows acknowledged; read: %v", f.acked.Load(), l.read)
	l.compare()

	meant := f.connect()
	f.must(meant, "begin; insert into w values (-1)")
	if got := f.ask(f.old, "select count(pg_terminate_backend(pid)) from pg_stat_activity where state = 'idle in transaction'"); got != "1" {
		t.Fatalf("%s server processes were ended, want 1", got)
	}
	f.waitFor("the client to be ended", func() bool { return f.proxy.Stats().Refusals()["57P01"] == 1 })
	var said *pgconn.PgError
	if err := f.exec(meant, "commit"); !errors.As(err, &said) || said.Severity != "FATAL" || said.Code != "57P01" {
		if err == nil || !meant.IsClosed() {
			t.Errorf("the client that was meant reads %v", err)
		}
	}
}

// killPostmaster ends the postmaster alone: its server processes notice by themselves.
func (f *failover) killPostmaster() error {
	if err := syscall.Kill(f.old.PID(), syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill the postmaster: %w", err)
	}
	f.waitFor("the postmaster to be gone", func() bool { return !f.old.Running() })
	return nil
}

// load is clients that never end: writers of single rows, of transactions, and readers.
type load struct {
	f    *failover
	over atomic.Bool
	all  sync.WaitGroup
	ends []atomic.Int64 // by client: how many statements have ended

	mu      sync.Mutex
	acked   []int
	unknown map[int]bool
	read    map[string]int // errors by SQLSTATE
}

func (f *failover) startLoad(n int) *load {
	l := &load{f: f, ends: make([]atomic.Int64, n), unknown: map[int]bool{}, read: map[string]int{}}
	for i := range n {
		conn := f.connect()
		l.all.Go(func() {
			for id := (i + 1) * 1_000_000; !l.over.Load() && f.ctx.Err() == nil; id++ {
				if !l.one(conn, i, id) {
					return
				}
				l.ends[i].Add(1)
			}
		})
	}
	return l
}

// one does what client i does with the number id; false when its connection is not what it should be.
func (l *load) one(conn *pgconn.PgConn, i, id int) bool {
	insert := fmt.Sprintf("insert into w values (%d)", id)
	script := [][]string{{insert}, {"begin", insert, "commit"}, {"select count(*) from w where id < 0"}}[i%3]
	for _, sql := range script {
		err := l.f.exec(conn, sql)
		if err == nil {
			continue
		}
		var said *pgconn.PgError
		if !errors.As(err, &said) || said.Severity != "ERROR" || conn.IsClosed() {
			l.f.t.Errorf("client %d, %s: %v", i, sql, err)
			return false
		}
		l.mu.Lock()
		l.read[said.Code]++
		l.unknown[id] = said.Code == "08007"
		l.mu.Unlock()
		switch said.Code {
		case "08007", "08006":
		case "40001":
			if conn.TxStatus() != 'I' {
				err = l.f.exec(conn, "rollback")
			} else {
				err = nil
			}
			if err != nil {
				l.f.t.Errorf("client %d, rollback: %v", i, err)
				return false
			}
		default:
			l.f.t.Errorf("client %d, %s: %v", i, sql, err)
		}
		return conn.TxStatus() == 'I'
	}
	if i%3 != 2 {
		l.mu.Lock()
		l.acked = append(l.acked, id)
		l.mu.Unlock()
		l.f.acked.Add(1)
	}
	return true
}

// flows waits until each client has done a little more.
func (l *load) flows(what string) {
	l.f.t.Helper()
	before := make([]int64, len(l.ends))
	for i := range l.ends {
		before[i] = l.ends[i].Load()
	}
	for i := range l.ends {
		l.f.waitFor(fmt.Sprintf("client %d, %s", i, what), func() bool { return l.ends[i].Load() >= before[i]+20 || l.f.t.Failed() })
	}
	if l.f.t.Failed() {
		l.stop()
		l.f.t.FailNow()
	}
}

func (l *load) stop() {
	l.over.Store(true)
	l.all.Wait()
}

// compare holds what the clients know against what there is.
func (l *load) compare() {
	l.f.t.Helper()
	rows := map[int]int{}
	for _, text := range strings.Fields(l.f.ask(l.f.old, "select id from w")) {
		id, err := strconv.Atoi(text)
		if err != nil {
			l.f.t.Fatal(err)
		}
		rows[id]++
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	known := map[int]bool{}
	for _, id := range l.acked {
		known[id] = true
		if rows[id] != 1 {
			l.f.t.Errorf("row %d was acknowledged and is there %d times", id, rows[id])
		}
	}
	for id, n := range rows {
		if !known[id] && (!l.unknown[id] || n != 1) {
			l.f.t.Errorf("row %d is there %d times, and its client knows nothing of it", id, n)
		}
	}
}
