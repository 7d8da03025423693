// Package catalog asks the servers what the data plane must know beyond the queries that it
// forwards: password verifiers and, for each database in use, which functions write and what its
// relations are. It is the only SQL of the data plane. It runs over side connections as one
// configured user, never on a client's; answers come from memory, so the event loop may ask at any
// time without waiting. Store.Run does the asking.
package catalog

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/ha/topology"
	"github.com/cstproxy/cstproxy/proxy/auth"
	"github.com/cstproxy/cstproxy/proxy/backend"
)

// Why a verifier was not found.
var (
	// ErrUnknownUser: the servers know no such role. The client gets a mock exchange (Store.Mock).
	ErrUnknownUser = errors.New("unknown user")
	// ErrUnavailable: no server could be asked. The client may try again (57P03); this is not a
	// wrong password.
	ErrUnavailable = errors.New("password lookup is not available")
)

// DefaultAuthQuery reads a role of pg_authid, which takes a superuser.
const DefaultAuthQuery = "SELECT rolname, rolpassword, rolvaliduntil, rolcanlogin FROM pg_catalog.pg_authid WHERE rolname = $1"

// Config says how the servers are asked.
type Config struct {
	// AuthUser is the role of the side connections. Empty: no verifiers and no catalogue.
	AuthUser string `toml:"auth_user"`
	// AuthPassword is its password; empty: the dialler's password file, or trust.
	AuthPassword string `toml:"auth_password"`
	// AuthDatabase is where verifiers are read.
	AuthDatabase string `toml:"auth_database"`
	// AuthQuery finds a role by name ($1) and returns its name, its verifier and, if there are
	// more columns, VALID UNTIL (timestamptz) and whether it may log in. A function of type
	// SECURITY DEFINER makes a superuser unnecessary.
	AuthQuery string `toml:"auth_query"`
	// VerifierTTL is how long a verifier is used without asking again. It is also how long an old
	// password may still open a connection after it was changed.
	VerifierTTL time.Duration `toml:"verifier_ttl"`
	// UnknownTTL is how long a name is taken for unknown without asking again: how long a new
	// role may wait at most.
	UnknownTTL time.Duration `toml:"unknown_ttl"`
	// MaxUsers bounds the verifiers kept in memory, about 300 bytes each; as many unknown names
	// are kept besides, at most 1,000.
	MaxUsers int `toml:"max_users"`
	// RefreshEvery is how often the catalogue of a database in use is checked for changes. The
	// check reads a few numbers; everything is read again only if they changed.
	RefreshEvery time.Duration `toml:"refresh_every"`
	// ForgetAfter drops the catalogue of a database that nobody used for so long.
	ForgetAfter time.Duration `toml:"forget_after"`
	// MaxDatabases bounds how many databases are known at a time: 170 kB each, and more with many
	// relations and functions of their own.
	MaxDatabases int `toml:"max_databases"`
	// MaxCatalogBytes bounds what is read of one database; a larger catalogue stays unknown.
	MaxCatalogBytes int `toml:"max_catalog_bytes"`
	// Timeout bounds one lookup, and each query of a catalogue's reading.
	Timeout time.Duration `toml:"timeout"`
	// MockSecret makes the answers for unknown users the same on all members; empty: this
	// process alone knows.
	MockSecret string `toml:"mock_secret"`
}

// DefaultConfig returns a Config that reads pg_authid, without a user to do it.
func DefaultConfig() Config {
	return Config{
		AuthDatabase: "postgres", AuthQuery: DefaultAuthQuery,
		VerifierTTL: 10 * time.Second, UnknownTTL: 2 * time.Second, MaxUsers: 10_000,
		RefreshEvery: time.Minute, ForgetAfter: 10 * time.Minute, MaxDatabases: 200,
		MaxCatalogBytes: 128 << 20, Timeout: 5 * time.Second,
	}
}

// Validate finds settings that cannot work.
func (c *Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.AuthUser != "" && (c.AuthDatabase == "" || c.AuthQuery == "") {
		bad("auth_user needs auth_database and auth_query")
	}
	if c.VerifierTTL < 0 || c.UnknownTTL < 0 {
		bad("verifier_ttl and unknown_ttl cannot be negative")
	}
	if c.MaxUsers < 1 || c.MaxDatabases < 1 {
		bad("max_users and max_databases: want at least 1")
	}
	if c.MaxCatalogBytes < 1<<20 {
		bad("max_catalog_bytes %d: want at least 1 MB", c.MaxCatalogBytes)
	}
	if c.RefreshEvery < time.Second || c.ForgetAfter < time.Second || c.Timeout < 100*time.Millisecond {
		bad("refresh_every and forget_after: want at least 1s; timeout: at least 100ms")
	}
	return errors.Join(errs...)
}

// Store is what is known of one cluster's users and databases. Every method may be called from any
// goroutine and returns at once.
type Store struct {
	cfg    Config
	board  *topology.Board
	dialer *backend.Dialer
	log    *zap.Logger
	secret []byte

	users *users
	model atomic.Pointer[auth.Verifier] // what roles here look like, for mocks

	// byName is replaced as a whole, so that asking takes no lock; mu orders the replacing.
	byName atomic.Pointer[map[string]*database]
	mu     sync.Mutex
	wake   chan struct{} // the reader of catalogues has something to do
	moved  atomic.Bool   // the primary has changed since the reader looked
}

// New returns a Store that knows nothing yet. The board says which nodes can be asked.
func New(cfg Config, board *topology.Board, dialer *backend.Dialer, log *zap.Logger) *Store {
	s := &Store{cfg: cfg, board: board, dialer: dialer, log: log, secret: []byte(cfg.MockSecret), wake: make(chan struct{}, 1)}
	if len(s.secret) == 0 {
		s.secret = make([]byte, 32)
		rand.Read(s.secret) // never fails (crypto/rand)
	}
	s.users = newUsers(cfg)
	s.byName.Store(&map[string]*database{})
	return s
}

// Run asks the servers until ctx ends. Lookups that are waiting then get ErrUnavailable.
func (s *Store) Run(ctx context.Context) error {
	defer s.board.Watch(s.watcher())()
	var wg sync.WaitGroup
	wg.Go(func() { s.lookUp(ctx) })
	wg.Go(func() { s.readCatalogs(ctx) })
	wg.Wait()
	return nil
}

// watcher notes when another node has become the primary: its catalogue may differ.
func (s *Store) watcher() func(*topology.View) {
	var last atomic.Int64
	last.Store(int64(s.board.View().Primary))
	return func(v *topology.View) {
		if was := last.Swap(int64(v.Primary)); was != int64(v.Primary) && v.Primary != 0 {
			s.moved.Store(true)
			s.nudge()
		}
	}
}

func (s *Store) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Mock is the verifier for a user who has none: no password satisfies it.
func (s *Store) Mock(user string) *auth.Verifier {
	if v := s.model.Load(); v != nil {
		return auth.MockLike(v, s.secret, user)
	}
	return auth.Mock(s.secret, user)
}
