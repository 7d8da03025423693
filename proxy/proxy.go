package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"hash/maphash"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/cstproxy/cstproxy/ha/topology"
	"github.com/cstproxy/cstproxy/proxy/auth"
	"github.com/cstproxy/cstproxy/proxy/backend"
	"github.com/cstproxy/cstproxy/proxy/params"
	"github.com/cstproxy/cstproxy/proxy/reactor"
	"github.com/cstproxy/cstproxy/router"
)

// Parts are what the data plane is put together from.
type Parts struct {
	Clusters []Cluster // the first is the default one
	HBA      *auth.Rules
	Routing  *router.Rules
	Dialer   *backend.Dialer
}

// Proxy is the data plane. New opens its sockets; Run serves until its context ends.
type Proxy struct {
	cfg       Config
	log       *zap.Logger
	loop      *reactor.Loop
	now       func() time.Time
	boottime  func() int64 // the clock of leases: nanoseconds of CLOCK_BOOTTIME
	batch     time.Time    // the loop's time at which batchBoot was read
	batchBoot int64
	post      func(func()) bool
	newTimer  func(func()) timer
	clusters  []*cluster
	listeners []listening
	hba       *auth.Rules
	routing   *router.Rules
	tls       *tls.Config
	dialer    atomic.Pointer[backend.Dialer]
	// connect and strike are what needs sockets of their own: a new server connection, and a
	// cancel request. Their done is called on the loop.
	connect func(c *cluster, key backend.Key, done func(*backend.Server, error))
	strike  func(node topology.Node, pid uint32, secret []byte, done func(error))
	params  *params.Registry
	stmts   []*statement // unused ones
	turns   turns
	buffers buffers
	scratch []byte // for one message at a time
	message []byte

	statements *backend.Registry
	seed       maphash.Seed
	sessions   map[*session]struct{}
	keys       map[cancelKey]*session
	cancels    *rate.Limiter
	nextID     uint64
	stats      *Stats
	retry      timer // runs while watching: something is held
	watching   bool
	sweep      timer
	draining   bool
	drained    chan struct{}

	mu      sync.Mutex // guards running and work's Add against Run's end
	running context.Context
	work    sync.WaitGroup
}

type listening struct {
	Listener
	socket  net.Listener
	cluster *cluster
}

// statementMemory is how many bytes of prepared statements that no session uses are kept.
const statementMemory = 32 << 20

// cancelsPerSecond bounds how fast cancel requests are passed on; each costs a server a process.
const cancelsPerSecond = 200

// New opens the listening sockets; nobody is accepted before Run.
func New(cfg Config, parts Parts, log *zap.Logger) (*Proxy, error) {
	if len(parts.Clusters) == 0 {
		return nil, errors.New("no cluster is configured")
	}
	loop, err := reactor.New(reactor.DefaultConfig(), log.Named("loop"))
	if err != nil {
		return nil, fmt.Errorf("prepare the event loop: %w", err)
	}
	p := newProxy(cfg, parts, log)
	p.loop, p.now, p.post = loop, loop.Now, loop.Post
	p.boottime = reactor.Boottime
	p.newTimer = func(fn func()) timer {
		t := &reactor.Timer{}
		t.Init(loop, fn)
		return t
	}
	if p.tls, err = loadTLS(cfg); err != nil {
		return nil, err
	}
	if err := p.listen(); err != nil {
		p.closeSockets()
		return nil, err
	}
	return p, nil
}

// newProxy is everything but the loop and the sockets; the test harness has its own.
func newProxy(cfg Config, parts Parts, log *zap.Logger) *Proxy {
	p := &Proxy{cfg: cfg, log: log, hba: parts.HBA, routing: parts.Routing, params: params.NewRegistry(),
		statements: backend.NewRegistry(statementMemory), sessions: map[*session]struct{}{},
		keys: map[cancelKey]*session{}, cancels: rate.NewLimiter(cancelsPerSecond, cancelsPerSecond),
		scratch: make([]byte, 0, 4096), message: make([]byte, 0, 4096), stats: newStats(), seed: maphash.MakeSeed(), drained: make(chan struct{})}
	p.dialer.Store(parts.Dialer)
	p.connect, p.strike = p.dial, p.sendCancel
	for _, part := range parts.Clusters {
		p.clusters = append(p.clusters, p.newCluster(part))
	}
	return p
}

func (p *Proxy) newCluster(part Cluster) *cluster {
	c := &cluster{Cluster: part, proxy: p, view: part.Board.View(), lastPrimary: part.Board.View().Primary, balancer: part.Balancer, readOnly: part.ReadOnly,
		catalog: part.Catalog, credentials: credentials{}, greetings: map[greetingKey]*greeting{},
		acceptedBy: map[acceptance]struct{}{}, counters: map[turnKey]*atomic.Uint64{}, inquiries: map[topology.NodeID]*inquiry{},
		classifier: router.New(router.DefaultConfig())}
	c.pools = backend.NewPools(backend.Config{
		Dial:       func(key backend.Key, done func(*backend.Server, error)) { p.connect(c, key, done) },
		Limits:     p.limits,
		MaxPerNode: p.cfg.MaxServerConnections,
		Params:     p.params,
		Now:        func() time.Time { return p.now() },
		Log:        p.log,
		Succeeded: func(key backend.Key) {
			c.balancer.Succeeded(key.Node)
			c.readOnly.Succeeded(key.Node)
		},
		Failed: func(key backend.Key, err error) {
			p.log.Warn("node cannot be reached", zap.String("cluster", c.Name), zap.Int("node", int(key.Node)), zap.Error(err))
			c.balancer.Failed(key.Node, p.now())
			c.readOnly.Failed(key.Node, p.now())
			c.Failed(key.Node)
		},
	})
	return c
}

func (p *Proxy) listen() error {
	all := append([]Listener{{Address: p.cfg.Listen, Mode: ListenAuto}}, p.cfg.Listeners...)
	for _, l := range all {
		if l.Address == "" {
			continue
		}
		c := p.clusters[0]
		for _, other := range p.clusters {
			if other.Name == l.Cluster {
				c = other
			}
		}
		if l.Cluster != "" && c.Name != l.Cluster {
			return fmt.Errorf("listen on %s: no cluster %q", l.Address, l.Cluster)
		}
		var lc net.ListenConfig
		lc.SetMultipathTCP(false) // its sockets refuse some of the reactor's options
		socket, err := lc.Listen(context.Background(), "tcp", l.Address)
		if err != nil {
			return fmt.Errorf("open the clients' port: %w", err)
		}
		p.listeners = append(p.listeners, listening{l, socket, c})
	}
	return nil
}

// Addresses are the addresses that clients can connect to, in the configuration's order.
func (p *Proxy) Addresses() []net.Addr {
	var out []net.Addr
	for _, l := range p.listeners {
		out = append(out, l.socket.Addr())
	}
	return out
}

func (p *Proxy) closeSockets() {
	for _, l := range p.listeners {
		_ = l.socket.Close() // it is given up: nothing to be done about an error
	}
}

// Run serves until ctx ends, then accepts nobody new, lets transactions finish (at most
// drain_timeout) and returns when everything has ended.
func (p *Proxy) Run(ctx context.Context) error {
	defer p.closeSockets()
	running, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	p.mu.Lock()
	p.running = running
	p.mu.Unlock()
	p.loop.Post(p.begin)
	for _, c := range p.clusters {
		defer c.Board.Watch(func(v *topology.View) {
			p.loop.Post(func() { c.viewChanged(v) })
		})()
	}
	ended := make(chan error, 1)
	p.work.Go(func() { ended <- p.loop.Run(running) })
	var err error
	select {
	case err = <-ended:
	case <-ctx.Done():
		p.loop.Post(p.drain)
		limit := time.NewTimer(p.cfg.DrainTimeout)
		defer limit.Stop()
		select {
		case <-p.drained:
		case <-limit.C:
			p.log.Warn("drain_timeout is over; open sessions are cut")
		case err = <-ended:
		}
	}
	end()
	p.mu.Lock()
	p.running = nil
	p.mu.Unlock()
	p.work.Wait()
	return err
}

// begin runs on the loop, first of all.
func (p *Proxy) begin() {
	p.retry = p.newTimer(p.lookAgain)
	p.sweep = p.newTimer(p.sweepPools)
	p.sweep.Set(time.Second)
	for _, c := range p.clusters {
		c.viewChanged(c.Board.View())
	}
	for _, l := range p.listeners {
		err := p.loop.Listen(l.socket, func(c *reactor.Conn, remote netip.AddrPort) reactor.Handler {
			return p.accept(c, l)
		})
		if err != nil {
			p.log.Error("listener does not work", zap.String("address", l.Address), zap.Error(err))
			continue
		}
		p.log.Info("clients may connect", zap.String("address", l.socket.Addr().String()), zap.String("mode", string(l.Mode)), zap.String("cluster", l.cluster.Name))
	}
}

func (p *Proxy) sweepPools() {
	for _, c := range p.clusters {
		c.pools.Sweep()
	}
	p.sweep.Set(time.Second)
}

// accept makes a session for a new connection.
func (p *Proxy) accept(link clientLink, l listening) *session {
	p.nextID++
	s := &session{proxy: p, cluster: l.cluster, link: link, id: p.nextID, log: p.log, mode: l.Mode, status: 'I'}
	s.timer = p.newTimer(s.expired)
	link.OnEnd(s.Ended)
	p.sessions[s] = struct{}{}
	p.stats.Accepted.Add(1)
	p.stats.Clients.Add(1)
	if p.cfg.LoginTimeout > 0 {
		s.arm(p.cfg.LoginTimeout)
	}
	return s
}

// left forgets a session that ended.
func (p *Proxy) left(s *session) {
	if _, ok := p.sessions[s]; !ok {
		return
	}
	delete(p.sessions, s)
	delete(p.keys, s.key)
	p.stats.Clients.Add(-1)
	p.checkDrained()
}

// drain ends sessions that are between transactions now, and the others as they get there.
func (p *Proxy) drain() {
	p.draining = true
	p.loop.StopListening()
	for s := range p.sessions {
		s.leaveIfDraining()
	}
	p.checkDrained()
}

func (s *session) leaveIfDraining() {
	if s.proxy.draining && s.status == 'I' && s.phase <= phaseIdle {
		s.fatal(shuttingDown())
	}
}

func (p *Proxy) checkDrained() {
	if p.draining && len(p.sessions) == 0 {
		select {
		case <-p.drained:
		default:
			close(p.drained)
		}
	}
}

// spawn runs work that may block on a goroutine that Run waits for.
func (p *Proxy) spawn(fn func(context.Context)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ctx := p.running
	if ctx == nil {
		return
	}
	p.work.Go(func() {
		defer func() {
			if r := recover(); r != nil {
				p.log.Error("panic in the background", zap.Any("why", r), zap.ByteString("stack", debug.Stack()))
			}
		}()
		fn(ctx)
	})
}

// dial makes a server connection on a goroutine and hands it to the loop.
func (p *Proxy) dial(c *cluster, key backend.Key, done func(*backend.Server, error)) {
	node := c.view.Node(key.Node)
	if node == nil {
		p.post(func() { done(nil, backend.ErrNodeLeft) })
		return
	}
	req := backend.DialRequest{Node: node.Node, Database: key.Database, User: key.User,
		Credential: backend.Credential{Keys: c.credentials[key.User]}}
	epoch := c.view.Epoch
	p.spawn(func(ctx context.Context) {
		login, err := p.dialer.Load().Dial(ctx, req)
		posted := p.post(func() {
			if err != nil {
				done(nil, err)
				return
			}
			srv, err := p.adopt(key, login, epoch)
			if err == nil {
				srv.Born = c.view.Rounds.Now()
			}
			if err == nil && c.view.Epoch != epoch {
				srv.Doom() // it may lead to the primary of an epoch that is over
			}
			done(srv, err)
		})
		if !posted && login != nil {
			_ = login.Transport.Close() // the loop has ended, and with it whoever would care
		}
	})
}

func (p *Proxy) adopt(key backend.Key, login *backend.Login, epoch topology.Epoch) (*backend.Server, error) {
	srv := &backend.Server{Key: key, PID: login.PID, Secret: login.Secret, Epoch: epoch, Reported: map[string]string{}}
	for _, r := range login.Parameters {
		srv.Reported[r.Name] = r.Value
	}
	link, err := p.loop.Adopt(login.Transport, srv)
	if err != nil {
		return nil, fmt.Errorf("hand the connection to the loop: %w", err)
	}
	srv.Link = link
	return srv, nil
}

// newStatement and freeStatement reuse the statements behind unnamed Parses.
func (p *Proxy) newStatement() *statement {
	if n := len(p.stmts); n > 0 {
		st := p.stmts[n-1]
		p.stmts = p.stmts[:n-1]
		return st
	}
	return &statement{}
}

func (p *Proxy) freeStatement(st *statement) {
	*st = statement{}
	if len(p.stmts) < 1024 {
		p.stmts = append(p.stmts, st)
	}
}
