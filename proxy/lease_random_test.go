package proxy

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cstproxy/cstproxy/ha/topology"
	"github.com/cstproxy/cstproxy/proxy/backend"
)

// At any moment the lease lapses, is renewed or ends, the View freezes and thaws, a promotion forks the
// data, and servers die. Nothing that a primary says of a write reaches a client while the lease is not
// held; whatever is told to have committed is in the data of the last primary, and what is unknown is
// there at most once; each turn is answered with one ReadyForQuery.
func TestNothingThatALostEpochSaysIsBelieved(t *testing.T) {
	checkOften(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		f := newForks(t, rt, seed, rapid.IntRange(3, 60).Draw(rt, "often"))
		if f.w.p.cfg.PoolMode = rapid.SampledFrom([]PoolMode{TransactionPooling, SessionPooling}).Draw(rt, "pool_mode"); f.w.p.cfg.PoolMode == SessionPooling {
			f.w.p.cfg.PoolSize = 3
		}
		f.w.p.cfg.HoldWrites = rapid.SampledFrom([]time.Duration{time.Hour, 200 * time.Millisecond, 0}).Draw(rt, "hold_writes")
		w := f.w
		clients := []*fakeClient{w.login(), w.login(), w.login()}
		w.cut, w.order = randomCuts(seed), rand.New(rand.NewPCG(seed, 2))
		programs := make([][]string, len(clients))
		for i, c := range clients {
			for range rapid.IntRange(3, 12).Draw(rt, "turns") {
				programs[i] = append(programs[i], leaseTurns(rt, fmt.Sprintf("t%d", i))...)
			}
			c.link.spy = func(b []byte) { f.spy(c.session.held, b) }
		}
		w.killing = f.event
		sent := make([]int, len(clients))
		for round := range 60 {
			for i, c := range clients {
				n := min(sent[i]+f.order.IntN(3), len(programs[i])) // pipelined, or after the answer, or idle for a while
				if round == 50 {
					n = len(programs[i])
				}
				c.link.in = append(c.link.in, encodeProgram(t, programs[i][sent[i]:n])...)
				sent[i] = n
			}
			w.settle()
			w.takeStrikes()
			w.advance(time.Duration(1+w.order.IntN(60)) * time.Millisecond)
		}
		f.rest()
		w.killing = nil
		for range 100 {
			w.advance(100 * time.Millisecond)
		}
		for i, c := range clients {
			account := readAccount(rt, renderMessages(c.received(), true))
			rows := f.truth.rows[fmt.Sprintf("t%d", i)]
			text := strings.Join(programs[i], "|")
			turns := strings.Count(text, "Sync") + strings.Count(text, "Query")
			if rows < account.committed || rows > account.committed+account.unknown || account.ready != turns && !account.ended {
				rt.Fatalf("%d rows, %+v, %d turns:\n%s\n%s", rows, account, turns, text, strings.Join(account.list, "\n"))
			}
		}
		if n := w.p.OpenWrites("main"); n != 0 || w.p.stats.HeldTurns.Load() != 0 || w.p.stats.HeldAnswers.Load() != 0 {
			rt.Fatalf("at rest %d writes are open, %d and %d held", n, w.p.stats.HeldTurns.Load(), w.p.stats.HeldAnswers.Load())
		}
	})
}

func leaseTurns(rt *rapid.T, table string) []string {
	turns := rapid.SampledFrom([][]string{{`Query "insert into TABLE values (1)"`}, {`Run "insert into TABLE values (1)" | Sync`},
		{`Close S "a" | Parse "a" "insert into TABLE values (1)" | Bind "" "a" | Execute "" 0 | Sync`}, {`Query "select count(*) from TABLE"`},
		{`Query "begin"`, `Query "insert into TABLE values (1)"`, `Run "insert into TABLE values (1)" | Sync`, `Query "commit"`},
		{`Query "begin"`, `Query "insert into TABLE values (1)"`, `Query "rollback"`},
		{`Query "copy TABLE from stdin" | CopyData "1\n" | CopyData "2\n" | CopyDone`},
		{`Query "insert into TABLE values (1); select 1"`}, {`Sync`}}).Draw(rt, "turn")
	out := make([]string, len(turns))
	for i := range turns {
		out[i] = strings.ReplaceAll(turns[i], "TABLE", table)
	}
	return out
}

// forks is a cluster whose primary changes. truth is the data that counts: that of the present primary,
// and of the next one from its promotion on. What an older primary commits after that is in its own.
type forks struct {
	w       *world
	rt      *rapid.T
	order   *rand.Rand
	often   int
	truth   *modelDB
	stale   *modelDB // the old primary's, from the promotion until the next View
	primary topology.NodeID
	next    topology.NodeID // being promoted
	models  map[*fakeServer]*modelServer
	step    forkStep
}

type forkStep int

const (
	forkNone forkStep = iota
	forkIntended
	forkPromoted
)

func newForks(t *testing.T, rt *rapid.T, seed uint64, often int) *forks {
	f := &forks{rt: rt, order: rand.New(rand.NewPCG(seed, 3)), often: often, truth: &modelDB{rows: map[string]int{}}, primary: 1, models: map[*fakeServer]*modelServer{}}
	w := newWorld(t, func(c *Config) { c.PoolSize, c.MaxPrepared = 2, 2 })
	w.catalog.knowledge = modelKnowledge
	w.leased = true
	w.publish(2, 1, 2, 3)
	w.model = func(srv *fakeServer) peer {
		m := newModelServer(f.truth)
		m.readOnly = srv.node != f.primary
		if f.step == forkPromoted {
			m.readOnly = srv.node != f.primary && srv.node != f.next
			if srv.node == f.primary {
				m.db = f.stale
			}
		}
		f.models[srv] = m
		return m
	}
	f.w = w
	return f
}

// spy sees what clients are sent, from srv perhaps: without the lease nothing that a primary has said.
func (f *forks) spy(srv *backend.Server, b []byte) {
	if f.w.lease.Held(f.w.now.UnixNano()) {
		return
	}
	if srv != nil && srv.Key.Node != f.primary {
		return // a standby, perhaps one that is being promoted
	}
	for _, tag := range []string{"INSERT 0 1", "COPY 2", "BEGIN", "COMMIT"} {
		if bytes.Contains(b, []byte(tag)) {
			f.rt.Fatalf("%q reaches a client without the lease", b)
		}
	}
}

func (f *forks) event() {
	if f.order.IntN(f.often) != 0 {
		return
	}
	w := f.w
	switch n := f.order.IntN(10); {
	case n < 2 && f.step == forkNone:
		w.lease.Suspend()
	case n < 4 && f.step == forkNone:
		w.lease.Renew(w.now.Add(time.Duration(1+f.order.IntN(200)) * time.Millisecond).UnixNano())
	case n == 4:
		w.freeze([]string{"", "a switchover is under way"}[f.order.IntN(2)])
	case n == 5 && len(w.servers) > 0 && f.order.IntN(4) == 0:
		kill(w.servers[f.order.IntN(len(w.servers))], anyEnd(f.order))
		if f.order.IntN(2) == 0 {
			clear(w.down)
		}
	case n > 5:
		f.failover()
	}
}

// failover takes its next step: nothing is promoted before the lease has lapsed.
func (f *forks) failover() {
	w := f.w
	switch f.step {
	case forkNone:
		w.lease.Suspend()
		f.step = forkIntended
	case forkIntended:
		if f.order.IntN(3) == 0 { // called off
			f.step = forkNone
			w.lease.Renew(w.now.Add(time.Hour).UnixNano())
			return
		}
		f.next = 1 + (f.primary+topology.NodeID(f.order.IntN(2)))%3
		f.stale = &modelDB{rows: maps.Clone(f.truth.rows)}
		for srv, m := range f.models {
			switch srv.node {
			case f.primary:
				m.db = f.stale
			case f.next:
				m.readOnly = false
			}
		}
		f.step = forkPromoted
		if f.order.IntN(2) == 0 {
			w.lease.End()
		}
	case forkPromoted:
		old := f.primary
		f.step, f.primary = forkNone, f.next
		var standbys []topology.NodeID
		for id := topology.NodeID(1); id <= 3; id++ {
			if id != f.primary {
				standbys = append(standbys, id)
			}
		}
		// The old primary comes back as a standby, so its server processes end. Here the View is first.
		w.publish(w.board.View().Epoch+1, f.primary, standbys...)
		for srv := range f.models {
			if srv.node == old {
				kill(srv, endsSilently)
				delete(f.models, srv)
			}
		}
	}
}

// rest brings the cluster to a healthy end.
func (f *forks) rest() {
	for f.step != forkNone {
		f.failover()
	}
	clear(f.w.down)
	f.w.lease.Renew(f.w.now.Add(time.Hour).UnixNano())
	f.w.freeze("")
}

// account is what a client has been told.
type account struct {
	committed, unknown, ready int
	ended                     bool
	list                      []string
}

func readAccount(rt *rapid.T, list []string) account {
	a := account{list: list}
	status := "I"
	pending, now, unknown, commit := 0, 0, false, false
	for _, m := range list {
		switch {
		case m == `Complete "INSERT 0 1"`:
			now++
		case m == `Complete "COPY 2"`:
			now += 2
		case m == `Complete "COMMIT"`:
			commit = true
		case strings.HasPrefix(m, "Error ERROR 08007"):
			unknown = true
		case strings.HasPrefix(m, "Error FATAL"), strings.HasPrefix(m, "Raw"):
			a.ended = true
		case strings.HasPrefix(m, "Error ERROR 40001"), strings.HasPrefix(m, "Error ERROR 25P02"), strings.HasPrefix(m, "Error ERROR 08006"), strings.HasPrefix(m, "Error ERROR 57P03"):
		case strings.HasPrefix(m, "Error"):
			rt.Fatalf("a client reads %s", m)
		case strings.HasPrefix(m, "Ready"):
			a.ready++
			next := strings.TrimPrefix(m, "Ready ")
			switch {
			case unknown:
				a.unknown += pending + now + 2
				pending = 0
			case next == "T":
				pending += now
			case next == "I" && commit:
				a.committed += pending + now
				pending = 0
			case next == "I" && status == "I":
				a.committed += now
			default:
				pending = 0 // rolled back
			}
			status, now, unknown, commit = next, 0, false, false
		}
	}
	if a.ended {
		a.unknown += pending + now + 2
	}
	return a
}
