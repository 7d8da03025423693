package proxy

import (
	"errors"
	"fmt"
	"time"
)

// PoolMode says for how long a session keeps a server.
type PoolMode string

const (
	// TransactionPooling gives the server back when the transaction has ended.
	TransactionPooling PoolMode = "transaction"
	// SessionPooling keeps one primary and one standby connection for as long as the client stays.
	SessionPooling PoolMode = "session"
)

// ListenerMode says what a listener's clients get.
type ListenerMode string

const (
	// ListenAuto routes each turn.
	ListenAuto ListenerMode = "auto"
	// ListenStandby sends everything to standbys: a read-only port.
	ListenStandby ListenerMode = "standby"
	// ListenPrimary sends everything to the primary.
	ListenPrimary ListenerMode = "primary"
)

// Listener is one address that clients connect to.
type Listener struct {
	// Address is "host:port"; an empty host means all addresses. Not reloadable.
	Address string `toml:"address"`
	// Mode is what its clients get.
	Mode ListenerMode `toml:"mode"`
	// Cluster is which cluster they get; empty means the first one.
	Cluster string `toml:"cluster"`
}

// PoolConfig overrides the pool settings for a database, a user, or one at the other. Empty means
// any. The first entry that fits counts; zero values take the general setting.
type PoolConfig struct {
	Database string   `toml:"database"`
	User     string   `toml:"user"`
	Mode     PoolMode `toml:"pool_mode"`
	Size     int      `toml:"pool_size"`
	MinIdle  int      `toml:"min_idle"`
}

// Config is the data plane's configuration. Durations of 0 mean "no limit" unless said otherwise.
type Config struct {
	// Listen is the address of the listener that every installation has. Not reloadable.
	Listen string `toml:"listen"`
	// Listeners are further addresses, for example a read-only port. Set from [[listen]].
	Listeners []Listener `toml:"-"`

	// PoolMode, PoolSize and MinIdle hold for each node, database and user (see Pools).
	PoolMode PoolMode `toml:"pool_mode"`
	PoolSize int      `toml:"pool_size"`
	MinIdle  int      `toml:"min_idle"`
	// Pools are exceptions by database and user. Set from [[pool]].
	Pools []PoolConfig `toml:"-"`
	// MaxServerConnections bounds the connections to one node over all pools. 0: no bound.
	MaxServerConnections int `toml:"max_server_connections"`
	// ServerIdleTimeout closes a server connection that nobody used for so long.
	ServerIdleTimeout time.Duration `toml:"server_idle_timeout"`
	// ServerLifetime closes a server connection after so long, at most a tenth earlier.
	ServerLifetime time.Duration `toml:"server_lifetime"`
	// ServerConnectTimeout bounds connect, TLS and login of a server connection.
	ServerConnectTimeout time.Duration `toml:"server_connect_timeout"`
	// MaxPrepared is how many prepared statements are kept on one server connection.
	MaxPrepared int `toml:"max_prepared"`

	// MaxClients bounds the client connections. 0: no bound but the system's.
	MaxClients int `toml:"max_clients"`
	// WaitTimeout is how long a turn waits for a server connection; then SQLSTATE 53300.
	WaitTimeout time.Duration `toml:"wait_timeout"`
	// MaxWaiting bounds how many wait for one pool, then SQLSTATE 53300 at once, and how many are held
	// for a cluster's primary, then 57P03.
	MaxWaiting int `toml:"max_waiting"`
	// HoldWrites is how long a turn waits for a primary while there is none, or while it may not be
	// used; then 57P03. An answer of the primary waits as long for this member's lease. 0 refuses at
	// once. Most client-side pools wait longer than the default.
	HoldWrites time.Duration `toml:"hold_writes"`
	// HoldBytes bounds the requests that wait for a cluster's primary, in bytes; then 57P03 at once. One
	// is always taken.
	HoldBytes int `toml:"hold_bytes"`
	// LoginTimeout bounds everything from accept to the end of the login.
	LoginTimeout time.Duration `toml:"login_timeout"`
	// ClientIdleTimeout ends a client that is outside a transaction and silent for so long.
	ClientIdleTimeout time.Duration `toml:"client_idle_timeout"`
	// IdleTransactionTimeout ends a client that is silent inside a transaction for so long.
	IdleTransactionTimeout time.Duration `toml:"idle_transaction_timeout"`
	// QueryTimeout cancels a turn that takes longer.
	QueryTimeout time.Duration `toml:"query_timeout"`
	// DrainTimeout is how long running transactions may take when the process is told to end.
	DrainTimeout time.Duration `toml:"drain_timeout"`

	// MaxTurnBytes is how much of one turn is looked at before it is sent; a larger one goes to
	// the primary unread, in bounded memory.
	MaxTurnBytes int `toml:"max_turn_bytes"`

	// TLS is the clients' side: "disable", "allow" (both) or "require".
	TLS string `toml:"tls"`
	// TLSCertFile and TLSKeyFile are PEM files, read again on reload.
	TLSCertFile string `toml:"tls_cert_file"`
	TLSKeyFile  string `toml:"tls_key_file"`
	// ServerTLS is the servers' side: "disable", "prefer", "require", "verify-ca", "verify-full".
	ServerTLS string `toml:"server_tls"`
	// ServerTLSCAFile, and certificate and key for servers that ask for one.
	ServerTLSCAFile   string `toml:"server_tls_ca_file"`
	ServerTLSCertFile string `toml:"server_tls_cert_file"`
	ServerTLSKeyFile  string `toml:"server_tls_key_file"`
	// PasswordFile has .pgpass lines for server logins whose key no client login has left behind
	// (clients that came in by trust).
	PasswordFile string `toml:"password_file"`
}

// DefaultConfig returns a Config that works for one small installation.
func DefaultConfig() Config {
	return Config{
		Listen:               "0.0.0.0:9999",
		PoolMode:             TransactionPooling,
		PoolSize:             20,
		ServerIdleTimeout:    10 * time.Minute,
		ServerLifetime:       time.Hour,
		ServerConnectTimeout: 5 * time.Second,
		MaxPrepared:          200,
		WaitTimeout:          30 * time.Second,
		MaxWaiting:           10000,
		HoldWrites:           15 * time.Second,
		HoldBytes:            64 << 20,
		LoginTimeout:         30 * time.Second,
		DrainTimeout:         30 * time.Second,
		MaxTurnBytes:         256 << 10,
		TLS:                  "disable",
		ServerTLS:            "disable",
	}
}

// Validate finds settings that cannot work, all of them at once.
func (c *Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for name, mode := range map[string]PoolMode{"pool_mode": c.PoolMode} {
		if mode != TransactionPooling && mode != SessionPooling {
			bad("%s %q: want %q or %q", name, mode, TransactionPooling, SessionPooling)
		}
	}
	for i, p := range c.Pools {
		if p.Mode != "" && p.Mode != TransactionPooling && p.Mode != SessionPooling {
			bad("pool %d: pool_mode %q: want %q or %q", i+1, p.Mode, TransactionPooling, SessionPooling)
		}
		if p.Size < 0 || p.MinIdle < 0 {
			bad("pool %d: pool_size and min_idle cannot be negative", i+1)
		}
	}
	for i, l := range c.Listeners {
		if l.Mode != ListenAuto && l.Mode != ListenStandby && l.Mode != ListenPrimary {
			bad("listen %d: mode %q: want %q, %q or %q", i+1, l.Mode, ListenAuto, ListenStandby, ListenPrimary)
		}
	}
	if c.PoolSize < 1 {
		bad("pool_size %d: want at least 1", c.PoolSize)
	}
	if c.MinIdle > c.PoolSize {
		bad("min_idle %d is more than pool_size %d", c.MinIdle, c.PoolSize)
	}
	if c.MaxTurnBytes < 4096 || c.MaxTurnBytes > 64<<20 {
		bad("max_turn_bytes %d: want 4096 to 67108864", c.MaxTurnBytes)
	}
	if c.HoldBytes < 1 {
		bad("hold_bytes %d: want at least 1", c.HoldBytes)
	}
	if c.MaxPrepared < 1 {
		bad("max_prepared %d: want at least 1", c.MaxPrepared)
	}
	switch c.TLS {
	case "disable":
	case "allow", "require":
		if c.TLSCertFile == "" || c.TLSKeyFile == "" {
			bad("tls %q needs tls_cert_file and tls_key_file", c.TLS)
		}
	default:
		bad("tls %q: want disable, allow or require", c.TLS)
	}
	switch c.ServerTLS {
	case "disable", "prefer", "require":
	case "verify-ca", "verify-full":
		if c.ServerTLSCAFile == "" {
			bad("server_tls %q needs server_tls_ca_file", c.ServerTLS)
		}
	default:
		bad("server_tls %q: want disable, prefer, require, verify-ca or verify-full", c.ServerTLS)
	}
	return errors.Join(errs...)
}
