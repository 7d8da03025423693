package catalog

import (
	"sync"
	"time"

	"github.com/cstproxy/cstproxy/proxy/auth"
)

// maxUnknown bounds the names that are remembered as unknown: strangers choose them.
const maxUnknown = 1000

// maxWaiting bounds the lookups under way and the clients that wait for them.
const maxWaiting = 20_000

// found is a remembered answer.
type found struct {
	verifier *auth.Verifier
	at       time.Time // zero: ask again
}

// flight is one lookup under way, with everybody who waits for it.
type flight struct {
	waiting []func(*auth.Verifier, error)
	stale   bool // Forget came while it was under way: do not remember the answer
}

// users is the memory of verifiers and the queue of lookups.
type users struct {
	cfg     Config
	wake    chan struct{} // the queue is not empty
	mu      sync.Mutex
	known   map[string]found
	unknown map[string]time.Time
	flights map[string]*flight
	// Two queues: names that had a verifier before go first, so that a flood of invented names
	// does not keep the real ones waiting.
	first, second []string
	waiting       int
	ended         bool
}

func newUsers(cfg Config) *users {
	return &users{cfg: cfg, wake: make(chan struct{}, 1), known: map[string]found{}, unknown: map[string]time.Time{}, flights: map[string]*flight{}}
}

// ask answers from memory or queues a lookup; then wait is true and done will be called.
func (u *users) ask(user string, now time.Time, done func(*auth.Verifier, error)) (v *auth.Verifier, err error, wait bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	k, before := u.known[user]
	if before && now.Sub(k.at) < u.cfg.VerifierTTL {
		return k.verifier, nil, false
	}
	if at, ok := u.unknown[user]; ok && now.Sub(at) < u.cfg.UnknownTTL {
		return nil, ErrUnknownUser, false
	}
	if u.ended || u.waiting >= maxWaiting {
		return nil, ErrUnavailable, false
	}
	u.waiting++
	if f := u.flights[user]; f != nil {
		f.waiting = append(f.waiting, done)
		return nil, nil, true
	}
	u.flights[user] = &flight{waiting: []func(*auth.Verifier, error){done}}
	if before {
		u.first = append(u.first, user)
	} else {
		u.second = append(u.second, user)
	}
	select {
	case u.wake <- struct{}{}:
	default:
	}
	return nil, nil, true
}

// next takes a name off the queue.
func (u *users) next() (user string, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	q := &u.first
	if len(*q) == 0 {
		q = &u.second
	}
	if len(*q) == 0 {
		u.first, u.second = nil, nil // the arrays behind them may have grown
		return "", false
	}
	user, *q = (*q)[0], (*q)[1:]
	return user, true
}

// landed remembers an answer and returns those who waited for it.
func (u *users) landed(user string, v *auth.Verifier, err error, now time.Time) []func(*auth.Verifier, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	f := u.flights[user]
	if f == nil {
		return nil
	}
	delete(u.flights, user)
	u.waiting -= len(f.waiting)
	at := now
	if f.stale {
		at = time.Time{}
	}
	switch {
	case err == nil:
		delete(u.unknown, user)
		if _, have := u.known[user]; !have && len(u.known) >= u.cfg.MaxUsers {
			evict(u.known, func(k found) bool { return now.Sub(k.at) >= u.cfg.VerifierTTL })
		}
		u.known[user] = found{verifier: v, at: at}
	case err == ErrUnknownUser:
		delete(u.known, user)
		if len(u.unknown) >= maxUnknown {
			evict(u.unknown, func(t time.Time) bool { return now.Sub(t) >= u.cfg.UnknownTTL })
		}
		if !f.stale {
			u.unknown[user] = now
		}
	}
	return f.waiting
}

// evict makes room for one: an entry that is due goes, or any one. Go's map order is random, so
// nobody can aim at an entry; it looks at few, so a flood costs little.
func evict[V any](m map[string]V, due func(V) bool) {
	looked, victim := 0, ""
	for k, v := range m {
		victim = k
		if looked++; due(v) || looked == 8 {
			break
		}
	}
	delete(m, victim)
}

// forget makes the next question about a user go to the servers.
func (u *users) forget(user string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if k, ok := u.known[user]; ok {
		k.at = time.Time{}
		u.known[user] = k
	}
	delete(u.unknown, user)
	if f := u.flights[user]; f != nil {
		f.stale = true
	}
}

// end refuses what is queued and what comes later.
func (u *users) end() []func(*auth.Verifier, error) {
	u.mu.Lock()
	u.ended = true
	u.mu.Unlock()
	return u.drain()
}

// drain takes everybody off the queue.
func (u *users) drain() []func(*auth.Verifier, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	var all []func(*auth.Verifier, error)
	for _, q := range [][]string{u.first, u.second} {
		for _, user := range q {
			all = append(all, u.flights[user].waiting...)
			u.waiting -= len(u.flights[user].waiting)
			delete(u.flights, user)
		}
	}
	u.first, u.second = nil, nil
	return all
}
