package pglocal

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
)

// Node is one PostgreSQL server.
type Node struct {
	ID        int
	Name      string // also the application_name under which it streams
	Host      string
	Port      int
	Dir       string // the data directory
	LogFile   string
	SocketDir string

	c       *Cluster
	bins    binaries
	foreign bool

	mu     sync.Mutex
	cmd    *exec.Cmd     // nil: never started
	exited chan struct{} // closed when cmd has ended
}

// Address is "host:port".
func (n *Node) Address() string { return net.JoinHostPort(n.Host, strconv.Itoa(n.Port)) }

// URL is a connection string for the superuser over TCP.
func (n *Node) URL(database string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(Superuser, n.c.opts.Password), Host: n.Address(), Path: "/" + database}
	return u.String()
}

func (n *Node) conninfo() string {
	return fmt.Sprintf("host=%s port=%d user=%s password=%s", n.Host, n.Port, Superuser, quoteConninfo(n.c.opts.Password))
}

// Standby says whether the data directory is that of a standby (it has a standby.signal,
// before version 12 a recovery.conf).
func (n *Node) Standby() bool {
	_, err := os.Stat(filepath.Join(n.Dir, n.standbyFile()))
	return err == nil
}

func (n *Node) standbyFile() string {
	if n.bins.major() < 12 {
		return "recovery.conf"
	}
	return "standby.signal"
}

// Running says whether the server's process is there (it may be paused or starting).
func (n *Node) Running() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd == nil {
		return false
	}
	select {
	case <-n.exited:
		return false
	default:
		return true
	}
}

// PID is the postmaster's process id; 0 when it is not running.
func (n *Node) PID() int {
	if !n.Running() {
		return 0
	}
	return n.cmd.Process.Pid
}

// Start runs the server and returns when it answers queries.
func (n *Node) Start(ctx context.Context) error {
	if n.Running() {
		return nil
	}
	log, err := os.OpenFile(n.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the log of %s: %w", n.Name, err)
	}
	defer log.Close()
	cmd := exec.Command(n.bins.path("postgres"), "-D", n.Dir)
	cmd.Dir, cmd.Env = n.SocketDir, cleanEnv()
	cmd.Stdout, cmd.Stderr = log, log
	// A session of its own: Ctrl-C at the terminal is for us, who then end the servers in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: n.c.owner.credential()}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", n.Name, err)
	}
	exited := make(chan struct{})
	n.mu.Lock()
	n.cmd, n.exited = cmd, exited
	n.mu.Unlock()
	go func() { // awaitExit waits for it
		_ = cmd.Wait() // how it ended is in its log
		close(exited)
	}()
	err = poll(ctx, n.Name+" to take connections", func() (bool, error) {
		if !n.Running() {
			return true, nil
		}
		got, err := n.Psql(ctx, "SELECT 1")
		return got == "1", err
	})
	if err == nil && !n.Running() {
		err = fmt.Errorf("server %s ended while it started", n.Name)
	}
	if err != nil {
		n.kill()
		n.awaitExit()
		return fmt.Errorf("%w; its log ends with:\n%s", err, tail(n.LogFile))
	}
	return nil
}

// startAnyPort is the first start, when nobody relies on the port yet: another program may have
// taken it since we looked.
func (n *Node) startAnyPort(ctx context.Context) error {
	var err error
	for range 5 {
		if err = n.Start(ctx); err == nil || !strings.Contains(err.Error(), "Address already in use") {
			return err
		}
		port, perr := n.c.ports.take()
		if perr != nil {
			return errors.Join(err, perr)
		}
		n.Port = port
		if perr := n.configure(nil); perr != nil {
			return errors.Join(err, perr)
		}
	}
	return err
}

// Stop is a fast shutdown: open transactions are rolled back, standbys get the last record.
func (n *Node) Stop(ctx context.Context) error { return n.signalAndWait(ctx, syscall.SIGINT) }

func (n *Node) signalAndWait(ctx context.Context, sig os.Signal) error {
	if !n.Running() {
		return nil
	}
	if err := n.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("signal %s: %w", n.Name, err)
	}
	return poll(ctx, n.Name+" to end", func() (bool, error) { return !n.Running(), nil })
}

// Kill is the server's crash: every one of its processes gets SIGKILL. It returns when they are
// gone.
func (n *Node) Kill() {
	n.kill()
	n.awaitExit()
}

func (n *Node) kill() {
	pid := n.PID()
	if pid == 0 {
		return
	}
	// Stopped first, so that it neither starts new children nor cleans up after dead ones.
	_ = syscall.Kill(pid, syscall.SIGSTOP)
	family := childrenOf(pid)
	for _, p := range append([]int{pid}, family...) {
		_ = syscall.Kill(p, syscall.SIGKILL) // it may have ended by itself
	}
}

func (n *Node) awaitExit() {
	n.mu.Lock()
	exited := n.exited
	n.mu.Unlock()
	if exited != nil {
		<-exited
	}
}

// Hang stops every process of the server (SIGSTOP): connections are accepted by the kernel and
// nobody answers. Wake lets it go on.
func (n *Node) Hang() { n.signalFamily(syscall.SIGSTOP) }

// Wake ends Hang.
func (n *Node) Wake() { n.signalFamily(syscall.SIGCONT) }

func (n *Node) signalFamily(sig syscall.Signal) {
	if pid := n.PID(); pid != 0 {
		for _, p := range append([]int{pid}, childrenOf(pid)...) {
			_ = syscall.Kill(p, sig) // it may have ended by itself
		}
	}
}

// Promote makes the standby a primary and returns when it takes writes.
func (n *Node) Promote(ctx context.Context) error {
	if _, err := n.Psql(ctx, "SELECT pg_promote()"); err != nil {
		return fmt.Errorf("promote %s: %w", n.Name, err)
	}
	return poll(ctx, n.Name+" to leave recovery", func() (bool, error) {
		got, err := n.Psql(ctx, "SELECT pg_is_in_recovery()")
		return got == "f", err
	})
}

// Psql runs SQL (one or more statements) as the superuser in the database postgres, over the unix
// socket, and returns the last result as text: columns separated by tabs, rows by newlines.
func (n *Node) Psql(ctx context.Context, sql string) (string, error) {
	return n.PsqlIn(ctx, "postgres", sql)
}

// PsqlIn is Psql in another database.
func (n *Node) PsqlIn(ctx context.Context, database, sql string) (string, error) {
	cfg, err := pgconn.ParseConfig(fmt.Sprintf("host=%s port=%d user=%s dbname=%s application_name=pglocal sslmode=disable",
		n.SocketDir, n.Port, Superuser, quoteConninfo(database)))
	if err != nil {
		return "", fmt.Errorf("connection string of %s: %w", n.Name, err)
	}
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return "", fmt.Errorf("connect to %s: %w", n.Name, err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return "", fmt.Errorf("query %s: %w", n.Name, err)
	}
	if len(results) == 0 {
		return "", nil
	}
	var out strings.Builder
	for i, row := range results[len(results)-1].Rows {
		if i > 0 {
			out.WriteByte('\n')
		}
		for j, v := range row {
			if j > 0 {
				out.WriteByte('\t')
			}
			out.Write(v)
		}
	}
	return out.String(), nil
}

// Set writes a setting of the running server (ALTER SYSTEM) and reloads it.
func (n *Node) Set(ctx context.Context, name, value string) error {
	if _, err := n.Psql(ctx, "ALTER SYSTEM SET "+name+" = "+quoteLiteral(value)); err != nil {
		return err
	}
	_, err := n.Psql(ctx, "SELECT pg_reload_conf()")
	return err
}

// configure writes pglocal.conf, which the template's postgresql.conf includes, and pg_hba.conf.
func (n *Node) configure(extra map[string]string) error {
	settings := map[string]string{
		"port": strconv.Itoa(n.Port), "listen_addresses": "'127.0.0.1'",
		"unix_socket_directories": quoteLiteral(n.SocketDir),
		"max_connections":         strconv.Itoa(n.c.opts.MaxConnections),
		"shared_buffers":          "64MB", "cluster_name": quoteLiteral(n.Name),
		// For statements that tell who ran them; one with a dot may be any application's.
		"pglocal.node": quoteLiteral(n.Name),
		"fsync":        "off", "full_page_writes": "off",
		"max_wal_senders": "16", "max_replication_slots": "16", "wal_keep_size": "512MB",
		// A standby that lost its primary tries again soon; tests wait for it.
		"wal_retrieve_retry_interval": "200ms",
		"log_line_prefix":             "'%m [%p] %q%u@%d/%a '", "timezone": "'UTC'", "log_timezone": "'UTC'",
	}
	if n.bins.major() < 13 {
		delete(settings, "wal_keep_size")
		settings["wal_keep_segments"] = "32"
	}
	if n.c.opts.TLS {
		settings["ssl"] = "on"
		settings["ssl_cert_file"] = quoteLiteral(filepath.Join(n.c.dir, "server.crt"))
		settings["ssl_key_file"] = quoteLiteral(filepath.Join(n.c.dir, "server.key"))
	}
	for _, more := range []map[string]string{n.c.opts.Settings, extra} {
		for name, value := range more {
			settings[name] = value
		}
	}
	lines := make([]string, 0, len(settings))
	for name, value := range settings {
		lines = append(lines, name+" = "+value+"\n")
	}
	sort.Strings(lines)
	method := "scram-sha-256"
	if n.c.opts.Auth == Trust {
		method = "trust"
	}
	hba := fmt.Sprintf("local all all trust\nhost all all 127.0.0.1/32 %s\nhost replication all 127.0.0.1/32 %s\n", method, method)
	return errors.Join(
		n.c.owner.writeFile(filepath.Join(n.Dir, "pglocal.conf"), strings.Join(lines, "")),
		n.c.owner.writeFile(filepath.Join(n.Dir, "pg_hba.conf"), hba))
}

// follow makes the data directory that of a standby of primary.
func (n *Node) follow(primary *Node, settings map[string]string) error {
	conninfo := primary.conninfo() + " application_name=" + n.Name
	auto, signal := "primary_conninfo = "+quoteSetting(conninfo)+"\n", ""
	if n.bins.major() < 12 {
		auto, signal = "", "standby_mode = on\nrecovery_target_timeline = latest\n"+auto
	}
	return errors.Join(
		n.configure(settings),
		n.c.owner.writeFile(filepath.Join(n.Dir, "postgresql.auto.conf"), auto),
		n.c.owner.writeFile(filepath.Join(n.Dir, n.standbyFile()), signal))
}

// quoteConninfo is for values of a connection string, which have an escape of their own.
func quoteConninfo(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// quoteSetting is for values in configuration files, where backslashes escape.
func quoteSetting(s string) string { return quoteLiteral(strings.ReplaceAll(s, `\`, `\\`)) }

func quoteLiteral(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// tail is the end of a log, for error texts.
func tail(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	const most = 2000
	if len(b) > most {
		b = b[len(b)-most:]
	}
	return string(b)
}
