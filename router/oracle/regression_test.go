package oracle

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/cstproxy/cstproxy/ha/pglocal"
	"github.com/cstproxy/cstproxy/ha/topology"
	"github.com/cstproxy/cstproxy/proxy/backend"
	"github.com/cstproxy/cstproxy/proxy/catalog"
	"github.com/cstproxy/cstproxy/router"
)

// regression is a server with PostgreSQL's regression database as its tests leave it. It is made
// once, for the tests that need it.
type regression struct {
	suite   Suite
	cluster *pglocal.Cluster
	folder  string // data files and libraries, readable by the server
}

const database = "regression"

// oneScript bounds a script of the suite; the longest takes some seconds.
const oneScript = time.Minute

// idle are scripts that take long and leave nothing in the catalogue.
var idle = []string{"join_hash"}

// load runs the core suite on a fresh cluster. Statements that fail do not matter, many are meant
// to; what counts is the catalogue at the end.
func (r *regression) load(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	r.prepare(t)
	p := r.cluster.Primary()
	for _, sql := range []string{
		"CREATE DATABASE regression TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'",
		"ALTER DATABASE regression SET timezone_abbreviations = 'Default'",
	} {
		if _, err := p.Psql(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	groups, err := r.suite.Schedule()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for _, group := range groups {
		r.group(t, group)
	}
	t.Logf("the regression database was made in %v", time.Since(began).Round(time.Second))
}

// prepare makes regress.so and puts it and the data files where the server can read them.
func (r *regression) prepare(t *testing.T) {
	t.Helper()
	r.folder = t.TempDir()
	// the folder above it is closed to others, and the server runs as another user when this is root
	for _, dir := range []string{filepath.Dir(r.folder), r.folder} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	regress := filepath.Join(r.suite.Root, "src/test/regress")
	library := filepath.Join(r.folder, "regress.so")
	for _, c := range [][]string{
		{"gcc", "-O1", "-w", "-shared", "-fPIC", "-I" + r.suite.Headers, "-o", library, filepath.Join(regress, "regress.c")},
		{"cp", "-r", filepath.Join(regress, "data"), r.folder},
		{"sh", "-c", "cp /usr/lib/postgresql/15/lib/refint.so /usr/lib/postgresql/15/lib/autoinc.so " + r.folder},
		{"mkdir", "-m", "777", filepath.Join(r.folder, "results")},
	} {
		if err := run(t.Context(), r.folder, c[0], c[1:]...); err != nil {
			t.Fatal(err)
		}
	}
}

// group runs scripts that may run at the same time, two at a time: more only make a small machine
// slower.
func (r *regression) group(t *testing.T, names []string) {
	slots := make(chan struct{}, 2)
	var wg sync.WaitGroup
	for _, name := range names {
		if slices.Contains(idle, name) {
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			r.script(t, name)
			<-slots
		})
	}
	wg.Wait()
}

func (r *regression) script(t *testing.T, name string) {
	psql, err := pglocal.Program("psql")
	if err != nil {
		t.Error(err)
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), oneScript)
	defer cancel()
	p := r.cluster.Primary()
	regress := filepath.Join(r.suite.Root, "src/test/regress")
	cmd := exec.CommandContext(ctx, psql, "-X", "-q", "-d", database, "-f", filepath.Join(regress, "sql", name+".sql"))
	cmd.Env = append(os.Environ(), "PGHOST="+p.SocketDir, fmt.Sprintf("PGPORT=%d", p.Port), "PGUSER="+pglocal.Superuser,
		"PG_ABS_SRCDIR="+r.folder, "PG_ABS_BUILDDIR="+r.folder, "PG_LIBDIR="+r.folder, "PG_DLSUFFIX=.so",
		"PGTZ=PST8PDT", "PGDATESTYLE=Postgres, MDY", "PGOPTIONS=-c intervalstyle=postgres_verbose")
	began := time.Now()
	if err := cmd.Run(); err != nil && ctx.Err() != nil {
		t.Logf("%s was cut off after %v", name, oneScript)
	}
	if d := time.Since(began); d > 3*time.Second {
		t.Logf("%s took %v", name, d.Round(100*time.Millisecond))
	}
}

// knowledge is what the product learns of the database, in the product's own way.
func (r *regression) knowledge(t *testing.T) *router.Knowledge {
	t.Helper()
	p := r.cluster.Primary()
	dc := backend.DefaultDialConfig()
	dc.Timeout = time.Minute // the machine may be busy
	dialer, err := backend.NewDialer(dc)
	if err != nil {
		t.Fatal(err)
	}
	cfg := catalog.DefaultConfig()
	cfg.AuthUser, cfg.AuthPassword, cfg.Timeout = pglocal.Superuser, r.cluster.Password(), time.Minute
	board := topology.NewBoard("oracle")
	board.Publish(&topology.View{Cluster: "oracle", Rounds: topology.NewRounds(), Primary: topology.NodeID(p.ID), Nodes: []topology.NodeView{{
		Node:   topology.Node{ID: topology.NodeID(p.ID), Host: p.Host, Port: p.Port, Weight: 1},
		Health: topology.Healthy, Role: topology.RolePrimary,
	}}})
	store := catalog.New(cfg, board, dialer, zaptest.NewLogger(t))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := store.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	defer wg.Wait()
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); <-tick.C {
		if k := store.Knowledge(database); k != nil {
			return k
		}
	}
	t.Fatal("the catalogue was not read within a minute")
	return nil
}
