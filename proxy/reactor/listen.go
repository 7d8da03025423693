package reactor

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// acceptLogInterval is the least time between two log lines about descriptors that ran out.
const acceptLogInterval = 10 * time.Second

type listener struct {
	fd     int
	key    int32
	accept func(*Conn, netip.AddrPort) Handler
	rest   Timer // accepting rests until it fires
	logged time.Time
}

// Listen accepts connections of ln from now on. It takes ln over and closes it: the loop keeps a
// descriptor of its own. accept returns the new connection's handler; nil closes it at once. Listen
// is called before Run or on the loop.
func (l *Loop) Listen(ln net.Listener, accept func(c *Conn, remote netip.AddrPort) Handler) error {
	sc, ok := ln.(syscall.Conn)
	if !ok {
		return fmt.Errorf("listen: %T has no descriptor", ln)
	}
	fd, err := duplicate(sc)
	if err != nil {
		return fmt.Errorf("listen on %v: %w", ln.Addr(), err)
	}
	s := &listener{fd: fd, key: wakeKey - 1 - int32(len(l.listeners)), accept: accept}
	s.rest.Init(l, func() { l.resumeAccepting(s) })
	// Level-triggered: what one batch leaves in the backlog makes the next event.
	if err := l.register(fd, unix.EPOLLIN, s.key); err != nil {
		_ = unix.Close(fd)
		return fmt.Errorf("listen on %v: %w", ln.Addr(), err)
	}
	l.listeners = append(l.listeners, s)
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	return ln.Close()
}

// StopListening closes the loop's listening sockets. Connections go on.
func (l *Loop) StopListening() {
	for _, s := range l.listeners {
		if s.fd >= 0 {
			s.rest.Stop()
			_ = unix.Close(s.fd)
			s.fd = -1
		}
	}
}

// duplicate returns a descriptor of its own for what sc has. Nonblocking mode belongs to what both
// share and stays on.
func duplicate(sc syscall.Conn) (int, error) {
	raw, err := sc.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd, dupErr := -1, error(nil)
	if err := raw.Control(func(of uintptr) { fd, dupErr = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return -1, err
	}
	return fd, os.NewSyscallError("fcntl", dupErr)
}

func (l *Loop) listenerEvent(key int32) {
	s := l.listeners[wakeKey-1-key]
	for range l.cfg.AcceptBatch {
		if s.fd < 0 || s.rest.Active() {
			return
		}
		fd, sa, err := unix.Accept4(s.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch {
		case err == nil:
			l.admit(s, fd, address(sa))
		case errors.Is(err, unix.EAGAIN):
			return
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ECONNABORTED):
		default:
			// EMFILE, ENFILE, ENOBUFS, ENOMEM; accept(2) also passes on network errors of a new
			// connection, and resting a moment after one of those does no harm either.
			l.pauseAccepting(s, err)
			return
		}
	}
}

func (l *Loop) admit(s *listener, fd int, remote netip.AddrPort) {
	c, err := l.newConn(fd, remote)
	if err != nil {
		_ = unix.Close(fd)
		l.pauseAccepting(s, err)
		return
	}
	l.count.Accepted++
	l.call(c, func() {
		if h := s.accept(c, remote); h != nil {
			c.handler = h
			return
		}
		c.Close()
	})
}

// newConn makes a connection of a descriptor, open for events.
func (l *Loop) newConn(fd int, remote netip.AddrPort) (*Conn, error) {
	if remote.IsValid() { // not a Unix socket
		if err := tune(fd, &l.cfg); err != nil {
			return nil, err
		}
	}
	c := &Conn{loop: l, fd: int32(fd), remote: remote, handler: nobody{}}
	l.slots.take(c)
	ev := unix.EpollEvent{Fd: c.slot, Pad: c.generation}
	if err := l.registerSlot(fd, unix.EPOLLIN|unix.EPOLLOUT|unix.EPOLLRDHUP|unix.EPOLLET, ev); err != nil {
		l.slots.give(c)
		return nil, err
	}
	return c, nil
}

// nobody is the handler of a connection that was refused.
type nobody struct{}

func (nobody) Data([]byte)  {}
func (nobody) Drained()     {}
func (nobody) Closed(error) {}

func (l *Loop) pauseAccepting(s *listener, why error) {
	l.count.AcceptPauses++
	if s.logged.IsZero() || l.now.Sub(s.logged) >= acceptLogInterval {
		s.logged = l.now
		l.log.Warn("accepting rests", zap.Duration("lasted", l.cfg.AcceptPause), zap.NamedError("why", why))
	}
	// Without the descriptor in the set, the level-triggered event does not come again at once.
	_ = unix.EpollCtl(l.ep, unix.EPOLL_CTL_DEL, s.fd, nil)
	s.rest.Set(l.cfg.AcceptPause)
}

func (l *Loop) resumeAccepting(s *listener) {
	if s.fd < 0 {
		return
	}
	if err := l.register(s.fd, unix.EPOLLIN, s.key); err != nil {
		l.pauseAccepting(s, err)
	}
}

func address(sa unix.Sockaddr) netip.AddrPort {
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		addr := netip.AddrFrom16(a.Addr).Unmap()
		if a.ZoneId != 0 {
			addr = addr.WithZone(strconv.Itoa(int(a.ZoneId)))
		}
		return netip.AddrPortFrom(addr, uint16(a.Port))
	}
	return netip.AddrPort{}
}
