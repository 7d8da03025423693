package member

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/cstproxy/cstproxy/ha"
	"github.com/cstproxy/cstproxy/ha/peer"
)

// Config is the section [fleet]: this member among the others. Without it a member is alone.
type Config struct {
	// Name is this member's; empty: it is alone.
	Name string `toml:"name"`
	// Bind is "ip:port" for gossip (UDP and TCP), PeerBind the same for the consensus log and the
	// leases (TCP). Advertise and PeerAdvertise are how the others reach them; empty: as bound.
	Bind          string `toml:"bind"`
	Advertise     string `toml:"advertise"`
	PeerBind      string `toml:"peer_bind"`
	PeerAdvertise string `toml:"peer_advertise"`
	// Join are gossip addresses of other members; one that answers is enough.
	Join []string `toml:"join"`
	// KeyFile holds the fleet's key, the same for all members.
	KeyFile string `toml:"key_file"`
	// Voters are the members that found the fleet, as "name=host:port" of their peer port, the same
	// list for all of them. Later changes are made in the running fleet.
	Voters []string `toml:"voters"`
	// Witness votes and has no clients.
	Witness bool `toml:"witness"`
	// ProxyVIP is held by one member that takes part, on ProxyVIPInterface.
	ProxyVIP          string `toml:"proxy_vip"`
	ProxyVIPInterface string `toml:"proxy_vip_interface"`
	// Lease is how long a member may route writes after it asked the leader, ClockDrift by how much
	// the members' clocks may differ in rate. The same for all members.
	Lease      time.Duration `toml:"lease"`
	ClockDrift float64       `toml:"clock_drift"`
	// Heartbeat, Election and LeaderLease are the consensus log's; see consensus.Config.
	Heartbeat   time.Duration `toml:"heartbeat"`
	Election    time.Duration `toml:"election"`
	LeaderLease time.Duration `toml:"leader_lease"`
	// GossipInterval is how often one other member, in turn, is asked whether it is there.
	GossipInterval time.Duration `toml:"gossip_interval"`
}

// DefaultConfig is what the section starts from.
func DefaultConfig() Config {
	return Config{
		Lease: 1500 * time.Millisecond, ClockDrift: 0.01,
		Heartbeat: 700 * time.Millisecond, Election: 700 * time.Millisecond, LeaderLease: 350 * time.Millisecond,
		GossipInterval: 500 * time.Millisecond,
	}
}

// Alone says that there is no section [fleet].
func (c *Config) Alone() bool { return c.Name == "" }

// Validate returns every problem, joined; each begins with its key.
func (c Config) Validate() error {
	var problems []error
	bad := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	c.validateTimings(bad)
	if c.Alone() {
		if c.Bind != "" || c.PeerBind != "" || len(c.Voters)+len(c.Join) > 0 || c.Witness {
			bad("name is empty: a member of a fleet has one, its own")
		}
		return errors.Join(problems...)
	}
	if err := peer.CheckName(c.Name); err != nil {
		bad("name %q: %w", c.Name, err)
	}
	for _, a := range []struct{ key, text string }{{"bind", c.Bind}, {"peer_bind", c.PeerBind}} {
		if _, err := netip.ParseAddrPort(a.text); err != nil {
			bad("%s %q: must be an IP address of this host and a port, like 192.168.0.41:7946", a.key, a.text)
		}
	}
	for _, a := range []struct{ key, text string }{{"advertise", c.Advertise}, {"peer_advertise", c.PeerAdvertise}} {
		if _, _, err := net.SplitHostPort(a.text); a.text != "" && err != nil {
			bad("%s %q: must be host:port", a.key, a.text)
		}
	}
	if c.KeyFile == "" {
		bad("key_file is empty: members trust each other by one key; make it with: cstproxy ctl key FILE")
	}
	if c.ProxyVIP != "" {
		if _, err := netip.ParsePrefix(c.ProxyVIP); err != nil {
			bad("proxy_vip %q: write it as an address with the length of its subnet, like 192.168.56.40/24", c.ProxyVIP)
		}
	}
	c.validateVoters(bad)
	return errors.Join(problems...)
}

func (c *Config) validateVoters(bad func(string, ...any)) {
	voters, err := c.voters()
	if err != nil {
		bad("voters: %w", err)
		return
	}
	if len(voters) == 0 {
		bad("voters is empty: name the members that found the fleet, the same on all: [\"m1=192.168.0.41:7947\", …]")
	}
	names, addresses := map[string]bool{}, map[string]bool{}
	for _, v := range voters {
		if names[v.Name] || addresses[v.Address] {
			bad("voters: %s is there twice, by name or by address", v.Name)
		}
		names[v.Name], addresses[v.Address] = true, true
	}
}

// voters are Voters, taken apart.
func (c *Config) voters() ([]peer.Member, error) {
	var list []peer.Member
	for _, text := range c.Voters {
		name, address, found := strings.Cut(text, "=")
		if _, _, err := net.SplitHostPort(address); !found || err != nil || peer.CheckName(name) != nil {
			return nil, fmt.Errorf("%q must be name=host:port", text)
		}
		list = append(list, peer.Member{Name: name, Address: address})
	}
	return list, nil
}

// validateTimings holds the values against one another.
func (c *Config) validateTimings(bad func(string, ...any)) {
	const least = 20 * time.Millisecond
	switch {
	case c.LeaderLease < least:
		bad("leader_lease is %s, must be at least %s", c.LeaderLease, least)
	case c.LeaderLease > c.Heartbeat:
		bad("leader_lease is %s, must not be above heartbeat (%s): two members would lead at once", c.LeaderLease, c.Heartbeat)
	case c.Election < c.Heartbeat:
		bad("election is %s, must not be below heartbeat (%s): elections would not end", c.Election, c.Heartbeat)
	case c.Lease < 2*c.Heartbeat:
		bad("lease is %s, must be at least twice heartbeat (%s): the loss of the leader alone would stop the writes", c.Lease, c.Heartbeat)
	}
	if c.ClockDrift < 0 || c.ClockDrift >= 0.5 {
		bad("clock_drift is %v, must be 0 to 0.5", c.ClockDrift)
	}
	if c.GossipInterval < least {
		bad("gossip_interval is %s, must be at least %s", c.GossipInterval, least)
	}
}

// Check says what does not fit between the sections [fleet], [ha] and [[cluster]].
func Check(c Config, watch ha.Config) error {
	var problems []error
	bad := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	operated := Operated(watch)
	if (operated || !c.Alone()) && watch.StateDir == "" {
		bad("ha: state_dir is empty: what the fleet agreed on must outlive this process")
	}
	for i := range watch.Clusters {
		cl := &watch.Clusters[i]
		if err := tooGray(cl, notice(&watch)); err != nil {
			bad("cluster %q: operation: %w", cl.Name, err)
		}
		if cl.Operation.Enabled && cl.WriteVIP != "" && cl.Operation.SSHKeyFile == "" {
			bad("cluster %q: write_vip moves over SSH: set ssh_key_file in [cluster.operation]", cl.Name)
		}
	}
	return errors.Join(problems...)
}

// Operated says whether any cluster is operated.
func Operated(watch ha.Config) bool {
	for i := range watch.Clusters {
		if watch.Clusters[i].Operation.Enabled {
			return true
		}
	}
	return false
}
