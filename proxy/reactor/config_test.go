package reactor

import (
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
)

func TestSettingsThatCannotWorkAreNamed(t *testing.T) {
	cases := []struct {
		key    string // "" = valid
		change func(*Config)
	}{
		{"", func(*Config) {}},
		{"", func(c *Config) { c.KeepaliveIdle, c.KeepaliveInterval, c.KeepaliveCount = 0, 0, 0 }},
		{"", func(c *Config) { c.UserTimeout, c.Linger = 0, 0 }},
		{"high_water", func(c *Config) { c.HighWater = 0 }},
		{"low_water", func(c *Config) { c.LowWater = c.HighWater }},
		{"low_water", func(c *Config) { c.LowWater = -1 }},
		{"read_buffer", func(c *Config) { c.ReadBuffer = 100 }},
		{"accept_batch", func(c *Config) { c.AcceptBatch = 0 }},
		{"accept_pause", func(c *Config) { c.AcceptPause = 0 }},
		{"flush_timeout", func(c *Config) { c.FlushTimeout = 0 }},
		{"linger", func(c *Config) { c.Linger = -1 }},
		{"keepalive_idle", func(c *Config) { c.KeepaliveIdle = time.Millisecond }},
		{"keepalive_interval", func(c *Config) { c.KeepaliveInterval = 0 }},
		{"keepalive_count", func(c *Config) { c.KeepaliveCount = 1000 }},
		{"user_timeout", func(c *Config) { c.UserTimeout = -1 }},
	}
	for _, tc := range cases {
		cfg := DefaultConfig()
		tc.change(&cfg)
		switch err := cfg.Validate(); {
		case tc.key == "" && err != nil:
			t.Errorf("refused a valid configuration: %v", err)
		case tc.key != "" && (err == nil || !strings.HasPrefix(err.Error(), tc.key+" ")):
			t.Errorf("got %v, want an error about %s", err, tc.key)
		}
	}
	bad := DefaultConfig()
	bad.HighWater = 0
	if _, err := New(bad, zap.NewNop()); err == nil {
		t.Error("New takes an invalid configuration")
	}
}

func TestUnixSocketsAreServedAndAdopted(t *testing.T) {
	l := running(t, quick())
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	on(t, l, func() { err = l.Listen(ln, echo) })
	if err != nil {
		t.Fatal(err)
	}
	under, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	r := record()
	on(t, l, func() {
		c, err := l.Adopt(NewTransport(under), r.handler())
		if err != nil {
			t.Error(err)
			return
		}
		if c.RemoteAddr() != (netip.AddrPort{}) {
			t.Errorf("remote address %v on a Unix socket", c.RemoteAddr())
		}
		c.Write([]byte("hello"))
	})
	eventually(t, "the echo arrived", func() bool {
		var got string
		on(t, l, func() { got = r.got.String() })
		return got == "hello"
	})
	on(t, l, l.StopListening)
	if _, err := net.Dial("unix", path); err == nil {
		t.Error("still listening")
	}
}

// TestRubbishInPlaceOfAHandshakeHurtsNobody feeds the TLS handshake, which reads a stranger's bytes.
func TestRubbishInPlaceOfAHandshakeHurtsNobody(t *testing.T) {
	server, _ := tlsPair(t, 0)
	failed := make(chan error, 100)
	l := running(t, quick())
	addr := serve(t, l, secureEcho(server, failed))
	const n = 50
	for i := range n {
		conn := dial(t, addr)
		if _, err := conn.Write([]byte("?")); err != nil {
			t.Fatal(err)
		}
		if _, err := readFull(conn, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		// A plausible header of a handshake record, so that some of it is parsed, then anything.
		b := []byte{22, 3, 1, byte(i), byte(i * 7), 1, 0, byte(i), byte(i * 31)}
		b = append(b, strings.Repeat(string(rune('a'+i%26)), i*100)...)
		if _, err := conn.Write(b); err == nil {
			_ = conn.CloseWrite()
		}
		_, _ = io.Copy(io.Discard, conn)
	}
	eventually(t, "all were closed", func() bool { return l.Stats().Closed == n })
	if p := l.Stats().Panics; p != 0 {
		t.Errorf("%d panics", p)
	}
}
