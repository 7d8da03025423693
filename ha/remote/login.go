package remote

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	xknownhosts "golang.org/x/crypto/ssh/knownhosts"
	"golang.org/x/sys/unix"
)

// socket remembers when the host was last heard.
type socket struct {
	net.Conn
	heard atomic.Pointer[time.Time]
}

func (s *socket) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	if n > 0 {
		now := time.Now()
		s.heard.Store(&now)
	}
	return n, err
}

// login connects, has the host prove who it is, and logs in.
func (h *Host) login(ctx context.Context) (*ssh.Client, *socket, error) {
	keys, closeAgent, err := h.keys()
	if err != nil {
		return nil, nil, &Auth{Host: h.name, User: h.cfg.User, Err: err}
	}
	defer closeAgent()
	known, err := knownhosts.NewDB(h.cfg.KnownHostsFile)
	if err != nil {
		return nil, nil, h.unknownHost(err)
	}
	config := &ssh.ClientConfig{
		User:              h.cfg.User,
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(keys...)},
		HostKeyAlgorithms: known.HostKeyAlgorithms(h.address()), // none: the library's own list
		HostKeyCallback: func(address string, remote net.Addr, key ssh.PublicKey) error {
			return h.judgeKey(known.HostKeyCallback()(address, remote, key), key)
		},
		ClientVersion: "SSH-2.0-cstproxy",
	}
	conn, err := h.dial(ctx)
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if err := conn.SetDeadline(time.Now().Add(h.cfg.LoginTimeout)); err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	c, channels, requests, err := ssh.NewClientConn(conn, h.address(), config)
	if err != nil { // NewClientConn has closed conn
		return nil, nil, h.loginError(ctx, err)
	}
	client := ssh.NewClient(c, channels, requests)
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, nil, errors.Join(err, client.Close())
	}
	return client, conn, nil
}

func (h *Host) address() string { return net.JoinHostPort(h.cfg.Host, strconv.Itoa(h.cfg.Port)) }

func (h *Host) dial(ctx context.Context) (*socket, error) {
	dialer := net.Dialer{Timeout: h.cfg.ConnectTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", h.address())
	if err != nil {
		return nil, err
	}
	tcp := conn.(*net.TCPConn)
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(h.cfg.UserTimeout.Milliseconds()))
	})
	if err := errors.Join(err, set); err != nil {
		return nil, errors.Join(fmt.Errorf("set TCP_USER_TIMEOUT: %w", err), conn.Close())
	}
	return &socket{Conn: conn}, nil
}

// loginError sorts what went wrong. The library has no type for a refused login.
func (h *Host) loginError(ctx context.Context, err error) error {
	var key *HostKey
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &key):
		return key
	case strings.Contains(err.Error(), "unable to authenticate"):
		return &Auth{Host: h.name, User: h.cfg.User,
			Err: fmt.Errorf("it refuses %s; its public half must be in that account's authorized_keys", h.keySource())}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("it takes connections, but did not complete the login within %v", h.cfg.LoginTimeout)
	}
	return err
}

func (h *Host) keySource() string {
	switch {
	case h.cfg.KeyFile == "":
		return "the agent's keys"
	case h.cfg.AgentSocket == "":
		return "the key " + h.cfg.KeyFile
	}
	return "the key " + h.cfg.KeyFile + " and the agent's"
}

// judgeKey makes the library's verdict one of ours.
func (h *Host) judgeKey(verdict error, key ssh.PublicKey) error {
	var wrong *xknownhosts.KeyError
	switch {
	case verdict == nil:
		return nil
	case errors.As(verdict, &wrong) && len(wrong.Want) == 0:
		e := h.unknownHost(verdict)
		e.Fingerprint = ssh.FingerprintSHA256(key)
		return e
	}
	e := h.unknownHost(verdict)
	e.Fingerprint, e.Changed = ssh.FingerprintSHA256(key), true
	e.Remedy = fmt.Sprintf("ssh-keygen -f %s -R '%s' && %s", h.cfg.KnownHostsFile, knownhosts.Normalize(h.address()), e.Remedy)
	return e
}

func (h *Host) unknownHost(err error) *HostKey {
	return &HostKey{Host: h.name, Err: err,
		Remedy: fmt.Sprintf("ssh-keyscan -p %d %s >> %s", h.cfg.Port, h.cfg.Host, h.cfg.KnownHostsFile)}
}

// keys are the key file's and the agent's. The agent signs during the login, so its connection is
// closed by the caller.
func (h *Host) keys() (signers []ssh.Signer, closeAgent func(), err error) {
	closeAgent = func() {}
	if h.cfg.KeyFile != "" {
		signer, err := readKey(h.cfg.KeyFile)
		if err != nil {
			return nil, nil, err
		}
		signers = append(signers, signer)
	}
	if h.cfg.AgentSocket == "" {
		return signers, closeAgent, nil
	}
	conn, err := net.DialTimeout("unix", h.cfg.AgentSocket, h.cfg.ConnectTimeout)
	if err == nil {
		_ = conn.SetDeadline(time.Now().Add(h.cfg.ConnectTimeout + h.cfg.LoginTimeout))
		closeAgent = func() { _ = conn.Close() }
		var held []ssh.Signer
		held, err = agent.NewClient(conn).Signers()
		signers = append(signers, held...)
	}
	if len(signers) == 0 {
		closeAgent()
		return nil, nil, fmt.Errorf("the agent %s offers no key: %w", h.cfg.AgentSocket, errors.Join(err))
	}
	return signers, closeAgent, nil
}

func readKey(file string) (ssh.Signer, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("read the key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("the key %s can be read by others (mode %04o): chmod 600 it", file, info.Mode().Perm())
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the key: %w", err)
	}
	signer, err := ssh.ParsePrivateKey(text)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		return nil, fmt.Errorf("the key %s is encrypted and nobody is there to type its passphrase: "+
			"use a key without one, or an agent", file)
	}
	if err != nil {
		return nil, fmt.Errorf("the key %s is not a private key: %w", file, err)
	}
	return signer, nil
}
