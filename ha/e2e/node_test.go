package e2e

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// What every node has alike.
const (
	PGData   = "/var/lib/postgresql/data"
	PGLog    = "/var/lib/postgresql/server.log"
	PGPort   = 5432
	Password = "lab" // of the superuser postgres, by SCRAM, from the network
)

// Node is a PostgreSQL server on a host; the host's faults are its own as well.
type Node struct {
	*Host
}

// Postgres puts a primary on the first host and standbys of it on the others. It returns when the
// standbys stream and take reads. Each streams under its host's name. Settings are more lines of
// postgresql.conf (name -> raw value).
func (l *Lab) Postgres(settings map[string]string, hosts ...*Host) []*Node {
	l.t.Helper()
	template, err := l.template(settings)
	if err != nil {
		l.t.Fatalf("make a data directory: %v", err)
	}
	var nodes []*Node
	for i, h := range hosts {
		n := &Node{h}
		if err := n.fill(template, hosts[0], i > 0); err != nil {
			l.t.Fatalf("data directory of %s: %v", h.Name, err)
		}
		n.Start()
		nodes = append(nodes, n)
	}
	l.AwaitStreaming(nodes[0], nodes[1:]...)
	return nodes
}

// AwaitStreaming waits until the primary sends to all of these standbys.
func (l *Lab) AwaitStreaming(primary *Node, standbys ...*Node) {
	l.t.Helper()
	for _, s := range standbys {
		await(l.t, s.Name+" to stream from "+primary.Name, func(ctx context.Context) bool {
			got, err := primary.Psql(ctx, "SELECT state FROM pg_stat_replication WHERE application_name = '"+s.Name+"'")
			return err == nil && got == "streaming"
		})
	}
}

// template is a fresh data directory. Its copies share the system identifier, so one can be the
// standby of another.
func (l *Lab) template(settings map[string]string) (string, error) {
	account, err := user.Lookup("postgres")
	if err != nil {
		return "", err
	}
	uid, err := strconv.Atoi(account.Uid)
	if err != nil {
		return "", err
	}
	gid, err := strconv.Atoi(account.Gid)
	if err != nil {
		return "", err
	}
	home := filepath.Join(l.dir, "template")
	if err := os.Mkdir(home, 0o700); err != nil {
		return "", err
	}
	if err := os.Chown(home, uid, gid); err != nil {
		return "", err
	}
	password, dir := filepath.Join(home, "password"), filepath.Join(home, "data")
	if err := os.WriteFile(password, []byte(Password+"\n"), 0o644); err != nil {
		return "", err
	}
	initdb := exec.Command(l.bin+"/initdb", "-D", dir, "-U", "postgres", "--pwfile="+password, "-A", "scram-sha-256",
		"-E", "UTF8", "--locale=C.UTF-8", "--data-checksums", "--no-sync")
	initdb.Dir, initdb.Env = "/", []string{"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8", "TZ=UTC"}
	initdb.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	if _, err := output(initdb); err != nil {
		return "", err
	}
	return dir, configure(dir, settings)
}

// configure writes what all nodes have alike. A power-off here loses no page of the kernel's, so
// nothing depends on fsync.
func configure(dir string, more map[string]string) error {
	settings := map[string]string{
		"listen_addresses": "'*'", "port": strconv.Itoa(PGPort), "unix_socket_directories": "'/run/postgresql'",
		"max_connections": "100", "shared_buffers": "32MB", "fsync": "off",
		"wal_log_hints": "on", "wal_keep_size": "256MB", "max_wal_senders": "16", "max_replication_slots": "16",
		"wal_sender_timeout": "5s", "wal_receiver_timeout": "5s", "wal_retrieve_retry_interval": "500ms",
		"log_line_prefix": "'%m [%p] %q%u@%d/%a '", "timezone": "'UTC'", "log_timezone": "'UTC'",
	}
	maps.Copy(settings, more)
	conf, err := os.OpenFile(filepath.Join(dir, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer conf.Close()
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		if _, err := fmt.Fprintf(conf, "%s = %s\n", name, settings[name]); err != nil {
			return err
		}
	}
	const hba = "local all all trust\nhost all all 10.77.0.0/24 scram-sha-256\nhost replication all 10.77.0.0/24 scram-sha-256\n" +
		"host all all fd77::/64 scram-sha-256\nhost replication all fd77::/64 scram-sha-256\n"
	return os.WriteFile(filepath.Join(dir, "pg_hba.conf"), []byte(hba), 0)
}

// fill gives the node its data directory.
func (n *Node) fill(template string, primary *Host, standby bool) error {
	if _, err := output(exec.Command("cp", "-a", "--reflink=auto", template, n.path("postgresql/data"))); err != nil {
		return err
	}
	if !standby {
		return nil
	}
	auto := fmt.Sprintf("primary_conninfo = 'host=%s port=%d user=postgres password=%s application_name=%s'\n",
		primary.Name, PGPort, Password, n.Name)
	if err := os.WriteFile(n.path("postgresql/data/postgresql.auto.conf"), []byte(auto), 0); err != nil {
		return err
	}
	_, err := n.shell(n.lab.t.Context(), `touch "$0/standby.signal"`)
	return err
}

// shell runs a script as the server's account, with the data directory as $0.
func (n *Node) shell(ctx context.Context, script string) (string, error) {
	return output(n.Command(ctx, "postgres", "sh", "-c", script, PGData))
}

// must is shell for what a scenario needs, and bounded.
func (n *Node) must(what, script string) {
	n.lab.t.Helper()
	ctx, cancel := context.WithTimeout(n.lab.t.Context(), patience)
	defer cancel()
	if _, err := n.shell(ctx, script); err != nil {
		n.lab.t.Fatalf("%s %s: %v", what, n.Name, err)
	}
}

// Start starts the server and returns when it takes connections.
func (n *Node) Start() {
	n.lab.t.Helper()
	n.must("start", `pg_ctl -D "$0" -w -s -l `+PGLog+` start`)
}

// Stop is a fast shutdown.
func (n *Node) Stop() { n.lab.t.Helper(); n.must("stop", `pg_ctl -D "$0" -w -s -m fast stop`) }

// Promote makes the standby a primary by hand.
func (n *Node) Promote() { n.lab.t.Helper(); n.must("promote", `pg_ctl -D "$0" -w -s promote`) }

// The postmaster is stopped first, so that it starts no children in between.
const family = `read -r pid <"$0/postmaster.pid" && kill -STOP "$pid" && all="$pid $(pgrep -P "$pid")" && `

// Kill is the server's crash: every process of it gets SIGKILL. It returns when they are gone.
func (n *Node) Kill() {
	n.lab.t.Helper()
	n.must("kill", family+`kill -KILL $all; for p in $all; do while kill -0 "$p" 2>/dev/null; do sleep 0.01; done; done`)
}

// Hang stops every process of the server (SIGSTOP): the kernel accepts connections, nobody answers,
// and `pg_ctl status` says that it runs.
func (n *Node) Hang() { n.lab.t.Helper(); n.must("hang", family+`kill -STOP $all`) }

// Wake ends Hang, for those that nobody has killed meanwhile.
func (n *Node) Wake() { n.lab.t.Helper(); n.must("wake", family+`kill -CONT $all 2>/dev/null || :`) }

// Psql runs SQL as the superuser on the host itself, whatever the network is like, and returns the
// rows: columns separated by |. It may be called from any goroutine.
func (n *Node) Psql(ctx context.Context, sql string) (string, error) {
	return output(n.Command(ctx, "postgres", "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", "/run/postgresql", "-c", sql))
}

// PsqlFrom runs SQL from another host, as an application does; host is a name or an address. It waits
// 2 s at most for the connection.
func PsqlFrom(ctx context.Context, from *Host, host, sql string) (string, error) {
	return output(from.Command(ctx, "root", "env", "PGPASSWORD="+Password, "PGCONNECT_TIMEOUT=2",
		"psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", host, "-U", "postgres", "-c", sql))
}

// Log is what the server has said, for a test that failed.
func (n *Node) Log() string {
	text, err := os.ReadFile(n.path("postgresql/server.log"))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text))
}
