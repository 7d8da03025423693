package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// machine holds what the bench started: folders and processes.
type machine struct {
	dir        string
	bin        string // PostgreSQL's programs
	credential *syscall.Credential
	processes  []*exec.Cmd
	servers    []string // data directories of running servers
	primary    int      // ports
	standby    int
}

func newMachine() (*machine, error) {
	bins, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(bins) == 0 {
		return nil, errors.New("PostgreSQL's server programs were not found in /usr/lib/postgresql: scripts/install-deps bench installs them")
	}
	sort.Strings(bins)
	m := &machine{bin: filepath.Dir(bins[len(bins)-1])}
	if os.Geteuid() == 0 { // neither PostgreSQL nor PgBouncer runs as root
		u, err := user.Lookup("postgres")
		if err != nil {
			return nil, fmt.Errorf("servers run as user postgres: %w", err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		m.credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	if m.dir, err = os.MkdirTemp("", "cstproxy-bench-"); err != nil {
		return nil, err
	}
	if err := os.Chmod(m.dir, 0o755); err != nil {
		return nil, err
	}
	if m.credential != nil {
		return m, os.Chown(m.dir, int(m.credential.Uid), int(m.credential.Gid))
	}
	return m, nil
}

func (m *machine) clean() error {
	var errs []error
	for _, cmd := range m.processes {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		timer := time.AfterFunc(5*time.Second, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		_ = cmd.Wait() // ended by our signal
		timer.Stop()
	}
	for _, data := range m.servers {
		errs = append(errs, m.exec(context.Background(), "pg_ctl", "-D", data, "-m", "immediate", "stop"))
	}
	return errors.Join(append(errs, os.RemoveAll(m.dir))...)
}

// exec runs one of PostgreSQL's programs to its end.
func (m *machine) exec(ctx context.Context, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(m.bin, program), args...)
	cmd.Dir, cmd.Env = m.dir, []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: m.credential}
	out := filepath.Join(m.dir, program+".out") // a pipe would be kept open by what pg_ctl starts
	file, err := os.Create(out)
	if err != nil {
		return err
	}
	defer file.Close()
	cmd.Stdout, cmd.Stderr = file, file
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(out)
		return fmt.Errorf("%s: %w\n%s", program, err, text)
	}
	return nil
}

// spawn starts a contender's program in a process group of its own, which clean ends.
func (m *machine) spawn(name string, args ...string) (*exec.Cmd, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = m.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: m.credential, Setpgid: true, Pdeathsig: syscall.SIGKILL}
	log, err := os.Create(filepath.Join(m.dir, filepath.Base(name)+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	m.processes = append(m.processes, cmd)
	return cmd, nil
}

func (m *machine) writeFile(name, text string) (string, error) {
	path := filepath.Join(m.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return "", err
	}
	if m.credential != nil {
		return path, os.Chown(path, int(m.credential.Uid), int(m.credential.Gid))
	}
	return path, nil
}

const serverConf = `
listen_addresses = '127.0.0.1'
port = %d
unix_socket_directories = '%s'
max_connections = 400
shared_buffers = 256MB
fsync = off
max_wal_senders = 8
wal_keep_size = 256MB
autovacuum = off
`

// startServers makes a primary with pgbench's tables and a standby that has all of it.
func (m *machine) startServers(ctx context.Context, scale int) error {
	p, s := filepath.Join(m.dir, "primary"), filepath.Join(m.dir, "standby")
	var err error
	if m.primary, err = freePort(); err != nil {
		return err
	}
	if err := m.exec(ctx, "initdb", "-D", p, "-U", "postgres", "-A", "trust", "--locale=C.UTF-8", "--no-sync"); err != nil {
		return err
	}
	if err := appendTo(filepath.Join(p, "postgresql.conf"), fmt.Sprintf(serverConf, m.primary, m.dir)); err != nil {
		return err
	}
	if err := m.startServer(ctx, p); err != nil {
		return err
	}
	if err := m.exec(ctx, "pgbench", "-i", "-q", "-s", strconv.Itoa(scale), "-h", "127.0.0.1", "-p", strconv.Itoa(m.primary), "-U", "postgres", "postgres"); err != nil {
		return err
	}
	if err := m.exec(ctx, "pg_basebackup", "-D", s, "-R", "-c", "fast", "-h", "127.0.0.1", "-p", strconv.Itoa(m.primary), "-U", "postgres", "--no-sync"); err != nil {
		return err
	}
	if m.standby, err = freePort(); err != nil {
		return err
	}
	if err := appendTo(filepath.Join(s, "postgresql.conf"), fmt.Sprintf("port = %d\n", m.standby)); err != nil {
		return err
	}
	return m.startServer(ctx, s)
}

func (m *machine) startServer(ctx context.Context, data string) error {
	if err := m.exec(ctx, "pg_ctl", "-D", data, "-l", data+".log", "-w", "start"); err != nil {
		return err
	}
	m.servers = append([]string{data}, m.servers...) // standbys end first
	return nil
}

func appendTo(file, text string) error {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

func freePort() (int, error) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	port := ln.Addr().(*net.TCPAddr).Port
	return port, ln.Close()
}

// result is one run of pgbench through one contender. CPU in µs per query, of all its processes.
type result struct{ cpu, user, tps, latency float64 }

func (m *machine) measure(ctx context.Context, c contender, p plan) (result, error) {
	settle(ctx)
	cmd := exec.CommandContext(ctx, filepath.Join(m.bin, "pgbench"), "-n", "-S", "-M", p.protocol,
		"-c", strconv.Itoa(p.clients), "-j", strconv.Itoa(p.jobs), "-T", strconv.Itoa(p.seconds),
		"-h", "127.0.0.1", "-p", strconv.Itoa(c.port), "-U", "postgres", "postgres")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "PGSSLMODE=disable"}
	userBefore, systemBefore := cpuOf(c.pid)
	out, err := cmd.CombinedOutput()
	userAfter, systemAfter := cpuOf(c.pid)
	if err != nil {
		return result{}, fmt.Errorf("pgbench: %w\n%s", err, out)
	}
	count, tps, latency := figure(out, "actually processed:"), figure(out, "tps ="), figure(out, "latency average =")
	if count == 0 || figure(out, "failed transactions:") != 0 {
		return result{}, fmt.Errorf("pgbench failed transactions:\n%s", out)
	}
	perQuery := func(seconds float64) float64 { return seconds * 1e6 / count }
	return result{
		cpu:  perQuery(userAfter - userBefore + systemAfter - systemBefore),
		user: perQuery(userAfter - userBefore), tps: tps, latency: latency,
	}, nil
}

// figure is the number that follows a label in pgbench's report.
func figure(out []byte, label string) float64 {
	_, rest, _ := bytes.Cut(out, []byte(label))
	fields := strings.FieldsFunc(string(rest), func(r rune) bool { return r == ' ' || r == '\n' || r == '/' || r == '(' })
	if len(fields) == 0 {
		return 0
	}
	n, err := strconv.ParseFloat(fields[0], 64)
	if err != nil {
		return 0
	}
	return n
}

// ticksPerSecond is Linux' USER_HZ, the unit of /proc/PID/stat on every architecture that Go runs on.
const ticksPerSecond = 100

// cpuOf sums the CPU seconds of a process and all its descendants, the ended ones included.
func cpuOf(pid int) (user, system float64) {
	if pid == 0 {
		return 0, 0
	}
	parents := map[int][]int{}
	stats := map[int][]string{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		id, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue
		}
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // from "state" on
		parent, _ := strconv.Atoi(fields[1])
		parents[parent] = append(parents[parent], id)
		stats[id] = fields
	}
	var add func(int)
	add = func(id int) {
		f := stats[id]
		if f == nil {
			return
		}
		for i, sum := range []*float64{&user, &system, &user, &system} { // utime stime cutime cstime
			ticks, _ := strconv.ParseFloat(f[11+i], 64)
			*sum += ticks / ticksPerSecond
		}
		for _, child := range parents[id] {
			add(child)
		}
	}
	add(pid)
	return user, system
}
