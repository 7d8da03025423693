package proxy

import (
	"math"
	"strings"
	"testing"

	"github.com/cstproxy/cstproxy/ha/topology"
	"github.com/cstproxy/cstproxy/proxy/reactor"
)

// bench is a client and servers whose links keep nothing: what is counted is the machine's alone.
type bench struct {
	w       *world
	session *session
	client  *silentLink
	servers map[topology.NodeID]*fakeServer
}

// silentLink counts bytes and drops them.
type silentLink struct {
	fakeLink
	bytes int
}

func (l *silentLink) Write(b []byte)  { l.bytes += len(b) }
func (l *silentLink) Buffer(b []byte) { l.bytes += len(b) }

// In steady state a turn costs the machine no allocation.
func TestATurnAllocatesNothing(t *testing.T) {
	for _, test := range []struct {
		name, prepare, turn, answer string
		lease                       bool
	}{
		{"simple insert under a lease", "", `Query "insert into t values (1)"`, `Complete "INSERT 0 1" | Ready I`, true},
		{"simple select", "", `Query "select 1"`, `Result "1" | Ready I`, false},
		{"simple insert", "", `Query "insert into t values (1)"`, `Complete "INSERT 0 1" | Ready I`, false},
		{"unnamed extended", "", `Run "select 1" | Sync`, `ParseComplete | BindComplete | Columns "a" | Row "1" | Complete "SELECT 1" | Ready I`, false},
		{"unnamed extended with parameters", "", `Parse "" "select $1" 23 | Bind "" "" "7" | Execute "" 0 | Sync`, `ParseComplete | BindComplete | Row "1" | Complete "SELECT 1" | Ready I`, false},
		{"prepared", `Parse "a" "select 1" | Sync`, `Bind "" "a" | Execute "" 0 | Sync`, `BindComplete | Row "1" | Complete "SELECT 1" | Ready I`, false},
		{"prepared insert", `Parse "a" "insert into t values (1)" | Sync`, `Bind "" "a" | Execute "" 0 | Sync`, `BindComplete | Complete "INSERT 0 1" | Ready I`, false},
		{"Sync", "", `Sync`, ``, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t)
			if test.lease {
				b.lease()
			}
			if test.prepare != "" {
				b.play(t, encode(t, test.prepare, false), encode(t, `ParseComplete | Ready I`, true))
			}
			turn, answer := encode(t, test.turn, false), encode(t, test.answer, true)
			for range 10 {
				b.prepareAll(t, turn, answer)
			}
			if n := testing.AllocsPerRun(1000, func() { b.play(t, turn, answer) }); n != 0 {
				t.Errorf("%v allocations per turn", n)
			}
		})
	}
}

func encode(t testing.TB, notation string, fromServer bool) []byte {
	b, err := parseMessages(notation, fromServer)
	if err != nil && notation != "" {
		t.Fatal(err)
	}
	return b
}

func newBench(t testing.TB) *bench {
	b := &bench{w: newWorld(t, nil), client: &silentLink{}, servers: map[topology.NodeID]*fakeServer{}}
	b.client.w = b.w
	b.session = b.w.p.accept(b.client, listening{cluster: b.w.c, Listener: Listener{Mode: ListenAuto}})
	b.session.Data(startupPacket(3 << 16))
	b.w.settle()
	return b
}

// lease gives the cluster a lease by the real clock.
func (b *bench) lease() {
	b.w.p.boottime = reactor.Boottime
	v := *b.w.board.View()
	v.Lease = &topology.Lease{}
	v.Lease.Renew(math.MaxInt64)
	b.w.board.Publish(&v)
	b.w.c.viewChanged(&v)
}

// prepareAll plays the turn on whichever server it goes to, until all have seen it; a server that is
// asked to parse first answers that, too.
func (b *bench) prepareAll(t testing.TB, turn, answer []byte) {
	b.session.Data(turn)
	b.w.settle()
	for _, srv := range b.w.servers {
		if _, ok := b.servers[srv.node]; !ok {
			b.servers[srv.node] = srv
			srv.Server.Link = &silentLink{fakeLink: fakeLink{w: b.w}}
		}
	}
	b.answer(t, answer)
}

func (b *bench) play(t testing.TB, turn, answer []byte) {
	b.session.Data(turn)
	if b.session.phase == phaseWaiting {
		b.w.settle()
	}
	b.answer(t, answer)
}

func (b *bench) answer(t testing.TB, answer []byte) {
	if b.session.turn != nil {
		if x := b.session.turn.replies.first(); x != nil && x.kind == replyParseHidden {
			b.session.held.Data(parseComplete)
		}
		b.session.held.Data(answer)
	}
	if b.session.phase != phaseIdle {
		t.Fatalf("the turn is not over: phase %d", b.session.phase)
	}
}

func BenchmarkTurn(b *testing.B) {
	for _, test := range []struct{ name, turn, answer string }{
		{"simple", `Query "select 1"`, `Result "1" | Ready I`},
		{"extended", `Run "select 1" | Sync`, `ParseComplete | BindComplete | Columns "a" | Row "1" | Complete "SELECT 1" | Ready I`},
		{"insert", `Query "insert into t values (1)"`, `Complete "INSERT 0 1" | Ready I`},
		{"insert under a lease", `Query "insert into t values (1)"`, `Complete "INSERT 0 1" | Ready I`},
	} {
		b.Run(test.name, func(b *testing.B) {
			w := newBench(b)
			if strings.HasSuffix(test.name, "lease") {
				w.lease()
			}
			turn, answer := encode(b, test.turn, false), encode(b, test.answer, true)
			for range 10 {
				w.prepareAll(b, turn, answer)
			}
			b.ReportAllocs()
			for b.Loop() {
				w.play(b, turn, answer)
			}
		})
	}
}
