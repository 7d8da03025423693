package gossip

import (
	"context"
	"errors"
	"log"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// maxStreams is how many connections from others are open at the same time; a fleet needs one or
	// two. memberlist itself takes any number and up to 20 MB on each before it has seen a key.
	maxStreams = 32
	// maxStream is how many bytes are read from one connection.
	maxStream = 8 << 20
)

var errTooMuch = errors.New("the connection has sent more than a full exchange can have")

// transport is memberlist's own with bounds for strangers, and with an end: closing it ends the
// connections, which memberlist leaves to their time-outs.
type transport struct {
	*memberlist.NetTransport
	dial     func(a memberlist.Address, timeout time.Duration) (net.Conn, error)
	admitted chan net.Conn
	done     chan struct{}
	shut     sync.Once

	mu      sync.Mutex
	closed  bool
	streams map[*stream]struct{}
	inbound int
	wait    sync.WaitGroup // for the streams
}

// newTransport binds the address. Dials end with ctx.
func newTransport(ctx context.Context, bind address, log *log.Logger) (*transport, error) {
	nt, err := bindRetrying(&memberlist.NetTransportConfig{BindAddrs: []string{bind.ip}, BindPort: bind.port, Logger: log})
	if err != nil {
		return nil, err
	}
	t := &transport{
		NetTransport: nt,
		admitted:     make(chan net.Conn),
		done:         make(chan struct{}),
		streams:      map[*stream]struct{}{},
	}
	t.dial = func(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
		dialer := net.Dialer{Timeout: timeout}
		conn, err := dialer.DialContext(ctx, "tcp", a.Addr)
		if err != nil {
			return nil, err
		}
		return t.track(conn, outbound)
	}
	return t, nil
}

// bindRetrying tries again when the kernel chooses the port: what is free for TCP may be taken for UDP.
func bindRetrying(c *memberlist.NetTransportConfig) (*memberlist.NetTransport, error) {
	tries := 1
	if c.BindPort == 0 {
		tries = 10
	}
	var err error
	for range tries {
		var nt *memberlist.NetTransport
		if nt, err = memberlist.NewNetTransport(c); err == nil {
			return nt, nil
		}
	}
	return nil, err
}

// finalAddress is what the others are told: what was said, or what was bound.
func (t *transport) finalAddress(advertise address) address {
	ip, port, err := t.FinalAdvertiseAddr(advertise.ip, advertise.port)
	if err != nil {
		return advertise
	}
	if port == 0 {
		port = t.GetAutoBindPort()
	}
	return address{ip.String(), port}
}

// admit hands the connections of others on to memberlist, until Shutdown.
func (t *transport) admit() {
	for {
		select {
		case <-t.done:
			return
		case conn := <-t.NetTransport.StreamCh():
			s, err := t.track(conn, inbound)
			if err != nil {
				continue
			}
			select {
			case t.admitted <- s:
			case <-t.done:
				s.Close()
			}
		}
	}
}

// StreamCh hides the unbounded one.
func (t *transport) StreamCh() <-chan net.Conn { return t.admitted }

func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.dial(memberlist.Address{Addr: addr}, timeout)
}

func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.dial(a, timeout)
}

// Shutdown closes everything and returns when nothing is open any more.
func (t *transport) Shutdown() error {
	err := t.NetTransport.Shutdown()
	t.shut.Do(func() { close(t.done) })
	t.mu.Lock()
	t.closed = true
	open := make([]*stream, 0, len(t.streams))
	for s := range t.streams {
		open = append(open, s)
	}
	t.mu.Unlock()
	for _, s := range open {
		s.Conn.Close() // its user fails, and closes it in its own way
	}
	t.wait.Wait()
	return err
}

type direction int

const (
	outbound direction = iota
	inbound
)

// track counts a connection in, or closes it when it is one too many.
func (t *transport) track(conn net.Conn, d direction) (net.Conn, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || d == inbound && t.inbound >= maxStreams {
		conn.Close()
		return nil, net.ErrClosed
	}
	s := &stream{Conn: conn, transport: t, direction: d, left: maxStream}
	t.streams[s] = struct{}{}
	if d == inbound {
		t.inbound++
	}
	t.wait.Add(1)
	return s, nil
}

// stream is one connection; one goroutine reads it.
type stream struct {
	net.Conn
	transport *transport
	direction direction
	left      int
	once      sync.Once
}

func (s *stream) Read(b []byte) (int, error) {
	if s.left <= 0 {
		return 0, errTooMuch
	}
	n, err := s.Conn.Read(b[:min(len(b), s.left)])
	s.left -= n
	return n, err
}

func (s *stream) Close() error {
	err := s.Conn.Close()
	s.once.Do(func() {
		t := s.transport
		t.mu.Lock()
		delete(t.streams, s)
		if s.direction == inbound {
			t.inbound--
		}
		t.mu.Unlock()
		t.wait.Done()
	})
	return err
}
