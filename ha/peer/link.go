package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"
)

// Member is another end of the link: its name, which its certificate must bear, and the "host:port"
// of its link.
type Member struct{ Name, Address string }

func (m Member) String() string { return m.Name + " (" + m.Address + ")" }

// The protocols of the port, told apart by ALPN.
const (
	callProtocol   = "cstproxy-call/1"
	streamProtocol = "cstproxy-raft/1"
)

// Config is what a Link obeys.
type Config struct {
	// Member is this member's name.
	Member string
	// Handshake bounds a handshake, incoming or outgoing, dialing included. A host that is away is
	// given up after it.
	Handshake time.Duration
	// MaxHandshakes bounds unauthenticated connections, MaxHandshakesPerHost those from one address
	// (IPv6: one /64), so that one stranger cannot keep the members out. Beyond either, a connection
	// is closed at once.
	MaxHandshakes, MaxHandshakesPerHost int
	// MaxPeers bounds authenticated incoming connections; a member uses two or three.
	MaxPeers int
	// Silence is how long sent bytes may stay unacknowledged by the peer's host before the connection
	// is given up (TCP_USER_TIMEOUT). It is longer than an election, so that a short loss costs no
	// handshake.
	Silence time.Duration
	// Dialer dials; its LocalAddr is the address to dial from on a host with several.
	Dialer net.Dialer
}

// DefaultConfig returns the defaults for a member.
func DefaultConfig(member string) Config {
	return Config{
		Member: member, Handshake: 2 * time.Second,
		MaxHandshakes: 128, MaxHandshakesPerHost: 16, MaxPeers: 256,
		Silence: 3 * time.Second,
	}
}

// Validate says what is wrong with the configuration.
func (c *Config) Validate() error {
	switch {
	case c.Handshake <= 0 || c.Silence < time.Millisecond:
		return fmt.Errorf("link: handshake %s and silence %s must be positive", c.Handshake, c.Silence)
	case c.MaxHandshakes < 1 || c.MaxHandshakesPerHost < 1 || c.MaxPeers < 1:
		return fmt.Errorf("link: max handshakes %d, per host %d and peers %d must be positive",
			c.MaxHandshakes, c.MaxHandshakesPerHost, c.MaxPeers)
	}
	return CheckName(c.Member)
}

// Handler answers a call from another member. ctx ends when the caller has stopped waiting. An
// error's text is sent to the caller.
type Handler func(ctx context.Context, from string, body []byte) ([]byte, error)

// Link is this member's end of the fleet's connections. All methods but Handle may be called from
// any goroutine.
type Link struct {
	cfg      Config
	tls      *tls.Config
	listener net.Listener
	log      *zap.Logger
	strange  *zap.Logger // for what strangers cause: sampled
	handlers map[string]Handler
	gate     *gate
	streams  *Streams
	wanted   chan *attempt
	ended    chan struct{} // closed when Run is about to return
	wg       sync.WaitGroup

	mu     sync.Mutex // guards routes
	routes map[Member]*attempt
}

// New returns a link that listens on listener, which is Run's to close.
func New(cfg Config, key *Key, listener net.Listener, log *zap.Logger) (*Link, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	config, err := key.TLS(cfg.Member)
	if err != nil {
		return nil, err
	}
	config.NextProtos = []string{callProtocol, streamProtocol}
	log = log.Named("link")
	return &Link{
		cfg: cfg, tls: config, listener: listener, log: log,
		strange: log.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
			return zapcore.NewSamplerWithOptions(core, 10*time.Second, 3, 0)
		})),
		handlers: map[string]Handler{},
		gate:     newGate(cfg),
		streams:  newStreams(),
		wanted:   make(chan *attempt),
		ended:    make(chan struct{}),
		routes:   map[Member]*attempt{},
	}, nil
}

// Handle makes h answer the calls of a method. It must come before Run.
func (l *Link) Handle(method string, h Handler) { l.handlers[method] = h }

// Address is where the link listens.
func (l *Link) Address() net.Addr { return l.listener.Addr() }

// Name is this member's.
func (l *Link) Name() string { return l.cfg.Member }

// Run accepts and keeps connections until ctx ends; then it closes them all.
func (l *Link) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	failed := make(chan error, 1)
	l.wg.Add(1)
	go func() { defer l.wg.Done(); failed <- l.accept(ctx) }()
	var err error
	for running := true; running; {
		select {
		case <-ctx.Done():
			running = false
		case err = <-failed:
			running = false
		case a := <-l.wanted:
			l.wg.Add(1)
			go func() { defer l.wg.Done(); l.keep(ctx, a) }()
		}
	}
	cancel()
	close(l.ended)
	l.streams.Close()
	closing := l.listener.Close()
	l.wg.Wait()
	if err != nil {
		return errors.Join(err, closing)
	}
	return nil
}

// accept takes connections in until ctx ends. A lack of descriptors passes; it waits for that.
func (l *Link) accept(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { l.listener.Close() })
	defer stop()
	for {
		conn, err := l.listener.Accept()
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("listen for members: %w", err)
		default:
			l.strange.Warn("cannot accept connections", zap.Error(err))
			pause(ctx, 100*time.Millisecond)
			continue
		}
		leave, why := l.gate.enter(conn.RemoteAddr())
		if why != "" {
			l.strange.Warn("connection refused", zap.Stringer("from", conn.RemoteAddr()), zap.String("why", why))
			conn.Close()
			continue
		}
		l.wg.Add(1)
		go func() { defer l.wg.Done(); l.admit(ctx, conn, leave) }()
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// admit lets a connection shake hands and then serves it; leave gives back its place among the
// unauthenticated.
func (l *Link) admit(ctx context.Context, raw net.Conn, leave func()) {
	l.tune(raw)
	conn := tls.Server(raw, l.tls)
	from, err := l.shakeHands(ctx, conn)
	leave()
	if err != nil {
		raw.Close()
		if ctx.Err() == nil {
			what := "no member of this fleet"
			if errors.Is(err, context.DeadlineExceeded) {
				what = "a connection did not prove in time to be of this fleet"
			}
			l.strange.Warn(what, zap.Stringer("from", raw.RemoteAddr()), zap.Error(err))
		}
		return
	}
	if !l.gate.settle() {
		raw.Close()
		l.strange.Warn("too many connections of members", zap.String("member", from))
		return
	}
	defer l.gate.leave()
	if conn.ConnectionState().NegotiatedProtocol == streamProtocol {
		l.streams.serve(ctx, conn, from)
		return
	}
	l.serve(ctx, conn, from)
}

func (l *Link) shakeHands(ctx context.Context, conn *tls.Conn) (from string, err error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Handshake)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		return "", fmt.Errorf("handshake: %w", err)
	}
	state := conn.ConnectionState()
	if state.NegotiatedProtocol == "" {
		return "", errors.New("handshake: no protocol named")
	}
	return peerName(state)
}

// dial connects to a member and proves both names.
func (l *Link) dial(ctx context.Context, to Member, protocol string) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Handshake)
	defer cancel()
	raw, err := l.cfg.Dialer.DialContext(ctx, "tcp", to.Address)
	if err != nil {
		return nil, fmt.Errorf("connect to member %s: %w", to.Name, err)
	}
	l.tune(raw)
	config := l.tls.Clone()
	config.ServerName = to.Name
	config.NextProtos = []string{protocol}
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("connect to member %s at %s: %w", to.Name, to.Address, err)
	}
	return conn, nil
}

// tune makes the kernel notice a host that is gone, whether or not there is something to send.
// A connection whose options cannot be set is only slower to be given up.
func (l *Link) tune(conn net.Conn) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	alive := net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 3}
	if err := tcp.SetKeepAliveConfig(alive); err != nil {
		l.log.Debug("keepalive not set", zap.Error(err))
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	silence := int(l.cfg.Silence.Milliseconds())
	if err := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, silence)
	}); err != nil {
		l.log.Debug("user timeout not set", zap.Error(err))
	}
}
