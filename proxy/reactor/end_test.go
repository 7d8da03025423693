package reactor

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// halfOpen accepts one connection that outlives its peer's end; ended gets what had arrived by then.
func halfOpen(t *testing.T, l *Loop, with func(*Conn)) (r *recorder, conn *Conn, peer *net.TCPConn, ended chan string) {
	t.Helper()
	r, ended = record(), make(chan string, 2)
	peer = r.accepting(t, l, func(c *Conn) {
		conn = c
		c.OnEnd(func() { ended <- r.got.String() })
		if with != nil {
			with(c)
		}
	})
	return r, conn, peer, ended
}

// hear waits for the end of what the peer sends.
func hear(t *testing.T, ended chan string) string {
	t.Helper()
	select {
	case got := <-ended:
		return got
	case <-time.After(20 * time.Second):
		t.Fatal("the end of the peer's side was not reported")
		return ""
	}
}

func isReset(err error) bool {
	return errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET)
}

func TestAPeerThatHasEndedItsSideReadsTheRest(t *testing.T) {
	l := running(t, quick())
	r, conn, peer, ended := halfOpen(t, l, nil)
	request := bytes.Repeat([]byte("x"), 200_000)
	if _, err := peer.Write(request); err != nil {
		t.Fatal(err)
	}
	if err := peer.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := hear(t, ended); got != string(request) {
		t.Fatalf("%d bytes before the end, want %d", len(got), len(request))
	}
	answer := bytes.Repeat([]byte("answer"), 1_000_000)
	on(t, l, func() { conn.Write(answer[:1000]) })
	on(t, l, func() { conn.Write(answer[1000:]); conn.CloseAfterFlush() })
	if got, err := io.ReadAll(peer); err != nil || !bytes.Equal(got, answer) {
		t.Fatalf("the peer read %d bytes, %v; want %d", len(got), err, len(answer))
	}
	if err := r.wait(t); err != net.ErrClosed {
		t.Errorf("Closed(%v), want net.ErrClosed", err)
	}
	if len(ended) > 0 {
		t.Error("the end was reported twice")
	}
}

func TestAConnectionWhosePeerHasEndedItsSideRests(t *testing.T) {
	l := running(t, quick())
	_, conn, peer, ended := halfOpen(t, l, nil)
	if err := peer.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	hear(t, ended)
	var before, after Stats
	on(t, l, func() { before = l.count })
	for range 20 {
		on(t, l, func() { conn.Pause(); conn.Resume() })
	}
	on(t, l, func() {
		after = l.count
		if len(l.ready) > 0 {
			t.Error("it has something to do")
		}
	})
	if after.Reads != before.Reads {
		t.Errorf("%d reads behind the end", after.Reads-before.Reads)
	}
	// Each Post may cost a cycle to wake up and one to run.
	if n := after.Cycles - before.Cycles; n > 60 {
		t.Errorf("the loop ran %d times for 21 calls", n)
	}
}

func TestTheEndWaitsForResume(t *testing.T) {
	l := running(t, quick())
	_, conn, peer, ended := halfOpen(t, l, func(c *Conn) { c.Pause() })
	if _, err := peer.Write([]byte("last words")); err != nil {
		t.Fatal(err)
	}
	if err := peer.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end was seen", func() (seen bool) {
		on(t, l, func() { seen = conn.has(flagHup) })
		return seen
	})
	on(t, l, func() {
		conn.Write([]byte("not yet"))
		if len(ended) > 0 || conn.phase != phaseOpen {
			t.Error("a paused connection was ended")
		}
	})
	if _, err := readFull(peer, make([]byte, len("not yet"))); err != nil {
		t.Fatal(err)
	}
	on(t, l, func() { conn.Resume() })
	if got := hear(t, ended); got != "last words" {
		t.Errorf("%q before the end", got)
	}
}

// A peer that has closed looks like one that has ended its side, until it is written to.
func TestAPeerThatIsGoneIsNoticedAtTheFirstWrite(t *testing.T) {
	for _, tc := range []struct {
		name   string
		before func(*Conn) // on the loop, when the end has come
	}{
		{"reading", func(*Conn) {}},
		{"paused", (*Conn).Pause},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := running(t, quick())
			r, conn, peer, ended := halfOpen(t, l, nil)
			peer.Close()
			hear(t, ended)
			on(t, l, func() { tc.before(conn); conn.Write([]byte("answer")) })
			if err := r.wait(t); !isReset(err) {
				t.Errorf("Closed(%v), want EPIPE or ECONNRESET", err)
			}
		})
	}
}

func TestAResetBehindTheEndClosesTheConnection(t *testing.T) {
	for _, tc := range []struct {
		name string
		with func(*Conn)
		hear func(*testing.T, chan string)
	}{
		{"reading", nil, func(t *testing.T, ended chan string) { hear(t, ended) }},
		{"paused", (*Conn).Pause, func(*testing.T, chan string) {}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := running(t, quick())
			r, conn, peer, ended := halfOpen(t, l, tc.with)
			if err := peer.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			tc.hear(t, ended)
			eventually(t, "the end was seen", func() (seen bool) {
				on(t, l, func() { seen = conn.has(flagHup) })
				return seen
			})
			_ = peer.SetLinger(0)
			peer.Close()
			if err := r.wait(t); !isReset(err) {
				t.Errorf("Closed(%v), want EPIPE or ECONNRESET", err)
			}
		})
	}
}

func TestAPeerThatEndedItsSideMayReadLate(t *testing.T) {
	cfg := quick()
	cfg.FlushTimeout = 10 * time.Millisecond
	l := running(t, cfg)
	r, conn, peer, ended := halfOpen(t, l, nil)
	if err := peer.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	hear(t, ended)
	later := make(chan struct{})
	var clock Timer
	answer := make([]byte, 16<<20)
	on(t, l, func() {
		conn.Write(answer)
		conn.CloseAfterFlush()
		clock.Init(l, func() { close(later) })
		clock.Set(5 * cfg.FlushTimeout)
	})
	<-later
	if n, err := io.Copy(io.Discard, peer); err != nil || n != int64(len(answer)) {
		t.Fatalf("%d bytes, %v; want %d", n, err, len(answer))
	}
	if err := r.wait(t); err != net.ErrClosed {
		t.Errorf("Closed(%v), want net.ErrClosed", err)
	}
}

// halfOpenTLS is halfOpen over TLS; the peer has shaken hands.
func halfOpenTLS(t *testing.T, l *Loop, server, client *tls.Config) (r *recorder, inner *Conn, conn *tls.Conn, raw *net.TCPConn, ended chan string) {
	t.Helper()
	r, ended = record(), make(chan string, 2)
	addr := serve(t, l, func(c *Conn, _ netip.AddrPort) Handler {
		inner = c
		c.OnEnd(func() { ended <- r.got.String() })
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
	conn, raw = dialSecure(t, addr, client, 0)
	on(t, l, func() {}) // orders its write of inner before our reading
	return r, inner, conn, raw, ended
}

func TestCloseNotifyEndsOneSideOnly(t *testing.T) {
	eachVersion(t, func(t *testing.T, server, client *tls.Config) {
		l := running(t, quick())
		r, inner, conn, raw, ended := halfOpenTLS(t, l, server, client)
		if _, err := conn.Write([]byte("last words")); err != nil {
			t.Fatal(err)
		}
		if err := conn.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if err := raw.CloseWrite(); err != nil { // as clients do that are done with TLS's half
			t.Fatal(err)
		}
		if got := hear(t, ended); got != "last words" {
			t.Errorf("%q before the end", got)
		}
		answer := bytes.Repeat([]byte("answer"), 500_000)
		on(t, l, func() { inner.Write(answer) })
		on(t, l, func() { inner.CloseAfterFlush() })
		if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, answer) {
			t.Fatalf("the peer read %d bytes, %v; want %d", len(got), err, len(answer))
		}
		if err := r.wait(t); err != net.ErrClosed {
			t.Errorf("Closed(%v), want net.ErrClosed", err)
		}
	})
}

func TestTLSThatIsCutIsNotHalfOpen(t *testing.T) {
	eachVersion(t, func(t *testing.T, server, client *tls.Config) {
		l := running(t, quick())
		r, _, conn, raw, ended := halfOpenTLS(t, l, server, client)
		if _, err := conn.Write([]byte("last words")); err != nil {
			t.Fatal(err)
		}
		if err := raw.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if err := r.wait(t); err != io.EOF || r.got.String() != "last words" {
			t.Errorf("got %q, Closed(%v)", r.got.String(), err)
		}
		if len(ended) > 0 {
			t.Error("it was taken for an end in order")
		}
	})
}

func TestCloseWriteComesBehindWhatWaitsAndLetsDataCome(t *testing.T) {
	l := running(t, quick())
	r := record()
	var conn *Conn
	peer := r.accepting(t, l, func(c *Conn) { conn = c })
	on(t, l, func() {
		conn.Write(make([]byte, 16<<20))
		conn.CloseWrite()
		conn.CloseWrite()
		conn.Write([]byte("too late"))
		conn.Buffer([]byte("too late"))
	})
	if n, err := io.Copy(io.Discard, peer); err != nil || n != 16<<20 {
		t.Fatalf("the peer read %d bytes, %v; want %d", n, err, 16<<20)
	}
	if _, err := peer.Write([]byte("last words")); err != nil {
		t.Fatal(err)
	}
	peer.Close()
	if err := r.wait(t); err != io.EOF || r.got.String() != "last words" {
		t.Errorf("got %q, Closed(%v)", r.got.String(), err)
	}
}

func TestCloseWriteSaysCloseNotify(t *testing.T) {
	eachVersion(t, func(t *testing.T, server, client *tls.Config) {
		l := running(t, quick())
		r, inner, conn, _, _ := halfOpenTLS(t, l, server, client)
		question := bytes.Repeat([]byte("question"), 500_000)
		eventually(t, "the handshake ended", func() (done bool) {
			on(t, l, func() { done = inner.TLS() })
			return done
		})
		on(t, l, func() { inner.Write(question); inner.CloseWrite() })
		// io.ReadAll hides io.EOF, which crypto/tls reports only behind close_notify here: a connection
		// that ends without it is io.ErrUnexpectedEOF.
		if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, question) {
			t.Fatalf("the peer read %d bytes, %v; want %d", len(got), err, len(question))
		}
		if _, err := conn.Write([]byte("last words")); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the answer came", func() (came bool) {
			on(t, l, func() { came = r.got.String() == "last words" })
			return came
		})
		on(t, l, func() { inner.Close() })
		if err := r.wait(t); err != net.ErrClosed {
			t.Errorf("Closed(%v), want net.ErrClosed", err)
		}
	})
}
