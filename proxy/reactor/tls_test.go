package reactor

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"testing"
	"time"
)

// tlsPair makes a server's and a client's configuration that trust each other.
func tlsPair(t testing.TB, version uint16) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "localhost"},
		DNSNames:     []string{"localhost"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IsCA:         true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	server = &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		MinVersion:   version, MaxVersion: version,
	}
	client = &tls.Config{RootCAs: pool, ServerName: "localhost", MinVersion: version, MaxVersion: version}
	return server, client
}

var versions = []uint16{tls.VersionTLS12, tls.VersionTLS13}

func eachVersion(t *testing.T, fn func(t *testing.T, server, client *tls.Config)) {
	for _, v := range versions {
		t.Run(tls.VersionName(v), func(t *testing.T) {
			server, client := tlsPair(t, v)
			fn(t, server, client)
		})
	}
}

// pieces is a net.Conn that writes at most n bytes at a time.
type pieces struct {
	net.Conn
	n int
}

func (p pieces) Write(b []byte) (int, error) {
	for i := 0; i < len(b); i += p.n {
		if n, err := p.Conn.Write(b[i:min(i+p.n, len(b))]); err != nil {
			return i + n, err
		}
	}
	return len(b), nil
}

// memory is one direction of a connection without a socket: reading it when empty is a temporary error.
type memory struct{ bytes.Buffer }

func (m *memory) Read(b []byte) (int, error) {
	if m.Len() == 0 {
		return 0, errNoBytes
	}
	return m.Buffer.Read(b)
}

// TestCryptoTLSStaysUsableAfterTemporaryReadErrors is the canary for what the reactor leans on: a
// tls.Conn whose Read failed with a temporary error at any byte, between records and within one,
// goes on as if nothing had been.
func TestCryptoTLSStaysUsableAfterTemporaryReadErrors(t *testing.T) {
	eachVersion(t, func(t *testing.T, serverConfig, clientConfig *tls.Config) {
		a, b := net.Pipe()
		sp, cp := &pipe{ReadWriter: a}, &pipe{ReadWriter: b}
		server, client := tls.Server(sp, serverConfig), tls.Client(cp, clientConfig)
		shaken := make(chan error, 1)
		go func() { shaken <- server.Handshake() }()
		if err := client.Handshake(); err != nil {
			t.Fatal(err)
		}
		// The client reads the server's tickets, if any, while the pipe is still there.
		go func() { _, _ = server.Write([]byte("!")) }()
		if _, err := io.ReadFull(client, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if err := <-shaken; err != nil {
			t.Fatal(err)
		}
		var sent, fed memory
		sp.ReadWriter = struct {
			io.Reader
			io.Writer
		}{&fed, io.Discard}
		cp.ReadWriter = struct {
			io.Reader
			io.Writer
		}{&memory{}, &sent}
		var want, got bytes.Buffer
		buf := make([]byte, 4096)
		for size := 1; size < 80_000; size = size*3 + 1 {
			msg := bytes.Repeat([]byte{byte(size)}, size)
			want.Write(msg)
			if _, err := client.Write(msg); err != nil {
				t.Fatal(err)
			}
			step := 700
			if size < 2000 {
				step = 1
			}
			for sent.Len() > 0 {
				fed.Write(sent.Next(step))
				for {
					n, err := server.Read(buf)
					got.Write(buf[:n])
					if err == error(errNoBytes) {
						break
					}
					if err != nil {
						t.Fatalf("after %d bytes: %v", got.Len(), err)
					}
				}
			}
		}
		if !bytes.Equal(got.Bytes(), want.Bytes()) {
			t.Fatalf("got %d bytes, want %d", got.Len(), want.Len())
		}
	})
}

// secureEcho asks for TLS on each connection's first byte, as PostgreSQL's SSLRequest does, and
// echoes what comes over TLS.
func secureEcho(cfg *tls.Config, failed chan<- error) func(*Conn, netip.AddrPort) Handler {
	return func(c *Conn, _ netip.AddrPort) Handler {
		started := false
		return &funcs{
			data: func(b []byte) {
				if started {
					c.Buffer(b[:len(b)/2])
					c.Write(b[len(b)/2:])
					if c.Queued() > c.loop.cfg.HighWater {
						c.Pause()
					}
					return
				}
				started = true
				c.Write([]byte("S"))
				c.StartTLS(cfg, func(_ tls.ConnectionState, err error) {
					if err != nil {
						failed <- err
					}
				}, b[1:]...)
			},
			drained: func() { c.Resume() },
		}
	}
}

// dialSecure speaks the client's part of secureEcho, in small pieces if n is not 0.
func dialSecure(t testing.TB, addr string, cfg *tls.Config, n int) (*tls.Conn, *net.TCPConn) {
	t.Helper()
	raw := dial(t, addr)
	if _, err := raw.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	if b := make([]byte, 1); true {
		if _, err := readFull(raw, b); err != nil || b[0] != 'S' {
			t.Fatalf("answer %q, %v", b, err)
		}
	}
	var under net.Conn = raw
	if n > 0 {
		under = pieces{raw, n}
	}
	conn := tls.Client(under, cfg)
	if err := conn.Handshake(); err != nil {
		t.Fatal(err)
	}
	return conn, raw
}

func TestTLSClientsGetBackWhatTheySent(t *testing.T) {
	eachVersion(t, func(t *testing.T, server, client *tls.Config) {
		for _, n := range []int{0, 700, 1} {
			t.Run(fmt.Sprintf("pieces of %d", n), func(t *testing.T) {
				l := running(t, quick())
				conn, _ := dialSecure(t, serve(t, l, secureEcho(server, nil)), client, n)
				size := 3 << 20
				if n == 1 {
					size = 20_000
				}
				sent := make([]byte, size)
				_, _ = rand.Read(sent)
				go func() {
					for rest := sent; len(rest) > 0; {
						n := min(len(rest), 30_000)
						if _, err := conn.Write(rest[:n]); err != nil {
							t.Error(err)
							return
						}
						rest = rest[n:]
					}
				}()
				got := make([]byte, size)
				if n, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, sent) {
					t.Fatalf("got %d bytes of %d, %v", n, size, err)
				}
			})
		}
	})
}

func TestASlowTLSReaderMakesItsSourceWait(t *testing.T) {
	server, client := tlsPair(t, tls.VersionTLS13)
	l := running(t, quick())
	var inner *Conn
	accept := secureEcho(server, nil)
	addr := serve(t, l, func(c *Conn, r netip.AddrPort) Handler { inner = c; return accept(c, r) })
	conn, _ := dialSecure(t, addr, client, 0)
	const size = 16 << 20
	sum := make(chan [32]byte, 1)
	go func() {
		h, b := sha256.New(), make([]byte, 64<<10)
		for range size / len(b) {
			_, _ = rand.Read(b)
			h.Write(b)
			if _, err := conn.Write(b); err != nil {
				t.Error(err)
				break
			}
		}
		sum <- [32]byte(h.Sum(nil))
	}()
	eventually(t, "the source was paused", func() bool {
		paused := false
		on(t, l, func() {
			paused = inner.Paused()
			if bound := l.cfg.HighWater + 2*l.cfg.ReadBuffer; inner.Queued() > bound {
				t.Errorf("%d bytes are queued, want at most %d", inner.Queued(), bound)
			}
			if bound := sealBound + 2*chunkSize; inner.out.n > bound+l.cfg.ReadBuffer {
				t.Errorf("%d encrypted bytes are queued, want at most %d", inner.out.n, bound)
			}
		})
		return paused
	})
	h := sha256.New()
	if n, err := io.CopyN(h, conn, size); err != nil {
		t.Fatalf("%d bytes, then %v", n, err)
	}
	if [32]byte(h.Sum(nil)) != <-sum {
		t.Fatal("not the bytes that were sent")
	}
}

func TestPlainTextBehindTheRequestForTLSIsRefused(t *testing.T) {
	server, _ := tlsPair(t, tls.VersionTLS13)
	l, failed := running(t, quick()), make(chan error, 1)
	conn := dial(t, serve(t, l, secureEcho(server, failed)))
	if _, err := conn.Write([]byte("?injected")); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; err != ErrPlaintext {
		t.Fatalf("done got %v, want ErrPlaintext", err)
	}
	if got, _ := io.ReadAll(conn); string(got) != "S" {
		t.Fatalf("the client got %q", got)
	}
}

func TestAFailedHandshakeClosesTheConnection(t *testing.T) {
	server, _ := tlsPair(t, tls.VersionTLS13)
	l, failed := running(t, quick()), make(chan error, 1)
	conn := dial(t, serve(t, l, secureEcho(server, failed)))
	if _, err := conn.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	if _, err := readFull(conn, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(bytes.Repeat([]byte("this is not TLS"), 20_000)); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Log(err) // the reactor may be quicker than us
	}
	if err := <-failed; err == nil {
		t.Fatal("done got no error")
	}
	eventually(t, "it was closed", func() bool { return l.Stats().Closed == 1 })
}

func TestAClientThatLeavesWithinTheHandshakeIsForgotten(t *testing.T) {
	server, _ := tlsPair(t, tls.VersionTLS13)
	for _, how := range []string{"client leaves", "session closes", "loop ends"} {
		t.Run(how, func(t *testing.T) {
			l := running(t, quick())
			var inner *Conn
			accept := secureEcho(server, make(chan error, 1))
			conn := dial(t, serve(t, l, func(c *Conn, r netip.AddrPort) Handler { inner = c; return accept(c, r) }))
			if _, err := conn.Write([]byte("?")); err != nil {
				t.Fatal(err)
			}
			if _, err := readFull(conn, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			switch how {
			case "loop ends":
				return // Run waits for the handshake's goroutine
			case "client leaves":
				conn.Close()
			case "session closes":
				on(t, l, func() { inner.Close() })
			}
			eventually(t, "it was closed", func() bool { return l.Stats().Closed == 1 })
			l.hands.Wait()
		})
	}
}

func TestTheLastMessageAndCloseNotifyReachATLSClient(t *testing.T) {
	eachVersion(t, func(t *testing.T, server, client *tls.Config) {
		l := running(t, quick())
		last := bytes.Repeat([]byte("no "), 500_000)
		addr := serve(t, l, func(c *Conn, _ netip.AddrPort) Handler {
			return &funcs{data: func([]byte) {
				if c.TLS() {
					if v := c.ConnectionState().Version; v != server.MinVersion {
						t.Errorf("version %x", v)
					}
					c.Write(last)
					c.CloseAfterFlush()
					return
				}
				c.Write([]byte("S"))
				c.StartTLS(server, func(s tls.ConnectionState, err error) {
					if err != nil || !s.HandshakeComplete {
						t.Error(err)
					}
				})
			}}
		})
		conn, _ := dialSecure(t, addr, client, 0)
		if _, err := conn.Write([]byte("bad password")); err != nil {
			t.Fatal(err)
		}
		// io.ReadAll hides io.EOF, which crypto/tls reports in order only after close_notify or at a
		// record's end; a cut record is io.ErrUnexpectedEOF.
		if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, last) {
			t.Fatalf("got %d bytes, %v", len(got), err)
		}
	})
}

func TestCloseNotifyEndsTheConnectionAfterItsData(t *testing.T) {
	server, client := tlsPair(t, tls.VersionTLS13)
	l := running(t, quick())
	r := record()
	addr := serve(t, l, func(c *Conn, _ netip.AddrPort) Handler {
		h := r.handler()
		data := h.data
		h.data = func(b []byte) {
			if c.TLS() {
				data(b)
				return
			}
			c.Write([]byte("S"))
			c.StartTLS(server, func(tls.ConnectionState, error) {})
		}
		return h
	})
	conn, _ := dialSecure(t, addr, client, 0)
	if _, err := conn.Write([]byte("last words")); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := r.wait(t); err != io.EOF || r.got.String() != "last words" {
		t.Fatalf("got %q, Closed(%v)", r.got.String(), err)
	}
}

// TestAnAdoptedConnectionDeliversWhatTLSHadReadAlready lets the peer send a record of which the
// dialling goroutine reads one byte; the rest is in crypto/tls and no event will come for it.
func TestAnAdoptedConnectionDeliversWhatTLSHadReadAlready(t *testing.T) {
	eachVersion(t, func(t *testing.T, server, client *tls.Config) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		peer := make(chan net.Conn, 1)
		go func() {
			raw, err := ln.Accept()
			if err != nil {
				return
			}
			conn := tls.Server(raw, server)
			_, _ = conn.Write([]byte("hello from TLS"))
			peer <- conn
		}()
		tr := NewTransport(dial(t, ln.Addr().String()))
		if err := tr.StartTLS(context.Background(), client); err != nil {
			t.Fatal(err)
		}
		if !tr.TLS() || tr.ConnectionState().Version != client.MinVersion {
			t.Fatal("no TLS")
		}
		if _, err := io.ReadFull(tr, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		adopted(t, tr, peer, "ello from TLS")
	})
}

func TestAnAdoptedPlainConnectionGoesOnWhereItWas(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	peer := make(chan net.Conn, 1)
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		_, _ = conn.Write([]byte("hello"))
		peer <- conn
	}()
	tr := NewTransport(dial(t, ln.Addr().String()))
	if _, err := io.ReadFull(tr, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	adopted(t, tr, peer, "ello")
}

// adopted hands tr to a loop, expects first as what is there already, and then an echo.
func adopted(t *testing.T, tr *Transport, peer chan net.Conn, first string) {
	t.Helper()
	l, r := running(t, quick()), record()
	other := <-peer
	defer other.Close()
	local := tr.LocalAddr().(*net.TCPAddr).AddrPort()
	var c *Conn
	on(t, l, func() {
		var err error
		if c, err = l.Adopt(tr, r.handler()); err != nil {
			t.Error(err)
		}
	})
	if c == nil {
		return
	}
	eventually(t, "what had been read arrived", func() bool {
		var got string
		on(t, l, func() { got = r.got.String() })
		return got == first
	})
	if other.RemoteAddr().(*net.TCPAddr).AddrPort() != local {
		t.Fatal("not the same connection")
	}
	on(t, l, func() { c.Write([]byte("question")) })
	b := make([]byte, 8)
	if _, err := io.ReadFull(other, b); err != nil || string(b) != "question" {
		t.Fatalf("the peer read %q, %v", b, err)
	}
	if _, err := other.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the answer arrived", func() bool {
		var got string
		on(t, l, func() { got = r.got.String() })
		return got == first+"answer"
	})
	other.Close()
	if err := r.wait(t); err != io.EOF {
		t.Fatalf("Closed(%v), want io.EOF", err)
	}
}

func TestAdoptRefusesWhatHasNoDescriptorAndClosesIt(t *testing.T) {
	l := running(t, quick())
	a, b := net.Pipe()
	on(t, l, func() {
		if _, err := l.Adopt(NewTransport(a), &funcs{}); err == nil {
			t.Error("no error")
		}
	})
	if _, err := b.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read: %v, want io.EOF", err)
	}
}
