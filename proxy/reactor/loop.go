package reactor

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// eventBatch is the most that one call of epoll brings.
const eventBatch = 256

// A Loop owns connections, listeners and timers, and runs all their calls on one goroutine.
type Loop struct {
	cfg       Config
	log       *zap.Logger
	ep        int
	wake      int     // eventfd, edge-triggered: written, never read
	bell      [8]byte // what is written to it: 1, in the host's byte order (eventfd(2))
	born      time.Time
	now       time.Time
	clock     int64 // now - born in nanoseconds, at least 1
	events    []unix.EpollEvent
	slots     slots
	ready     []*Conn // have something to do without a new event
	taken     []*Conn // the ready list being worked on
	dirty     []*Conn // have buffered bytes to flush
	doomed    []*Conn // wait for the end of the batch to be closed
	timers    timerHeap
	listeners []*listener
	chunks    chunks
	iov       [maxIovecs]unix.Iovec
	cipher    []byte // what read brings
	plain     []byte // what TLS made of it; allocated with the first TLS connection
	count     Stats
	running   []func()
	hands     sync.WaitGroup // handshakes

	mu     sync.Mutex // guards what follows
	posted []func()
	phase  loopPhase
	stats  Stats
}

type loopPhase uint8

const (
	awake  loopPhase = iota // looks at posted before it sleeps
	asleep                  // must be woken
	ended                   // takes nothing any more
)

// New makes a loop. Its descriptors are closed when Run returns.
func New(cfg Config, log *zap.Logger) (*Loop, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure event loop: %w", err)
	}
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(ep)
		return nil, os.NewSyscallError("eventfd", err)
	}
	l := &Loop{
		cfg: cfg, log: log, ep: ep, wake: wake, born: time.Now(),
		events: make([]unix.EpollEvent, eventBatch),
		cipher: make([]byte, cfg.ReadBuffer),
	}
	binary.NativeEndian.PutUint64(l.bell[:], 1)
	l.tick()
	if err := l.register(wake, unix.EPOLLIN|unix.EPOLLET, wakeKey); err != nil {
		l.release()
		return nil, err
	}
	return l, nil
}

// Run serves until ctx ends; then it closes all connections (their handlers get net.ErrClosed) and
// listeners, waits for the handshakes under way, and returns nil.
func (l *Loop) Run(ctx context.Context) error {
	defer l.hands.Wait()
	running := true
	stop := context.AfterFunc(ctx, func() { l.Post(func() { running = false }) })
	defer stop()
	defer l.end()
	for running {
		if err := l.cycle(); err != nil {
			return err
		}
	}
	return nil
}

// Now is the time at which the current batch of events began. It has a monotonic part.
func (l *Loop) Now() time.Time { return l.now }

// Post runs fn on the loop soon; it may be called from any goroutine, and from the loop itself. After
// the loop has ended it returns false and fn is not run.
func (l *Loop) Post(fn func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.phase == ended {
		return false
	}
	l.posted = append(l.posted, fn)
	if l.phase == asleep {
		l.phase = awake
		// Under the lock: the descriptor must not have been closed, and its number reused, meanwhile.
		_, _ = write(int32(l.wake), l.bell[:])
	}
	return true
}

func (l *Loop) cycle() error {
	n, err := l.gather()
	if err != nil {
		return err
	}
	l.tick()
	l.count.Cycles++
	l.count.Events += uint64(n)
	for i := range n {
		l.event(&l.events[i])
	}
	l.expire()
	l.runPosted()
	l.runReady()
	l.reap()
	return nil
}

func (l *Loop) tick() {
	l.now = time.Now()
	l.clock = max(int64(l.now.Sub(l.born)), 1)
}

// gather brings the next events. It asks without sleeping first: under load that is the usual case
// and spares the scheduler's bookkeeping around a call that may block. (Sleeping at once, and a
// goroutine locked to its thread, were measured with 1, 8 and 32 clients: no difference to be seen.)
func (l *Loop) gather() (int, error) {
	n, errno := poll(l.ep, l.events)
	if n <= 0 && errno == 0 && len(l.ready) == 0 {
		ms := -1
		if when, ok := l.timers.next(); ok {
			ms = milliseconds(time.Duration(when) - time.Since(l.born))
		}
		if ms != 0 && l.sleep() {
			n, errno = wait(l.ep, l.events, ms)
		}
	}
	switch errno {
	case 0:
		return n, nil
	case unix.EINTR:
		return 0, nil
	}
	return 0, os.NewSyscallError("epoll_pwait", errno)
}

// sleep announces that the loop has to be woken, unless something was posted already.
func (l *Loop) sleep() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats = l.count
	if len(l.posted) > 0 {
		return false
	}
	l.phase = asleep
	return true
}

func (l *Loop) event(ev *unix.EpollEvent) {
	switch key := ev.Fd; {
	case key == wakeKey:
	case key < wakeKey:
		l.listenerEvent(key)
	default:
		if c := l.slots.find(key, ev.Pad); c != nil {
			l.turn(c, ev.Events)
		}
	}
}

// turn gives a connection its turn: at most one read. events is 0 when the kernel said nothing new.
func (l *Loop) turn(c *Conn, events uint32) {
	l.turnProtected(c, events)
	if len(l.dirty) > 0 {
		l.flushDirty()
	}
}

func (l *Loop) turnProtected(c *Conn, events uint32) {
	defer l.rescue(c)
	c.event(events)
	c.turn()
}

// call runs a function that belongs to c, or to no connection if c is nil.
func (l *Loop) call(c *Conn, fn func()) {
	l.callProtected(c, fn)
	if len(l.dirty) > 0 {
		l.flushDirty()
	}
}

func (l *Loop) callProtected(c *Conn, fn func()) {
	defer l.rescue(c)
	fn()
}

// rescue is deferred around every call into a handler.
func (l *Loop) rescue(c *Conn) {
	r := recover()
	if r == nil {
		return
	}
	l.count.Panics++
	l.log.Error("panic in a handler", zap.Any("why", r), zap.ByteString("stack", debug.Stack()))
	if c != nil {
		c.finish(ErrPanicked)
	}
}

func (l *Loop) flushDirty() {
	for i := 0; i < len(l.dirty); i++ {
		c := l.dirty[i]
		l.dirty[i] = nil
		c.unset(flagDirty)
		l.flushProtected(c)
	}
	l.dirty = l.dirty[:0]
}

func (l *Loop) flushProtected(c *Conn) {
	defer l.rescue(c)
	c.flush()
}

// later gives c a turn in this or the next cycle without an event of the kernel.
func (l *Loop) later(c *Conn) {
	if !c.has(flagReady) {
		c.set(flagReady)
		l.ready = append(l.ready, c)
	}
}

func (l *Loop) runReady() {
	l.ready, l.taken = l.taken[:0], l.ready
	for i, c := range l.taken {
		l.taken[i] = nil
		c.unset(flagReady)
		if c.phase < phaseClosing {
			l.turn(c, 0)
		}
	}
}

func (l *Loop) runPosted() {
	l.mu.Lock()
	if l.phase == asleep {
		l.phase = awake
	}
	l.stats = l.count
	l.running, l.posted = l.posted, l.running[:0]
	l.mu.Unlock()
	for i, fn := range l.running {
		l.running[i] = nil
		l.call(nil, fn)
	}
}

// expire fires the timers that are due; one that is set again with no delay fires in the next cycle.
func (l *Loop) expire() {
	for range len(l.timers.entries) {
		t := l.timers.due(l.clock)
		if t == nil {
			return
		}
		l.call(t.owner, t.fn)
	}
}

// reap closes what was finished during the batch. Only now: until here an event of the batch might
// have been for the descriptor's former owner.
func (l *Loop) reap() {
	for i := 0; i < len(l.doomed); i++ {
		c := l.doomed[i]
		l.doomed[i] = nil
		c.bury()
		l.call(nil, func() { c.handler.Closed(c.why) })
	}
	l.doomed = l.doomed[:0]
}

// end closes everything. What was posted before still runs, so that what it carries can be given up.
func (l *Loop) end() {
	l.StopListening()
	l.runPosted()
	l.mu.Lock()
	l.phase = ended
	l.running, l.posted = l.posted, nil
	l.mu.Unlock()
	for _, fn := range l.running {
		l.call(nil, fn)
	}
	for {
		l.slots.each(func(c *Conn) { c.finish(net.ErrClosed) })
		if len(l.doomed) == 0 {
			break
		}
		l.reap()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats = l.count
	l.release()
}

func (l *Loop) release() {
	_ = unix.Close(l.wake)
	_ = unix.Close(l.ep)
}

// register adds a descriptor to epoll for good; nothing is ever modified or deleted on the hot path.
func (l *Loop) register(fd int, events uint32, key int32) error {
	return l.registerSlot(fd, events, unix.EpollEvent{Fd: key})
}

func (l *Loop) registerSlot(fd int, events uint32, ev unix.EpollEvent) error {
	ev.Events = events
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(l.ep, unix.EPOLL_CTL_ADD, fd, &ev))
}
