package proxy

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"pgregory.net/rapid"
)

// Servers die at any moment, with or without a last word. Whoever is told that a row was inserted
// finds it, once; whoever is told that nobody knows may find it or not, but never twice. Each turn is
// answered with one ReadyForQuery. No session ends by it, unless a node ends one connection and goes on.
func TestNoWriteIsLostOrRunTwiceWhenServersDie(t *testing.T) {
	checkOften(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		often := rapid.IntRange(5, 200).Draw(rt, "often")
		onPurpose := rapid.Bool().Draw(rt, "on purpose")
		w := newWorld(t, func(c *Config) { c.PoolSize, c.MaxPrepared = 2, 2 })
		w.catalog.knowledge = modelKnowledge
		db := &modelDB{rows: map[string]int{}}
		w.model = func(srv *fakeServer) peer {
			m := newModelServer(db)
			m.readOnly = srv.node != 1
			return m
		}
		w.cut, w.order = randomCuts(seed), rand.New(rand.NewPCG(seed, 2))
		clients := []*fakeClient{w.login(), w.login(), w.login()}
		turns := make([]int, len(clients))
		for i, c := range clients {
			var program []string
			for range rapid.IntRange(5, 20).Draw(rt, "turns") {
				program = append(program, lossyTurn(rt, fmt.Sprintf("t%d", i)))
			}
			turns[i] = strings.Count(strings.Join(program, "|"), "Sync") + strings.Count(strings.Join(program, "|"), "Query")
			c.link.in = encodeProgram(t, program)
		}
		w.killing = func() {
			if w.order.IntN(often) == 0 && len(w.servers) > 0 {
				how := anyEnd(w.order)
				if how == endsAlone && !onPurpose {
					how = endsWithNode
				}
				kill(w.servers[w.order.IntN(len(w.servers))], how)
			}
			if onPurpose && w.order.IntN(often) == 0 {
				clear(w.down)
			}
		}
		w.settle()
		w.killing = nil
		clear(w.down)
		for range 100 {
			w.takeStrikes()
			w.advance(100_000_000) // who waits for a node that could not be reached asks again
		}
		for i, c := range clients {
			list := renderMessages(c.received(), true)
			if n := len(list); n > 0 && strings.HasPrefix(list[n-1], `Raw "`) && c.link.closed {
				list[n-1] = "Error FATAL: closed in the middle of a row" // nothing can be said there
			}
			checkLossy(rt, list, turns[i], db.rows[fmt.Sprintf("t%d", i)])
			if !onPurpose && strings.Contains(strings.Join(list, "\n"), "Error FATAL 57P01") {
				rt.Fatalf("a session ended with its server:\n%s", strings.Join(list, "\n"))
			}
		}
	})
}

func lossyTurn(rt *rapid.T, table string) string {
	return strings.ReplaceAll(rapid.SampledFrom([]string{`Query "insert into TABLE values (1)"`, `Run "insert into TABLE values (1)" | Sync`,
		`Close S "a" | Parse "a" "insert into TABLE values (1)" | Bind "" "a" | Execute "" 0 | Sync`, `Query "select count(*) from TABLE"`,
		`Run "values (1),(2),(3)" | Sync`, `Query "set timezone to 'Asia/Tokyo'"`, `Query "reset timezone"`, `Sync`}).Draw(rt, "turn"), "TABLE", table)
}

// takeStrikes lets all cancel requests arrive, too late.
func (w *world) takeStrikes() {
	for len(w.strikes) > 0 {
		k := w.strikes[0]
		w.strikes = w.strikes[1:]
		k.done(nil)
		w.settle()
	}
}

// ending is how a server ends.
type ending int

const (
	endsSilently ending = iota
	endsWithNode        // it is stopped: its last word, and the node takes no connections
	endsAlone           // its last word, and the node goes on
)

func anyEnd(r *rand.Rand) ending {
	return []ending{endsSilently, endsSilently, endsWithNode, endsAlone}[r.IntN(4)]
}

// kill ends a server: with its last word behind what it has sent, or at once.
func kill(srv *fakeServer, how ending) {
	l := srv.link
	if l.dead || l.gone != nil || l.eof {
		return
	}
	l.peer, l.out = nil, nil
	switch how {
	case endsSilently:
		l.in, l.gone = nil, syscall.ECONNRESET
		return
	case endsWithNode:
		l.w.down[srv.node] = syscall.ECONNREFUSED
	}
	last, err := parseMessages(`Error FATAL 57P01 "terminating connection due to administrator command"`, true)
	if err != nil {
		panic(err)
	}
	l.in, l.eof = append(l.in, last...), true
}

func checkLossy(rt *rapid.T, list []string, turns, rows int) {
	inserted, unknown, ready := 0, 0, 0
	for _, m := range list {
		switch {
		case strings.HasPrefix(m, "Raw"):
			rt.Fatalf("the client's stream is broken: %s", m)
		case m == `Complete "INSERT 0 1"`:
			inserted++
		case strings.HasPrefix(m, "Error ERROR 08007"), strings.HasPrefix(m, "Error FATAL 57P01"):
			unknown++
		case strings.HasPrefix(m, "Error FATAL: closed"), strings.HasPrefix(m, "Error ERROR 08006"): // a read of which something had been forwarded
		case strings.HasPrefix(m, "Error"):
			rt.Fatalf("a client reads %s", m)
		case strings.HasPrefix(m, "Ready"):
			ready++
		}
	}
	fatal := len(list) > 0 && strings.HasPrefix(list[len(list)-1], "Error FATAL")
	if rows < inserted || rows > inserted+unknown || !fatal && ready != turns {
		rt.Fatalf("%d rows for %d inserted and %d unknown; %d answers to %d turns:\n%s", rows, inserted, unknown, ready, turns, strings.Join(list, "\n"))
	}
}
