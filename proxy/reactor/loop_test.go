package reactor

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// funcs is a Handler of functions; nil ones do nothing.
type funcs struct {
	data    func([]byte)
	drained func()
	closed  func(error)
}

func (f *funcs) Data(b []byte) {
	if f.data != nil {
		f.data(b)
	}
}

func (f *funcs) Drained() {
	if f.drained != nil {
		f.drained()
	}
}

func (f *funcs) Closed(err error) {
	if f.closed != nil {
		f.closed(err)
	}
}

// quick is the default configuration with short waits.
func quick() Config {
	cfg := DefaultConfig()
	cfg.Linger = 50 * time.Millisecond
	return cfg
}

// running starts a loop that ends with the test.
func running(t testing.TB, cfg Config) *Loop {
	t.Helper()
	var log *zap.Logger
	if _, ok := t.(*testing.B); ok {
		log = zap.NewNop()
	} else {
		log = zaptest.NewLogger(t, zaptest.Level(zap.ErrorLevel))
	}
	return runningWith(t, cfg, log)
}

func runningWith(t testing.TB, cfg Config, log *zap.Logger) *Loop {
	t.Helper()
	l, err := New(cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l
}

// on runs fn on the loop and waits for it.
func on(t testing.TB, l *Loop, fn func()) {
	t.Helper()
	done := make(chan struct{})
	if !l.Post(func() { defer close(done); fn() }) {
		t.Fatal("the loop has ended")
	}
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("the loop does not answer")
	}
}

// serve lets the loop listen on a free port and returns its address.
func serve(t testing.TB, l *Loop, accept func(c *Conn, remote netip.AddrPort) Handler) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	on(t, l, func() { err = l.Listen(ln, accept) })
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

func dial(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn.(*net.TCPConn)
}

// eventually polls until cond holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.After(20 * time.Second); !cond(); {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("it did not come true that %s", what)
		}
	}
}

func echo(c *Conn, _ netip.AddrPort) Handler { return &funcs{data: c.Write} }

func TestWhatIsSentComesBack(t *testing.T) {
	l := running(t, quick())
	conn := dial(t, serve(t, l, echo))
	for _, msg := range []string{"a", "hello", string(make([]byte, 100_000))} {
		if _, err := conn.Write([]byte(msg)); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(msg))
		if _, err := readFull(conn, got); err != nil || string(got) != msg {
			t.Fatalf("got %d bytes, %v", len(got), err)
		}
	}
}

func readFull(conn net.Conn, b []byte) (int, error) {
	n := 0
	for n < len(b) {
		m, err := conn.Read(b[n:])
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func TestPostWakesASleepingLoop(t *testing.T) {
	l := running(t, quick())
	var n atomic.Int64
	for i := range 100 {
		on(t, l, func() { n.Add(1) })
		if got := n.Load(); got != int64(i+1) {
			t.Fatalf("ran %d, want %d", got, i+1)
		}
	}
}
