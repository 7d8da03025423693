package reactor

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// relay joins two connections the way a session does: a side stops being read while the other's
// queue is over the mark.
type relay struct {
	ends [2]*Conn
	most atomic.Int64 // the longest queue seen
}

func (r *relay) handler(i int) *funcs {
	return &funcs{
		data: func(b []byte) {
			to := r.ends[1-i]
			to.Write(b)
			r.most.Store(max(r.most.Load(), int64(to.Queued())))
			if to.Queued() > to.loop.cfg.HighWater {
				r.ends[i].Pause()
			}
		},
		drained: func() { r.ends[1-i].Resume() },
		closed:  func(error) { r.ends[1-i].Close() },
	}
}

// pair dials addr twice; the loop joins the two connections.
func pair(t testing.TB, l *Loop) (*relay, *net.TCPConn, *net.TCPConn) {
	t.Helper()
	r := &relay{}
	n := 0
	addr := serve(t, l, func(c *Conn, _ netip.AddrPort) Handler {
		r.ends[n] = c
		n++
		return r.handler(n - 1)
	})
	accepted := func(want int) {
		eventually(t, "the connection was accepted", func() bool {
			got := 0
			on(t, l, func() { got = n })
			return got == want
		})
	}
	a := dial(t, addr)
	accepted(1)
	b := dial(t, addr)
	accepted(2)
	return r, a, b
}

func TestASlowReaderMakesItsSourceWaitAndLosesNothing(t *testing.T) {
	l := running(t, quick())
	r, from, to := pair(t, l)
	const size = 48 << 20
	sum := make(chan [32]byte, 1)
	go func() {
		h, b, src := sha256.New(), make([]byte, 64<<10), rand.NewChaCha8([32]byte{1})
		for sent := 0; sent < size; sent += len(b) {
			_, _ = src.Read(b)
			h.Write(b)
			if _, err := from.Write(b); err != nil {
				t.Error(err)
				break
			}
		}
		sum <- [32]byte(h.Sum(nil))
	}()
	eventually(t, "the source was paused", func() bool {
		paused := false
		on(t, l, func() { paused = r.ends[0].Paused() })
		return paused
	})
	h := sha256.New()
	if n, err := io.CopyN(h, to, size); err != nil {
		t.Fatalf("%d bytes, then %v", n, err)
	}
	if [32]byte(h.Sum(nil)) != <-sum {
		t.Fatal("not the bytes that were sent")
	}
	if most, bound := r.most.Load(), int64(l.cfg.HighWater+l.cfg.ReadBuffer); most > bound {
		t.Fatalf("%d bytes were queued, want at most %d", most, bound)
	}
}

func TestBufferedBytesLeaveInOneWriteWithWhatFollows(t *testing.T) {
	cases := []struct {
		name   string
		send   func(*Conn)
		want   int
		writes uint64
	}{
		{"buffer alone", func(c *Conn) { c.Buffer([]byte("ab")); c.Buffer([]byte("cd")) }, 4, 1},
		{"buffer then write", func(c *Conn) { c.Buffer([]byte("ab")); c.Write([]byte("cd")) }, 4, 1},
		{"buffer then a large write", func(c *Conn) { c.Buffer([]byte("ab")); c.Write(make([]byte, 40_000)) }, 40_002, 1},
		{"three chunks", func(c *Conn) { c.Buffer(make([]byte, 3*chunkSize)) }, 3 * chunkSize, 1},
		{"write alone", func(c *Conn) { c.Write([]byte("ab")) }, 2, 1},
		{"nothing", func(c *Conn) { c.Write(nil); c.Buffer(nil) }, 0, 0},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			l := running(t, quick())
			var conn *Conn
			peer := dial(t, serve(t, l, func(c *Conn, _ netip.AddrPort) Handler { conn = c; return &funcs{} }))
			eventually(t, "it was accepted", func() bool { return l.Stats().Accepted == 1 })
			on(t, l, func() { tc.send(conn) })
			if _, err := readFull(peer, make([]byte, tc.want)); err != nil {
				t.Fatal(err)
			}
			on(t, l, func() {
				if l.count.Writes != tc.writes || conn.Queued() != 0 {
					t.Errorf("%d writes, %d queued; want %d, 0", l.count.Writes, conn.Queued(), tc.writes)
				}
			})
		})
	}
}

// recorder keeps what a handler was told, in order.
type recorder struct {
	got    bytes.Buffer
	closed chan error
}

func record() *recorder { return &recorder{closed: make(chan error, 2)} }

func (r *recorder) handler() *funcs {
	return &funcs{
		data:   func(b []byte) { r.got.Write(b) },
		closed: func(err error) { r.closed <- err },
	}
}

func (r *recorder) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-r.closed:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("Closed was not called")
		return nil
	}
}

// accepting lets the loop accept one connection with the recorder as its handler.
func (r *recorder) accepting(t *testing.T, l *Loop, with func(*Conn)) *net.TCPConn {
	t.Helper()
	peer := dial(t, serve(t, l, func(c *Conn, _ netip.AddrPort) Handler {
		if with != nil {
			with(c)
		}
		return r.handler()
	}))
	eventually(t, "it was accepted", func() bool { return l.Stats().Accepted == 1 })
	return peer
}

func TestWhatArrivedBeforeTheEndIsDeliveredFirst(t *testing.T) {
	want := strings.Repeat("x", 200_000)
	l, r := running(t, quick()), record()
	var conn *Conn
	peer := r.accepting(t, l, func(c *Conn) { conn = c; c.Pause() })
	if _, err := peer.Write([]byte(want)); err != nil {
		t.Fatal(err)
	}
	if err := peer.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	on(t, l, func() { conn.Buffer(make([]byte, 8<<20)); conn.Resume() })
	if err := r.wait(t); err != io.EOF {
		t.Fatalf("Closed(%v), want io.EOF", err)
	}
	if r.got.String() != want {
		t.Fatalf("got %d bytes before the end, want %d", r.got.Len(), len(want))
	}
}

func TestAPausedConnectionIsClosedWhenItsPeerLeftNothing(t *testing.T) {
	for _, tc := range []struct {
		name  string
		leave func(*net.TCPConn)
		want  error
	}{
		{"in order", func(c *net.TCPConn) { c.Close() }, io.EOF},
		{"by reset", func(c *net.TCPConn) { _ = c.SetLinger(0); c.Close() }, unix.ECONNRESET},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l, r := running(t, quick()), record()
			peer := r.accepting(t, l, func(c *Conn) { c.Pause() })
			tc.leave(peer)
			if err := r.wait(t); !errors.Is(err, tc.want) {
				t.Fatalf("Closed(%v), want %v", err, tc.want)
			}
		})
	}
}

func TestAPausedConnectionKeepsWhatItsPeerLeft(t *testing.T) {
	l, r := running(t, quick()), record()
	var conn *Conn
	peer := r.accepting(t, l, func(c *Conn) { conn = c; c.Pause() })
	if _, err := peer.Write([]byte("last words")); err != nil {
		t.Fatal(err)
	}
	peer.Close()
	eventually(t, "the end was seen", func() bool {
		seen := false
		on(t, l, func() { seen = conn.has(flagHup) })
		return seen
	})
	select {
	case err := <-r.closed:
		t.Fatalf("Closed(%v) before the data", err)
	default:
	}
	on(t, l, func() { conn.Resume() })
	if err := r.wait(t); err != io.EOF || r.got.String() != "last words" {
		t.Fatalf("got %q, Closed(%v)", r.got.String(), err)
	}
}

func TestAFailedWriteStillDeliversTheLastWords(t *testing.T) {
	l, r := running(t, quick()), record()
	var conn *Conn
	peer := r.accepting(t, l, func(c *Conn) { conn = c })
	on(t, l, func() {
		// The loop is held here, so it cannot have read these.
		if _, err := peer.Write([]byte("FATAL")); err != nil {
			t.Error(err)
		}
		peer.Close()
		for !conn.has(flagBroken) {
			conn.Write([]byte("a request")) // the first makes the peer's kernel reset
		}
		conn.Write([]byte("ignored"))
		if conn.Queued() != 0 {
			t.Errorf("%d bytes are queued on a broken connection", conn.Queued())
		}
	})
	err := r.wait(t)
	if !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("Closed(%v), want EPIPE or ECONNRESET", err)
	}
	if r.got.String() != "FATAL" {
		t.Errorf("got %q, want FATAL", r.got.String())
	}
}

func TestAFailedWriteOnAPausedConnectionClosesIt(t *testing.T) {
	l, r := running(t, quick()), record()
	var conn *Conn
	peer := r.accepting(t, l, func(c *Conn) { conn = c; c.Pause() })
	if _, err := peer.Write([]byte("unread")); err != nil {
		t.Fatal(err)
	}
	on(t, l, func() { conn.Write(make([]byte, 64<<20)) })
	_ = peer.SetLinger(0)
	peer.Close()
	if err := r.wait(t); !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("Closed(%v), want EPIPE or ECONNRESET", err)
	}
}

func TestCloseComesOnceAndLaterAndSilencesTheConnection(t *testing.T) {
	l, r := running(t, quick()), record()
	var conn *Conn
	peer := r.accepting(t, l, func(c *Conn) { conn = c })
	on(t, l, func() {
		conn.Close()
		conn.Close()
		conn.CloseAfterFlush()
		conn.Write([]byte("too late"))
		conn.Buffer([]byte("too late"))
		if len(r.closed) != 0 {
			t.Error("Closed was called from within Close")
		}
	})
	if err := r.wait(t); err != net.ErrClosed {
		t.Fatalf("Closed(%v), want net.ErrClosed", err)
	}
	if got, _ := io.ReadAll(peer); len(got) != 0 {
		t.Fatalf("the peer got %q", got)
	}
	on(t, l, func() {
		conn.Close()
		conn.Pause()
		conn.Resume()
		conn.Write([]byte("too late"))
	})
	on(t, l, func() {})
	if len(r.closed) != 0 {
		t.Error("Closed was called twice")
	}
}

func TestTheLastMessageReachesAPeerThatIsStillSending(t *testing.T) {
	cfg := quick()
	cfg.Linger = 10 * time.Second
	l, r := running(t, cfg), record()
	var conn *Conn
	peer := r.accepting(t, l, func(c *Conn) { conn = c; c.Pause() })
	// Unread input makes the kernel answer close with a reset, which would overtake the message.
	if _, err := peer.Write(make([]byte, 100_000)); err != nil {
		t.Fatal(err)
	}
	last := strings.Repeat("no ", 1_000_000)
	on(t, l, func() { conn.Write([]byte(last)); conn.CloseAfterFlush() })
	got, err := io.ReadAll(peer)
	if err != nil || string(got) != last {
		t.Fatalf("got %d bytes, %v", len(got), err)
	}
	peer.Close()
	if err := r.wait(t); err != net.ErrClosed {
		t.Fatalf("Closed(%v), want net.ErrClosed", err)
	}
	if r.got.Len() != 0 {
		t.Fatal("Data was called after CloseAfterFlush")
	}
}

func TestAPeerThatDoesNotReadCannotHoldAClosingConnection(t *testing.T) {
	cfg := quick()
	cfg.FlushTimeout = 20 * time.Millisecond
	l, r := running(t, cfg), record()
	var conn *Conn
	r.accepting(t, l, func(c *Conn) { conn = c })
	on(t, l, func() { conn.Write(make([]byte, 64<<20)); conn.CloseAfterFlush() })
	if err := r.wait(t); err != ErrFlushTimeout {
		t.Fatalf("Closed(%v), want ErrFlushTimeout", err)
	}
}

func TestAPeerThatStaysCannotHoldAFlushedConnection(t *testing.T) {
	l, r := running(t, quick()), record()
	var conn *Conn
	r.accepting(t, l, func(c *Conn) { conn = c })
	on(t, l, func() { conn.Write([]byte("bye")); conn.CloseAfterFlush() })
	if err := r.wait(t); err != net.ErrClosed {
		t.Fatalf("Closed(%v), want net.ErrClosed", err)
	}
}

func TestSocketsAreTuned(t *testing.T) {
	cfg := quick()
	l, r := running(t, cfg), record()
	var conn *Conn
	r.accepting(t, l, func(c *Conn) { conn = c })
	on(t, l, func() {
		for _, o := range []struct {
			name                string
			level, option, want int
		}{
			{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
			{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 60},
			{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 10},
			{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3},
			{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 90_000},
		} {
			if got, err := unix.GetsockoptInt(int(conn.fd), o.level, o.option); err != nil || got != o.want {
				t.Errorf("%s is %d (%v), want %d", o.name, got, err, o.want)
			}
		}
	})
}

func TestARefusedConnectionIsClosedAtOnce(t *testing.T) {
	l := running(t, quick())
	peer := dial(t, serve(t, l, func(*Conn, netip.AddrPort) Handler { return nil }))
	if _, err := peer.Read(make([]byte, 1)); err != io.EOF && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("read: %v, want the end", err)
	}
}

func TestRemoteAddressesOfIPv4ClientsAreIPv4(t *testing.T) {
	l := running(t, quick())
	ln, err := net.Listen("tcp", "[::]:0")
	if err != nil {
		t.Skip("no IPv6 here:", err)
	}
	seen := make(chan netip.AddrPort, 1)
	on(t, l, func() {
		err = l.Listen(ln, func(c *Conn, remote netip.AddrPort) Handler {
			seen <- remote
			if c.RemoteAddr() != remote {
				t.Errorf("RemoteAddr is %v, accept got %v", c.RemoteAddr(), remote)
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	peer := dial(t, "127.0.0.1:"+port)
	if got := <-seen; got != peer.LocalAddr().(*net.TCPAddr).AddrPort() {
		t.Fatalf("remote address %v, want %v", got, peer.LocalAddr())
	}
}
