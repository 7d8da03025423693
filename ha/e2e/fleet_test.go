package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// What every member has alike.
const (
	proxyPort  = 9999
	adminPort  = 8082
	gossipPort = 7946
	peerPort   = 7947
	token      = "lab-token"
)

// Layout says where the members and servers of a fleet are, and what is not as usual.
type Layout struct {
	Members []*Host // all of them voters
	Nodes   []*Node
	// Operation, Cluster, HA and Fleet are more keys of these sections (name -> TOML value).
	Operation, Cluster, HA, Fleet map[string]string
	// Keys are more keys of single nodes, by their hosts' names.
	Keys map[string]map[string]string
	// More is text at the end of the file: further clusters.
	More string
}

// Fleet is the product at work: one cluster, operated by members.
type Fleet struct {
	lab     *Lab
	layout  Layout
	members []*Member
	nodes   []*Node
}

// Member is a member's process on a host; the host's faults are its own as well.
type Member struct {
	*Host
	fleet *Fleet
}

// newFleet starts the members and returns when all of them know the primary and take writes.
func newFleet(l *Lab, layout Layout) *Fleet {
	l.t.Helper()
	f := &Fleet{lab: l, layout: layout, nodes: layout.Nodes}
	f.build()
	for _, h := range layout.Members {
		m := &Member{Host: h, fleet: f}
		f.members = append(f.members, m)
		if err := m.prepare(); err != nil {
			l.t.Fatalf("prepare %s: %v", m.Name, err)
		}
	}
	l.t.Cleanup(func() {
		if l.t.Failed() {
			f.logs()
		}
	})
	for _, m := range f.members {
		m.Start()
	}
	for _, m := range f.members {
		m.AwaitReady()
	}
	if said, err := f.members[0].ctl(l.t.Context(), "init"); err != nil {
		l.t.Fatalf("prepare the hosts: %v\n%s", err, said)
	}
	return f
}

// build puts the product's binary where all hosts see it: as CST_BINARY says, or of this source.
func (f *Fleet) build() {
	f.lab.t.Helper()
	to := filepath.Join(f.lab.Share(), "cstproxy")
	cmd := exec.CommandContext(f.lab.t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-o", to, "../../cmd/cstproxy")
	if ready := os.Getenv("CST_BINARY"); ready != "" {
		cmd = exec.CommandContext(f.lab.t.Context(), "cp", ready, to)
	}
	if _, err := output(cmd); err != nil {
		f.lab.t.Fatalf("build the product: %v", err)
	}
	if _, err := os.Stat(f.keyFile()); err != nil {
		if _, err := output(exec.CommandContext(f.lab.t.Context(), to, "ctl", "key", f.keyFile())); err != nil {
			f.lab.t.Fatalf("make the fleet's key: %v", err)
		}
	}
}

func (f *Fleet) keyFile() string { return filepath.Join(f.lab.dir, "fleet.key") }

func (m *Member) prepare() error {
	dir := m.path("home/cstproxy")
	key, err := os.ReadFile(m.fleet.keyFile())
	if err != nil {
		return err
	}
	return errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(dir+"/fleet.key", key, 0o600),
		os.WriteFile(dir+"/cstproxy.toml", []byte(m.config()), 0o600))
}

// at is a port of the host, for those who connect.
func (h *Host) at(port int) string { return net.JoinHostPort(h.Addr, strconv.Itoa(port)) }

// everywhere is a port on all of the host's addresses.
func (h *Host) everywhere(port int) string {
	if strings.Contains(h.Addr, ":") {
		return fmt.Sprintf("[::]:%d", port)
	}
	return fmt.Sprintf("0.0.0.0:%d", port)
}

// config is the member's cstproxy.toml, as its users would write it.
func (m *Member) config() string {
	var b strings.Builder
	section := func(head string, keys ...map[string]string) {
		all := map[string]string{}
		for _, k := range keys {
			maps.Copy(all, k)
		}
		fmt.Fprintf(&b, "%s\n", head)
		for _, name := range slices.Sorted(maps.Keys(all)) {
			fmt.Fprintf(&b, "%s = %s\n", name, all[name])
		}
	}
	var voters, join []string
	for _, other := range m.fleet.layout.Members {
		voters = append(voters, fmt.Sprintf("%q", other.Name+"="+other.at(peerPort)))
		if other != m.Host {
			join = append(join, fmt.Sprintf("%q", other.at(gossipPort)))
		}
	}
	quote := func(s string) string { return fmt.Sprintf("%q", s) }
	layout := m.fleet.layout
	section("[proxy]", map[string]string{"listen": quote(m.everywhere(proxyPort))})
	section("[admin]", map[string]string{"listen": quote(m.everywhere(adminPort)), "token": quote(token)})
	section("[ha]", map[string]string{"state_dir": quote("/home/cstproxy/state")}, layout.HA)
	section("[fleet]", map[string]string{
		"name": quote(m.Name), "bind": quote(m.at(gossipPort)), "peer_bind": quote(m.at(peerPort)), "key_file": quote("fleet.key"),
		"join": "[" + strings.Join(join, ", ") + "]", "voters": "[" + strings.Join(voters, ", ") + "]",
	}, layout.Fleet)
	section("[[cluster]]", map[string]string{"name": quote("main"), "auth_user": quote("postgres"), "password": quote(Password)}, layout.Cluster)
	section("[cluster.operation]", map[string]string{
		"enabled": "true", "ssh_user": quote("root"), "ssh_key_file": quote("/root/.ssh/id_ed25519"),
		"ssh_known_hosts_file": quote("/etc/ssh/ssh_known_hosts"),
	}, layout.Operation)
	for _, n := range layout.Nodes {
		section("[[cluster.node]]", map[string]string{
			"id": fmt.Sprint(n.ID()), "host": quote(n.Addr), "port": fmt.Sprint(PGPort),
			"os_user": quote("postgres"), "pgdata": quote(PGData), "repl_app_name": quote(n.Name),
		}, layout.Keys[n.Name])
	}
	b.WriteString(layout.More)
	return b.String()
}

// ID is the node's in cstproxy.toml: its host's number.
func (n *Node) ID() int { return n.number }

// Start starts the member's process.
func (m *Member) Start() {
	m.lab.t.Helper()
	const script = `cd /home/cstproxy && setsid sh -c 'echo $$ >/run/cstproxy.pid; exec /run/lab/cstproxy run -f cstproxy.toml' </dev/null >>/var/log/cstproxy.log 2>&1 &`
	if _, err := m.Exec(m.lab.t.Context(), "sh", "-c", script); err != nil {
		m.lab.t.Fatalf("start the member on %s: %v", m.Name, err)
	}
}

func (m *Member) signal(what, name string) {
	m.lab.t.Helper()
	if _, err := m.Exec(m.lab.t.Context(), "sh", "-c", "kill -"+name+" $(cat /run/cstproxy.pid)"); err != nil {
		m.lab.t.Fatalf("%s the member on %s: %v", what, m.Name, err)
	}
}

// Kill is the member's crash.
func (m *Member) Kill() { m.lab.t.Helper(); m.signal("kill", "KILL") }

// Pause stops the process, and nothing else of its host; Resume lets it go on.
func (m *Member) Pause() { m.lab.t.Helper(); m.signal("pause", "STOP") }

// Resume ends Pause.
func (m *Member) Resume() { m.lab.t.Helper(); m.signal("resume", "CONT") }

// AwaitReady waits until the member knows a primary and its proxy executes a write there.
func (m *Member) AwaitReady() {
	m.lab.t.Helper()
	await(m.lab.t, m.Name+" to take writes", func(ctx context.Context) bool {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		_, err := output(m.Command(ctx, "root", "env", "PGPASSWORD="+Password, "PGCONNECT_TIMEOUT=2", "psql", "-XAtq", "-h", "127.0.0.1",
			"-p", fmt.Sprint(proxyPort), "-U", "postgres", "-c", "BEGIN; CREATE TABLE ready (i int); ROLLBACK"))
		return err == nil
	})
}

// ctl gives an order on the member's host, as a DBA does. It may be called from any goroutine.
func (m *Member) ctl(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return m.Exec(ctx, append([]string{"/run/lab/cstproxy", "ctl", "-f", "/home/cstproxy/cstproxy.toml"}, args...)...)
}

// get asks the member's admin port. It may be called from any goroutine.
func (m *Member) get(ctx context.Context, path string) (int, []byte, error) {
	client := http.Client{Transport: &http.Transport{DialContext: m.Dial, DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.at(adminPort)+path, nil)
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	answer, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return answer.StatusCode, body, err
}

// line is one of a member's log.
type line struct {
	Member  *Member   `json:"-"`
	Time    time.Time `json:"time"`
	Msg     string    `json:"msg"`
	Logger  string    `json:"logger"`
	Why     string    `json:"why"`
	Cluster string    `json:"cluster"`
	Epoch   uint64    `json:"epoch"`
	Node    int       `json:"node"`
	Verb    string    `json:"verb"`
	Kind    string    `json:"kind"`
	Step    string    `json:"step"`
	// Operation is the number of the operation that the line is about.
	Operation uint64 `json:"operation"`
	Term      uint64 `json:"term"`
	Lasted    string `json:"lasted"`
	Raw       string `json:"-"`
}

// log is what the member has said since a time. A host that was powered off keeps its files.
func (m *Member) log(since time.Time) []line {
	text, err := os.ReadFile(m.path("log/cstproxy.log"))
	if err != nil {
		return nil
	}
	var lines []line
	for scan := bufio.NewScanner(bytes.NewReader(text)); scan.Scan(); {
		l := line{Member: m, Raw: scan.Text()}
		if json.Unmarshal(scan.Bytes(), &l) == nil && !l.Time.Before(since) {
			lines = append(lines, l)
		}
	}
	return lines
}

// log is what all members have said since a time, by time.
func (f *Fleet) log(since time.Time) []line {
	var all []line
	for _, m := range f.members {
		all = append(all, m.log(since)...)
	}
	slices.SortStableFunc(all, func(a, b line) int { return a.Time.Compare(b.Time) })
	return all
}

// leads is the member that was last elected, as the logs say.
func (f *Fleet) leads() *Member {
	var leader *Member
	for _, l := range f.log(time.Time{}) {
		switch {
		case l.Msg == "leads":
			leader = l.Member
		case l.Msg == "leads no more" && l.Member == leader:
			leader = nil
		}
	}
	return leader
}

// memberOn is the member on a host.
func (f *Fleet) memberOn(h *Host) *Member {
	f.lab.t.Helper()
	for _, m := range f.members {
		if m.Host == h {
			return m
		}
	}
	f.lab.t.Fatalf("there is no member on %s", h.Name)
	return nil
}

// awaitLeader has the others elect this member: every other that leads is killed and started again.
func (f *Fleet) awaitLeader(t *testing.T, want *Member) {
	t.Helper()
	awaitFor(t, 2*time.Minute, want.Name+" to lead", func(ctx context.Context) bool {
		leader := f.leads()
		if leader != nil && leader != want && leader.pid.Load() != 0 {
			leader.Kill()
			awaitFor(t, patience, "another leader than "+leader.Name, func(context.Context) bool {
				now := f.leads()
				return now != nil && now != leader
			})
			leader.Start()
			leader.AwaitReady()
		}
		return f.leads() == want
	})
}

// way is the fleet's list of addresses, as an application has it, beginning with one member.
func (f *Fleet) way(first *Member) Way {
	var w Way
	add := func(m *Member) { w.Addrs = append(w.Addrs, m.at(proxyPort)) }
	add(first)
	for _, m := range f.members {
		if m != first {
			add(m)
		}
	}
	return w
}

// logs shows, for a test that failed, what members and servers have said.
func (f *Fleet) logs() {
	f.lab.t.Helper()
	for _, l := range f.log(time.Time{}) {
		f.lab.t.Logf("%s %s", l.Member.Name, l.Raw)
	}
	for _, m := range f.members {
		text, err := os.ReadFile(m.path("log/cstproxy.log"))
		for raw := range strings.SplitSeq(string(text), "\n") {
			if err == nil && raw != "" && !strings.HasPrefix(raw, "{") {
				f.lab.t.Logf("%s %s", m.Name, raw)
			}
		}
	}
	for _, n := range f.nodes {
		f.lab.t.Logf("%s:\n%s", n.Name, n.Log())
		if n.pid.Load() == 0 {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience) // the test's own may have ended
		now, err := n.Exec(ctx, "sh", "-c", `tail -n 40 /var/lib/postgresql/data*/cstproxy-start.log; ps -eo pid,ppid,etimes,stat,wchan:20,args | grep -v 'postgres: '`)
		cancel()
		f.lab.t.Logf("%s now: %v\n%s", n.Name, err, now)
	}
}

// awaitWhole waits until there is one primary, all other nodes stream from it, and returns it.
func (f *Fleet) awaitWhole(t *testing.T, limit time.Duration) *Node {
	t.Helper()
	return awaitWhole(t, limit, f.nodes)
}

// awaitWhole waits until one of the nodes is the primary and all others stream from it. A copy of the
// primary's files that is being made looks like a standby to the primary: the others are asked as well.
func awaitWhole(t *testing.T, limit time.Duration, nodes []*Node) *Node {
	t.Helper()
	var primary *Node
	awaitFor(t, limit, "a whole cluster", func(ctx context.Context) bool {
		if primary = writable(ctx, nodes); primary == nil {
			return false
		}
		for _, n := range nodes {
			const streams = `SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming' AND latest_end_lsn IS NOT NULL`
			if got, err := n.Psql(ctx, streams); n != primary && (err != nil || got != "1") {
				return false
			}
		}
		got, err := primary.Psql(ctx, "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")
		return err == nil && got == fmt.Sprint(len(nodes)-1)
	})
	return primary
}
