package proxy

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/cstproxy/cstproxy/router"
)

// Whatever a client sends, it reads through the proxy what it would read directly: however its
// bytes are cut, whatever others do meanwhile, with few servers and hardly any room for statements.
func TestAClientReadsThroughTheProxyWhatItWouldReadDirectly(t *testing.T) {
	checkOften(t, func(rt *rapid.T) {
		clients := rapid.IntRange(1, 3).Draw(rt, "clients")
		programs := make([][]string, clients)
		for i := range programs {
			programs[i] = drawProgram(rt, fmt.Sprintf("t%d", i))
		}
		seed := rapid.Uint64().Draw(rt, "seed")
		config := func(c *Config) {
			c.PoolSize = rapid.IntRange(1, 3).Draw(rt, "pool")
			c.MaxPrepared = rapid.IntRange(1, 3).Draw(rt, "prepared")
			c.MaxTurnBytes = 4096
			if rapid.Bool().Draw(rt, "session pooling") {
				c.PoolMode, c.PoolSize = SessionPooling, clients
			}
		}
		want := runDirectly(t, programs)
		ends := rapid.SampledFrom([]clientEnd{staysConnected, sendsNoMore}).Draw(rt, "end")
		got := runThroughProxy(t, programs, config, seed, ends)
		for i := range programs {
			if w, g := strings.Join(sortStatus(want[i]), "\n"), strings.Join(sortStatus(got[i]), "\n"); w != g {
				rt.Fatalf("client %d of %d sends\n  %s\n%s\nthrough the proxy:\n%s", i, len(programs), strings.Join(programs[i], "\n  "), firstDifference(w, g), g)
			}
		}
	})
}

func TestAParseThatFailsBehindAFlushLeavesNothingUnderItsName(t *testing.T) {
	programs := [][]string{{
		`Parse "b" "select 1" | Sync`,
		`Parse "b" "select 1" | Flush | Sync`,
		`Close S "b" | Sync`,
		`Bind "" "b" | Execute "" 0 | Sync`,
	}}
	want := strings.Join(sortStatus(runDirectly(t, programs)[0]), "\n")
	for seed := range uint64(200) { // whether the error has come when the Sync is passed on
		config := func(c *Config) { c.PoolMode = SessionPooling }
		got := strings.Join(sortStatus(runThroughProxy(t, programs, config, seed, staysConnected)[0]), "\n")
		if want != got {
			t.Fatalf("seed %d: %s", seed, firstDifference(want, got))
		}
	}
}

// checkOften checks a property a thousand times; a hundred are too few for what is drawn here.
func checkOften(t *testing.T, property func(*rapid.T)) {
	for i := range 10 {
		if !t.Run(fmt.Sprintf("part %d", i+1), rapid.MakeCheck(property)) {
			return
		}
	}
}

func encodeProgram(t testing.TB, turns []string) []byte {
	var out []byte
	for _, turn := range turns {
		b, err := parseMessages(turn, false)
		if err != nil {
			t.Fatalf("%s: %v", turn, err)
		}
		out = append(out, b...)
	}
	return out
}

// runDirectly plays each program against a model server of its own.
func runDirectly(t testing.TB, programs [][]string) [][]string {
	db := &modelDB{rows: map[string]int{}}
	out := make([][]string, len(programs))
	for i, turns := range programs {
		m := newModelServer(db)
		m.strict = true
		out[i] = renderMessages(m.take(encodeProgram(t, turns)), true)
	}
	return out
}

// clientEnd is what a client does when it has sent its program.
type clientEnd int

const (
	staysConnected clientEnd = iota
	sendsNoMore              // it shuts down its sending side
)

// phase is where its session is when everything is answered.
func (e clientEnd) phase() phase {
	if e == sendsNoMore {
		return phaseClosed
	}
	return phaseIdle
}

func runThroughProxy(t testing.TB, programs [][]string, config func(*Config), seed uint64, end clientEnd) [][]string {
	w := newWorld(t, config)
	w.catalog.knowledge = modelKnowledge
	w.cut, w.order = randomCuts(seed), rand.New(rand.NewPCG(seed, 2))
	db := &modelDB{rows: map[string]int{}}
	w.model = func(srv *fakeServer) peer {
		m := newModelServer(db)
		m.readOnly, m.strict = srv.node != 1, true
		return m
	}
	w.reports = map[string]string{"TimeZone": "Etc/UTC"}
	var clients []*fakeClient
	for range programs {
		clients = append(clients, w.login())
	}
	for i, c := range clients {
		c.link.in = encodeProgram(t, programs[i])
		c.link.eof = end == sendsNoMore
	}
	w.settle()
	out := make([][]string, len(programs))
	for i, c := range clients {
		if end == sendsNoMore && c.session.phase == phaseClosed != c.link.closed {
			t.Error("a session has ended and its connection has not")
		}
		out[i] = renderMessages(c.received(), true)
		if s := c.session; s.phase != end.phase() || len(s.in)+len(c.link.in) > 0 {
			out[i] = append(out[i], fmt.Sprintf("STUCK in phase %d with %d bytes, %d on their way, paused %v; %s", s.phase, len(s.in), len(c.link.in), c.link.paused, w.state()))
		}
	}
	return out
}

// modelKnowledge is the catalogue of the model's database.
var modelKnowledge = func() *router.Knowledge {
	src := router.Source{Functions: []router.Function{{Schema: "pg_catalog", Name: "count"}, {Schema: "pg_catalog", Name: "set_config", Volatile: true}}}
	for i := range 3 {
		src.Relations = append(src.Relations, router.Relation{OID: uint32(i + 1), Schema: "public", Name: fmt.Sprintf("t%d", i), Kind: 'r', Persistence: 'p'})
	}
	return router.NewKnowledge(src)
}()
