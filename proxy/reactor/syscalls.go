package reactor

import (
	"math"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Calls on non-blocking descriptors go to the kernel directly: they return at once, so the scheduler
// need not be told. Where the thread may sleep (wait with a timeout), the ordinary call is used:
// otherwise a sleeping loop would hold up the garbage collector.

// read reads into b, which is not empty.
func read(fd int32, b []byte) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

// write writes b, which is not empty. SIGPIPE: the runtime ignores it for descriptors other than 1 and 2.
func write(fd int32, b []byte) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

func writev(fd int32, v []unix.Iovec) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(v))), uintptr(len(v)))
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

// poll asks epoll without waiting.
func poll(ep int, ev []unix.EpollEvent) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(ep), uintptr(unsafe.Pointer(unsafe.SliceData(ev))), uintptr(len(ev)), 0, 0, 0)
	return int(n), errno
}

// wait asks epoll and sleeps up to ms milliseconds, without end if ms is -1.
func wait(ep int, ev []unix.EpollEvent, ms int) (int, unix.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(ep), uintptr(unsafe.Pointer(unsafe.SliceData(ev))), uintptr(len(ev)), uintptr(ms), 0, 0)
	return int(n), errno
}

// milliseconds rounds up, so that a timer is never early and the loop does not spin before it.
func milliseconds(d time.Duration) int {
	const most = 1 << 30
	ms := (d + time.Millisecond - 1) / time.Millisecond
	return int(min(max(ms, 0), most))
}

func unread(fd int32) int {
	n, err := unix.IoctlGetInt(int(fd), unix.SIOCINQ)
	if err != nil {
		return 0
	}
	return n
}

// tune sets what both ends of a session need: small messages leave at once, and a peer that is gone
// without a word is noticed. What the protocol does not know (Multipath TCP lacks some) is left out.
func tune(fd int, cfg *Config) error {
	alive := 0
	if cfg.KeepaliveIdle > 0 {
		alive = 1
	}
	for _, o := range [...]struct{ level, option, value int }{
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, milliseconds(cfg.UserTimeout)},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, alive * int(cfg.KeepaliveIdle/time.Second)},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, alive * int(cfg.KeepaliveInterval/time.Second)},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, alive * cfg.KeepaliveCount},
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, alive},
	} {
		if o.value == 0 && o.option != unix.SO_KEEPALIVE {
			continue
		}
		if err := unix.SetsockoptInt(fd, o.level, o.option, o.value); err != nil && err != unix.ENOPROTOOPT {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	return nil
}

// Boottime is CLOCK_BOOTTIME in nanoseconds, the clock of leases: it goes on while the machine sleeps,
// which Go's own monotonic clock does not. The largest number when the kernel has none: then no lease
// is held. About 0.2 µs; the vDSO cannot be called from Go.
func Boottime() int64 {
	var ts unix.Timespec
	_, _, errno := unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(&ts)), 0)
	if errno != 0 {
		return math.MaxInt64
	}
	return ts.Nano()
}
