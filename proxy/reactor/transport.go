package reactor

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Transport is the client side of a connection while a goroutine dials and logs in with blocking
// calls. Loop.Adopt then takes it over, TLS session included.
type Transport struct {
	under net.Conn
	conn  *tls.Conn // nil without TLS
	pipe  *pipe
}

// NewTransport takes over a dialled connection.
func NewTransport(conn net.Conn) *Transport { return &Transport{under: conn} }

// Read reads what the peer sent, decrypted. It blocks.
func (t *Transport) Read(b []byte) (int, error) {
	if t.conn != nil {
		return t.conn.Read(b)
	}
	return t.under.Read(b)
}

// Write sends all of b. It blocks.
func (t *Transport) Write(b []byte) (int, error) {
	if t.conn != nil {
		return t.conn.Write(b)
	}
	return t.under.Write(b)
}

// SetDeadline bounds Read and Write. It has no meaning after Adopt.
func (t *Transport) SetDeadline(at time.Time) error { return t.under.SetDeadline(at) }

// Close ends the connection at once. After Adopt it must not be called.
func (t *Transport) Close() error { return t.under.Close() }

// RemoteAddr is the peer's address.
func (t *Transport) RemoteAddr() net.Addr { return t.under.RemoteAddr() }

// LocalAddr is the address on this side.
func (t *Transport) LocalAddr() net.Addr { return t.under.LocalAddr() }

// TLS says whether the connection is encrypted.
func (t *Transport) TLS() bool { return t.conn != nil }

// ConnectionState describes the TLS session; the zero value without TLS.
func (t *Transport) ConnectionState() tls.ConnectionState {
	if t.conn == nil {
		return tls.ConnectionState{}
	}
	return t.conn.ConnectionState()
}

// StartTLS makes the connection speak TLS as the client. After an error only Close may be called.
func (t *Transport) StartTLS(ctx context.Context, cfg *tls.Config) error {
	if t.conn != nil {
		return errTLSTwice
	}
	p := &pipe{ReadWriter: t.under, under: t.under}
	conn := tls.Client(p, cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	t.conn, t.pipe = conn, p
	return nil
}

// Adopt takes over a connection that a goroutine dialled. It is called on the loop and owns t from
// then on: after an error t is closed. Bytes that TLS has read already come as Data.
func (l *Loop) Adopt(t *Transport, h Handler) (*Conn, error) {
	c, err := l.adopt(t)
	_ = t.under.Close() // the loop has a descriptor of its own
	if err != nil {
		return nil, fmt.Errorf("adopt connection: %w", err)
	}
	c.handler = h
	l.count.Adopted++
	return c, nil
}

func (l *Loop) adopt(t *Transport) (*Conn, error) {
	if l.isEnded() {
		return nil, ErrEnded
	}
	sc, ok := t.under.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("%T has no descriptor", t.under)
	}
	fd, err := duplicate(sc)
	if err != nil {
		return nil, err
	}
	var remote netip.AddrPort
	if a, ok := t.under.RemoteAddr().(*net.TCPAddr); ok {
		remote = netip.AddrPortFrom(a.AddrPort().Addr().Unmap(), uint16(a.Port))
	}
	c, err := l.newConn(fd, remote)
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	if t.conn != nil {
		end := &cable{conn: c}
		t.pipe.ReadWriter, t.pipe.under = end, nil
		c.secure = &secure{conn: t.conn, pipe: t.pipe, end: end, more: true}
		l.later(c)
	}
	return c, nil
}

func (l *Loop) isEnded() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.phase == ended
}
