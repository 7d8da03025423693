package proxy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sort"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/balancer"
	"github.com/cstproxy/cstproxy/ha/topology"
	"github.com/cstproxy/cstproxy/proxy/auth"
	"github.com/cstproxy/cstproxy/proxy/backend"
	"github.com/cstproxy/cstproxy/proxy/catalog"
	"github.com/cstproxy/cstproxy/router"
)

// world is a Proxy without sockets, goroutines or a clock: links are byte slices, time stands still
// until advance, and what would arrive "in a later event" arrives in settle.
type world struct {
	t       testing.TB
	p       *Proxy
	c       *cluster
	board   *topology.Board
	leased  bool // Views come with a lease, one for each epoch
	lease   *topology.Lease
	catalog *fakeCatalog
	now     time.Time
	// clockReads counts how often the leases' clock was read.
	clockReads int
	posts      []func()
	timers     []*fakeTimer
	links      []*fakeLink
	servers    []*fakeServer
	strikes    []strike
	down       map[topology.NodeID]error
	// stalled holds the ends of dials to nodes that answer nothing for the time being.
	stalled map[topology.NodeID][]func()
	// reports are what a new server says of its parameters.
	reports map[string]string
	// cut says how many bytes of n arrive together.
	cut func(n int) int
	// order chooses whose turn it is, at random; nil: the oldest connection's.
	order *rand.Rand
	// killing is called before each event.
	killing func()
	// model makes what plays the server at the other end of a new connection; nil: nobody.
	model func(*fakeServer) peer
}

// peer plays a server: it is given what the proxy writes, and answers through the link.
type peer interface {
	take(b []byte) (answer []byte)
	// end is what it says when the proxy has shut down its side, before it closes.
	end() (answer []byte)
}

type strike struct {
	srv  *fakeServer
	done func(error)
}

func newWorld(t testing.TB, change func(*Config)) *world {
	cfg := DefaultConfig()
	cfg.Listen = ""
	if change != nil {
		change(&cfg)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	hba, err := auth.ParseRules([]auth.Rule{
		{Type: "host", Database: "all", User: "scram", Address: "all", Method: "scram-sha-256"},
		{Type: "host", Database: "all", User: "nobody", Address: "all", Method: "reject"},
		{Type: "host", Database: "all", User: "all", Address: "all", Method: "trust"}})
	if err != nil {
		t.Fatal(err)
	}
	rules, err := router.CompileRules(nil)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, board: topology.NewBoard("main"), catalog: &fakeCatalog{knowledge: smallDatabase}, now: time.Unix(1_000_000, 0),
		down: map[topology.NodeID]error{}, stalled: map[topology.NodeID][]func(){}, cut: func(n int) int { return n },
		reports: map[string]string{"client_encoding": "UTF8", "server_version": "15.14", "standard_conforming_strings": "on", "TimeZone": "Etc/UTC"}}
	w.publish(1, 1, 2, 3)
	w.p = newProxy(cfg, Parts{HBA: hba, Routing: rules, Clusters: []Cluster{{Name: "main", Board: w.board, Catalog: w.catalog,
		Balancer: balancer.New(balancer.DefaultConfig()), ReadOnly: balancer.New(balancer.Config{PrimaryReads: balancer.Never}),
		Failed: func(topology.NodeID) {}}}}, zap.NewNop())
	w.c = w.p.clusters[0]
	w.p.now = func() time.Time { return w.now }
	w.p.boottime = func() int64 { w.clockReads++; return w.now.UnixNano() }
	w.p.post = func(fn func()) bool { w.posts = append(w.posts, fn); return true }
	w.p.newTimer = func(fn func()) timer {
		a := &fakeTimer{w: w, fn: fn}
		w.timers = append(w.timers, a)
		return a
	}
	w.p.connect, w.p.strike = w.connect, w.strike
	w.p.retry = w.p.newTimer(w.p.lookAgain)
	w.p.sweep = w.p.newTimer(w.p.sweepPools)
	w.p.sweep.Set(time.Second)
	return w
}

// publish makes a View with this primary (0: none) and these healthy standbys.
func (w *world) publish(epoch topology.Epoch, primary topology.NodeID, standbys ...topology.NodeID) {
	v := &topology.View{Cluster: "main", Epoch: epoch, Primary: primary, SystemID: 7, Rounds: topology.NewRounds()}
	if primary == 0 {
		v.WhyNoPrimary = "the test took it away"
	}
	role := map[topology.NodeID]topology.Role{primary: topology.RolePrimary}
	for _, id := range standbys {
		role[id] = topology.RoleStandby
	}
	for id := topology.NodeID(1); id <= 3; id++ {
		n := topology.NodeView{Node: topology.Node{ID: id, Host: "127.0.0.1", Port: 5430 + int(id), Weight: 1}, Role: role[id], Health: topology.Healthy, Slot: int(id)}
		if role[id] == topology.RoleUnknown {
			n.Health, n.Why = topology.Down, "gone"
		}
		v.Nodes = append(v.Nodes, n)
	}
	// Standbys have replayed whatever anybody writes, unless a test says otherwise.
	v.Rounds.Reset(epoch)
	for i := range v.Nodes {
		v.Rounds.Mark(v.Nodes[i].Slot, 1<<40)
	}
	if w.leased {
		if w.lease == nil || w.board.View().Epoch != epoch {
			if w.lease != nil {
				w.lease.End()
			}
			w.lease = &topology.Lease{}
			w.lease.Renew(w.now.Add(time.Hour).UnixNano())
		}
		v.Lease = w.lease
	}
	w.board.Publish(v)
	if w.c != nil {
		w.c.viewChanged(v)
	}
}

// freeze publishes the present View again, frozen; an empty why thaws it.
func (w *world) freeze(why string) {
	v := *w.board.View()
	v.Frozen = why
	w.board.Publish(&v)
	w.c.viewChanged(&v)
}

// connect is a dial that succeeds, or fails as the test says.
func (w *world) connect(_ *cluster, key backend.Key, done func(*backend.Server, error)) {
	dial := func() {
		if err := w.down[key.Node]; err != nil {
			done(nil, err)
			return
		}
		srv := &fakeServer{node: key.Node}
		for _, other := range w.servers {
			if other.node == key.Node {
				srv.nth++
			}
		}
		srv.Server = &backend.Server{Key: key, PID: uint32(1000*int(key.Node) + srv.nth), Secret: []byte{byte(key.Node), 0, 0, byte(srv.nth)},
			Epoch: w.c.view.Epoch, Born: w.c.view.Rounds.Now(), Reported: map[string]string{}}
		for name, value := range w.reports {
			srv.Reported[name] = value
		}
		srv.link = w.newLink(srv.Server)
		srv.Server.Link = srv.link
		w.servers = append(w.servers, srv)
		if w.model != nil {
			srv.link.peer = w.model(srv)
		}
		done(srv.Server, nil)
	}
	if waiting, ok := w.stalled[key.Node]; ok {
		w.stalled[key.Node] = append(waiting, dial)
		return
	}
	w.posts = append(w.posts, dial)
}

func (w *world) strike(_ topology.Node, pid uint32, secret []byte, done func(error)) {
	for _, srv := range w.servers {
		if srv.PID == pid && string(srv.Secret) == string(secret) {
			w.strikes = append(w.strikes, strike{srv, done})
			return
		}
	}
	w.t.Errorf("cancel request for an unknown process %d", pid)
}

// accept is a client that connects.
func (w *world) accept(mode ListenerMode) *fakeClient {
	c := &fakeClient{w: w}
	c.link = w.newLink(nil)
	c.session = w.p.accept(c.link, listening{Listener: Listener{Mode: mode}, cluster: w.c})
	c.link.handler = c.session
	return c
}

func (w *world) newLink(h handler) *fakeLink {
	l := &fakeLink{w: w, handler: h}
	w.links = append(w.links, l)
	return l
}

// settle lets happen what is under way: posts, bytes on their way, ends of links.
func (w *world) settle() {
	for steps := 0; ; steps++ {
		if steps > 50_000_000 {
			w.t.Fatal("it never comes to rest")
		}
		if w.killing != nil {
			w.killing()
		}
		if len(w.posts) > 0 {
			fn := w.posts[0]
			w.posts = w.posts[1:]
			fn()
			continue
		}
		if !w.move() {
			return
		}
	}
}

// move delivers one piece of bytes, or one end; false when nothing is under way.
func (w *world) move() bool {
	if w.order != nil {
		w.order.Shuffle(len(w.links), func(i, j int) { w.links[i], w.links[j] = w.links[j], w.links[i] })
	}
	for i := 0; i < len(w.links); i++ {
		l := w.links[i]
		switch {
		case l.dead:
			w.links = append(w.links[:i], w.links[i+1:]...)
			i--
			continue
		case l.gone != nil:
			l.dead = true
			l.handler.Closed(l.gone)
			return true
		case len(l.in) > 0 && !l.paused:
			n := w.cut(len(l.in))
			piece := append(make([]byte, 0, n), l.in[:n]...)
			if l.in = l.in[n:]; len(l.in) == 0 {
				l.in = nil
			}
			l.handler.Data(piece)
			for i := range piece {
				piece[i] = 0xEE // bytes are valid until Data returns, and not longer
			}
			return true
		case l.eof && len(l.in) == 0 && l.onEnd == nil:
			l.gone = io.EOF
			return true
		case l.eof && len(l.in) == 0 && !l.ended && (!l.paused || w.order != nil): // over TLS it may come to a paused one
			l.ended = true
			l.onEnd()
			return true
		case l.peer != nil && len(l.out) > 0:
			b := l.out
			l.out = nil
			l.in = append(l.in, l.peer.take(b)...)
			return true
		case l.peer != nil && l.shut && !l.eof:
			l.in, l.eof = append(l.in, l.peer.end()...), true
			return true
		}
	}
	return false
}

// advance lets time pass.
func (w *world) advance(d time.Duration) {
	end := w.now.Add(d)
	for {
		var next *fakeTimer
		for _, a := range w.timers {
			if a.set && !a.at.After(end) && (next == nil || a.at.Before(next.at)) {
				next = a
			}
		}
		if next == nil {
			break
		}
		if next.at.After(w.now) {
			w.now = next.at
		}
		next.set = false
		next.fn()
		w.settle()
	}
	w.now = end
}

type fakeTimer struct {
	w   *world
	fn  func()
	at  time.Time
	set bool
}

func (a *fakeTimer) Set(d time.Duration) { a.at, a.set = a.w.now.Add(d), true }
func (a *fakeTimer) Stop()               { a.set = false }

type handler interface {
	Data(b []byte)
	Drained()
	Closed(err error)
}

// fakeLink is one connection: in is on its way to the proxy, out is what the proxy wrote.
type fakeLink struct {
	w       *world
	handler handler
	peer    peer
	in, out []byte
	extra   int // pretended bytes in the write queue
	writes  int
	paused  bool
	eof     bool // the peer has shut down its side behind what is in in; a server has closed
	onEnd   func()
	ended   bool // onEnd was called
	shut    bool // the proxy has shut down its side
	gone    error
	closed  bool // by the proxy
	dead    bool
	secure  func(tls.ConnectionState, error)
	spy     func(b []byte) // sees what the proxy writes, when it does
}

func (l *fakeLink) Write(b []byte) {
	l.writes++
	l.Buffer(b)
}

func (l *fakeLink) Buffer(b []byte) {
	if l.spy != nil {
		l.spy(b)
	}
	if !l.closed && !l.dead && !l.shut {
		l.out = append(l.out, b...)
	}
}

func (l *fakeLink) Queued() int { return l.extra }
func (l *fakeLink) Pause()      { l.paused = true }
func (l *fakeLink) Resume()     { l.paused = false }

func (l *fakeLink) Close() {
	if l.gone == nil {
		l.gone, l.closed = net.ErrClosed, true
	}
}

func (l *fakeLink) CloseAfterFlush() { l.Close() }
func (l *fakeLink) CloseWrite()      { l.shut = true }
func (l *fakeLink) OnEnd(fn func())  { l.onEnd = fn }

func (l *fakeLink) StartTLS(_ *tls.Config, done func(tls.ConnectionState, error), rest ...byte) {
	l.secure = done
}

func (l *fakeLink) RemoteAddr() netip.AddrPort { return netip.MustParseAddrPort("127.0.0.1:40000") }

// drain pretends that the queue has been written.
func (l *fakeLink) drain() {
	l.extra = 0
	l.handler.Drained()
}

type fakeServer struct {
	*backend.Server
	link *fakeLink
	node topology.NodeID
	nth  int
}

func (s *fakeServer) name() string {
	name := fmt.Sprintf("S%d", s.node)
	if s.nth > 0 {
		name += string(rune('a' + s.nth))
	}
	return name
}

type fakeClient struct {
	w       *world
	link    *fakeLink
	session *session
}

func (c *fakeClient) send(b []byte) {
	c.link.in = append(c.link.in, b...)
	c.w.settle()
}

// received takes what the client has been sent since the last call.
func (c *fakeClient) received() []byte {
	b := c.link.out
	c.link.out = nil
	return b
}

// login goes through the start-up of a trusted client and throws the greeting away.
func (w *world) login(params ...string) *fakeClient {
	w.t.Helper()
	c := w.accept(ListenAuto)
	c.send(startupPacket(3<<16, params...))
	if b := c.received(); len(b) < 6 || b[len(b)-6] != 'Z' {
		w.t.Fatalf("login: got %q", b)
	}
	return c
}

// state lists the pools, for transcripts: idle and used servers by node.
func (w *world) state() string {
	out := ""
	stats := w.c.pools.Stats()
	sort.Slice(stats, func(i, j int) bool {
		a, b := stats[i].Key, stats[j].Key
		return a.Node < b.Node || a.Node == b.Node && a.User < b.User
	})
	for _, st := range stats {
		if st.Total+st.Waiting+st.Dialing == 0 {
			continue
		}
		if out != "" {
			out += ", "
		}
		out += fmt.Sprintf("S%d idle %d used %d", st.Key.Node, st.Idle, st.Active)
		if st.Waiting > 0 {
			out += fmt.Sprintf(" waiting %d", st.Waiting)
		}
	}
	if out == "" {
		return "none"
	}
	return out
}

// byteByByte and randomCuts are ways in which a network cuts a stream.
func byteByByte(n int) int { return min(n, 1) }

func randomCuts(seed uint64) func(int) int {
	r := rand.New(rand.NewPCG(seed, 1))
	return func(n int) int {
		if r.IntN(4) == 0 {
			return n
		}
		return min(n, 1+r.IntN(1<<(1+r.IntN(16))))
	}
}

// fakeCatalog knows one user with a password, and the catalogue of an empty database.
type fakeCatalog struct {
	verifier  *auth.Verifier
	knowledge *router.Knowledge
	failing   bool
	forgotten int
	changed   int
}

var errCatalogDown = errors.New("no server answers")

func (c *fakeCatalog) Verifier(user string, done func(*auth.Verifier, error)) {
	switch {
	case c.failing:
		done(nil, errCatalogDown)
	case c.verifier == nil:
		done(nil, catalog.ErrUnknownUser)
	default:
		done(c.verifier, nil)
	}
}

func (c *fakeCatalog) Mock(user string) *auth.Verifier             { return auth.Mock([]byte("secret"), user) }
func (c *fakeCatalog) Forget(string)                               { c.forgotten++ }
func (c *fakeCatalog) Knowledge(database string) *router.Knowledge { return c.knowledge }
func (c *fakeCatalog) Changed(string)                              { c.changed++ }

// smallDatabase has two tables, a sequence and some functions.
var smallDatabase = router.NewKnowledge(router.Source{
	Relations: []router.Relation{{OID: 1, Schema: "public", Name: "t", Kind: 'r', Persistence: 'p'},
		{OID: 2, Schema: "public", Name: "u", Kind: 'r', Persistence: 'p'}, {OID: 3, Schema: "public", Name: "s", Kind: 'S', Persistence: 'p'}},
	Functions: []router.Function{{Schema: "pg_catalog", Name: "count"}, {Schema: "pg_catalog", Name: "generate_series"},
		{Schema: "pg_catalog", Name: "current_setting"}, {Schema: "pg_catalog", Name: "repeat"}, {Schema: "pg_catalog", Name: "nextval", Volatile: true},
		{Schema: "public", Name: "act", Volatile: true}},
})
