// Package sshlocal is a real OpenSSH server on a loopback address, for tests and the demo: its
// address, host key and login key are its own, logins are to the account of the calling process. Our
// process listens and starts one `sshd -i` for each connection, so the port cannot be lost to somebody
// else, a connection can be frozen or cut, and nothing is left when the process ends in whatever way:
// an sshd ends with its connection. Commands that run detached from it are their starter's matter.
package sshlocal

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/crypto/ssh"
)

// Server is one such server. Its methods may be called from any goroutine.
type Server struct {
	// Host and Port are where it listens, the same from Start to Stop, User whom it lets in.
	Host string
	Port int
	User string
	// KeyFile is the private key that it accepts, KnownHosts a file that names its host key.
	KeyFile, KnownHosts string

	dir     string
	options Options
	sshd    string

	mu       sync.Mutex
	mode     mode
	listener net.Listener
	sessions map[*exec.Cmd]net.Conn
	deaf     []net.Conn
	running  sync.WaitGroup
}

type mode int

const (
	serving mode = iota
	frozen       // sessions are stopped, new connections get no answer
)

// Options say what to start.
type Options struct {
	// Dir is where keys and configuration are written, and the home directory of those who log in; it
	// must exist, and its path must have no spaces.
	Dir string
	// Settings are more lines of sshd_config; they win.
	Settings []string
}

// New makes a server that Start starts.
func New(o Options) *Server {
	return &Server{
		Host: "127.0.0.1", dir: o.Dir, options: o, sessions: map[*exec.Cmd]net.Conn{},
		KeyFile: filepath.Join(o.Dir, "id_ed25519"), KnownHosts: filepath.Join(o.Dir, "known_hosts"),
	}
}

// TB is what ForTest needs of a *testing.T.
type TB interface {
	Helper()
	TempDir() string
	Cleanup(func())
	Fatalf(format string, args ...any)
}

// ForTest starts a server that lives as long as the test.
func ForTest(t TB, settings ...string) *Server {
	t.Helper()
	s := New(Options{Dir: t.TempDir(), Settings: settings})
	if err := s.Start(); err != nil {
		t.Fatalf("start sshd: %v", err)
	}
	t.Cleanup(s.Stop)
	return s
}

// Start writes keys and configuration and listens.
func (s *Server) Start() error {
	path, err := find()
	if err != nil {
		return err
	}
	s.sshd = path
	who, err := user.Current()
	if err != nil {
		return fmt.Errorf("find out who we are: %w", err)
	}
	s.User = who.Username
	if who.Uid == "0" { // sshd of root insists on it
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			return fmt.Errorf("make sshd's folder: %w", err)
		}
	}
	if err := s.listen(); err != nil {
		return err
	}
	login, err := writeKey(s.KeyFile)
	if err == nil {
		err = os.WriteFile(s.path("authorized_keys"), ssh.MarshalAuthorizedKey(login), 0o600)
	}
	if err == nil {
		err = s.NewHostKey()
	}
	if err == nil {
		err = s.Trust()
	}
	if err == nil {
		err = os.WriteFile(s.path("sshd_config"), []byte(s.config()), 0o600)
	}
	if err != nil {
		s.Stop()
	}
	return err
}

func find() (string, error) {
	for _, path := range []string{"/usr/sbin/sshd", "/usr/local/sbin/sshd", "/sbin/sshd"} {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", errors.New("no sshd here; install it (Debian: apt-get install openssh-server)")
}

func (s *Server) path(name string) string { return filepath.Join(s.dir, name) }

// config: the first value of a keyword wins, so the caller's come first.
func (s *Server) config() string {
	return strings.Join(append(append([]string{}, s.options.Settings...),
		"HostKey "+s.path("host_key"),
		"AuthorizedKeysFile "+s.path("authorized_keys"),
		"StrictModes no", // our folder lies below /tmp, which everybody may write to
		"UsePAM no",
		"UseDNS no",
		"PidFile none",
		"PasswordAuthentication no",
		"KbdInteractiveAuthentication no",
		"PermitRootLogin prohibit-password",
		"PrintMotd no",
		"PrintLastLog no",
		// bash reads ~/.bashrc for commands that come by SSH; the developer's is no part of a test.
		"SetEnv HOME="+s.dir,
	), "\n") + "\n"
}

// NewHostKey gives the server another key, as when its host was set up anew.
func (s *Server) NewHostKey() error {
	_, err := writeKey(s.path("host_key"))
	return err
}

// Trust writes the present host key to KnownHosts, as the only one.
func (s *Server) Trust() error {
	text, err := os.ReadFile(s.path("host_key.pub"))
	if err != nil {
		return fmt.Errorf("read the host key: %w", err)
	}
	line := fmt.Sprintf("[%s]:%d %s", s.Host, s.Port, text)
	return os.WriteFile(s.KnownHosts, []byte(line), 0o600)
}

// writeKey makes a key pair in file and file.pub.
func writeKey(file string) (ssh.PublicKey, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(private, "sshlocal")
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	pub, err := ssh.NewPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		return nil, err
	}
	return pub, os.WriteFile(file+".pub", ssh.MarshalAuthorizedKey(pub), 0o600)
}

// listen opens the port: any at first, later the same one again.
func (s *Server) listen() error {
	ln, err := net.Listen("tcp4", net.JoinHostPort(s.Host, strconv.Itoa(s.Port)))
	if err != nil {
		return fmt.Errorf("listen for SSH: %w", err)
	}
	s.mu.Lock()
	s.listener = ln
	s.mu.Unlock()
	s.Port = ln.Addr().(*net.TCPAddr).Port
	s.running.Add(1)
	go func() { defer s.running.Done(); s.accept(ln) }() // Stop waits
	return nil
}

func (s *Server) accept(ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		s.serve(conn.(*net.TCPConn))
	}
}

// serve gives a connection an sshd of its own, in a process group of its own.
func (s *Server) serve(conn *net.TCPConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mode == frozen {
		s.deaf = append(s.deaf, conn)
		return
	}
	file, err := conn.File()
	if err != nil {
		_ = conn.Close()
		return
	}
	defer file.Close()
	log, err := os.OpenFile(s.path("sshd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		_ = conn.Close()
		return
	}
	defer log.Close()
	cmd := exec.Command(s.sshd, "-i", "-e", "-f", s.path("sshd_config"))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = file, file, log
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		_ = conn.Close()
		return
	}
	s.sessions[cmd] = conn
	s.running.Add(1)
	go func() { // Stop waits
		defer s.running.Done()
		_ = cmd.Wait()
		_ = conn.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.sessions, cmd)
	}()
}

// Freeze stops the sshds, as a host under a stopped scheduler: connections stay, are acknowledged,
// and get no answer. The commands that they run go on. New connections get no answer either.
func (s *Server) Freeze() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mode = frozen
	s.signal(syscall.SIGSTOP)
}

// Thaw ends Freeze. Connections that came in between are dropped.
func (s *Server) Thaw() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mode = serving
	for _, conn := range s.deaf {
		_ = conn.Close()
	}
	s.deaf = nil
	s.signal(syscall.SIGCONT)
}

// Cut kills the sshds of all connections. The commands that they run go on.
func (s *Server) Cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.signal(syscall.SIGKILL)
}

func (s *Server) signal(sig syscall.Signal) {
	for cmd := range s.sessions {
		_ = syscall.Kill(-cmd.Process.Pid, sig) // one that has ended needs none
	}
}

// Close cuts everything, and refuses connections until Open.
func (s *Server) Close() {
	s.mu.Lock()
	ln := s.listener
	s.listener = nil
	s.mu.Unlock()
	if ln != nil {
		_ = ln.Close()
	}
	s.Cut()
}

// Open takes connections again, on the same port.
func (s *Server) Open() error { return s.listen() }

// Connections counts the open ones.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sessions)
}

// Log is what the sshds said.
func (s *Server) Log() string {
	text, err := os.ReadFile(s.path("sshd.log"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Stop ends everything and waits for it.
func (s *Server) Stop() {
	s.Close()
	s.Thaw()
	s.Cut()
	s.running.Wait()
}
