// Package stand sets a cstproxy process in front of a local cluster, for the demo and the
// end-to-end tests: it writes the configuration file, runs `cstproxy run`, waits until the proxy
// knows the cluster, and asks its admin port. The process ends with the caller's process.
package stand

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cstproxy/cstproxy/ha/pglocal"
)

// Options say what to run.
type Options struct {
	// Binary is the cstproxy program.
	Binary string
	// Cluster is started already; its nodes are configured in their order, with ids from 1.
	Cluster *pglocal.Cluster
	// Nodes are which of the cluster's nodes to configure; nil means all.
	Nodes []*pglocal.Node
	// Dir is an existing folder for the configuration file, secrets and the log.
	Dir string
	// Listen and Admin are addresses; empty means a port of 127.0.0.1 that the cluster reserves.
	Listen, Admin string
	// Weights are the nodes' weights by name; a missing one is 1.
	Weights map[string]int
	// Passwords are of users whom the proxy trusts and must log in to the servers by itself.
	Passwords map[string]string
	// Proxy and ClusterLines are more lines for the sections [proxy] and [[cluster]]; More is
	// text between them, for sections of its own.
	Proxy, ClusterLines, More string
	// Operation has the proxy operate the servers, too; nil: it only watches them.
	Operation *Operation
}

// Token is what the admin port of a stand asks for.
const Token = "8e722522-0f6c-4a0e-9f43-5d2c1b7f9a10"

// ClusterName is the one cluster of a stand.
const ClusterName = "demo"

// Proxy is one cstproxy process.
type Proxy struct {
	opts   Options
	cmd    *exec.Cmd
	exited chan struct{}
	ended  error // how the process ended; valid after exited is closed
}

// New returns a proxy that does not run yet.
func New(o Options) (*Proxy, error) {
	if o.Nodes == nil {
		o.Nodes = o.Cluster.Nodes()
	}
	for _, address := range []*string{&o.Listen, &o.Admin} {
		if *address != "" {
			continue
		}
		port, err := o.Cluster.TakePort()
		if err != nil {
			return nil, err
		}
		*address = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	}
	return &Proxy{opts: o}, nil
}

// Start runs the process and returns when it answers that it is ready and every standby is in
// rotation.
func (p *Proxy) Start(ctx context.Context) error {
	if err := p.Launch(); err != nil {
		return err
	}
	standbys := 0
	for _, n := range p.opts.Nodes {
		if n.Standby() {
			standbys++
		}
	}
	if err := p.AwaitBackends(ctx, standbys); err != nil {
		return errors.Join(err, p.Kill())
	}
	return nil
}

// Launch writes the configuration and runs the process, and waits for nothing.
func (p *Proxy) Launch() error {
	if err := p.writeConfig(); err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	return p.launch()
}

func (p *Proxy) launch() error {
	log, err := os.OpenFile(p.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the proxy's log: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(p.opts.Binary, "run", "-f", p.ConfigFile())
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = cleanEnv()
	// A session of its own, so that Ctrl-C is ours to handle. The death signal follows the thread
	// that forked, which is therefore kept until the process has ended.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	started, exited := make(chan error), make(chan struct{})
	go func() { // Kill and Stop wait for it
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.ended = cmd.Wait()
		}
		close(exited)
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("run %s: %w", p.opts.Binary, err)
	}
	p.cmd, p.exited = cmd, exited
	return nil
}

// cleanEnv keeps settings of the caller's environment out of the process.
func cleanEnv() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "PG") && !strings.HasPrefix(v, "CSTPROXY_") && !strings.HasPrefix(v, "CSTLB_") {
			env = append(env, v)
		}
	}
	return env
}

// ConfigFile, LogFile: where they are.
func (p *Proxy) ConfigFile() string { return filepath.Join(p.opts.Dir, "cstproxy.toml") }

// LogFile is what the process writes.
func (p *Proxy) LogFile() string { return filepath.Join(p.opts.Dir, "cstproxy.log") }

// Listen is the address that clients connect to.
func (p *Proxy) Listen() string { return p.opts.Listen }

// Admin is the address of the admin port.
func (p *Proxy) Admin() string { return p.opts.Admin }

// Port is the clients' port.
func (p *Proxy) Port() string {
	_, port, err := net.SplitHostPort(p.opts.Listen)
	if err != nil {
		return ""
	}
	return port
}

// URL is a connection string.
func (p *Proxy) URL(user, password, database string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(user, password), Host: p.opts.Listen, Path: "/" + database}
	return u.String()
}

// PID is the process id.
func (p *Proxy) PID() int { return p.cmd.Process.Pid }

// Exited is closed when the process has ended.
func (p *Proxy) Exited() <-chan struct{} { return p.exited }

// Rewrite changes the options and writes the configuration file anew; Reload makes it count.
func (p *Proxy) Rewrite(change func(*Options)) error {
	change(&p.opts)
	return p.writeConfig()
}

// Reload has the process read its file again.
func (p *Proxy) Reload() error { return p.cmd.Process.Signal(syscall.SIGHUP) }

// Stop drains the process and waits for its end; an exit code other than 0 is an error.
func (p *Proxy) Stop(ctx context.Context) error {
	if p.cmd == nil {
		return nil
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself: exited says how
	select {
	case <-p.exited:
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("cstproxy did not end: %w", ctx.Err()), p.Kill())
	}
	if p.ended != nil {
		return fmt.Errorf("cstproxy ended with %w; its log ends with:\n%s", p.ended, p.logTail())
	}
	return nil
}

// Kill ends the process at once.
func (p *Proxy) Kill() error {
	if p.cmd == nil {
		return nil
	}
	err := p.cmd.Process.Kill()
	<-p.exited
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// Backends are the addresses that take reads now.
func (p *Proxy) Backends(ctx context.Context) ([]string, error) {
	var ring map[string]json.RawMessage
	body, err := p.Get(ctx, "/backend/list?token="+Token)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(body, &ring); err != nil {
		return nil, fmt.Errorf("read the list of backends: %w", err)
	}
	var list []string
	for address := range ring {
		list = append(list, address)
	}
	return list, nil
}

// Get asks the admin port.
func (p *Proxy) Get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.opts.Admin+path, nil)
	if err != nil {
		return nil, err
	}
	client := http.Client{Timeout: patience}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answered %s: %s", path, resp.Status, body)
	}
	return body, err
}

// patience is how long the proxy may take to notice something; a probe takes about a second.
const patience = time.Minute

// AwaitBackends waits until exactly n backends are in rotation and the proxy calls itself ready.
func (p *Proxy) AwaitBackends(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		list, err := p.Backends(ctx)
		if err == nil {
			_, err = p.Get(ctx, "/readyz")
		}
		if err == nil && len(list) == n {
			return nil
		}
		select {
		case <-p.exited:
			return fmt.Errorf("cstproxy ended (%v); its log ends with:\n%s", p.ended, p.logTail())
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("cstproxy has %v in rotation instead of %d nodes; its log ends with:\n%s",
				list, n, p.logTail()), err)
		case <-tick.C:
		}
	}
}

func (p *Proxy) logTail() string {
	b, err := os.ReadFile(p.LogFile())
	if err != nil {
		return err.Error()
	}
	const most = 3000
	if len(b) > most {
		b = b[len(b)-most:]
	}
	return string(b)
}
