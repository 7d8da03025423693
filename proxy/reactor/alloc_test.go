package reactor

import (
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"
)

// ask lets a client send 100 bytes n times and wait for each answer.
func ask(t testing.TB, client io.ReadWriter, n int) {
	b := make([]byte, 100)
	for range n {
		if _, err := client.Write(b); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(client, b); err != nil {
			t.Fatal(err)
		}
	}
}

// relaying accepts clients and joins each of them to a connection to an echo server on the same loop,
// with a timer per message, as a session does.
func relaying(t testing.TB, l *Loop, cfg *tls.Config, clients int) string {
	t.Helper()
	back := serve(t, l, echo)
	servers := make(chan *Transport, clients)
	for range clients {
		conn, err := net.Dial("tcp", back)
		if err != nil {
			t.Fatal(err)
		}
		servers <- NewTransport(conn)
	}
	return serve(t, l, func(c *Conn, _ netip.AddrPort) Handler {
		timer := new(Timer)
		timer.Init(l, c.Close)
		timer.Own(c)
		server, err := l.Adopt(<-servers, &funcs{
			data:   func(b []byte) { timer.Stop(); c.Write(b) },
			closed: func(error) { c.Close() },
		})
		if err != nil {
			t.Error(err)
			return nil
		}
		return &funcs{data: func(b []byte) {
			if cfg != nil && !c.TLS() {
				c.Write([]byte("S"))
				c.StartTLS(cfg, func(tls.ConnectionState, error) {})
				return
			}
			timer.Set(time.Minute)
			server.Buffer(b[:len(b)/2])
			server.Write(b[len(b)/2:])
		}, closed: func(error) { server.Close() }}
	})
}

func TestAMessageCostsNoAllocation(t *testing.T) {
	l := running(t, quick())
	client := dial(t, relaying(t, l, nil, 1))
	ask(t, client, 200)
	const n = 5000
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	ask(t, client, n)
	runtime.ReadMemStats(&after)
	// A few hundred may be the runtime's own, or a timer of the test's.
	if got := after.Mallocs - before.Mallocs; got > n/20 {
		t.Fatalf("%d allocations for %d messages relayed", got, n)
	}
}

func TestAMessageCostsTheFewestSystemCalls(t *testing.T) {
	l := running(t, quick())
	client := dial(t, relaying(t, l, nil, 1))
	ask(t, client, 10)
	on(t, l, func() {})
	before := l.Stats()
	const n = 1000
	ask(t, client, n)
	on(t, l, func() {})
	after := l.Stats()
	// Four ends in this process: the client's side, both of the server's connection, the echo.
	if reads := after.Reads - before.Reads; reads > 3*n {
		t.Errorf("%d reads for %d messages over three connections, want one each", reads, n)
	}
	if writes := after.Writes - before.Writes; writes > 3*n {
		t.Errorf("%d writes for %d messages over three connections, want one each", writes, n)
	}
}

func benchmarkRelay(b *testing.B, cfg, clientConfig *tls.Config) {
	const clients = 16
	l := running(b, quick())
	addr := relaying(b, l, cfg, clients)
	conns := make([]io.ReadWriter, clients)
	for i := range conns {
		if cfg == nil {
			conns[i] = dial(b, addr)
		} else {
			conns[i], _ = dialSecure(b, addr, clientConfig, 0)
		}
		ask(b, conns[i], 1)
	}
	b.ReportAllocs()
	b.ResetTimer()
	done := make(chan struct{}, clients)
	for i, c := range conns {
		go func() {
			defer func() { done <- struct{}{} }()
			ask(b, c, (b.N+i)/clients)
		}()
	}
	for range clients {
		<-done
	}
}

func BenchmarkRelay(b *testing.B) { benchmarkRelay(b, nil, nil) }

func BenchmarkRelayTLS(b *testing.B) {
	server, client := tlsPair(b, tls.VersionTLS13)
	benchmarkRelay(b, server, client)
}

func BenchmarkTimerMovedLater(b *testing.B) {
	l := stopped()
	var t Timer
	t.Init(l, func() {})
	for b.Loop() {
		l.clock++
		t.Set(time.Second)
		t.Stop()
	}
}

func BenchmarkPost(b *testing.B) {
	l := running(b, quick())
	fn := func() {}
	b.ReportAllocs()
	for b.Loop() {
		l.Post(fn)
	}
	on(b, l, fn)
}
