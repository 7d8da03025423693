package reactor

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"
)

// TestNoByteReachesTheWrongConnectionWithinOneBatch holds the loop while data for two connections and
// a new client arrive, so that all three are events of one batch. The first handler closes the second
// connection, whose descriptor and event are still about when the new client is accepted.
func TestNoByteReachesTheWrongConnectionWithinOneBatch(t *testing.T) {
	for range 20 {
		l := running(t, quick())
		conns := make(map[netip.AddrPort]*Conn)
		got := make(map[netip.AddrPort]string)
		var closer func(self *Conn)
		var accepted, closed uint64 // the batches in which it happened last
		addr := serve(t, l, func(c *Conn, remote netip.AddrPort) Handler {
			conns[remote] = c
			accepted = l.count.Cycles
			return &funcs{data: func(b []byte) {
				got[remote] += string(b)
				closer(c)
			}}
		})
		local := func(c *net.TCPConn) netip.AddrPort { return c.LocalAddr().(*net.TCPAddr).AddrPort() }
		a, b := dial(t, addr), dial(t, addr)
		eventually(t, "both were accepted", func() bool { return l.Stats().Accepted == 2 })
		closer = func(self *Conn) {
			for _, c := range conns {
				if c != self {
					c.Close()
				}
			}
			closer = func(*Conn) {}
			closed = l.count.Cycles
		}
		var fresh *net.TCPConn
		on(t, l, func() {
			for _, c := range []*net.TCPConn{a, b} {
				if _, err := c.Write([]byte("old")); err != nil {
					t.Error(err)
				}
			}
			fresh = dial(t, addr)
			if _, err := fresh.Write([]byte("new")); err != nil {
				t.Error(err)
			}
		})
		eventually(t, "the new client's bytes arrived", func() bool {
			var s string
			on(t, l, func() { s = got[local(fresh)] })
			return s == "new"
		})
		on(t, l, func() {
			if accepted != closed {
				t.Error("this test needs the close and the accept to be in one batch")
			}
			if got[local(a)]+got[local(b)] != "old" {
				t.Errorf("the old connections got %q and %q, want one to have been silenced", got[local(a)], got[local(b)])
			}
		})
	}
}

func TestAnEventOfASlotsFormerOwnerIsDropped(t *testing.T) {
	l := running(t, quick())
	var conns []*Conn
	addr := serve(t, l, func(c *Conn, _ netip.AddrPort) Handler { conns = append(conns, c); return &funcs{} })
	dial(t, addr)
	eventually(t, "it was accepted", func() bool { return l.Stats().Accepted == 1 })
	on(t, l, func() { conns[0].Close() })
	dial(t, addr)
	eventually(t, "it was accepted", func() bool { return l.Stats().Accepted == 2 })
	on(t, l, func() {
		old, now := conns[0], conns[1]
		if old.slot != now.slot {
			t.Errorf("slots %d and %d: this test needs the slot to be reused", old.slot, now.slot)
		}
		l.event(&unix.EpollEvent{Events: unix.EPOLLIN, Fd: old.slot, Pad: old.generation})
		if now.has(flagReadable) {
			t.Error("the new owner got the old owner's event")
		}
	})
}

// TestConnectionsThatComeAndGoNeverMixTheirBytes lets clients send nothing but their own port number,
// while handlers close themselves and each other at random.
func TestConnectionsThatComeAndGoNeverMixTheirBytes(t *testing.T) {
	l := running(t, quick())
	var open []*Conn
	rng := rand.New(rand.NewPCG(3, 4))
	addr := serve(t, l, func(c *Conn, remote netip.AddrPort) Handler {
		open = append(open, c)
		return &funcs{data: func(b []byte) {
			for i := 0; i+2 <= len(b); i += 2 {
				if port := binary.BigEndian.Uint16(b[i:]); port != remote.Port() {
					t.Errorf("bytes of port %d reached the connection of port %d", port, remote.Port())
				}
			}
			c.Buffer(b[:len(b)/4*2])
			if rng.IntN(20) == 0 {
				open[rng.IntN(len(open))].Close()
			}
			c.Write(b[len(b)/4*2:])
			if rng.IntN(50) == 0 {
				c.Close()
			}
		}, closed: func(error) {
			for i := range open {
				if open[i] == c {
					open[i] = open[len(open)-1]
					open = open[:len(open)-1]
					return
				}
			}
		}}
	})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 150 {
				churn(t, addr)
			}
		})
	}
	wg.Wait()
}

func churn(t *testing.T, addr string) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	port := uint16(conn.LocalAddr().(*net.TCPAddr).Port)
	msg := make([]byte, 2*(1+rand.IntN(500)))
	for i := 0; i < len(msg); i += 2 {
		binary.BigEndian.PutUint16(msg[i:], port)
	}
	for range rand.IntN(20) {
		if _, err := conn.Write(msg); err != nil {
			return // the handler closed it
		}
		got := make([]byte, len(msg))
		n, err := readFull(conn, got)
		for i := 0; i+2 <= n; i += 2 {
			if p := binary.BigEndian.Uint16(got[i:]); p != port {
				t.Errorf("port %d was sent bytes of port %d", port, p)
				return
			}
		}
		if err != nil {
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				t.Error("no answer and no end")
			}
			return
		}
	}
}

func TestTwoThousandConnectionsAreServed(t *testing.T) {
	l := running(t, quick())
	addr := serve(t, l, echo)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < 4100 {
		t.Skipf("%d descriptors are allowed (%v), this test needs 4100", limit.Cur, err)
	}
	conns := make([]net.Conn, 2000)
	for i := range conns {
		conns[i] = dial(t, addr)
	}
	for round := range 3 {
		for i, c := range conns {
			if _, err := fmt.Fprintf(c, "%04d", i+round); err != nil {
				t.Fatal(err)
			}
		}
		for i, c := range conns {
			b := make([]byte, 4)
			if _, err := readFull(c, b); err != nil || string(b) != fmt.Sprintf("%04d", i+round) {
				t.Fatalf("connection %d: %q, %v", i, b, err)
			}
		}
	}
	for _, c := range conns {
		c.Close()
	}
	eventually(t, "all were closed", func() bool { return l.Stats().Closed == 2000 })
	on(t, l, func() {
		if len(l.slots.free) != 2000 {
			t.Errorf("%d slots are free, want 2000", len(l.slots.free))
		}
	})
}

func TestIdleConnectionsHoldLittleMemory(t *testing.T) {
	l := running(t, quick())
	h := &funcs{}
	addr := serve(t, l, func(*Conn, netip.AddrPort) Handler { return h })
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	// The clients are bare descriptors, so that what is measured is the loop's.
	const n = 500
	ap := netip.MustParseAddrPort(addr)
	before := heap()
	for range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all were accepted", func() bool { return l.Stats().Accepted == n })
	on(t, l, func() {})
	if after := heap(); after > before && (after-before)/n > 512 {
		t.Fatalf("%d bytes per idle connection, want at most 512", (after-before)/n)
	}
}

func TestAPanicEndsOnlyItsOwnConnection(t *testing.T) {
	core, logs := observer.New(zap.ErrorLevel)
	l := runningWith(t, quick(), zap.New(core))
	closed := make(chan error, 8)
	addr := serve(t, l, func(c *Conn, _ netip.AddrPort) Handler {
		return &funcs{data: func(b []byte) {
			switch string(b) {
			case "boom":
				panic("on purpose")
			case "timer":
				var tm Timer
				tm.Init(l, func() { panic("on purpose") })
				tm.Own(c)
				tm.Set(time.Millisecond)
			default:
				c.Write(b)
			}
		}, closed: func(err error) {
			closed <- err
			if errors.Is(err, ErrPanicked) {
				panic("again")
			}
		}}
	})
	healthy := dial(t, addr)
	for i, how := range []string{"boom", "timer"} {
		bad := dial(t, addr)
		if _, err := bad.Write([]byte(how)); err != nil {
			t.Fatal(err)
		}
		if err := <-closed; err != ErrPanicked {
			t.Fatalf("Closed(%v), want ErrPanicked", err)
		}
		if _, err := bad.Read(make([]byte, 1)); err == nil {
			t.Fatal("the connection is still open")
		}
		if _, err := healthy.Write([]byte("ok")); err != nil {
			t.Fatal(err)
		}
		if _, err := readFull(healthy, make([]byte, 2)); err != nil {
			t.Fatalf("the other connection: %v", err)
		}
		on(t, l, func() {})
		if n := l.Stats().Panics; n != uint64(2*(i+1)) { // Data or timer, and Closed
			t.Fatalf("%d panics are counted, want %d", n, 2*(i+1))
		}
	}
	l.Post(func() { panic("posted") })
	on(t, l, func() {})
	if logs.Len() != 5 || logs.All()[0].ContextMap()["stack"] == "" {
		t.Fatalf("%d log lines, want 5 with a stack", logs.Len())
	}
}

func TestAPanicWhileAcceptingClosesTheConnection(t *testing.T) {
	core, _ := observer.New(zap.ErrorLevel)
	l := runningWith(t, quick(), zap.New(core))
	conn := dial(t, serve(t, l, func(*Conn, netip.AddrPort) Handler { panic("on purpose") }))
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Fatal("the connection is open")
	}
}

func TestTwoMillionRandomBytesGoThrough(t *testing.T) {
	l := running(t, quick())
	addr := serve(t, l, echo)
	var wg sync.WaitGroup
	for seed := range byte(4) {
		conn := dial(t, addr)
		wg.Go(func() {
			src := rand.NewChaCha8([32]byte{seed})
			b := make([]byte, 500_000)
			_, _ = src.Read(b)
			for rest := b; len(rest) > 0; {
				n := min(len(rest), 1+rand.IntN(5000))
				if _, err := conn.Write(rest[:n]); err != nil {
					t.Error(err)
					return
				}
				rest = rest[n:]
			}
			got := make([]byte, len(b))
			if _, err := readFull(conn, got); err != nil || string(got) != string(b) {
				t.Errorf("not the bytes that were sent: %v", err)
			}
		})
	}
	wg.Wait()
}

func TestOneBusyConnectionDoesNotKeepOthersWaiting(t *testing.T) {
	cfg := quick()
	cfg.ReadBuffer = 8 << 10
	l := running(t, cfg)
	var turns []string
	var conns []*Conn
	names := []string{"busy", "other"}
	addr := serve(t, l, func(c *Conn, _ netip.AddrPort) Handler {
		name := names[len(conns)]
		conns = append(conns, c)
		c.Pause()
		return &funcs{data: func([]byte) { turns = append(turns, name) }}
	})
	busy := dial(t, addr)
	eventually(t, "busy was accepted", func() bool { return l.Stats().Accepted == 1 })
	other := dial(t, addr)
	eventually(t, "other was accepted", func() bool { return l.Stats().Accepted == 2 })
	if _, err := busy.Write(make([]byte, 4*l.cfg.ReadBuffer)); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both have bytes", func() bool {
		ok := false
		on(t, l, func() { ok = unread(conns[0].fd) == 4*l.cfg.ReadBuffer && unread(conns[1].fd) == 1 })
		return ok
	})
	on(t, l, func() { conns[0].Resume(); conns[1].Resume() })
	eventually(t, "all was read", func() bool {
		n := 0
		on(t, l, func() { n = len(turns) })
		return n == 5
	})
	on(t, l, func() {
		if turns[0] != "busy" || turns[1] != "other" {
			t.Errorf("turns %v: want the other right after busy's first", turns)
		}
	})
}

func TestPostReachesTheLoopFromManyGoroutines(t *testing.T) {
	l := running(t, quick())
	const n, each = 16, 2000
	sum := 0
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for range each {
				l.Post(func() { sum++ })
			}
		})
	}
	wg.Wait()
	on(t, l, func() {
		if sum != n*each {
			t.Errorf("%d functions ran, want %d", sum, n*each)
		}
	})
}

func TestTheEndOfALoopClosesEverythingAndTakesNoMore(t *testing.T) {
	l, err := New(quick(), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var ends atomic.Int64
	if err := l.Listen(ln, func(*Conn, netip.AddrPort) Handler {
		return &funcs{closed: func(err error) {
			if err == net.ErrClosed {
				ends.Add(1)
			}
		}}
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	a, b := dial(t, ln.Addr().String()), dial(t, ln.Addr().String())
	eventually(t, "both were accepted", func() bool { return l.Stats().Accepted == 2 })
	late := false
	l.Post(func() { cancel(); l.Post(func() { late = true }) })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !late {
		t.Error("what was posted before the end did not run")
	}
	if ends.Load() != 2 || l.Stats().Closed != 2 {
		t.Errorf("%d handlers heard of the end, %d connections were closed; want 2, 2", ends.Load(), l.Stats().Closed)
	}
	for _, c := range []net.Conn{a, b} {
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("read: %v, want io.EOF", err)
		}
	}
	if l.Post(func() { t.Error("ran after the end") }) {
		t.Error("Post after the end returned true")
	}
	if _, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		t.Error("still listening")
	}
}

func TestStopListeningLetsConnectionsGoOn(t *testing.T) {
	l := running(t, quick())
	addr := serve(t, l, echo)
	conn := dial(t, addr)
	eventually(t, "it was accepted", func() bool { return l.Stats().Accepted == 1 })
	on(t, l, l.StopListening)
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Error("still listening")
	}
	if _, err := conn.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := readFull(conn, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}
