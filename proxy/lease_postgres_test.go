package proxy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cstproxy/cstproxy/ha/pglocal"
	"github.com/cstproxy/cstproxy/ha/topology"
	"github.com/cstproxy/cstproxy/proxy/auth"
	"github.com/cstproxy/cstproxy/proxy/reactor"
)

// A promotion beside a primary that is alive and that nobody has fenced: it goes on committing, and its
// sessions go on through the proxy. Every acknowledged row is on the new primary, the commit that only
// the old one made is reported as unknown, the open transaction as lost, and no connection breaks. Before
// that a lapse of the lease that is repaired shows as a delay only.
func TestAnUnfencedPrimaryIsNotBelievedAfterItsEpoch(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	f := newFailover(ctx, t)
	writers := f.startWriters(4)

	f.waitFor("the first rows", func() bool { return f.acked.Load() > 40 })
	f.renewing.Store(false)
	f.waitFor("all writers to be held", func() bool { return f.held() == 4 })
	before := f.acked.Load()
	f.renewing.Store(true)
	f.waitFor("the writers to go on", func() bool { return f.acked.Load() > before+40 })

	open, slow := f.connect(), f.connect()
	f.must(open, "begin; insert into w values (1000001)")
	answered := make(chan error, 1)
	go func() { answered <- f.exec(slow, "insert into w select 1000002 from pg_sleep(2)") }()
	f.waitFor("the slow statement to run", func() bool {
		return f.ask(f.old, "select count(*) from pg_stat_activity where query like 'insert into w select%' and state = 'active'") == "1"
	})
	f.publish(1, f.old.ID, "a failover is under way")
	f.waitFor("open writes to end but those two", func() bool { return f.proxy.OpenWrites("main") == 2 })
	f.renewing.Store(false)
	f.waitFor("the lease to lapse", func() bool { return !f.lease.Load().Held(reactor.Boottime()) })
	if err := f.pg.CatchUp(ctx); err != nil {
		t.Fatal(err)
	}
	if err := f.next.Promote(ctx); err != nil {
		t.Fatal(err)
	}
	f.waitFor("the old primary to commit once more", func() bool { return f.ask(f.old, "select count(*) from w where id = 1000002") == "1" })
	f.waitFor("its answer", func() bool { return f.proxy.Stats().HeldAnswers.Load() == 1 })
	if len(answered) > 0 {
		t.Fatalf("the commit of a lost epoch was answered: %v", <-answered)
	}

	before = f.acked.Load()
	f.lease.Load().End()
	f.publish(2, f.next.ID, "")
	f.renewing.Store(true)
	f.expect("08007", <-answered)
	f.expect("40001", f.exec(open, "insert into w values (1000003)"))
	f.must(open, "rollback")
	f.must(open, "insert into w values (1000004)")
	f.must(slow, "insert into w values (1000005)")
	f.waitFor("the writers to write to the new primary", func() bool { return f.acked.Load() > before+40 })
	writers()

	rows := map[string]int{}
	for _, id := range strings.Fields(f.ask(f.next, "select id from w")) {
		rows[id]++
	}
	for _, id := range []string{"1000001", "1000002", "1000003"} {
		if rows[id] != 0 {
			t.Errorf("row %s is on the new primary", id)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range append(f.rows, 1000004, 1000005) {
		if rows[fmt.Sprint(id)] != 1 {
			t.Errorf("row %d was acknowledged and is there %d times", id, rows[fmt.Sprint(id)])
		}
	}
}

// failover is a cluster with a board, and a lease, that the test holds in its hand.
type failover struct {
	t        *testing.T
	ctx      context.Context
	pg       *pglocal.Cluster
	old      *pglocal.Node
	next     *pglocal.Node
	board    *topology.Board
	proxy    *Proxy
	lease    atomic.Pointer[topology.Lease]
	renewing atomic.Bool
	acked    atomic.Int64

	mu   sync.Mutex
	rows []int // acknowledged
}

func newFailover(ctx context.Context, t *testing.T) *failover {
	f := &failover{t: t, ctx: ctx, board: topology.NewBoard("main")}
	f.pg = pglocal.ForTest(t, pglocal.Options{Auth: pglocal.Trust, Standbys: 1})
	f.old, f.next = f.pg.Primary(), f.pg.Standbys()[0]
	if _, err := f.old.Psql(ctx, "create table w (id int)"); err != nil {
		t.Fatal(err)
	}
	f.publish(1, f.old.ID, "")
	f.proxy = startProxy(t, f.board, []auth.Rule{{Type: "host", Database: "all", User: "all", Address: "all", Method: "trust"}},
		func(c *Config) { c.PoolSize, c.HoldWrites = 10, time.Minute })
	f.renewing.Store(true)
	renewing, stop := context.WithCancel(ctx)
	var renewer sync.WaitGroup
	renewer.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for renewing.Err() == nil {
			if f.renewing.Load() {
				f.lease.Load().Renew(reactor.Boottime() + int64(200*time.Millisecond))
			}
			select {
			case <-tick.C:
			case <-renewing.Done():
			}
		}
	})
	t.Cleanup(func() { stop(); renewer.Wait() })
	return f
}

// publish shows a View in which only the primary is healthy; each epoch has a lease.
func (f *failover) publish(epoch topology.Epoch, primary int, frozen string) {
	if f.board.View().Epoch != epoch {
		f.lease.Store(&topology.Lease{})
	}
	v := &topology.View{Cluster: "main", Epoch: epoch, Primary: topology.NodeID(primary), SystemID: 7, Lease: f.lease.Load(), Frozen: frozen, Rounds: topology.NewRounds()}
	for _, n := range []*pglocal.Node{f.old, f.next} {
		nv := topology.NodeView{Node: topology.Node{ID: topology.NodeID(n.ID), Host: n.Host, Port: n.Port, Weight: 1}, Health: topology.Down, Why: "the test says so"}
		if n.ID == primary {
			nv.Role, nv.Health, nv.Why = topology.RolePrimary, topology.Healthy, ""
		}
		v.Nodes = append(v.Nodes, nv)
	}
	f.board.Publish(v)
}

// startWriters lets n clients write rows of their own; the returned function ends them.
func (f *failover) startWriters(n int) func() {
	var writing sync.WaitGroup
	var over atomic.Bool
	for i := range n {
		conn := f.connect()
		writing.Go(func() {
			for id := i * 100_000; !over.Load() && f.ctx.Err() == nil; id++ {
				if err := f.exec(conn, fmt.Sprintf("insert into w values (%d)", id)); err != nil {
					f.t.Errorf("a writer reads: %v", err)
					return
				}
				f.mu.Lock()
				f.rows = append(f.rows, id)
				f.mu.Unlock()
				f.acked.Add(1)
			}
		})
	}
	return func() { over.Store(true); writing.Wait() }
}

func (f *failover) held() int64 {
	st := f.proxy.Stats()
	return st.HeldTurns.Load() + st.HeldAnswers.Load()
}

func (f *failover) connect() *pgconn.PgConn {
	f.t.Helper()
	conn, err := pgconn.Connect(f.ctx, "postgres://postgres@"+f.proxy.Addresses()[0].String()+"/postgres?sslmode=disable")
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func (f *failover) exec(conn *pgconn.PgConn, sql string) error {
	_, err := conn.Exec(f.ctx, sql).ReadAll()
	return err
}

func (f *failover) must(conn *pgconn.PgConn, sql string) {
	f.t.Helper()
	if err := f.exec(conn, sql); err != nil {
		f.t.Fatalf("%s: %v", sql, err)
	}
}

func (f *failover) expect(code string, err error) {
	f.t.Helper()
	var said *pgconn.PgError
	if !errors.As(err, &said) || said.Code != code || said.Severity != "ERROR" {
		f.t.Errorf("got %v, want %s", err, code)
	}
}

// ask asks a server itself.
func (f *failover) ask(n *pglocal.Node, sql string) string {
	f.t.Helper()
	out, err := n.Psql(f.ctx, sql)
	if err != nil {
		f.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

func (f *failover) waitFor(what string, done func() bool) {
	f.t.Helper()
	for !done() {
		select {
		case <-f.ctx.Done():
			f.t.Fatalf("waited in vain for %s: %d rows, %d held, %d open", what, f.acked.Load(), f.held(), f.proxy.OpenWrites("main"))
		case <-time.After(5 * time.Millisecond):
		}
	}
}
