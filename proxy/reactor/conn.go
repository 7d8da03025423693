package reactor

import (
	"crypto/tls"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A Conn is one connection of a loop. Its methods are called on the loop only; after Closed they do
// nothing. A Conn is never used again for another connection.
type Conn struct {
	loop       *Loop
	handler    Handler
	secure     *secure // nil without TLS
	out        queue   // bytes on their way to the socket
	fd         int32
	slot       int32
	generation int32
	phase      phase
	flags      flags
	remote     netip.AddrPort
	why        error  // for Closed
	bye        *Timer // bounds CloseAfterFlush
	onEnd      func() // by OnEnd; nil: the peer's end is the connection's
}

type phase uint8

const (
	phaseOpen      phase = iota
	phaseFlushing        // CloseAfterFlush: reads nothing, writes what waits
	phaseLingering       // all is written; throws away what comes until the peer closes
	phaseClosing         // to be closed at the end of the batch
	phaseClosed
)

type flags uint16

const (
	flagReadable flags = 1 << iota // the kernel may have bytes or the end for us
	flagBlocked                    // the kernel took less than it was given; an event will come
	flagPaused                     // by Pause
	flagOver                       // the queue passed the high-water mark, Drained is owed
	flagReady                      // on the loop's ready list
	flagDirty                      // on the loop's dirty list
	flagHup                        // the peer's end or an error has been seen: a short read is not the last
	flagBroken                     // writing failed; reads what had arrived, then closes
	flagGone                       // the kernel says that neither direction works any more
	flagEnded                      // the peer sends no more and onEnd was called; writing goes on
	flagShut                       // by CloseWrite
	flagShutDone                   // … and the peer has been told
)

func (c *Conn) has(f flags) bool { return c.flags&f != 0 }
func (c *Conn) set(f flags)      { c.flags |= f }
func (c *Conn) unset(f flags)    { c.flags &^= f }

// RemoteAddr is the peer's address, IPv4 in its own form; the zero value on a Unix socket.
func (c *Conn) RemoteAddr() netip.AddrPort { return c.remote }

// Queued is the number of bytes that wait to be written. With TLS, what is encrypted already counts
// with its overhead.
func (c *Conn) Queued() int {
	n := c.out.n
	if c.secure != nil {
		n += c.secure.waiting.n
	}
	return n
}

// Pause keeps Data from being called until Resume. The kernel then makes the peer wait. A paused
// connection whose peer has gone, and left no bytes, is Closed all the same; with OnEnd, a peer
// that has only ended its side is not gone.
func (c *Conn) Pause() { c.set(flagPaused) }

// Resume ends Pause. Bytes that are there already come in a later event.
func (c *Conn) Resume() {
	if !c.has(flagPaused) {
		return
	}
	c.unset(flagPaused)
	if c.has(flagReadable) || c.secure != nil && c.secure.more {
		c.loop.later(c)
	}
}

// Paused says whether the last of Pause and Resume was Pause.
func (c *Conn) Paused() bool { return c.has(flagPaused) }

// Close ends the connection at once; what waits to be written is lost. Closed(net.ErrClosed) follows.
func (c *Conn) Close() { c.finish(net.ErrClosed) }

// CloseAfterFlush stops reading, writes what waits, and closes. Closed(net.ErrClosed) follows, or
// Closed(ErrFlushTimeout).
func (c *Conn) CloseAfterFlush() { c.closeAfterFlush(net.ErrClosed) }

func (c *Conn) closeAfterFlush(why error) {
	if c.phase != phaseOpen {
		return
	}
	if c.has(flagBroken) || c.secure != nil && c.secure.feed != nil {
		c.finish(why)
		return
	}
	c.phase, c.why = phaseFlushing, why
	limit := c.loop.cfg.FlushTimeout
	if c.has(flagEnded) {
		// The peer ended its side to hear the rest of ours: it may take as long as if we stayed open.
		limit = max(limit, c.loop.cfg.UserTimeout)
	}
	c.arm(limit, ErrFlushTimeout)
	c.setDirty()
}

// arm closes the connection after d.
func (c *Conn) arm(d time.Duration, why error) {
	if c.bye == nil {
		c.bye = new(Timer)
	}
	c.bye.Init(c.loop, func() { c.finish(why) })
	c.bye.Own(c)
	c.bye.Set(d)
}

// finish lets the connection end with the current batch.
func (c *Conn) finish(why error) {
	if c.phase >= phaseClosing {
		return
	}
	c.phase, c.why = phaseClosing, why
	c.loop.doomed = append(c.loop.doomed, c)
}

// bury gives back all that the connection holds.
func (c *Conn) bury() {
	l := c.loop
	c.phase = phaseClosed
	l.slots.give(c)
	_ = unix.Close(int(c.fd))
	c.fd = -1
	c.out.clear(&l.chunks)
	if c.secure != nil {
		c.secure.bury(l)
	}
	if c.bye != nil {
		c.bye.Stop()
	}
	l.count.Closed++
}

// event takes note of what the kernel says.
func (c *Conn) event(ev uint32) {
	const end = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
	if ev&(unix.EPOLLIN|end) != 0 {
		c.set(flagReadable)
	}
	if ev&end != 0 {
		c.set(flagHup)
		if ev&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
			c.set(flagGone)
		}
	}
	if ev&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 && c.has(flagBlocked) {
		c.unset(flagBlocked)
		c.flush()
	}
}

// turn does what is due; each call into the handler is the last thing that it does or is followed by
// a look at the phase.
func (c *Conn) turn() {
	if c.has(flagOver) && c.phase == phaseOpen && c.Queued() <= c.loop.cfg.LowWater {
		c.unset(flagOver)
		c.handler.Drained()
	}
	switch c.phase {
	case phaseOpen:
		if c.has(flagEnded) {
			if c.has(flagGone) {
				c.vanish()
			}
			return
		}
		if !c.has(flagPaused) {
			c.receive()
		}
		if c.has(flagPaused) && c.has(flagHup) && c.phase == phaseOpen && !c.has(flagEnded) {
			c.leave()
		}
	case phaseLingering:
		if c.has(flagReadable) {
			c.discard()
		}
	}
}

func (c *Conn) receive() {
	if c.secure != nil {
		c.receiveSecure()
		return
	}
	if !c.has(flagReadable) {
		return
	}
	if n := c.pull(); n > 0 {
		c.handler.Data(c.loop.cipher[:n])
	}
}

// pull reads once into the loop's buffer. 0 means that there is nothing to deliver: the socket is
// drained, or the connection finished.
func (c *Conn) pull() int {
	l := c.loop
	n, errno := read(c.fd, l.cipher)
	l.count.Reads++
	switch {
	case errno == unix.EAGAIN:
		c.unset(flagReadable)
		if c.has(flagBroken) {
			c.finish(c.why)
		}
		return 0
	case errno != 0:
		c.end(os.NewSyscallError("read", errno))
		return 0
	case n == 0:
		c.inputOver()
		return 0
	}
	l.count.BytesRead += uint64(n)
	if n == len(l.cipher) || c.has(flagHup|flagBroken) {
		l.later(c)
	} else {
		// A short read has emptied the socket; what comes next makes a new event (epoll(7)).
		c.unset(flagReadable)
	}
	return n
}

// TLS says whether the connection's bytes are encrypted.
func (c *Conn) TLS() bool { return c.secure != nil && c.secure.feed == nil }

// ConnectionState describes the TLS session; the zero value without TLS.
func (c *Conn) ConnectionState() tls.ConnectionState {
	if !c.TLS() {
		return tls.ConnectionState{}
	}
	return c.secure.conn.ConnectionState()
}
