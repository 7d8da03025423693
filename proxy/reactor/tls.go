package reactor

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// sealBound is the amount of encrypted bytes waiting for the socket from which on no more are made:
// a peer that does not read keeps plain text waiting, of which less is held twice.
const sealBound = 64 << 10

// feedBound is the most that is read ahead of a handshake. Its messages are far smaller.
const feedBound = 64 << 10

// secure is the TLS side of a connection.
type secure struct {
	conn    *tls.Conn
	pipe    *pipe
	feed    *feed  // the handshake under way; nil afterwards
	end     *cable // what the pipe leads to after the handshake
	waiting queue  // plain text not yet encrypted
	more    bool   // conn may hold bytes that it has not given out
	parted  bool   // close_notify was sent
}

func (s *secure) bury(l *Loop) {
	s.waiting.clear(&l.chunks)
	if s.feed != nil {
		s.feed.abort(net.ErrClosed)
	}
}

// pipe is the net.Conn beneath a tls.Conn. What moves its bytes is replaced when the connection moves
// between a goroutine and the loop; a tls.Conn itself cannot be re-pointed.
type pipe struct {
	io.ReadWriter
	under net.Conn // of the dialling goroutine; nil otherwise
}

func (p *pipe) Close() error {
	if p.under != nil {
		return p.under.Close()
	}
	if f, ok := p.ReadWriter.(*feed); ok {
		f.abort(net.ErrClosed)
	}
	return nil
}

func (p *pipe) LocalAddr() net.Addr                { return nil }
func (p *pipe) RemoteAddr() net.Addr               { return nil }
func (p *pipe) SetDeadline(t time.Time) error      { return p.deadline(net.Conn.SetDeadline, t) }
func (p *pipe) SetReadDeadline(t time.Time) error  { return p.deadline(net.Conn.SetReadDeadline, t) }
func (p *pipe) SetWriteDeadline(t time.Time) error { return p.deadline(net.Conn.SetWriteDeadline, t) }

// deadline is for the goroutine only; crypto/tls also sets one when it says goodbye on the loop.
func (p *pipe) deadline(set func(net.Conn, time.Time) error, t time.Time) error {
	if p.under == nil {
		return nil
	}
	return set(p.under, t)
}

// errNoBytes is what crypto/tls reads on the loop when all has been read. Because it is temporary,
// the tls.Conn remains usable (crypto/tls, readRecordOrCCS).
var errNoBytes net.Error = noBytes{}

type noBytes struct{}

func (noBytes) Error() string   { return "no bytes yet" }
func (noBytes) Timeout() bool   { return true }
func (noBytes) Temporary() bool { return true }

// cable joins a tls.Conn to its connection on the loop. Write takes everything always: an error of
// Write would be final for the tls.Conn.
type cable struct {
	conn *Conn
	in   []byte
}

func (e *cable) Read(b []byte) (int, error) {
	if len(e.in) == 0 {
		return 0, errNoBytes
	}
	n := copy(b, e.in)
	e.in = e.in[n:]
	return n, nil
}

func (e *cable) Write(b []byte) (int, error) {
	if c := e.conn; c.phase < phaseClosing && !c.has(flagBroken) {
		c.out.append(&c.loop.chunks, b)
	}
	return len(b), nil
}

// receiveSecure delivers what TLS makes of the bytes that arrived, at most one buffer full.
func (c *Conn) receiveSecure() {
	s, l := c.secure, c.loop
	if s.feed != nil {
		c.feedHandshake()
		return
	}
	held := s.more
	if !held {
		if !c.has(flagReadable) {
			return
		}
		n := c.pull()
		if n == 0 {
			return
		}
		s.end.in = l.cipher[:n]
	}
	n, err := s.open(l.plainBuffer())
	s.more = err == nil
	if !held && len(s.end.in) > 0 {
		s.end.in = append([]byte(nil), s.end.in...) // the loop's buffer serves the next connection
	}
	if s.more || c.has(flagReadable) {
		l.later(c)
	}
	if c.out.n > 0 {
		c.setDirty() // alerts and answers to key updates
	}
	if n > 0 {
		c.handler.Data(l.plain[:n])
	}
	switch {
	case err == nil || err == error(errNoBytes):
	case err == io.EOF && c.onEnd != nil && !c.has(flagBroken):
		if c.phase == phaseOpen {
			c.part() // close_notify
		}
	default:
		c.flush()
		c.end(err)
	}
}

// open decrypts into b until it is full or an error says why there is no more.
func (s *secure) open(b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = s.conn.Read(b[n:])
		n += m
	}
	return n, err
}

func (l *Loop) plainBuffer() []byte {
	if l.plain == nil {
		l.plain = make([]byte, l.cfg.ReadBuffer)
	}
	return l.plain
}

func (c *Conn) writeSecure(b []byte) {
	s := c.secure
	if s.feed != nil || s.waiting.n > 0 || c.has(flagBlocked) || c.out.n >= sealBound {
		s.waiting.append(&c.loop.chunks, b)
	} else if _, err := s.conn.Write(b); err != nil {
		c.fail(fmt.Errorf("encrypt: %w", err))
		return
	}
	c.flush()
}

// seal encrypts plain text that waits, as long as the socket keeps up.
func (c *Conn) seal() {
	s := c.secure
	if s.feed != nil {
		return
	}
	for s.waiting.n > 0 && c.out.n < sealBound {
		n, err := s.conn.Write(s.waiting.front())
		if err != nil {
			c.fail(fmt.Errorf("encrypt: %w", err))
			return
		}
		s.waiting.drop(&c.loop.chunks, n)
	}
}

// sayGoodbye queues close_notify, once.
func (c *Conn) sayGoodbye() bool {
	s := c.secure
	if s.parted {
		return false
	}
	s.parted = true
	return s.conn.CloseWrite() == nil && c.out.n > 0
}

// StartTLS makes the connection speak TLS as the server. The handshake runs on a goroutine; done is
// called on the loop when it ended, never from within StartTLS, and not at all if the connection ends
// first. A client that sends no more makes it fail, unless all that it needs has come. After an error
// the connection closes by itself, and Closed gets the error. The caller bounds the time by closing the
// connection, and does not pause it meanwhile.
//
// rest is what the caller has in hand of bytes that came behind the request for TLS. If there are any,
// they are not TLS, and the connection ends with ErrPlaintext.
//
// Records are kept small at first unless cfg.DynamicRecordSizingDisabled is set; for large results it
// should be.
func (c *Conn) StartTLS(cfg *tls.Config, done func(tls.ConnectionState, error), rest ...byte) {
	if c.phase != phaseOpen || c.secure != nil {
		return
	}
	l := c.loop
	f := &feed{conn: c}
	f.filled.L = &f.mu
	p := &pipe{ReadWriter: f}
	s := &secure{conn: tls.Server(p, cfg), pipe: p, feed: f}
	c.secure = s
	if len(rest) > 0 {
		l.Post(func() { c.handshaken(done, ErrPlaintext) })
		return
	}
	l.hands.Go(func() {
		err := handshake(s.conn)
		l.Post(func() { c.handshaken(done, err) })
	})
}

// handshake runs crypto/tls over a stranger's bytes.
func handshake(conn *tls.Conn) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("TLS handshake: panic: %v", r)
		}
	}()
	if err := conn.Handshake(); err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	return nil
}

// handshaken takes the connection back from the goroutine.
func (c *Conn) handshaken(done func(tls.ConnectionState, error), err error) {
	if c.phase != phaseOpen {
		return
	}
	defer c.loop.rescue(c)
	s := c.secure
	in, out := s.feed.take()
	s.feed = nil
	c.out.append(&c.loop.chunks, out)
	s.end = &cable{conn: c, in: in}
	s.pipe.ReadWriter = s.end
	c.setDirty()
	if err != nil {
		done(tls.ConnectionState{}, err)
		c.closeAfterFlush(err)
		return
	}
	c.loop.count.Handshakes++
	s.more = true
	c.loop.later(c)
	done(s.conn.ConnectionState(), nil)
}

// feed is the way between the loop and a handshake's goroutine.
type feed struct {
	conn *Conn // only for use on the loop

	mu     sync.Mutex // guards what follows
	filled sync.Cond
	in     []byte
	out    []byte
	err    error
	state  feedState
}

type feedState uint8

const (
	feedFlowing feedState = iota
	feedFull              // the loop stopped reading; it is told when there is room
	feedCut               // nothing comes behind in; the socket's end is still to be read by the loop
)

func (f *feed) Read(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.in) == 0 {
		if f.err != nil {
			return 0, f.err
		}
		if f.state == feedCut {
			return 0, io.EOF
		}
		f.filled.Wait()
	}
	n := copy(b, f.in)
	f.in = f.in[n:]
	if f.state == feedFull && len(f.in) == 0 {
		f.state = feedFlowing
		c := f.conn
		c.loop.Post(func() { c.loop.later(c) })
	}
	return n, nil
}

func (f *feed) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return 0, f.err
	}
	if len(f.out) == 0 {
		f.conn.loop.Post(func() { f.conn.flushHandshake(f) })
	}
	f.out = append(f.out, b...)
	return len(b), nil
}

// abort ends the goroutine's handshake.
func (f *feed) abort(why error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = why
	}
	f.filled.Signal()
}

// cut says that nothing comes any more; what the handshake writes still goes out.
func (f *feed) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state = feedCut
	f.filled.Signal()
}

// take empties the feed. What is left in it came behind the handshake.
func (f *feed) take() (in, out []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	in, out, f.in, f.out = f.in, f.out, nil, nil
	return in, out
}

// put hands over bytes that arrived and says whether there is room for more.
func (f *feed) put(b []byte) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.in = append(f.in, b...)
	f.filled.Signal()
	if len(f.in) >= feedBound {
		f.state = feedFull
		return false
	}
	return true
}

func (f *feed) full() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state == feedFull
}

func (c *Conn) feedHandshake() {
	if !c.has(flagReadable) || c.secure.feed.full() {
		return
	}
	if n := c.pull(); n > 0 && c.secure.feed.put(c.loop.cipher[:n]) && c.has(flagReadable) {
		c.loop.later(c)
	}
}

func (c *Conn) flushHandshake(f *feed) {
	if c.phase != phaseOpen || c.secure.feed != f {
		return
	}
	f.mu.Lock()
	out := f.out
	f.out = nil
	f.mu.Unlock()
	c.out.append(&c.loop.chunks, out)
	c.flush()
}

// errTLSTwice is for a Transport that speaks TLS already.
var errTLSTwice = errors.New("start TLS: the connection is encrypted already")
