package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// contender is one way from pgbench to the standby.
type contender struct {
	name string
	port int
	pid  int // 0: there is no process to measure
}

// contenders starts all that are wanted and installed.
func (p plan) contenders(ctx context.Context, m *machine) ([]contender, error) {
	list := []struct {
		name  string
		start func(context.Context, *machine) (contender, error)
	}{
		{"direct", p.direct}, {"floor", p.floor}, {"cstproxy", p.proxy}, {"pgbouncer", p.pgbouncer}, {"pgpool", p.pgpool},
	}
	var running []contender
	for _, l := range list {
		if !p.wants(l.name) {
			continue
		}
		c, err := l.start(ctx, m)
		if err != nil {
			return nil, fmt.Errorf("start %s: %w", l.name, err)
		}
		if c.port == 0 {
			fmt.Printf("%s is not installed or cannot do this: left out\n", l.name)
			continue
		}
		if err := m.answers(ctx, c.port); err != nil {
			return nil, fmt.Errorf("start %s: %w", l.name, err)
		}
		c.name = l.name
		running = append(running, c)
	}
	return running, nil
}

// answers waits until a query through the port comes back.
func (m *machine) answers(ctx context.Context, port int) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		cmd := exec.CommandContext(ctx, filepath.Join(m.bin, "psql"), "-XAtqc", "SELECT abalance FROM pgbench_accounts WHERE aid = 1",
			"-h", "127.0.0.1", "-p", strconv.Itoa(port), "-U", "postgres", "postgres")
		out, err := cmd.CombinedOutput()
		if err == nil {
			return nil
		}
		settle(ctx)
		if ctx.Err() != nil {
			return fmt.Errorf("no answer on port %d: %w\n%s\n%s", port, err, out, m.logs())
		}
	}
}

func (m *machine) logs() string {
	text := ""
	files, _ := filepath.Glob(filepath.Join(m.dir, "*.log"))
	for _, f := range files {
		b, _ := os.ReadFile(f)
		text += f + ":\n" + string(b[max(0, len(b)-1500):]) + "\n"
	}
	return text
}

func (p plan) direct(_ context.Context, m *machine) (contender, error) {
	return contender{port: m.standby}, nil
}

func (p plan) floor(ctx context.Context, m *machine) (contender, error) {
	if p.protocol == "prepared" { // it does not know which server has which statement
		return contender{}, nil
	}
	binary := filepath.Join(m.dir, "floor")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, "./bench/floor").CombinedOutput(); err != nil {
		return contender{}, fmt.Errorf("build it: %w\n%s", err, out)
	}
	port, err := freePort()
	if err != nil {
		return contender{}, err
	}
	cmd, err := m.spawn(binary, "-listen", local(port), "-server", local(m.standby), "-pool", strconv.Itoa(p.pool))
	if err != nil {
		return contender{}, err
	}
	return contender{port: port, pid: cmd.Process.Pid}, nil
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

const proxyConf = `[proxy]
listen = %q
pool_size = %d

[admin]
listen = %q

[[hba]]
type = "host"
database = "all"
user = "all"
address = "127.0.0.1/32"
method = "trust"

[[cluster]]
name = "bench"
auth_user = "postgres"
  [[cluster.node]]
  id = 1
  host = "127.0.0.1"
  port = %d
  [[cluster.node]]
  id = 2
  host = "127.0.0.1"
  port = %d
`

func (p plan) proxy(_ context.Context, m *machine) (contender, error) {
	binary, err := filepath.Abs(p.cstproxy)
	if err != nil {
		return contender{}, err
	}
	copied := filepath.Join(m.dir, "cstproxy") // the servers' account may not reach the original
	if out, err := exec.Command("install", "-m", "755", binary, copied).CombinedOutput(); err != nil {
		return contender{}, fmt.Errorf("copy the binary: %w\n%s", err, out)
	}
	port, err := freePort()
	if err != nil {
		return contender{}, err
	}
	adminPort, err := freePort()
	if err != nil {
		return contender{}, err
	}
	file, err := m.writeFile("cstproxy.toml", fmt.Sprintf(proxyConf, local(port), p.pool, local(adminPort), m.primary, m.standby))
	if err != nil {
		return contender{}, err
	}
	cmd, err := m.spawn(copied, "run", "-f", file)
	if err != nil {
		return contender{}, err
	}
	return contender{port: port, pid: cmd.Process.Pid}, nil
}

const pgbouncerConf = `[databases]
* = host=127.0.0.1 port=%d
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = trust
auth_file = %s
pool_mode = transaction
default_pool_size = %d
max_client_conn = 2000
ignore_startup_parameters = extra_float_digits
`

func (p plan) pgbouncer(_ context.Context, m *machine) (contender, error) {
	binary, err := find("pgbouncer")
	if binary == "" || p.protocol == "prepared" { // Debian's 1.18 cannot, in transaction pooling
		return contender{}, err
	}
	port, err := freePort()
	if err != nil {
		return contender{}, err
	}
	users, err := m.writeFile("users.txt", "\"postgres\" \"\"\n")
	if err != nil {
		return contender{}, err
	}
	file, err := m.writeFile("pgbouncer.ini", fmt.Sprintf(pgbouncerConf, m.standby, port, users, p.pool))
	if err != nil {
		return contender{}, err
	}
	cmd, err := m.spawn(binary, file)
	if err != nil {
		return contender{}, err
	}
	return contender{port: port, pid: cmd.Process.Pid}, nil
}

const pgpoolConf = `listen_addresses = '127.0.0.1'
port = %d
unix_socket_directories = '%[2]s'
socket_dir = '%[2]s'
pcp_port = %[3]d
pcp_socket_dir = '%[2]s'
pid_file_name = '%[2]s/pgpool.pid'
logdir = '%[2]s'
num_init_children = %[4]d
max_pool = 1
load_balance_mode = on
backend_clustering_mode = 'streaming_replication'
sr_check_period = 0
health_check_period = 0
backend_hostname0 = '127.0.0.1'
backend_port0 = %[5]d
backend_weight0 = 0
backend_hostname1 = '127.0.0.1'
backend_port1 = %[6]d
backend_weight1 = 1
`

// pgpool runs when it is installed; it is not installed for the purpose.
func (p plan) pgpool(_ context.Context, m *machine) (contender, error) {
	binary, err := find("pgpool")
	if binary == "" {
		return contender{}, err
	}
	port, err := freePort()
	if err != nil {
		return contender{}, err
	}
	pcp, err := freePort()
	if err != nil {
		return contender{}, err
	}
	file, err := m.writeFile("pgpool.conf", fmt.Sprintf(pgpoolConf, port, m.dir, pcp, p.clients+8, m.primary, m.standby))
	if err != nil {
		return contender{}, err
	}
	for _, empty := range []string{"pcp.conf", "pool_hba.conf"} {
		if _, err := m.writeFile(empty, ""); err != nil {
			return contender{}, err
		}
	}
	cmd, err := m.spawn(binary, "-n", "-f", file, "-F", filepath.Join(m.dir, "pcp.conf"), "-a", filepath.Join(m.dir, "pool_hba.conf"))
	if err != nil {
		return contender{}, err
	}
	return contender{port: port, pid: cmd.Process.Pid}, nil
}

// find looks for a server program, which an ordinary user's PATH may leave out; "" when absent.
func find(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return filepath.Abs(path)
	}
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin"} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", nil
}
