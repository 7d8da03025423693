package ha

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/cstproxy/cstproxy/ha/pgnode"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// Config says which clusters the agent watches and how closely: the section [ha], and [[cluster]].
type Config struct {
	// ProbeInterval is the pause between two probes of a node. Each probe is a query on a kept
	// connection and a new login, so a shorter interval costs the servers a process start each.
	ProbeInterval time.Duration `toml:"probe_interval"`
	// ProbeTimeout bounds each probe; a server that answers later counts as silent.
	ProbeTimeout time.Duration `toml:"probe_timeout"`
	// DeadAfter is how many probes in a row must fail before a node is down. A refused connection
	// is probed again at once; silence waits for the next interval, so that silence is noticed
	// after at most dead_after * (probe_interval + probe_timeout).
	DeadAfter int `toml:"dead_after"`
	// RoundInterval is the pause between two rounds (how far is the primary, how far is
	// everybody) while a session waits for one. It is the longest that a standby's progress
	// stays unnoticed by read-your-writes, and costs one tiny query per node and round.
	RoundInterval time.Duration `toml:"round_interval"`
	// IdleRoundInterval is the same while no session waits; lag limits are as fine as this.
	IdleRoundInterval time.Duration `toml:"idle_round_interval"`
	// RivalGrace is how long the primary must be gone before a node that had claimed to be
	// primary next to it, while it was alive, is believed. A restart of the primary must not hand
	// the writes to a standby that somebody promoted for a test.
	RivalGrace time.Duration `toml:"rival_grace"`
	// StateDir is where operators' changes (backends added and deleted, nodes detached) and the
	// last primary are kept over a restart, in agent.json. Empty: they are forgotten.
	StateDir string `toml:"state_dir"`
	// Clusters are the sections [[cluster]].
	Clusters []ClusterConfig `toml:"cluster"`
}

// ClusterConfig is one section [[cluster]].
type ClusterConfig struct {
	Name string `toml:"name"`
	// AuthUser is the role that the agent logs in as, on every node; see pgnode.Config.User for
	// what it must be allowed to.
	AuthUser string `toml:"auth_user"`
	// Password is that role's, or PasswordFile holds it (first line). Neither: .pgpass of the
	// account that cstproxy runs as, or the file that PGPASSFILE names.
	Password     string `toml:"password"`
	PasswordFile string `toml:"password_file"`
	// ProbeDB is the database that the agent connects to.
	ProbeDB string `toml:"probe_db"`
	// SSLMode and SSLRootCert are libpq's, for the agent's own connections.
	SSLMode     string `toml:"sslmode"`
	SSLRootCert string `toml:"sslrootcert"`
	// MaxLagBytes takes a standby out of the reads that has not replayed this much of the
	// primary's log; it returns at half. A bulk load passes any small limit at once.
	MaxLagBytes int64 `toml:"max_lag_bytes"`
	// MaxLag is the same in time: how long the oldest log that it has not replayed was written
	// ago. A standby with a recovery_min_apply_delay above it never takes reads.
	MaxLag time.Duration `toml:"max_lag"`
	// WriteVIP is the address that follows the primary, ReadVIP the one that a standby in rotation
	// has, both with the length of their subnet; VIPInterface is where they go on every host, empty:
	// it is found by the subnet.
	WriteVIP     string `toml:"write_vip"`
	ReadVIP      string `toml:"read_vip"`
	VIPInterface string `toml:"vip_interface"`
	// Operation is the section [cluster.operation].
	Operation OperationConfig `toml:"operation"`
	// Nodes are the sections [[cluster.node]]. Which of them is primary is observed.
	Nodes []NodeConfig `toml:"node"`
}

// NodeConfig is one section [[cluster.node]].
type NodeConfig struct {
	ID   int    `toml:"id"`
	Host string `toml:"host"`
	Port int    `toml:"port"`
	// OSUser and PGData are the account that owns the data directory, and the directory.
	OSUser string `toml:"os_user"`
	PGData string `toml:"pgdata"`
	// AppName is the application_name under which the standby streams; it finds the node in
	// pg_stat_replication.
	AppName string `toml:"repl_app_name"`
	// Weight is the node's share of the reads relative to the others; 0 means none.
	Weight int  `toml:"weight"`
	Tags   Tags `toml:"tags"`
}

// Tags are what an operator says about a node.
type Tags struct {
	// NoFailover keeps the node from ever being promoted.
	NoFailover bool `toml:"nofailover"`
	// NoLoadBalance keeps reads away from it.
	NoLoadBalance bool `toml:"noloadbalance"`
	// CloneFrom prefers it as the source of new standbys.
	CloneFrom bool `toml:"clonefrom"`
	// NoSync keeps it out of synchronous_standby_names.
	NoSync bool `toml:"nosync"`
	// Priority chooses among standbys that have the same log: the highest is promoted.
	Priority int `toml:"priority"`
	// Zone is where it stands.
	Zone string `toml:"zone"`
}

// DefaultConfig has everything but the clusters.
func DefaultConfig() Config {
	return Config{
		ProbeInterval:     500 * time.Millisecond,
		ProbeTimeout:      time.Second,
		DeadAfter:         2,
		RoundInterval:     10 * time.Millisecond,
		IdleRoundInterval: time.Second,
		RivalGrace:        30 * time.Second,
	}
}

// DefaultCluster is what a section [[cluster]] starts from.
func DefaultCluster() ClusterConfig {
	return ClusterConfig{
		AuthUser:    "postgres",
		ProbeDB:     "postgres",
		SSLMode:     "prefer",
		MaxLagBytes: 256 << 20,
		MaxLag:      30 * time.Second,
		Operation:   DefaultOperation(),
	}
}

// DefaultNode is what a section [[cluster.node]] starts from.
func DefaultNode() NodeConfig {
	return NodeConfig{Port: 5432, OSUser: "postgres", Weight: 1}
}

// Validate returns every problem, joined.
func (c Config) Validate() error {
	var problems []error
	bad := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	for _, d := range []struct {
		key   string
		value time.Duration
		least time.Duration
	}{
		{"probe_interval", c.ProbeInterval, 10 * time.Millisecond},
		{"probe_timeout", c.ProbeTimeout, 10 * time.Millisecond},
		{"round_interval", c.RoundInterval, time.Millisecond},
		{"idle_round_interval", c.IdleRoundInterval, c.RoundInterval},
		{"rival_grace", c.RivalGrace, 0},
	} {
		if d.value < d.least {
			bad("ha: %s is %s, must be at least %s", d.key, d.value, d.least)
		}
	}
	if c.DeadAfter < 1 {
		bad("ha: dead_after is %d, must be at least 1", c.DeadAfter)
	}
	names := map[string]bool{}
	for i := range c.Clusters {
		cl := &c.Clusters[i]
		if names[cl.Name] {
			bad("cluster %q: two clusters have this name", cl.Name)
		}
		names[cl.Name] = true
		cl.validate(bad)
	}
	return errors.Join(problems...)
}

func (c *ClusterConfig) validate(bad func(string, ...any)) {
	if c.Name == "" || strings.ContainsAny(c.Name, "/?#%\\ \t\n") {
		bad("cluster %q: name must not be empty and must fit into a URL's path", c.Name)
	}
	if c.AuthUser == "" {
		bad("cluster %q: auth_user is empty", c.Name)
	}
	if c.ProbeDB == "" {
		bad("cluster %q: probe_db is empty", c.Name)
	}
	if c.MaxLagBytes < 0 || c.MaxLag < 0 {
		bad("cluster %q: a lag limit is negative", c.Name)
	}
	in := func(format string, args ...any) { bad("cluster %q: %w", c.Name, fmt.Errorf(format, args...)) }
	validateVIP("write_vip", c.WriteVIP, in)
	validateVIP("read_vip", c.ReadVIP, in)
	c.Operation.validate(func(format string, args ...any) { in("operation: %w", fmt.Errorf(format, args...)) })
	if c.Password != "" && c.PasswordFile != "" {
		bad("cluster %q: password and password_file are both set", c.Name)
	}
	if len(c.Nodes) == 0 {
		bad("cluster %q: it has no node", c.Name)
	}
	if len(c.Nodes) > topology.MaxSlots/2 {
		bad("cluster %q: %d nodes, at most %d", c.Name, len(c.Nodes), topology.MaxSlots/2)
	}
	ids, addresses := map[int]bool{}, map[string]bool{}
	for _, n := range c.Nodes {
		addr := n.node().Address()
		switch {
		case n.ID < 1:
			bad("cluster %q: node %s: id is %d, must be at least 1", c.Name, addr, n.ID)
		case ids[n.ID]:
			bad("cluster %q: two nodes have the id %d", c.Name, n.ID)
		case addresses[addr]:
			bad("cluster %q: two nodes have the address %s", c.Name, addr)
		}
		ids[n.ID], addresses[addr] = true, true
		if err := checkHostPort(n.Host, n.Port); err != nil {
			bad("cluster %q: node %d: %w", c.Name, n.ID, err)
		}
		if n.Weight < 0 || n.Weight > maxWeight {
			bad("cluster %q: node %d: weight is %d, must be 0 to %d", c.Name, n.ID, n.Weight, maxWeight)
		}
	}
}

// maxWeight keeps the balancer's sums far from overflow and its cycles short.
const maxWeight = 1000

func checkHostPort(host string, port int) error {
	if host == "" || strings.ContainsAny(host, ", \t\n'\\") {
		return fmt.Errorf("host %q is not one host name or address", host)
	}
	if port < 1 || port > 65535 {
		return fmt.Errorf("port is %d, must be 1 to 65535", port)
	}
	return nil
}

func splitAddress(addr string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(addr)
	if err == nil {
		if port, err = strconv.Atoi(text); err == nil {
			err = checkHostPort(host, port)
		}
	}
	if err != nil {
		return "", 0, fmt.Errorf("%w: backend %q: %w", ErrAddress, addr, err)
	}
	return host, port, nil
}

func (n NodeConfig) node() topology.Node {
	return topology.Node{
		ID: topology.NodeID(n.ID), Host: n.Host, Port: n.Port,
		Weight: n.Weight, NoLoadBalance: n.Tags.NoLoadBalance,
		OSUser: n.OSUser, PGData: n.PGData, AppName: n.AppName,
	}
}

// secret is a password, or the first line of its file; "" when .pgpass has to say it.
func secret(password, file string) (string, error) {
	if file == "" {
		return password, nil
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read the password: %w", err)
	}
	line, _, _ := strings.Cut(string(content), "\n")
	return strings.TrimRight(line, "\r"), nil
}

// access is how to reach a node of the cluster, host and port left open.
func (c *ClusterConfig) access(timeout time.Duration) (pgnode.Config, error) {
	password, err := secret(c.Password, c.PasswordFile)
	if err != nil {
		return pgnode.Config{}, fmt.Errorf("cluster %s: %w", c.Name, err)
	}
	return pgnode.Config{
		User: c.AuthUser, Password: password, Database: c.ProbeDB,
		SSLMode: c.SSLMode, SSLRootCert: c.SSLRootCert, Timeout: timeout,
	}, nil
}
