package catalog

import (
	"context"
	"testing"
	"time"

	"github.com/cstproxy/cstproxy/ha/pglocal"
	"github.com/cstproxy/cstproxy/router"
)

// await polls until cond holds.
func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	patience := time.After(time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-patience:
			t.Fatal("waited in vain for " + what)
		case <-tick.C:
		}
	}
}

func (r *rig) known(t *testing.T, database string) *router.Knowledge {
	t.Helper()
	await(t, "the catalogue of "+database, func() bool { return r.Knowledge(database) != nil })
	return r.Knowledge(database)
}

func TestACatalogueIsReadWhenAskedForAndAgainWhenItChanged(t *testing.T) {
	pg := pglocal.ForTest(t, pglocal.Options{Standbys: 1})
	p := pg.Primary()
	sql(t, p, "CREATE DATABASE shop")
	r := newRig(t, pg, func(c *Config) { c.RefreshEvery = time.Hour; c.MaxDatabases = 3 })
	if r.Knowledge("shop") != nil {
		t.Fatal("known before it was read")
	}
	first := r.known(t, "shop")
	if r.known(t, "postgres") == first {
		t.Error("two databases are one")
	}
	r.Changed("shop") // nothing has changed: what is known stays the same value
	await(t, "the check", func() bool { return !(*r.byName.Load())["shop"].changed.Load() })
	if _, err := p.PsqlIn(context.Background(), "shop", "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'"); err != nil {
		t.Fatal(err)
	}
	if r.Knowledge("shop") != first {
		t.Error("read again without a change")
	}
	r.Changed("shop")
	await(t, "the new function", func() bool { return r.Knowledge("shop") != first })
	t.Run("a database that is not there", func(t *testing.T) {
		r.Knowledge("absent")
		await(t, "forgetting it", func() bool { return (*r.byName.Load())["absent"] == nil })
	})
	t.Run("more databases than there is room for", func(t *testing.T) {
		for _, name := range []string{"a", "b", "c", "d", "e"} {
			r.Knowledge(name)
			if n := len(*r.byName.Load()); n > 3 {
				t.Fatal(n)
			}
		}
	})
	t.Run("a new primary", func(t *testing.T) {
		if err := pg.CatchUp(context.Background()); err != nil {
			t.Fatal(err)
		}
		second := r.known(t, "shop")
		s := pg.Standbys()[0]
		p.Kill()
		if err := s.Promote(context.Background()); err != nil {
			t.Fatal(err)
		}
		if _, err := s.PsqlIn(context.Background(), "shop", "DROP FUNCTION f()"); err != nil {
			t.Fatal(err)
		}
		r.board.Publish(view(pg))
		await(t, "the new primary's catalogue", func() bool { k := r.Knowledge("shop"); return k != nil && k != second })
	})
}

func TestACatalogueThatNobodyUsesIsForgotten(t *testing.T) {
	pg := pglocal.ForTest(t, pglocal.Options{})
	r := newRig(t, pg, func(c *Config) { c.RefreshEvery, c.ForgetAfter = time.Second, time.Second })
	r.known(t, "postgres")
	await(t, "forgetting", func() bool { return (*r.byName.Load())["postgres"] == nil })
	r.known(t, "postgres")
}

func TestACatalogueLargerThanAllowedStaysUnknown(t *testing.T) {
	pg := pglocal.ForTest(t, pglocal.Options{})
	r := newRig(t, pg, nil)
	r.cfg.MaxCatalogBytes = 1000
	d := &database{name: "postgres"}
	if news, err := r.read(context.Background(), d); err == nil || news || d.knowledge.Load() != nil {
		t.Error(news, err)
	}
	r.cfg.MaxCatalogBytes = 1 << 30
	if news, err := r.read(context.Background(), d); err != nil || !news {
		t.Error(news, err)
	}
	if news, err := r.read(context.Background(), d); err != nil || news {
		t.Error(news, err)
	}
}

func TestAskingForWhatIsKnownDoesNotAllocate(t *testing.T) {
	pg := pglocal.ForTest(t, pglocal.Options{})
	r := newRig(t, pg, nil)
	r.known(t, "postgres")
	name := string([]byte("postgres"))
	if n := testing.AllocsPerRun(100, func() { r.Knowledge(name) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
