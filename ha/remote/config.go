package remote

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"time"
)

// Config says how to get at one node's host. Every member of a fleet must log in to a host as the
// same account and with the same Dir: the ratchet lives there.
type Config struct {
	// Host is a name or an address, Port the SSH server's.
	Host string
	Port int
	// User is the account on the host. Its login shell must be a POSIX shell; a slow start-up file
	// (~/.bashrc, which bash reads for SSH, too) delays every command.
	User string
	// KeyFile holds the private key, without a passphrase and readable by its owner alone. Empty:
	// what the agent has.
	KeyFile string
	// AgentSocket is an SSH agent's socket (SSH_AUTH_SOCK); empty: no agent is asked.
	AgentSocket string
	// KnownHostsFile is in OpenSSH's format. It is read at each login, so an added key counts at once.
	KnownHostsFile string
	// Dir is where the wrapper and its state are on the host: an absolute path, or one below the
	// account's home. It must outlive a power cut, so it is no place for a file system in memory; it
	// need not be on the data directory's.
	Dir string
	// ConnectTimeout bounds the TCP connection, LoginTimeout the handshakes after it.
	ConnectTimeout, LoginTimeout time.Duration
	// KeepAlive is the pause between two questions to the SSH server, for which it answers also
	// while commands run.
	KeepAlive time.Duration
	// SilentAfter is how long an answer may take before Up says no; DropAfter, before the connection
	// is given up. In between a loaded host keeps the commands that it runs for us.
	SilentAfter, DropAfter time.Duration
	// UserTimeout is TCP_USER_TIMEOUT: how long sent bytes may stay unacknowledged by the host's
	// kernel. It notices a lost host or network, whatever the SSH server does.
	UserTimeout time.Duration
	// AskTimeout bounds an Ask whose context has no deadline.
	AskTimeout time.Duration
	// ProbeTimeout is how long a host tries to connect in ProbeFrom.
	ProbeTimeout time.Duration
	// LockWait is how long a command waits on the host for another one of the same token when its
	// context has no deadline.
	LockWait time.Duration
}

// DefaultConfig is everything that need not be said of a host.
func DefaultConfig() Config {
	return Config{
		Port:           22,
		Dir:            ".cstproxy",
		ConnectTimeout: 1500 * time.Millisecond,
		LoginTimeout:   5 * time.Second,
		KeepAlive:      500 * time.Millisecond,
		SilentAfter:    time.Second,
		DropAfter:      4 * time.Second,
		UserTimeout:    1500 * time.Millisecond,
		AskTimeout:     10 * time.Second,
		ProbeTimeout:   time.Second,
		LockWait:       time.Minute,
	}
}

// Validate says what is wrong with the values.
func (c Config) Validate() error {
	var wrong []error
	if c.Host == "" || c.User == "" || c.KnownHostsFile == "" {
		wrong = append(wrong, errors.New("host, user and known_hosts file must be given"))
	}
	if c.KeyFile == "" && c.AgentSocket == "" {
		wrong = append(wrong, errors.New("neither a key file nor an agent is given"))
	}
	if c.Port < 1 || c.Port > 65535 {
		wrong = append(wrong, fmt.Errorf("port %d is not one", c.Port))
	}
	if c.Dir == "" || strings.HasPrefix(c.Dir, "~") || strings.HasPrefix(c.Dir, "-") || path.Clean(c.Dir) != c.Dir {
		wrong = append(wrong, fmt.Errorf("directory %q must be a plain absolute path, or one relative to the home directory (without ~)", c.Dir))
	}
	for name, d := range map[string]time.Duration{
		"ConnectTimeout": c.ConnectTimeout, "LoginTimeout": c.LoginTimeout, "KeepAlive": c.KeepAlive,
		"SilentAfter": c.SilentAfter, "UserTimeout": c.UserTimeout, "AskTimeout": c.AskTimeout, "ProbeTimeout": c.ProbeTimeout, "LockWait": c.LockWait,
	} {
		if d <= 0 {
			wrong = append(wrong, fmt.Errorf("%s must be positive", name))
		}
	}
	if c.DropAfter < c.SilentAfter {
		wrong = append(wrong, errors.New("DropAfter is below SilentAfter"))
	}
	return errors.Join(wrong...)
}
