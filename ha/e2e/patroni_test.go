package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// patroniPreset is a setting of Patroni, to compare with.
type patroniPreset struct {
	Name                        string
	TTL, LoopWait, RetryTimeout int // seconds
	PrimaryStartTimeout         int // seconds that a crashed primary may take to start again; 0: fail over
}

// Patroni's defaults, and the least that its manual allows (ttl 20, loop_wait 1, retry_timeout 3).
// Below that are values which version 3.0 takes and the manual of 3.2 and later forbids.
var (
	patroniDefaults = patroniPreset{"defaults", 30, 10, 10, 300}
	patroniFastest  = patroniPreset{"fastest documented", 20, 1, 3, 300}
	patroniBelow    = patroniPreset{"below its documented minimum", 5, 1, 2, 300}
)

// patroni is a cluster that Patroni runs: three hosts, each with etcd, Patroni and PostgreSQL.
type patroni struct {
	lab    *Lab
	preset patroniPreset
	nodes  []*Node
}

func needsPatroni(t *testing.T) {
	t.Helper()
	for _, program := range []string{"patroni", "etcd"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("this compares with Patroni, and %s is not here: apt-get install --no-install-recommends patroni etcd-server python3-etcd", program)
		}
	}
}

func newPatroni(l *Lab, preset patroniPreset, hosts ...*Host) *patroni {
	l.t.Helper()
	p := &patroni{lab: l, preset: preset}
	for _, h := range hosts {
		p.nodes = append(p.nodes, &Node{h})
	}
	for _, n := range p.nodes {
		if err := os.WriteFile(n.path("home/patroni.yml"), []byte(p.config(n)), 0o644); err != nil {
			l.t.Fatal(err)
		}
		p.start(n)
	}
	p.awaitWhole(3 * time.Minute)
	return p
}

// start starts what runs on a host.
func (p *patroni) start(n *Node) {
	p.lab.t.Helper()
	var peers []string
	for _, other := range p.nodes {
		peers = append(peers, fmt.Sprintf("%s=http://%s:2380", other.Name, other.Addr))
	}
	etcd := fmt.Sprintf("etcd --name %s --data-dir /home/etcd --listen-peer-urls http://%[2]s:2380 --initial-advertise-peer-urls http://%[2]s:2380"+
		" --listen-client-urls http://0.0.0.0:2379 --advertise-client-urls http://%[2]s:2379 --initial-cluster %s --initial-cluster-state new",
		n.Name, n.Addr, strings.Join(peers, ","))
	const patroni = `setpriv --reuid postgres --regid postgres --init-groups env HOME=/var/lib/postgresql /usr/bin/patroni /home/patroni.yml`
	script := "setsid " + etcd + " </dev/null >>/var/log/etcd.log 2>&1 & cd /; setsid " + patroni + " </dev/null >>/var/log/patroni.log 2>&1 &"
	if _, err := n.Exec(p.lab.t.Context(), "sh", "-c", script); err != nil {
		p.lab.t.Fatalf("start Patroni on %s: %v", n.Name, err)
	}
}

func (p *patroni) config(n *Node) string {
	var etcds []string
	for _, other := range p.nodes {
		etcds = append(etcds, other.Addr+":2379")
	}
	return fmt.Sprintf(`scope: lab
name: %[1]s
restapi: {listen: "0.0.0.0:8008", connect_address: "%[2]s:8008"}
etcd3: {hosts: "%[3]s"}
bootstrap:
  dcs:
    ttl: %[4]d
    loop_wait: %[5]d
    retry_timeout: %[6]d
    primary_start_timeout: %[7]d
    maximum_lag_on_failover: 1048576
    postgresql:
      use_pg_rewind: true
      use_slots: true
      parameters: {max_connections: 100, max_wal_senders: 16, max_replication_slots: 16, wal_keep_size: 256MB, wal_log_hints: "on"}
  initdb: [{encoding: UTF8}, {locale: C.UTF-8}, data-checksums, no-sync]
postgresql:
  listen: "0.0.0.0:%[8]d"
  connect_address: "%[2]s:%[8]d"
  data_dir: %[9]s
  bin_dir: %[10]s
  use_unix_socket: true
  remove_data_directory_on_rewind_failure: true
  remove_data_directory_on_diverged_timelines: true
  authentication:
    superuser: {username: postgres, password: %[11]s}
    replication: {username: postgres, password: %[11]s}
  parameters:
    unix_socket_directories: /run/postgresql
    shared_buffers: 32MB
    fsync: "off"
    wal_sender_timeout: 5s
    wal_receiver_timeout: 5s
  pg_hba:
  - local all all trust
  - host all all 10.77.0.0/24 scram-sha-256
  - host replication all 10.77.0.0/24 scram-sha-256
`, n.Name, n.Addr, strings.Join(etcds, ","), p.preset.TTL, p.preset.LoopWait, p.preset.RetryTimeout, p.preset.PrimaryStartTimeout,
		PGPort, PGData, p.lab.bin, Password)
}

// awaitWhole is awaitWhole of its nodes. Rebuilding a standby is Patroni's own business.
func (p *patroni) awaitWhole(limit time.Duration) *Node {
	p.lab.t.Helper()
	return awaitWhole(p.lab.t, limit, p.nodes)
}

// way is how clients find Patroni's primary without a further program in between: libpq's list of
// hosts with target_session_attrs=read-write.
func (p *patroni) way() Way {
	w := Way{Attrs: "read-write"}
	for _, n := range p.nodes {
		w.Addrs = append(w.Addrs, fmt.Sprintf("%s:%d", n.Addr, PGPort))
	}
	return w
}

// logs is what Patroni has said everywhere, for a test that failed.
func (p *patroni) logs() string {
	var b strings.Builder
	for _, n := range p.nodes {
		for _, name := range []string{"log/patroni.log", "log/etcd.log"} {
			text, err := os.ReadFile(n.path(name))
			if err != nil {
				fmt.Fprintln(&b, err)
			}
			fmt.Fprintf(&b, "%s %s:\n%s\n", n.Name, name, text[max(0, len(text)-4000):])
		}
	}
	return b.String()
}
