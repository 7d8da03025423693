package peer

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"
)

// refused waits until the other side has closed the connection.
func refused(t *testing.T, conn net.Conn) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	_, err := io.Copy(io.Discard, conn)
	if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
		t.Error("the connection is still open")
	}
}

func connect(t *testing.T, l *Link) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", l.Address().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestStrangersAreNotLetIn(t *testing.T) {
	key := newKey(t)
	cfg := DefaultConfig("b")
	l := start(t, key, cfg, map[string]Handler{"echo": echo})
	good, err := key.TLS("a")
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := newKey(t).TLS("a")
	if err != nil {
		t.Fatal(err)
	}
	with := func(change func(*tls.Config)) *tls.Config {
		c := good.Clone()
		c.ServerName, c.NextProtos = "b", []string{callProtocol}
		change(c)
		return c
	}
	for name, c := range map[string]*tls.Config{
		"no certificate": with(func(c *tls.Config) { c.Certificates = nil }),
		"wrong fleet":    with(func(c *tls.Config) { c.Certificates = foreign.Certificates }),
		"old TLS":        with(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }),
		"no protocol":    with(func(c *tls.Config) { c.NextProtos = nil }),
		"other protocol": with(func(c *tls.Config) { c.NextProtos = []string{"h2"} }),
	} {
		t.Run(name, func(t *testing.T) {
			conn := tls.Client(connect(t, l), c)
			if err := conn.Handshake(); err != nil {
				return
			}
			refused(t, conn) // in TLS 1.3 the client is done before the server has looked at it
		})
	}
	a := start(t, key, DefaultConfig("a"), nil)
	if _, err := a.Call(within(t), member(l), "echo", nil); err != nil {
		t.Errorf("and then a member is not let in either: %v", err)
	}
}

func TestGarbageAndSilenceEndByThemselvesAndCostNothing(t *testing.T) {
	key := newKey(t)
	cfg := DefaultConfig("b")
	cfg.Handshake, cfg.MaxHandshakesPerHost = 300*time.Millisecond, 100
	l := start(t, key, cfg, map[string]Handler{"echo": echo})
	before := heap()
	for _, bytes := range [][]byte{
		[]byte("GET / HTTP/1.0\r\n\r\n"), bytes.Repeat([]byte{0}, 1<<16), {22, 3, 1, 0x3f, 0xff, 1},
		bytes.Repeat([]byte{22, 3, 3, 0, 1, 1}, 1<<14), {},
	} {
		for range 10 {
			conn := connect(t, l)
			conn.Write(bytes) // refused at any point of it
			refused(t, conn)
			conn.Close()
		}
	}
	await(t, func() bool {
		l.gate.mu.Lock()
		defer l.gate.mu.Unlock()
		return l.gate.total == 0 && len(l.gate.strangers) == 0
	})
	if after := heap(); after > before+4<<20 {
		t.Errorf("the heap grew from %d to %d bytes", before, after)
	}
}

func TestSlowStrangersDoNotKeepMembersOut(t *testing.T) {
	key := newKey(t)
	cfg := DefaultConfig("b")
	cfg.Handshake, cfg.MaxHandshakesPerHost, cfg.MaxHandshakes = patience, 4, 8
	l := start(t, key, cfg, map[string]Handler{"echo": echo})
	slow := make([]net.Conn, 0, 4)
	for range 4 {
		conn := connect(t, l)
		if _, err := conn.Write([]byte{22}); err != nil {
			t.Fatal(err)
		}
		slow = append(slow, conn)
	}
	await(t, func() bool { l.gate.mu.Lock(); defer l.gate.mu.Unlock(); return l.gate.total == 4 })
	refused(t, connect(t, l)) // the fifth from one host
	elsewhere := DefaultConfig("a")
	elsewhere.Dialer.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}
	a := start(t, key, elsewhere, nil)
	if _, err := a.Call(within(t), member(l), "echo", nil); err != nil {
		t.Errorf("a member on another host is kept out: %v", err)
	}
	for _, conn := range slow {
		conn.Close()
	}
	await(t, func() bool { l.gate.mu.Lock(); defer l.gate.mu.Unlock(); return l.gate.total == 0 })
}

func TestAMemberThatSendsMalformedFramesIsCutOff(t *testing.T) {
	key := newKey(t)
	l := start(t, key, DefaultConfig("b"), map[string]Handler{"echo": echo})
	config, err := key.TLS("a")
	if err != nil {
		t.Fatal(err)
	}
	config.ServerName, config.NextProtos = "b", []string{callProtocol}
	for _, message := range [][]byte{
		{0xff, 0xff, 0xff, 0xff}, {0, 0, 0, 0}, appendFrame(nil, frameAnswer, 1), appendFrame(nil, 99, 1),
		appendFrame(nil, frameRequest, 1), appendFrame(nil, frameRequest, 1, []byte{0, 0, 0, 1, 0}),
		appendFrame(nil, frameRequest, 1, []byte{0, 0, 0, 1, 64, 'x'}),
	} {
		conn := tls.Client(connect(t, l), config)
		if _, err := conn.Write(message); err != nil {
			t.Fatal(err)
		}
		refused(t, conn)
		conn.Close()
	}
}

func TestMoreConnectionsThanAFleetNeedsAreRefused(t *testing.T) {
	key := newKey(t)
	cfg := DefaultConfig("b")
	cfg.MaxPeers = 1
	l := start(t, key, cfg, map[string]Handler{"echo": echo})
	first := start(t, key, DefaultConfig("a"), nil)
	if _, err := first.Call(within(t), member(l), "echo", nil); err != nil {
		t.Fatal(err)
	}
	second := start(t, key, DefaultConfig("c"), nil)
	if _, err := second.Call(within(t), member(l), "echo", nil); err == nil {
		t.Error("one more is served")
	}
	if _, err := first.Call(within(t), member(l), "echo", nil); err != nil {
		t.Error(err)
	}
}
