// Package reactor is the event loop of the data plane: one thread, epoll, raw non-blocking sockets,
// timers, and TLS on the loop. It moves bytes between sockets and Handlers and knows nothing of
// PostgreSQL. Everything on a Loop, a Conn or a Timer is called on the loop's own thread, except
// Loop.Post and Loop.Stats; so there are no locks and no races among what the loop owns.
//
// Nothing may block on the loop. What blocks (dialling, DNS, key iteration, TLS handshakes) runs on
// a goroutine and hands its result back by Post. Linux only.
package reactor

import (
	"errors"
	"fmt"
	"time"
)

// A Handler gets what happens on one connection, always on the loop's thread and never from within
// a call that it makes itself: a handler may close, pause, resume and write to any connection of its
// loop, its own included, and hears of the consequences in a later event.
type Handler interface {
	// Data brings bytes that arrived, already decrypted. They are the reactor's and valid until
	// Data returns. Data is not called while the connection is paused, nor after Closed.
	Data(b []byte)
	// Drained says that the write queue, which had been over Config.HighWater, fell to Config.LowWater.
	Drained()
	// Closed is the last call and comes exactly once: io.EOF when the peer ended in order (but see
	// Conn.OnEnd), net.ErrClosed when the connection was closed on this side, the system's error otherwise.
	Closed(err error)
}

// Errors that Closed, StartTLS's done and Adopt report.
var (
	// ErrPanicked is what a handler's Closed gets after a panic in one of its own calls.
	ErrPanicked = errors.New("handler panicked")
	// ErrEnded is returned by calls on a loop that has ended.
	ErrEnded = errors.New("event loop ended")
	// ErrFlushTimeout says that a peer did not take the last bytes within Config.FlushTimeout.
	ErrFlushTimeout = errors.New("last bytes not taken in time")
	// ErrPlaintext says that unencrypted bytes followed a request for TLS: they may be an
	// attacker's and must not be read as if they had come over TLS (CVE-2021-3935).
	ErrPlaintext = errors.New("unencrypted data after the request for TLS")
)

// Config holds the reactor's settings.
type Config struct {
	// HighWater is the number of bytes waiting in a connection's write queue from which on Drained
	// is owed. The queue itself takes everything: whoever feeds it stops reading its source when
	// Conn.Queued passes this mark. Bytes, per connection.
	HighWater int `toml:"high_water"`
	// LowWater is the mark at which Drained is called; below HighWater, so that a slow reader does
	// not make its source stop and go for every packet. Bytes.
	LowWater int `toml:"low_water"`
	// ReadBuffer is the size of the one buffer that all connections of a loop share, and with it the
	// most that one connection may read before the others have their turn. Bytes.
	ReadBuffer int `toml:"read_buffer"`
	// AcceptBatch bounds how many connections are accepted before others have their turn.
	AcceptBatch int `toml:"accept_batch"`
	// AcceptPause is how long accepting rests when the process has no descriptors or memory left;
	// new clients wait in the kernel's backlog meanwhile. PostgreSQL's postmaster rests 100 ms too.
	AcceptPause time.Duration `toml:"accept_pause"`
	// FlushTimeout bounds the time that CloseAfterFlush waits for the peer to take the last bytes,
	// and then again for the peer to close. A peer that has ended its own side before has UserTimeout,
	// if that is longer.
	FlushTimeout time.Duration `toml:"flush_timeout"`
	// Linger is how long CloseAfterFlush, after the last byte was written, waits for the peer to
	// close first. Closing at once while the peer is still sending would reset the connection and
	// could take the last message (an error, usually) away from it. 0 closes at once.
	Linger time.Duration `toml:"linger"`
	// KeepaliveIdle, KeepaliveInterval and KeepaliveCount set TCP keepalive (TCP_KEEPIDLE, _KEEPINTVL,
	// _KEEPCNT; whole seconds). KeepaliveIdle 0 turns it off.
	KeepaliveIdle     time.Duration `toml:"keepalive_idle"`
	KeepaliveInterval time.Duration `toml:"keepalive_interval"`
	KeepaliveCount    int           `toml:"keepalive_count"`
	// UserTimeout closes a connection whose sent data has not been acknowledged for so long
	// (TCP_USER_TIMEOUT, milliseconds). Keepalive does not cover that case. 0 leaves the system's
	// retransmission limit, about 15 minutes.
	UserTimeout time.Duration `toml:"user_timeout"`
}

// DefaultConfig returns the settings that fit PostgreSQL traffic on a local network.
func DefaultConfig() Config {
	return Config{
		HighWater:         256 << 10,
		LowWater:          64 << 10,
		ReadBuffer:        64 << 10,
		AcceptBatch:       64,
		AcceptPause:       100 * time.Millisecond,
		FlushTimeout:      5 * time.Second,
		Linger:            time.Second,
		KeepaliveIdle:     60 * time.Second,
		KeepaliveInterval: 10 * time.Second,
		KeepaliveCount:    3,
		UserTimeout:       90 * time.Second,
	}
}

// Validate reports the first setting that cannot work.
func (c Config) Validate() error {
	switch {
	case c.HighWater < 1:
		return fmt.Errorf("high_water is %d: want at least 1 byte", c.HighWater)
	case c.LowWater < 0 || c.LowWater >= c.HighWater:
		return fmt.Errorf("low_water is %d: want 0 or more and less than high_water (%d)", c.LowWater, c.HighWater)
	case c.ReadBuffer < 4<<10 || c.ReadBuffer > 16<<20:
		return fmt.Errorf("read_buffer is %d: want 4 KiB to 16 MiB", c.ReadBuffer)
	case c.AcceptBatch < 1:
		return fmt.Errorf("accept_batch is %d: want at least 1", c.AcceptBatch)
	case c.AcceptPause <= 0:
		return fmt.Errorf("accept_pause is %v: want more than 0", c.AcceptPause)
	case c.FlushTimeout <= 0:
		return fmt.Errorf("flush_timeout is %v: want more than 0", c.FlushTimeout)
	case c.Linger < 0:
		return fmt.Errorf("linger is %v: want 0 or more", c.Linger)
	}
	return c.validateKeepalive()
}

func (c Config) validateKeepalive() error {
	switch {
	case c.UserTimeout < 0:
		return fmt.Errorf("user_timeout is %v: want 0 or more", c.UserTimeout)
	case c.KeepaliveIdle == 0:
		return nil
	case c.KeepaliveIdle < time.Second:
		return fmt.Errorf("keepalive_idle is %v: want 0 or at least 1s", c.KeepaliveIdle)
	case c.KeepaliveInterval < time.Second:
		return fmt.Errorf("keepalive_interval is %v: want at least 1s", c.KeepaliveInterval)
	case c.KeepaliveCount < 1 || c.KeepaliveCount > 127:
		return fmt.Errorf("keepalive_count is %d: want 1 to 127", c.KeepaliveCount)
	}
	return nil
}
