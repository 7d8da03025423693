package catalog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/proxy/backend"
	"github.com/cstproxy/cstproxy/router"
)

const (
	// leastGap is the pause between two checks of one database while each finds something new.
	leastGap = 200 * time.Millisecond
	// mostGap is what the pause grows to while checks find nothing: strangers can cause checks
	// by naming relations that do not exist.
	mostGap = 10 * time.Second
)

// database is one database's catalogue. The atomics belong to everybody, the rest to the reader.
type database struct {
	name      string
	knowledge atomic.Pointer[router.Knowledge]
	used      atomic.Bool // since the reader last looked
	changed   atomic.Bool // somebody saw DDL, or wants it read for the first time

	fingerprint string
	checked     time.Time // when the last check ended
	lastUse     time.Time
	gap         time.Duration // least pause before a check that somebody asked for
	failures    int
}

// Knowledge is what is known of a database; nil until it has been read, which asking causes. It
// takes no lock and does not allocate for a database that was asked for before.
func (s *Store) Knowledge(name string) *router.Knowledge {
	d := (*s.byName.Load())[name]
	if d == nil {
		s.add(name)
		return nil
	}
	if !d.used.Load() {
		d.used.Store(true)
	}
	k := d.knowledge.Load()
	if k == nil && !d.changed.Load() {
		d.changed.Store(true)
		s.nudge()
	}
	return k
}

// Changed says that a database's catalogue may have changed: it is checked soon.
func (s *Store) Changed(name string) {
	if d := (*s.byName.Load())[name]; d != nil && !d.changed.Swap(true) {
		s.nudge()
	}
}

func (s *Store) add(name string) {
	if s.cfg.AuthUser == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := *s.byName.Load()
	if old[name] != nil || len(old) >= s.cfg.MaxDatabases {
		return
	}
	d := &database{name: name, gap: leastGap, lastUse: time.Now()}
	d.used.Store(true)
	d.changed.Store(true)
	next := maps.Clone(old)
	next[name] = d
	s.byName.Store(&next)
	s.nudge()
}

func (s *Store) remove(d *database) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := maps.Clone(*s.byName.Load())
	if next[d.name] == d {
		delete(next, d.name)
	}
	s.byName.Store(&next)
	d.knowledge.Store(nil)
}

// readCatalogs keeps what is known up to date until ctx ends, one database after the other.
func (s *Store) readCatalogs(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-timer.C:
		}
		if s.moved.Swap(false) {
			for _, d := range *s.byName.Load() {
				d.changed.Store(true)
			}
		}
		next := time.Now().Add(s.cfg.RefreshEvery)
		for _, d := range *s.byName.Load() {
			now := time.Now()
			if !s.keep(d, now) {
				continue
			}
			if due := d.due(s.cfg.RefreshEvery); due.After(now) {
				next = earlier(next, due)
				continue
			}
			s.refresh(ctx, d)
			if ctx.Err() != nil {
				return
			}
			next = earlier(next, d.due(s.cfg.RefreshEvery))
		}
		timer.Reset(time.Until(next))
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// keep forgets a database that nobody has used for long.
func (s *Store) keep(d *database, now time.Time) bool {
	if d.used.Swap(false) {
		d.lastUse = now
	}
	if now.Sub(d.lastUse) < s.cfg.ForgetAfter {
		return true
	}
	s.remove(d)
	return false
}

// due is when the database is to be checked next.
func (d *database) due(every time.Duration) time.Time {
	switch {
	case d.checked.IsZero():
		return time.Time{}
	case d.failures > 0:
		return d.checked.Add(min(leastGap<<min(d.failures, 10), mostGap, every))
	case d.changed.Load():
		return d.checked.Add(d.gap)
	}
	return d.checked.Add(every)
}

// refresh checks a database and reads it when it has changed.
func (s *Store) refresh(ctx context.Context, d *database) {
	asked := d.changed.Swap(false)
	began := time.Now()
	news, err := s.read(ctx, d)
	d.checked = time.Now()
	switch {
	case absent(err):
		s.remove(d)
	case err != nil:
		d.failures++
		if d.failures == 1 && ctx.Err() == nil {
			s.log.Warn("catalogue not read", zap.String("database", d.name), zap.String("why", err.Error()))
		}
	case news:
		d.failures, d.gap = 0, leastGap
		s.log.Debug("catalogue read", zap.String("database", d.name), zap.Duration("lasted", d.checked.Sub(began)))
	default:
		d.failures = 0
		if asked {
			d.gap = min(2*d.gap, mostGap)
		} else {
			d.gap = leastGap
		}
	}
}

// absent says whether a server refused because there is no such database.
func absent(err error) bool {
	var refusal *backend.ServerError
	return errors.As(err, &refusal) && refusal.SQLState() == "3D000"
}

// read connects for the time of the reading only: a standing connection would be in the way of
// DROP DATABASE and cost each server one connection per database.
func (s *Store) read(ctx context.Context, d *database) (news bool, err error) {
	defer func() {
		if r := recover(); r != nil {
			news, err = false, fmt.Errorf("panic while the catalogue was read: %v", r)
		}
	}()
	dialling, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	conn, err := s.connect(dialling, d.name, "UTF8")
	if err != nil {
		return false, err
	}
	defer conn.close(ctx)
	r := &reader{ctx: ctx, conn: conn, timeout: s.cfg.Timeout, budget: s.cfg.MaxCatalogBytes}
	r.begin()
	fingerprint := r.fingerprint()
	if r.err != nil {
		return false, r.err
	}
	if fingerprint == d.fingerprint && d.knowledge.Load() != nil {
		return false, nil
	}
	src := r.source()
	if r.err != nil {
		return false, r.err
	}
	d.knowledge.Store(router.NewKnowledge(src))
	d.fingerprint = fingerprint
	return true, nil
}
