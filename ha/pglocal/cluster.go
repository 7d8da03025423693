// Package pglocal starts real PostgreSQL clusters on this machine, for the demo, the tests and the
// benches: a primary, streaming standbys, and servers of a foreign system, on loopback addresses
// only. Servers run as the operating system's user postgres when the caller is root, otherwise as
// the caller. Everything that a cluster starts or writes is gone when Stop returns, and also when
// the calling process ends in any other way (see watchdog). It is a tool for people and tests: the
// data must not matter, fsync is off.
package pglocal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Auth says how clients that come in over TCP prove who they are.
type Auth int

const (
	Scram Auth = iota // scram-sha-256 with the role's password
	Trust             // nobody is asked
)

// Superuser is the role that every cluster has from the start.
const Superuser = "postgres"

// DefaultPassword is the superuser's password unless Options.Password says otherwise.
const DefaultPassword = "pglocal"

// Options say what to start. The zero value is one primary without standbys, scram.
type Options struct {
	// Dir is where the servers' folders are made; it must not exist yet or be empty. Empty: a
	// new folder under the temporary directory.
	Dir string
	// Standbys is how many streaming standbys the cluster has from the start.
	Standbys int
	// Auth is asked of TCP clients; the unix socket, whose folder is private, asks nothing.
	Auth Auth
	// Password is the superuser's.
	Password string
	// MaxConnections is max_connections of each server; 0 means 100.
	MaxConnections int
	// Programs is the folder of the servers' programs (initdb, postgres), of version 10 or later; empty:
	// the newest installed version. AddStandby needs pg_basebackup there, too.
	Programs string
	// StandbyPrograms is the same for the standbys of the start, where they run another minor version;
	// empty: Programs.
	StandbyPrograms string
	// Settings are more lines of postgresql.conf for every server (name -> raw value, quotes
	// included where the file needs them); they win over pglocal's own.
	Settings map[string]string
	// StandbySettings are lines for the standbys of the start alone, on top of Settings.
	StandbySettings map[string]string
	// TLS gives every server a certificate for localhost and 127.0.0.1 and turns ssl on.
	// Cluster.CAFile is what a client verifies it with.
	TLS bool
	// Keep leaves the folders in place after Stop, for looking at the logs.
	Keep bool
}

// Cluster is a primary with its standbys. Its methods may be called from any goroutine, those of
// one Node from one goroutine at a time.
type Cluster struct {
	opts   Options
	bins   binaries // of the primary; a Node has its own
	owner  owner
	dir    string
	dog    *watchdog
	ports  *portLocks
	mu     sync.Mutex // guards nodes
	nodes  []*Node
	caFile string
}

// New returns a cluster that is not started; nothing is on the disk yet.
func New(o Options) *Cluster {
	if o.Password == "" {
		o.Password = DefaultPassword
	}
	if o.MaxConnections == 0 {
		o.MaxConnections = 100
	}
	return &Cluster{opts: o, ports: &portLocks{}}
}

// Start makes the servers and returns when the primary takes writes and every standby streams from
// it and takes reads. After an error nothing is left behind.
func (c *Cluster) Start(ctx context.Context) error {
	if err := c.start(ctx); err != nil {
		return errors.Join(err, c.Stop())
	}
	return nil
}

func (c *Cluster) start(ctx context.Context) error {
	var err error
	if c.bins, err = binariesIn(c.opts.Programs); err != nil {
		return err
	}
	standbyBins := c.bins
	if c.opts.StandbyPrograms != "" {
		if standbyBins, err = binariesIn(c.opts.StandbyPrograms); err != nil {
			return err
		}
	}
	if c.owner, err = serverOwner(); err != nil {
		return err
	}
	if c.dir, err = c.owner.makeDir(c.opts.Dir); err != nil {
		return err
	}
	after := "remove"
	if c.opts.Keep {
		after = "keep"
	}
	if c.dog, err = startWatchdog(c.dir, after); err != nil {
		return err
	}
	if c.opts.TLS {
		if c.caFile, err = writeCertificates(c.dir, c.owner); err != nil {
			return err
		}
	}
	primary, err := c.fromTemplate("ours")
	if err != nil {
		return err
	}
	if err := primary.startAnyPort(ctx); err != nil {
		return err
	}
	if err := c.setPassword(ctx, primary); err != nil {
		return err
	}
	standbys := make([]*Node, c.opts.Standbys)
	for i := range standbys {
		if standbys[i], err = c.fromTemplate("ours"); err != nil {
			return err
		}
		standbys[i].bins = standbyBins
		if err := standbys[i].follow(primary, c.opts.StandbySettings); err != nil {
			return err
		}
	}
	if err := startAll(ctx, standbys); err != nil {
		return err
	}
	return c.WaitStreaming(ctx)
}

func startAll(ctx context.Context, nodes []*Node) error {
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() { errs[i] = n.startAnyPort(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (c *Cluster) setPassword(ctx context.Context, n *Node) error {
	if c.opts.Password == DefaultPassword {
		return nil
	}
	_, err := n.Psql(ctx, "ALTER ROLE "+Superuser+" PASSWORD "+quoteLiteral(c.opts.Password))
	return err
}

// Stop ends every server at once, waits for them, and removes the folders. It may be called twice.
func (c *Cluster) Stop() error {
	for _, n := range c.Nodes() {
		n.kill()
	}
	for _, n := range c.Nodes() {
		n.awaitExit()
	}
	var err error
	if c.dog != nil {
		err = c.dog.stop()
	}
	c.ports.release()
	return err
}

// TakePort reserves a port of 127.0.0.1 until Stop for a program beside the servers: no other
// cluster gets it, and the kernel does not use it for outgoing connections.
func (c *Cluster) TakePort() (int, error) { return c.ports.take() }

// Dir is the folder under which all of the cluster's files are.
func (c *Cluster) Dir() string { return c.dir }

// CAFile is the certificate that signed the servers' own, in PEM; empty without Options.TLS.
func (c *Cluster) CAFile() string { return c.caFile }

// Password is the superuser's.
func (c *Cluster) Password() string { return c.opts.Password }

// Nodes are all servers, in the order in which they were made, the foreign ones included.
func (c *Cluster) Nodes() []*Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*Node(nil), c.nodes...)
}

// Primary is the first server that is no standby; nil before Start.
func (c *Cluster) Primary() *Node {
	for _, n := range c.Nodes() {
		if !n.Standby() && !n.foreign {
			return n
		}
	}
	return nil
}

// Standbys are the servers that are set up to follow the primary, running or not.
func (c *Cluster) Standbys() []*Node {
	var s []*Node
	for _, n := range c.Nodes() {
		if n.Standby() && !n.foreign {
			s = append(s, n)
		}
	}
	return s
}

// AddStandby copies the running primary (pg_basebackup) and returns when the copy streams.
func (c *Cluster) AddStandby(ctx context.Context, settings map[string]string) (*Node, error) {
	n, err := c.newNode()
	if err != nil {
		return nil, err
	}
	primary := c.Primary()
	err = c.run(ctx, c.bins.path("pg_basebackup"), "-D", n.Dir, "-d", primary.conninfo(),
		"-c", "fast", "-X", "stream", "--no-sync")
	if err != nil {
		return nil, fmt.Errorf("copy %s: %w", primary.Name, err)
	}
	if err := n.follow(primary, settings); err != nil {
		return nil, err
	}
	c.add(n)
	if err := n.startAnyPort(ctx); err != nil {
		return nil, err
	}
	return n, c.WaitStreaming(ctx)
}

// AddForeign starts a server with a system identifier of its own: a primary that does not belong
// to the cluster.
func (c *Cluster) AddForeign(ctx context.Context) (*Node, error) {
	n, err := c.fromTemplate("foreign")
	if err != nil {
		return nil, err
	}
	n.foreign = true
	if err := n.startAnyPort(ctx); err != nil {
		return nil, err
	}
	return n, c.setPassword(ctx, n)
}

func (c *Cluster) add(n *Node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes = append(c.nodes, n)
}

// newNode gives a server its name, folder and port; it is not yet part of the cluster.
func (c *Cluster) newNode() (*Node, error) {
	port, err := c.ports.take()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	id := len(c.nodes) + 1
	c.mu.Unlock()
	name := fmt.Sprintf("node%d", id)
	home := filepath.Join(c.dir, name)
	if err := c.owner.mkdir(home, 0o700); err != nil {
		return nil, err
	}
	return &Node{
		ID: id, Name: name, Host: "127.0.0.1", Port: port,
		Dir: filepath.Join(home, "data"), LogFile: filepath.Join(home, "log"), SocketDir: home, c: c, bins: c.bins,
	}, nil
}

func (c *Cluster) fromTemplate(system string) (*Node, error) {
	from, err := template{bins: c.bins, owner: c.owner, system: system}.make()
	if err != nil {
		return nil, err
	}
	n, err := c.newNode()
	if err != nil {
		return nil, err
	}
	if err := copyTree(from, n.Dir); err != nil {
		return nil, err
	}
	c.add(n)
	return n, n.configure(nil)
}

// WaitStreaming waits until every running standby receives from the primary. A standby that is
// down is not waited for.
func (c *Cluster) WaitStreaming(ctx context.Context) error {
	want := 0
	for _, n := range c.Standbys() {
		if n.Running() {
			want++
		}
	}
	what := fmt.Sprintf("%d standbys to stream from %s", want, c.Primary().Name)
	return poll(ctx, what, func() (bool, error) {
		got, err := c.Primary().Psql(ctx, "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND application_name LIKE 'node%'")
		return got == fmt.Sprint(want), err
	})
}

// CatchUp waits until every running standby has replayed what the primary has written so far.
func (c *Cluster) CatchUp(ctx context.Context) error {
	// The insert position of an idle primary may lie behind a page header that nobody flushes
	// yet: a record forced to the disk moves past it.
	target, err := c.Primary().Psql(ctx, "SELECT pg_switch_wal(); SELECT pg_current_wal_flush_lsn()")
	if err != nil {
		return err
	}
	for _, n := range c.Standbys() {
		if !n.Running() {
			continue
		}
		err := poll(ctx, n.Name+" to replay "+target, func() (bool, error) {
			ok, err := n.Psql(ctx, "SELECT pg_last_wal_replay_lsn() >= "+quoteLiteral(target))
			return ok == "t", err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// patience is how long a server may take for anything when the context sets no earlier end:
// a loaded machine with two cores starts a cluster in about 10 s.
const patience = 2 * time.Minute

// poll asks until the answer is yes. An error counts as "not yet" and is told when time is up.
func poll(ctx context.Context, what string, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := done()
		if ok && err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("wait for %s: %w", what, ctx.Err()), err)
		case <-tick.C:
		}
	}
}

// free says whether dir can take a cluster: absent or empty.
func free(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("folder %s is not empty", dir)
	}
	return nil
}
