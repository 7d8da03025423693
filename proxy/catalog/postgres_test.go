package catalog

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/ha/pglocal"
	"github.com/cstproxy/cstproxy/ha/topology"
	"github.com/cstproxy/cstproxy/proxy/auth"
	"github.com/cstproxy/cstproxy/proxy/backend"
)

// rig is a cluster with a Store that runs on it.
type rig struct {
	*Store
	pg    *pglocal.Cluster
	board *topology.Board
}

// view describes a cluster as the agent would: servers that do not run are down.
func view(pg *pglocal.Cluster) *topology.View {
	v := &topology.View{Cluster: "test", Rounds: topology.NewRounds()}
	for _, n := range pg.Nodes() {
		nv := topology.NodeView{Node: topology.Node{ID: topology.NodeID(n.ID), Host: n.Host, Port: n.Port, Weight: 1}, Health: topology.Healthy, Role: topology.RoleStandby}
		if !n.Running() {
			nv.Health = topology.Down
		} else if !n.Standby() {
			nv.Role, v.Primary = topology.RolePrimary, nv.ID
		}
		v.Nodes = append(v.Nodes, nv)
	}
	return v
}

func newRig(t *testing.T, pg *pglocal.Cluster, change func(*Config)) *rig {
	t.Helper()
	cfg := DefaultConfig()
	cfg.AuthUser, cfg.AuthPassword = pglocal.Superuser, pg.Password()
	cfg.Timeout = time.Minute // the machine may be busy
	if change != nil {
		change(&cfg)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	dc := backend.DefaultDialConfig()
	dc.Timeout = cfg.Timeout
	d, err := backend.NewDialer(dc)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{pg: pg, board: topology.NewBoard("test")}
	r.board.Publish(view(pg))
	r.Store = New(cfg, r.board, d, zap.NewNop())
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return r
}

func (r *rig) verifier(user string) (*auth.Verifier, error) {
	type answer struct {
		v   *auth.Verifier
		err error
	}
	got := make(chan answer, 1)
	r.Verifier(user, func(v *auth.Verifier, err error) { got <- answer{v, err} })
	a := <-got
	return a.v, a.err
}

func sql(t *testing.T, n *pglocal.Node, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := n.Psql(context.Background(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// logIn plays a client against a verifier.
func logIn(v *auth.Verifier, password string) error {
	s, c := auth.NewScramServer(v, time.Now()), auth.NewScramClientWithPassword(password)
	first, err := s.First(c.First())
	if err != nil {
		return err
	}
	final, err := c.Continue(first)
	if err != nil {
		return err
	}
	_, _, err = s.Final(final)
	return err
}

func TestVerifiersOfRealRoles(t *testing.T) {
	pg := pglocal.ForTest(t, pglocal.Options{Standbys: 1})
	p := pg.Primary()
	passwords := map[string]string{ // what PostgreSQL makes of each, we must make too
		"ascii": "secret", "umlaut": "schlüssel ß", "compat": "\u00aa\u2168\u00a0x", "mapped": "so\u00adft",
		"emoji": "\U0001F600\u00aa", "rtl": "\u0627\u0628", "mixed": "\u0627a", "fresh": "\u0221\u2168", "ctl": "\u2168\x07", "quote": "a''b\\c:d$",
	}
	for name, pw := range passwords {
		sql(t, p, "CREATE ROLE "+name+" LOGIN PASSWORD '"+pw+"'")
	}
	sql(t, p, "CREATE ROLE nologin PASSWORD 'x'", "CREATE ROLE nopassword LOGIN",
		"CREATE ROLE expired LOGIN PASSWORD 'x' VALID UNTIL '2020-01-01'", "CREATE ROLE valid LOGIN PASSWORD 'x' VALID UNTIL '2999-01-01'",
		"CREATE ROLE forever LOGIN PASSWORD 'x' VALID UNTIL 'infinity'", "CREATE ROLE \"Ünï code\" LOGIN PASSWORD 'x'",
		"SET password_encryption = md5; CREATE ROLE md5 LOGIN PASSWORD 'x'",
		"ALTER ROLE postgres SET search_path = nowhere", "ALTER ROLE postgres SET \"DateStyle\" = 'SQL, DMY'", "ALTER ROLE postgres SET timezone = 'Asia/Shanghai'")
	r := newRig(t, pg, nil)
	for name, pw := range passwords {
		if name == "quote" {
			pw = "a'b\\c:d$"
		}
		v, err := r.verifier(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := logIn(v, pw); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := logIn(v, pw+"x"); !errors.Is(err, auth.ErrRefused) {
			t.Errorf("%s with a wrong password: %v", name, err)
		}
	}
	for _, c := range []struct {
		user                     string
		mocked, expired, noLogin bool
		err                      error
	}{
		{"nologin", false, false, true, nil},
		{"nopassword", true, false, false, nil},
		{"md5", true, false, false, nil},
		{"expired", false, true, false, nil},
		{"valid", false, false, false, nil},
		{"forever", false, false, false, nil},
		{"Ünï code", false, false, false, nil},
		{"ünï code", false, false, false, ErrUnknownUser},
		{"nobody", false, false, false, ErrUnknownUser},
		{"", false, false, false, ErrUnknownUser},
		{"bad\xff\xfe", false, false, false, ErrUnknownUser},
		{"x' OR 'a'='a", false, false, false, ErrUnknownUser},
		{string(make([]byte, 64)), false, false, false, ErrUnknownUser},
	} {
		v, err := r.verifier(c.user)
		if !errors.Is(err, c.err) {
			t.Errorf("%q: %v", c.user, err)
		}
		if v != nil && (v.Mocked() != c.mocked || v.Expired(time.Now()) != c.expired || v.CanLogin == c.noLogin || v.User != c.user) {
			t.Errorf("%q: mocked %v expired %v login %v", c.user, v.Mocked(), v.Expired(time.Now()), v.CanLogin)
		}
	}
	t.Run("a changed password after Forget", func(t *testing.T) { r.changed(t) })
	t.Run("without the primary", func(t *testing.T) { r.withoutPrimary(t) })
}

func (r *rig) changed(t *testing.T) {
	sql(t, r.pg.Primary(), "ALTER ROLE ascii PASSWORD 'other'", "DROP ROLE valid")
	r.Forget("ascii")
	r.Forget("valid")
	v, err := r.verifier("ascii")
	if err != nil || logIn(v, "other") != nil {
		t.Error(v, err)
	}
	if _, err := r.verifier("valid"); !errors.Is(err, ErrUnknownUser) {
		t.Error(err)
	}
}

func (r *rig) withoutPrimary(t *testing.T) {
	if err := r.pg.CatchUp(context.Background()); err != nil {
		t.Fatal(err)
	}
	r.pg.Primary().Kill()
	r.Forget("ascii")
	if _, err := r.verifier("ascii"); err != nil { // the View still calls it healthy
		t.Error(err)
	}
	r.board.Publish(view(r.pg))
	r.Forget("ascii")
	if v, err := r.verifier("ascii"); err != nil || logIn(v, "other") != nil {
		t.Error(err)
	}
	r.pg.Standbys()[0].Kill()
	r.Forget("ascii")
	if v, err := r.verifier("ascii"); v != nil || !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrUnknownUser) {
		t.Error(v, err)
	}
	r.board.Publish(view(r.pg))
	if v, err := r.verifier("umlaut2"); v != nil || !errors.Is(err, ErrUnavailable) {
		t.Error(v, err)
	}
	if err := r.pg.Primary().Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	r.board.Publish(view(r.pg))
	if _, err := r.verifier("ascii"); err != nil {
		t.Error(err)
	}
}

func TestAFunctionCanStandInForTheSuperuser(t *testing.T) {
	pg := pglocal.ForTest(t, pglocal.Options{})
	sql(t, pg.Primary(), "CREATE ROLE asker LOGIN PASSWORD 'askerword'", "CREATE ROLE anna LOGIN PASSWORD 'annaword'",
		`CREATE FUNCTION public.lookup(u text) RETURNS TABLE (name text, secret text) LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog
		 AS 'SELECT rolname::text, rolpassword FROM pg_catalog.pg_authid WHERE rolname = u'`)
	own := func(c *Config) {
		c.AuthUser, c.AuthPassword, c.AuthQuery = "asker", "askerword", "SELECT name, secret FROM public.lookup($1)"
	}
	r := newRig(t, pg, own)
	if v, err := r.verifier("anna"); err != nil || logIn(v, "annaword") != nil || !v.CanLogin || v.Expired(time.Now()) {
		t.Error(err)
	}
	if _, err := r.verifier("nobody"); !errors.Is(err, ErrUnknownUser) {
		t.Error(err)
	}
	refused := newRig(t, pg, func(c *Config) { own(c); c.AuthQuery = DefaultAuthQuery })
	if v, err := refused.verifier("anna"); v != nil || !errors.Is(err, ErrUnavailable) {
		t.Error(v, err) // permission denied is no wrong password
	}
	for _, query := range []string{"SELECT 'anna'", "SELECT 'postgres', rolpassword FROM pg_authid", "nonsense"} {
		odd := newRig(t, pg, func(c *Config) { c.AuthQuery = query })
		if v, err := odd.verifier("anna"); v != nil || err == nil {
			t.Errorf("%s: %v %v", query, v, err)
		}
	}
}

func TestWithoutAUserNothingIsAsked(t *testing.T) {
	s := New(DefaultConfig(), topology.NewBoard("x"), nil, zap.NewNop())
	s.Verifier("anna", func(v *auth.Verifier, err error) {
		if v != nil || !errors.Is(err, ErrUnavailable) {
			t.Error(v, err)
		}
	})
	for range 2 {
		if s.Knowledge("db") != nil {
			t.Error("known from nowhere")
		}
	}
	s.Changed("db")
}

func TestTheEndRefusesThoseWhoWait(t *testing.T) {
	d, err := backend.NewDialer(backend.DefaultDialConfig())
	if err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.AuthUser = "x"
	s := New(cfg, topology.NewBoard("x"), d, zap.NewNop())
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	told := make(chan error, 2)
	s.Verifier("anna", func(_ *auth.Verifier, err error) { told <- err })
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
	s.Verifier("bob", func(_ *auth.Verifier, err error) { told <- err })
	for range 2 {
		if err := <-told; !errors.Is(err, ErrUnavailable) {
			t.Error(err)
		}
	}
}
