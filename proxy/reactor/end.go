package reactor

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// This file is about the ends of a connection's two directions. A peer that has shut down its sending
// side and one that has closed altogether look alike: a FIN has come. Only what is sent to them tells
// them apart (the second answers with a reset, which is EPOLLHUP and EPOLLERR here). And behind a FIN
// a read returns 0 for ever, also when a reset has followed; so it is the event that counts.

// OnEnd lets the connection outlive the end of what its peer sends: where Closed(io.EOF) would have
// come, ended is called, once and behind all Data, and what is written still goes out. Closed follows
// when this side closes, or when the peer turns out to be gone: by what is written to it, or by
// keepalive. TLS must be ended by close_notify; a connection that is cut below it is Closed. ended may
// come while the connection is paused.
func (c *Conn) OnEnd(ended func()) { c.onEnd = ended }

// CloseWrite ends what this side sends, behind what waits to be written; Data goes on. Write and
// Buffer do nothing from now on.
func (c *Conn) CloseWrite() {
	if c.phase != phaseOpen || c.has(flagBroken|flagShut) {
		return
	}
	c.set(flagShut)
	c.setDirty()
}

// shut tells the peer of CloseWrite when all is written.
func (c *Conn) shut() {
	if c.secure != nil && c.sayGoodbye() {
		c.flush() // and comes back here
		return
	}
	c.set(flagShutDone)
	if err := unix.Shutdown(int(c.fd), unix.SHUT_WR); err != nil {
		c.fail(os.NewSyscallError("shutdown", err))
	}
}

// inputOver follows the end of what the socket brings.
func (c *Conn) inputOver() {
	switch {
	case c.secure != nil && c.secure.feed != nil:
		c.secure.feed.cut() // the handshake may have all that it needs, and what follows it, too
	case c.onEnd == nil || c.secure != nil || c.has(flagBroken):
		c.end(io.EOF)
	case c.has(flagGone):
		c.vanish()
	default:
		c.part()
	}
}

// part hands the end of what the peer sends to the handler.
func (c *Conn) part() {
	c.unset(flagReadable)
	c.set(flagEnded)
	c.onEnd()
}

// end finishes the connection when its input has ended; an earlier failure to write goes before.
func (c *Conn) end(why error) {
	if c.has(flagBroken) {
		why = c.why
	}
	c.finish(why)
}

// leave ends a paused connection whose peer is gone, unless bytes are still to be delivered first.
func (c *Conn) leave() {
	if c.secure != nil && c.secure.more || unread(c.fd) > 0 {
		return
	}
	if c.onEnd != nil && c.secure == nil && !c.has(flagGone) {
		return // Resume brings the end
	}
	c.vanish()
}

// vanish ends a connection whose peer takes nothing any more.
func (c *Conn) vanish() {
	errno, err := unix.GetsockoptInt(int(c.fd), unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && errno != 0 {
		c.end(os.NewSyscallError("read", unix.Errno(errno)))
		return
	}
	c.end(io.EOF)
}

// discard reads on after the last byte was written, until the peer closes.
func (c *Conn) discard() {
	l := c.loop
	n, errno := read(c.fd, l.cipher)
	l.count.Reads++
	switch {
	case errno == unix.EAGAIN:
		c.unset(flagReadable)
	case errno != 0 || n == 0:
		c.finish(c.why)
	default:
		l.later(c)
	}
}
