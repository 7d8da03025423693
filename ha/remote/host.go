// Package remote runs commands on the nodes' hosts over SSH. One connection to each host is kept
// open, so a command costs a round trip and a lost host is noticed. Questions (Ask) run as they are.
// Actions (Do) run under the host's ratchet: it keeps, over power cuts, the highest decision that it
// was asked to act for, refuses every older one and ends one of an older decision that still runs; a
// leader that slept through its deposition changes nothing. Hosts are always verified by known_hosts.
package remote

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/crypto/ssh"
)

// Sessions at a time on one connection, under sshd's MaxSessions of 10: a session whose command
// lingers on the host still counts there. Actions wait on the host for each other and must not take
// the questions' places.
const (
	maxAsks = 4
	maxDos  = 4
)

// Pauses before another login: retryMax grows from retryMin; a host that does not want us, or that
// is not who it should be, is left alone for longer, because servers lock out who asks too often.
const (
	retryMin    = 100 * time.Millisecond
	retryMax    = 2 * time.Second
	retryDenied = 10 * time.Second
)

var errNotRunning = errors.New("the connection was given up because this process is ending")

// Host is the way to one host. Run keeps its connection; every other method may be called from any
// goroutine, before, during and after.
type Host struct {
	cfg       Config
	log       *zap.Logger
	name      string // host:port, for messages
	asks, dos chan struct{}
	poke      chan struct{} // somebody wants a connection now

	mu   sync.Mutex
	link *link
	// err is why there is no link; nil before the first attempt.
	err      error
	attempts int
	// changed is closed, and replaced, whenever link, err or attempts change.
	changed chan struct{}
	up      bool
	why     string
	since   time.Time // of up
}

// link is one connection.
type link struct {
	client *ssh.Client
	socket *socket
	// users are the goroutines that the connection's end ends.
	users sync.WaitGroup
}

// New makes the way to a host; nothing is connected before Run.
func New(cfg Config, log *zap.Logger) (*Host, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	h := &Host{
		cfg: cfg, why: "not tried yet", since: time.Now(),
		asks: make(chan struct{}, maxAsks), dos: make(chan struct{}, maxDos),
		poke: make(chan struct{}, 1), changed: make(chan struct{}),
	}
	h.name = h.address()
	h.log = log.Named("remote").With(zap.String("host", h.name))
	return h, nil
}

// Up says whether the host answers over SSH, since how long it has been (or not been) so, and why not.
func (h *Host) Up() (up bool, since time.Duration, why string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.up, time.Since(h.since), h.why
}

// Run keeps the connection until ctx ends. It returns nil when every call has ended.
func (h *Host) Run(ctx context.Context) error {
	pause := retryMin
	for ctx.Err() == nil {
		client, socket, err := h.login(ctx)
		if err == nil {
			pause = retryMin
			l := &link{client: client, socket: socket}
			h.opened(l)
			err = h.watch(ctx, l)
			h.lost(err)
			_ = client.Close()
			l.users.Wait()
			continue
		}
		h.lost(err)
		h.rest(ctx, pause)
		pause = min(2*pause, retryMax)
	}
	h.lost(errNotRunning)
	return nil
}

// rest waits before the next login. Who wants a connection now shortens it, except where it would
// ask a host again that has just refused.
func (h *Host) rest(ctx context.Context, pause time.Duration) {
	poke := h.poke
	h.mu.Lock()
	if denied(h.err) {
		pause, poke = retryDenied, nil
	}
	h.mu.Unlock()
	least := time.NewTimer(retryMin)
	defer least.Stop()
	select {
	case <-ctx.Done():
		return
	case <-least.C:
	}
	timer := time.NewTimer(time.Duration(float64(pause) * (0.75 + rand.Float64()/2)))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-poke:
	}
}

func denied(err error) bool {
	var key *HostKey
	var auth *Auth
	return errors.As(err, &key) || errors.As(err, &auth)
}

func (h *Host) opened(l *link) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.link, h.err = l, nil
	h.attempted()
	h.turned("")
	select { // a wish of before is fulfilled
	case <-h.poke:
	default:
	}
}

func (h *Host) lost(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.link, h.err = nil, err
	h.attempted()
	h.turned(err.Error())
}

func (h *Host) attempted() {
	h.attempts++
	close(h.changed)
	h.changed = make(chan struct{})
}

// turned notes why the host does not answer, or with an empty why that it does; h.mu is held.
func (h *Host) turned(why string) {
	up, first := why == "", h.attempts <= 1
	lasted := time.Since(h.since)
	h.why = why
	if up != h.up {
		h.up, h.since = up, time.Now()
	} else if up || !first {
		return
	}
	switch {
	case up:
		h.log.Info("host answers over SSH", zap.Duration("lasted", lasted))
	case !errors.Is(h.err, errNotRunning) && !errors.Is(h.err, context.Canceled):
		h.log.Warn("host does not answer over SSH", zap.String("why", why), zap.Duration("lasted", lasted))
	}
}

// watch asks the SSH server again and again whether it is there, until it is not.
func (h *Host) watch(ctx context.Context, l *link) error {
	ended := make(chan error, 1)
	l.users.Add(1)
	go func() { defer l.users.Done(); ended <- l.client.Wait() }()
	tick := time.NewTicker(h.cfg.KeepAlive)
	defer tick.Stop()
	answered := make(chan struct{}, 1)
	var asked time.Time // zero: no question is open
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-ended:
			if err == nil {
				err = errors.New("it closed the connection")
			}
			return err
		case <-answered:
			asked = time.Time{}
			h.heard(l, 0)
		case <-tick.C:
			if !asked.IsZero() {
				silent := time.Since(l.lastHeard(asked))
				if silent > h.cfg.DropAfter {
					return errors.New("its SSH server takes bytes but does not answer")
				}
				h.heard(l, silent)
				continue
			}
			asked = time.Now()
			l.users.Add(1)
			go func() { // ends with the connection, for which Run waits
				defer l.users.Done()
				if _, _, err := l.client.SendRequest("keepalive@openssh.com", true, nil); err == nil {
					answered <- struct{}{}
				}
			}()
		}
	}
}

// lastHeard is when the host sent something, at least asked.
func (l *link) lastHeard(asked time.Time) time.Time {
	if at := l.socket.heard.Load(); at != nil && at.After(asked) {
		return *at
	}
	return asked
}

func (h *Host) heard(l *link, silent time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.link != l {
		return
	}
	if silent > h.cfg.SilentAfter {
		h.turned("its SSH server does not answer")
	} else {
		h.turned("")
	}
}

// connection is the present link, counted among its users. Without one, it waits for the end of an
// attempt, which it brings about unless the host has just been asked.
func (h *Host) connection(ctx context.Context) (*link, error) {
	h.mu.Lock()
	first, denied := h.attempts, denied(h.err)
	for {
		if l := h.link; l != nil {
			l.users.Add(1)
			h.mu.Unlock()
			return l, nil
		}
		if err := h.err; err != nil && (h.attempts != first || denied || errors.Is(err, errNotRunning)) {
			since := time.Since(h.since)
			h.mu.Unlock()
			return nil, h.unreachable(err, since)
		}
		changed := h.changed
		h.mu.Unlock()
		select {
		case h.poke <- struct{}{}:
		default:
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-changed:
		}
		h.mu.Lock()
	}
}

// abandoned waits until a link that turned out to be dead is not the present one any more.
func (h *Host) abandoned(ctx context.Context, dead *link) {
	_ = dead.client.Close() // watch notices
	for {
		h.mu.Lock()
		present, changed := h.link, h.changed
		h.mu.Unlock()
		if present != dead {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

func (h *Host) unreachable(err error, since time.Duration) error {
	if denied(err) {
		return err
	}
	return &Unreachable{Host: h.name, Since: since, Err: err}
}
