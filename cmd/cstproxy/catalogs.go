package main

import (
	"context"
	"crypto/rand"
	"errors"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/cstproxy/cstproxy/ha/topology"
	"github.com/cstproxy/cstproxy/proxy"
	"github.com/cstproxy/cstproxy/proxy/auth"
	"github.com/cstproxy/cstproxy/proxy/backend"
	"github.com/cstproxy/cstproxy/proxy/catalog"
	"github.com/cstproxy/cstproxy/router"
)

// catalogs is one cluster's catalogue for as long as the process runs. A catalog.Store cannot
// change its settings, so a reload that changes whom to ask, or how to reach the servers, puts a
// new store in the place of the old one. The old one goes on for a while: it answers the lookups
// that were under way, and what it knows of a database counts until the new one knows it too.
type catalogs struct {
	board  *topology.Board
	log    *zap.Logger
	secret string // for unknown users, the same over all stores

	first             *catalog.Store
	current, previous atomic.Pointer[catalog.Store]
	from              asking // of current; only apply's goroutine uses it
	replaced          chan *catalog.Store
}

var _ proxy.Catalog = (*catalogs)(nil)

// asking is everything that a store is made of.
type asking struct {
	catalog catalog.Config
	dial    backend.DialConfig
}

// storeGrace is how long a replaced store goes on: longer than a lookup, or the reading of a
// catalogue of usual size, may take.
const storeGrace = 15 * time.Second

// replacements is how many reloads may come before the first of them is taken up.
const replacements = 16

func newCatalogs(board *topology.Board, from asking, dialer *backend.Dialer, log *zap.Logger) *catalogs {
	c := &catalogs{board: board, log: log, secret: rand.Text(), replaced: make(chan *catalog.Store, replacements)}
	c.from = from
	c.first = c.store(from, dialer)
	c.current.Store(c.first)
	return c
}

func (c *catalogs) store(from asking, dialer *backend.Dialer) *catalog.Store {
	if from.catalog.MockSecret == "" {
		from.catalog.MockSecret = c.secret
	}
	return catalog.New(from.catalog, c.board, dialer, c.log)
}

var errBusy = errors.New("too many reloads at once; try again")

// apply replaces the store when it would be another one. With TLS it always may be: the files can
// have changed under the same names.
func (c *catalogs) apply(from asking, dialer *backend.Dialer) error {
	if from == c.from && from.dial.TLS == backend.TLSDisable {
		return nil
	}
	next := c.store(from, dialer)
	select {
	case c.replaced <- next:
	default:
		return errBusy
	}
	c.from = from
	c.previous.Store(c.current.Load())
	c.current.Store(next)
	return nil
}

// run keeps the stores going until ctx ends.
func (c *catalogs) run(ctx context.Context) error {
	parts, ctx := errgroup.WithContext(ctx)
	start := func(store *catalog.Store) context.CancelFunc {
		running, end := context.WithCancel(ctx)
		parts.Go(func() error { return store.Run(running) })
		return end
	}
	store := c.first
	end := start(store)
	for {
		select {
		case <-ctx.Done():
			end()
			return parts.Wait()
		case next := <-c.replaced:
			old, endOld := store, end
			store, end = next, start(next)
			parts.Go(func() error {
				defer endOld()
				retired := time.NewTimer(storeGrace)
				defer retired.Stop()
				select {
				case <-ctx.Done():
				case <-retired.C:
				}
				c.previous.CompareAndSwap(old, nil)
				return nil
			})
		}
	}
}

// Verifier is the newest store's.
func (c *catalogs) Verifier(user string, done func(*auth.Verifier, error)) {
	c.current.Load().Verifier(user, done)
}

// Mock is the newest store's.
func (c *catalogs) Mock(user string) *auth.Verifier { return c.current.Load().Mock(user) }

// Forget is the newest store's.
func (c *catalogs) Forget(user string) { c.current.Load().Forget(user) }

// Knowledge is the newest store's, or the one's before as long as the newest has none.
func (c *catalogs) Knowledge(database string) *router.Knowledge {
	if k := c.current.Load().Knowledge(database); k != nil {
		return k
	}
	if old := c.previous.Load(); old != nil {
		return old.Knowledge(database)
	}
	return nil
}

// Changed tells every store.
func (c *catalogs) Changed(database string) {
	c.current.Load().Changed(database)
	if old := c.previous.Load(); old != nil {
		old.Changed(database)
	}
}
