package gossip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"
)

// KeySize is the length of the key that the fleet's members share, in bytes (AES-256-GCM).
const KeySize = 32

// Config is one member's part of [fleet] as far as gossip needs it.
type Config struct {
	// Name is this member's, unique in the fleet, 1 to 64 bytes.
	Name string
	// Bind is "ip:port" where gossip is received, over UDP and TCP; port 0 lets the kernel choose.
	Bind string
	// Advertise is "host:port" under which the others reach this member; port 0 is the one that is
	// bound. Empty: the same as Bind, which then must be one address and not all of the host's.
	Advertise string
	// Join are addresses "host:port" of other members; names are looked up again at each attempt.
	// This member's own may be among them, so that all members can have the same list.
	Join []string
	// Key encrypts and authenticates all gossip. Empty: only with Bind on a loopback address and
	// nobody to join.
	Key []byte
	// Meta is what this member tells of itself at first.
	Meta Meta
	// ProbeInterval is how often one other member, in turn, is asked whether it is there. It scales
	// everything else: a reply is awaited for 3/5 of it, a silent member is called gone after 3 to 6
	// of it, messages are passed on every 1/5, and a full exchange happens every 10.
	ProbeInterval time.Duration
}

// DefaultConfig has everything that has a default.
func DefaultConfig() Config { return Config{ProbeInterval: 500 * time.Millisecond} }

// Validate says what is wrong with a configuration, all of it.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Name == "" || len(c.Name) > maxName {
		bad("name %q: want 1 to %d bytes", c.Name, maxName)
	}
	bind, err := netip.ParseAddrPort(c.Bind)
	if err != nil {
		bad("bind %q: want an IP address and a port", c.Bind)
	}
	if bind.Addr().Zone() != "" {
		bad("bind %q: link-local addresses with a zone are not supported", c.Bind)
	}
	if bind.IsValid() && bind.Addr().IsUnspecified() && c.Advertise == "" {
		bad("bind %q means all of the host's addresses: say in advertise which one the others shall use", c.Bind)
	}
	told := c.Join
	if c.Advertise != "" {
		told = append([]string{c.Advertise}, c.Join...)
	}
	for _, address := range told {
		if host, port, err := net.SplitHostPort(address); err != nil || host == "" || !isPort(port) {
			bad("address %q: want host:port", address)
		}
	}
	switch alone := len(c.Join) == 0 && bind.Addr().Unmap().IsLoopback(); {
	case len(c.Key) == 0 && !alone:
		bad("gossip that others can reach needs the fleet's key: without it anybody could speak for a member")
	case len(c.Key) != 0 && len(c.Key) != KeySize:
		bad("the gossip key has %d bytes, want %d", len(c.Key), KeySize)
	}
	if c.ProbeInterval < 10*time.Millisecond || c.ProbeInterval > time.Minute {
		bad("probe interval %s: want 10ms to 1m", c.ProbeInterval)
	}
	if err := c.Meta.validate(); err != nil {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return fmt.Errorf("gossip: %w", errors.Join(errs...))
	}
	return nil
}

func isPort(s string) bool {
	_, err := strconv.ParseUint(s, 10, 16)
	return err == nil
}

// address is an IP address and a port. memberlist takes them apart; the zero ip is "not said".
type address struct {
	ip   string
	port int
}

func (a address) String() string { return net.JoinHostPort(a.ip, strconv.Itoa(a.port)) }

func addressOf(a netip.AddrPort) address {
	return address{a.Addr().Unmap().String(), int(a.Port())}
}

// bind is Bind taken apart, after Validate.
func (c Config) bind() address {
	a, err := netip.ParseAddrPort(c.Bind)
	if err != nil {
		return address{}
	}
	return addressOf(a)
}

// advertised looks Advertise up; the zero address when nothing was said. A name must have one
// meaning, because it is told to the others as a number.
func (c Config) advertised(ctx context.Context) (address, error) {
	if c.Advertise == "" {
		return address{}, nil
	}
	found, err := lookUp(ctx, c.Advertise)
	if err != nil {
		return address{}, fmt.Errorf("gossip: advertise: %w", err)
	}
	return found[0], nil
}

// lookUpTimeout bounds one look-up of a name.
const lookUpTimeout = 5 * time.Second

// lookUp finds the addresses of "host:port", at least one. IPv4 comes first, which is what the
// other members most probably have.
func lookUp(ctx context.Context, hostPort string) ([]address, error) {
	if a, err := netip.ParseAddrPort(hostPort); err == nil {
		return []address{addressOf(a)}, nil
	}
	host, port, err := net.SplitHostPort(hostPort)
	if err != nil {
		return nil, fmt.Errorf("look up %q: %w", hostPort, err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return nil, fmt.Errorf("look up %q: %w", hostPort, err)
	}
	ctx, cancel := context.WithTimeout(ctx, lookUpTimeout)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("look up %q: %w", hostPort, err)
	}
	var v4, v6 []address
	for _, ip := range ips {
		if a := (address{ip.Unmap().String(), number}); ip.Unmap().Is4() {
			v4 = append(v4, a)
		} else {
			v6 = append(v6, a)
		}
	}
	found := append(v4, v6...)
	if len(found) == 0 {
		return nil, fmt.Errorf("look up %q: it has no address", hostPort)
	}
	return found, nil
}
