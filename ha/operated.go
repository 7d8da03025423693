package ha

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/cstproxy/cstproxy/ha/pgnode"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// OperationConfig is the section [cluster.operation]: what cstproxy does to the servers of a cluster,
// beyond watching them, and as whom.
type OperationConfig struct {
	// Enabled has cstproxy act: restart, promote, move addresses, repair. Otherwise it only watches.
	Enabled bool `toml:"enabled"`
	// OnCrash is what is done about a primary whose process died while its host lives: "restart", and
	// a failover only when that takes longer than RestartBudget, or "failover".
	OnCrash       string        `toml:"on_crash"`
	RestartBudget time.Duration `toml:"restart_budget"`
	// GrayAfter is how long a primary may take no writes although it is reachable.
	GrayAfter time.Duration `toml:"gray_after"`
	// FailoverWhenUnreachable and UnreachableAfter are about a primary that no member reaches while
	// standbys still receive from it.
	FailoverWhenUnreachable bool          `toml:"failover_when_unreachable"`
	UnreachableAfter        time.Duration `toml:"unreachable_after"`
	// AntiFlap is the least time between two automatic failovers.
	AntiFlap time.Duration `toml:"anti_flap"`
	// MaxLagOnFailover is how many bytes of log a candidate of an automatic failover may lack.
	MaxLagOnFailover int64 `toml:"max_lag_on_failover"`
	// SwitchDrain is how long a switchover waits for open transactions; SwitchOpen is what becomes of
	// those that are open then: "undo" gives the switchover up, "stop" ends them. SwitchBudget is how
	// long writes may be held by it in all before it is undone.
	SwitchDrain  time.Duration `toml:"switch_drain"`
	SwitchOpen   string        `toml:"switch_open"`
	SwitchBudget time.Duration `toml:"switch_budget"`
	// MaxRepairs is how often a node is repaired in vain before it waits for an operator.
	MaxRepairs int `toml:"max_repairs"`
	// SlotLimit is how many bytes of log a primary holds back for a standby that is away, where its own
	// max_slot_wal_keep_size sets no limit; 0: whatever its disk takes.
	SlotLimit int64 `toml:"slot_limit"`

	// SSHUser logs in to the nodes' hosts: root, or the node's os_user, which is what empty means.
	SSHUser           string `toml:"ssh_user"`
	SSHPort           int    `toml:"ssh_port"`
	SSHKeyFile        string `toml:"ssh_key_file"`
	SSHKnownHostsFile string `toml:"ssh_known_hosts_file"`
	// SSHFolder is where the hosts keep what they have seen of decisions; see remote.Config.Dir.
	SSHFolder string `toml:"ssh_folder"`
	// Elevate is put in front of commands that need root, when SSHUser is not: ["sudo", "-n"].
	Elevate []string `toml:"elevate"`
	// BinFolder is where PostgreSQL's programs are on the hosts; empty: they are searched for.
	BinFolder string `toml:"bin_folder"`

	// Superuser is as whom servers are changed and pg_rewind reads; empty: auth_user with its password.
	Superuser             string `toml:"superuser"`
	SuperuserPassword     string `toml:"superuser_password"`
	SuperuserPasswordFile string `toml:"superuser_password_file"`
	// Replication is as whom a standby follows that has never followed anybody; empty: the superuser.
	Replication             string `toml:"replication_user"`
	ReplicationPassword     string `toml:"replication_password"`
	ReplicationPasswordFile string `toml:"replication_password_file"`

	// PreFence, PostPromote and OnRoleChange are programs on the members' hosts; see package hook.
	PreFence     string `toml:"pre_fence"`
	PostPromote  string `toml:"post_promote"`
	OnRoleChange string `toml:"on_role_change"`
	// TriggerFunction is called in TriggerDatabase of a new primary, as CLup does.
	TriggerDatabase string `toml:"trigger_db_name"`
	TriggerFunction string `toml:"trigger_db_func"`
	// CSTLB are the addresses of external cstlb instances that are told of the read rotation, and
	// CSTLBToken what they ask for.
	CSTLB      []string `toml:"cstlb_list"`
	CSTLBToken string   `toml:"cstlb_token"`
}

// DefaultOperation is what a section [cluster.operation] starts from.
func DefaultOperation() OperationConfig {
	return OperationConfig{
		OnCrash: "restart", RestartBudget: 5 * time.Second, GrayAfter: 5 * time.Second,
		FailoverWhenUnreachable: true, UnreachableAfter: 10 * time.Second, AntiFlap: 5 * time.Minute,
		MaxLagOnFailover: 16 << 20, SwitchDrain: 200 * time.Millisecond, SwitchOpen: "undo", SwitchBudget: 5 * time.Second,
		MaxRepairs: 3, SlotLimit: 16 << 30, SSHPort: 22, SSHFolder: ".cstproxy", TriggerDatabase: "postgres",
	}
}

// validate says what is wrong; its sentences start with the key they are about.
func (o *OperationConfig) validate(bad func(string, ...any)) {
	if o.OnCrash != "restart" && o.OnCrash != "failover" {
		bad(`on_crash %q: must be "restart" or "failover"`, o.OnCrash)
	}
	if o.SwitchOpen != "undo" && o.SwitchOpen != "stop" {
		bad(`switch_open %q: must be "undo" or "stop"`, o.SwitchOpen)
	}
	for _, d := range []struct {
		key          string
		value, least time.Duration
	}{
		{"restart_budget", o.RestartBudget, 0}, {"gray_after", o.GrayAfter, time.Second}, {"unreachable_after", o.UnreachableAfter, time.Second},
		{"anti_flap", o.AntiFlap, 0}, {"switch_drain", o.SwitchDrain, 0}, {"switch_budget", o.SwitchBudget, o.SwitchDrain + 500*time.Millisecond},
	} {
		if d.value < d.least {
			bad("%s is %s, must be at least %s", d.key, d.value, d.least)
		}
	}
	if o.MaxLagOnFailover < 0 {
		bad("max_lag_on_failover is negative")
	}
	if o.MaxRepairs < 0 {
		bad("max_repairs is negative")
	}
	if o.SlotLimit < 0 {
		bad("slot_limit is negative")
	}
	if o.SSHPort < 1 || o.SSHPort > 65535 {
		bad("ssh_port is %d, must be 1 to 65535", o.SSHPort)
	}
	o.validateAccess(bad)
}

func (o *OperationConfig) validateAccess(bad func(string, ...any)) {
	for _, f := range []struct{ key, path string }{{"pre_fence", o.PreFence}, {"post_promote", o.PostPromote}, {"on_role_change", o.OnRoleChange}} {
		if f.path != "" && !strings.HasPrefix(f.path, "/") {
			bad("%s %q: must be the whole path of a program", f.key, f.path)
		}
	}
	for _, p := range []struct{ key, password, file string }{
		{"superuser_password", o.SuperuserPassword, o.SuperuserPasswordFile}, {"replication_password", o.ReplicationPassword, o.ReplicationPasswordFile},
	} {
		if p.password != "" && p.file != "" {
			bad("%s and %s_file are both set; keep one of them", p.key, p.key)
		}
	}
	for _, address := range o.CSTLB {
		if _, _, err := splitAddress(address); err != nil {
			bad("cstlb_list: %q is no host:port", address)
		}
	}
	if o.Enabled && o.SSHKeyFile != "" && o.SSHKnownHostsFile == "" {
		bad("ssh_known_hosts_file is empty: hosts are always verified; make it with ssh-keyscan and compare the fingerprints")
	}
}

// validateVIP says why a text is no virtual address. Empty is none.
func validateVIP(key, text string, bad func(string, ...any)) {
	if text == "" {
		return
	}
	if _, err := netip.ParsePrefix(text); err != nil {
		bad("%s %q: write it as an address with the length of its subnet, like 192.168.56.40/24", key, text)
	}
}

// Superuser is how operations log in to the cluster's servers, in the database postgres; host and port
// are left open.
func (c *ClusterConfig) Superuser(timeout time.Duration) (pgnode.Config, error) {
	access, err := c.access(timeout)
	if err != nil {
		return pgnode.Config{}, err
	}
	access.Database = "postgres"
	if c.Operation.Superuser == "" {
		return access, nil
	}
	access.User = c.Operation.Superuser
	access.Password, err = secret(c.Operation.SuperuserPassword, c.Operation.SuperuserPasswordFile)
	if err != nil {
		return pgnode.Config{}, fmt.Errorf("superuser of cluster %s: %w", c.Name, err)
	}
	return access, nil
}

// Replicator is as whom a standby follows: user, password and TLS of a primary_conninfo.
func (c *ClusterConfig) Replicator() (pgnode.Conninfo, error) {
	access, err := c.Superuser(time.Second)
	if err != nil {
		return nil, err
	}
	if c.Operation.Replication != "" {
		access.User = c.Operation.Replication
		access.Password, err = secret(c.Operation.ReplicationPassword, c.Operation.ReplicationPasswordFile)
		if err != nil {
			return nil, fmt.Errorf("replication_user of cluster %s: %w", c.Name, err)
		}
	}
	return conninfo(access), nil
}

// Rewinder is as whom pg_rewind reads its source; host and port are left open.
func (c *ClusterConfig) Rewinder() (pgnode.Conninfo, error) {
	access, err := c.Superuser(time.Second)
	if err != nil {
		return nil, err
	}
	return conninfo(access).With("dbname", access.Database), nil
}

func conninfo(access pgnode.Config) pgnode.Conninfo {
	return pgnode.Conninfo{}.With("user", access.User).With("password", access.Password).
		With("sslmode", access.SSLMode).With("sslrootcert", access.SSLRootCert)
}

// Servers are the configured nodes, by rising id.
func (c *ClusterConfig) Servers() []topology.Node {
	list := make([]topology.Node, len(c.Nodes))
	for i, n := range c.Nodes {
		list[i] = n.node()
	}
	slices.SortFunc(list, func(a, b topology.Node) int { return int(a.ID - b.ID) })
	return list
}
