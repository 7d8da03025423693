// Package demo shows cstproxy at work on this machine: a real primary with streaming standbys,
// cstproxy in front of them, a light load of reads and writes, a standby that is killed and comes
// back, and a primary that is killed, whose place a standby takes. Every answer of the load names the
// server that gave it, so what is shown is what the servers say, not what the proxy believes.
// Everything is removed at the end.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cstproxy/cstproxy/admin"
	"github.com/cstproxy/cstproxy/cmd/cstproxy/stand"
	"github.com/cstproxy/cstproxy/ha/pglocal"
	"github.com/cstproxy/cstproxy/ha/remote/sshlocal"
)

// Config says what to show.
type Config struct {
	// Port and AdminPort are wished for on 127.0.0.1; when one is taken another is used.
	Port, AdminPort int
	// Standbys is how many there are, at least 2.
	Standbys int
	// Check runs the story once and judges it, instead of the live view.
	Check bool
	// Calm kills nobody.
	Calm bool
	// Binary is the cstproxy program to run.
	Binary string
	// Out gets the view or the report.
	Out io.Writer
	// Terminal says that Out can be redrawn.
	Terminal bool
}

// DefaultConfig returns the demo of the README.
func DefaultConfig() Config { return Config{Port: 9999, AdminPort: 8082, Standbys: 2, Out: os.Stdout} }

// Validate says what cannot be shown.
func (c *Config) Validate() error {
	var errs []error
	if c.Standbys < 2 || c.Standbys > 8 {
		errs = append(errs, fmt.Errorf("standbys: %d; the demo takes 2 to 8", c.Standbys))
	}
	for _, port := range []int{c.Port, c.AdminPort} {
		if port < 1 || port > 65535 {
			errs = append(errs, fmt.Errorf("port %d is not one", port))
		}
	}
	return errors.Join(errs...)
}

// The demo's own user and database. The user logs in through cstproxy with SCRAM.
const (
	user     = "demo"
	password = "demo"
	database = "demo"
)

// accounts is how many rows there are to read and write.
const accounts = 1000

const schema = `
CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL DEFAULT 0);
INSERT INTO account SELECT generate_series(1, 1000);
CREATE TABLE transfer (account int, number bigint, amount bigint NOT NULL, at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (account, number));
GRANT ALL ON ALL TABLES IN SCHEMA public TO demo;`

// Demo is one run.
type Demo struct {
	cfg     Config
	cluster *pglocal.Cluster
	ssh     *sshlocal.Server // nil: there is no way to the servers' host
	proxy   *stand.Proxy
	admin   *admin.Client
	load    *load
	events  *events
}

// New returns a demo that has not started anything.
func New(cfg Config) *Demo {
	return &Demo{
		cfg:     cfg,
		cluster: pglocal.New(pglocal.Options{Standbys: cfg.Standbys, Password: "demo-superuser", Settings: stand.Rewindable()}),
		events:  &events{},
	}
}

// Run shows until ctx ends, or judges once; then it removes everything.
func (d *Demo) Run(ctx context.Context) (err error) {
	defer func() {
		err = errors.Join(err, d.end())
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			err = nil // Ctrl-C is how the demo ends
		}
	}()
	if err := d.build(ctx); err != nil {
		return err
	}
	if d.cfg.Check {
		return d.check(ctx)
	}
	return d.show(ctx)
}

func (d *Demo) say(format string, args ...any) { fmt.Fprintf(d.cfg.Out, format+"\n", args...) }

func (d *Demo) build(ctx context.Context) error {
	d.say("starting PostgreSQL: a primary and %d streaming standbys …", d.cfg.Standbys)
	if err := d.cluster.Start(ctx); err != nil {
		return err
	}
	primary := d.cluster.Primary()
	_, err := primary.Psql(ctx, fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", user, password))
	if err != nil {
		return err
	}
	if _, err := primary.Psql(ctx, "CREATE DATABASE "+database); err != nil {
		return err
	}
	if _, err := primary.PsqlIn(ctx, database, schema); err != nil {
		return err
	}
	if err := d.cluster.CatchUp(ctx); err != nil {
		return err
	}
	if err := stand.Synchronous(ctx, d.cluster); err != nil {
		return err
	}
	if err := d.openHost(); err != nil {
		d.say("no SSH to the servers: %v; a failover goes by SQL, and nobody starts or repairs the old primary", err)
	}
	d.say("starting cstproxy …")
	return d.startProxy(ctx)
}

// openHost starts an SSH server of our own, on a free local port, with keys of its own.
func (d *Demo) openHost() error {
	dir := filepath.Join(d.cluster.Dir(), "ssh")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	ssh := sshlocal.New(sshlocal.Options{Dir: dir})
	if err := ssh.Start(); err != nil {
		return err
	}
	d.ssh = ssh
	return nil
}

func (d *Demo) startProxy(ctx context.Context) error {
	dir := filepath.Join(d.cluster.Dir(), "cstproxy") // goes when the cluster goes, whatever happens
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	var err error
	d.proxy, err = stand.New(stand.Options{
		Binary: d.cfg.Binary, Cluster: d.cluster, Dir: dir,
		Listen: d.address(d.cfg.Port), Admin: d.address(d.cfg.AdminPort),
		Operation: &stand.Operation{SSH: d.ssh, Lines: "on_crash = \"failover\"\nanti_flap = \"0s\""},
	})
	if err != nil {
		return err
	}
	if d.admin, err = d.proxy.Client(); err != nil {
		return err
	}
	d.load = newLoad(d.proxy.URL(user, password, database), d.cluster.Nodes())
	if err := d.proxy.Start(ctx); err != nil {
		return err
	}
	return d.proxy.Init(ctx)
}

// address is the wished-for port of 127.0.0.1, or none when that is taken.
func (d *Demo) address(port int) string {
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	ln, err := net.Listen("tcp4", address)
	if err != nil {
		d.say("port %d is taken; another one is used", port)
		return ""
	}
	_ = ln.Close()
	return address
}

// end stops everything; the context that ended the demo is no reason to leave something behind.
func (d *Demo) end() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var err error
	if d.proxy != nil {
		err = d.proxy.Stop(ctx)
	}
	if d.ssh != nil {
		d.ssh.Stop()
	}
	return errors.Join(err, d.cluster.Stop())
}

// pasteable are commands for another terminal.
func (d *Demo) pasteable() string {
	ctl := fmt.Sprintf("%s ctl -f %s", d.cfg.Binary, d.proxy.ConfigFile())
	lines := []string{
		fmt.Sprintf("psql '%s'", d.proxy.URL(user, password, database)),
		ctl + " show",
		ctl + " show_task      # what was done so far",
		fmt.Sprintf("curl 'http://%s/backend/list?token=%s'", d.proxy.Admin(), stand.Token),
	}
	if d.ssh != nil {
		lines = slices.Insert(lines, 2, ctl+" switch --yes   # another primary, in order")
	}
	return "  " + strings.Join(lines, "\n  ")
}
