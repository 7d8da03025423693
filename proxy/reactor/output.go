package reactor

import (
	"os"

	"golang.org/x/sys/unix"
)

// copyBound is the size up to which copying new bytes behind those that wait is cheaper than handing
// the kernel a vector.
const copyBound = 4 << 10

// Write sends b. It tries at once and queues a copy of what the kernel does not take; it never blocks
// and never fails: a failure arrives as Closed, in a later event. On a connection that is being closed
// it does nothing.
func (c *Conn) Write(b []byte) {
	if c.phase != phaseOpen || c.has(flagBroken|flagShut) || len(b) == 0 {
		return
	}
	switch {
	case c.secure != nil:
		c.writeSecure(b)
	case c.has(flagBlocked):
		c.out.append(&c.loop.chunks, b)
	case c.out.n == 0:
		if n := c.push(b); n < len(b) && !c.has(flagBroken) {
			c.out.append(&c.loop.chunks, b[n:])
		}
	case len(b) <= max(c.out.room(), copyBound):
		c.out.append(&c.loop.chunks, b)
		c.flush()
	default:
		c.pushAll(b)
	}
	if c.Queued() > c.loop.cfg.HighWater {
		c.set(flagOver)
	}
}

// Buffer queues a copy of b, to be sent when the handler of the current event has returned, or with
// the next Write, whichever is first.
func (c *Conn) Buffer(b []byte) {
	if c.phase != phaseOpen || c.has(flagBroken|flagShut) || len(b) == 0 {
		return
	}
	if c.secure != nil {
		c.secure.waiting.append(&c.loop.chunks, b)
	} else {
		c.out.append(&c.loop.chunks, b)
	}
	if c.Queued() > c.loop.cfg.HighWater {
		c.set(flagOver)
	}
	c.setDirty()
}

func (c *Conn) setDirty() {
	if !c.has(flagDirty) {
		c.set(flagDirty)
		c.loop.dirty = append(c.loop.dirty, c)
	}
}

// push writes b once and returns how much of it the kernel took.
func (c *Conn) push(b []byte) int {
	n, errno := write(c.fd, b)
	return c.pushed(n, errno, len(b))
}

// pushAll writes the queue and then b in one call, and queues what is left.
func (c *Conn) pushAll(b []byte) {
	l, queued := c.loop, c.out.n
	v := c.out.gather(l.iov[:0], b)
	n, errno := writev(c.fd, v)
	clear(v)
	n = c.pushed(n, errno, queued+len(b))
	if c.has(flagBroken) {
		return
	}
	c.out.drop(&l.chunks, min(n, queued))
	if rest := b[max(n-queued, 0):]; len(rest) > 0 {
		c.out.append(&l.chunks, rest)
		c.flush()
	}
}

func (c *Conn) pushed(n int, errno unix.Errno, want int) int {
	l := c.loop
	l.count.Writes++
	switch {
	case errno == unix.EAGAIN:
		c.set(flagBlocked)
		return 0
	case errno != 0:
		c.fail(os.NewSyscallError("write", errno))
		return 0
	}
	l.count.BytesWritten += uint64(n)
	if n < want {
		c.set(flagBlocked)
	}
	return n
}

// fail is called when nothing can be written any more. Bytes that arrived before are still delivered:
// a server's last words come before its end.
func (c *Conn) fail(why error) {
	c.out.clear(&c.loop.chunks)
	if c.secure != nil {
		c.secure.waiting.clear(&c.loop.chunks)
	}
	if c.phase != phaseOpen {
		c.finish(c.why)
		return
	}
	if c.has(flagPaused | flagEnded) {
		c.finish(why)
		return
	}
	c.why = why
	c.set(flagBroken | flagReadable)
	c.loop.later(c)
}

// flush writes what waits until the kernel takes no more. It calls no handler.
func (c *Conn) flush() {
	if c.phase >= phaseClosing || c.has(flagBroken) {
		return
	}
	for !c.has(flagBlocked) {
		if c.secure != nil {
			c.seal()
		}
		if c.out.n == 0 || c.has(flagBroken) {
			break
		}
		c.flushOnce()
	}
	if c.has(flagOver) && c.Queued() <= c.loop.cfg.LowWater {
		c.loop.later(c)
	}
	if c.phase == phaseFlushing && c.Queued() == 0 {
		c.farewell()
	}
	if c.phase == phaseOpen && c.has(flagShut) && !c.has(flagShutDone|flagBroken) && c.Queued() == 0 {
		c.shut()
	}
}

func (c *Conn) flushOnce() {
	l, n := c.loop, 0
	if c.out.head == c.out.tail {
		n = c.push(c.out.front())
	} else {
		v := c.out.gather(l.iov[:0], nil)
		want := 0
		for i := range v {
			want += int(v[i].Len)
		}
		var errno unix.Errno
		n, errno = writev(c.fd, v)
		clear(v)
		n = c.pushed(n, errno, want)
	}
	if !c.has(flagBroken) && c.phase < phaseClosing {
		c.out.drop(&l.chunks, n)
	}
}

// farewell follows the last byte of CloseAfterFlush.
func (c *Conn) farewell() {
	if c.secure != nil && c.sayGoodbye() {
		c.flush()
		return
	}
	if c.loop.cfg.Linger == 0 || c.has(flagEnded) && c.secure == nil {
		c.finish(c.why) // with nothing unread, closing resets nothing
		return
	}
	c.phase = phaseLingering
	if err := unix.Shutdown(int(c.fd), unix.SHUT_WR); err != nil {
		c.finish(c.why)
		return
	}
	c.arm(c.loop.cfg.Linger, c.why)
	c.set(flagReadable)
	c.loop.later(c)
}
