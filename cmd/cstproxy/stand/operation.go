package stand

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"strings"

	"github.com/cstproxy/cstproxy/admin"
	"github.com/cstproxy/cstproxy/ha/pglocal"
	"github.com/cstproxy/cstproxy/ha/remote/sshlocal"
)

// Operation is how a proxy operates its servers.
type Operation struct {
	// SSH is the way to their host, started already; nil: there is none, and everything goes by SQL.
	SSH *sshlocal.Server
	// Lines are more lines of the section [cluster.operation].
	Lines string
}

// Rewindable are settings of servers under which a former primary can be rewound, and a lost connection
// is noticed soon, as the guide asks for.
func Rewindable() map[string]string {
	return map[string]string{
		"wal_log_hints": "on", "full_page_writes": "on", "wal_receiver_timeout": "5s", "wal_sender_timeout": "5s",
	}
}

// Synchronous makes every commit wait until one of the other servers has it, whoever is the primary, so
// that an acknowledged commit outlives any one of them.
func Synchronous(ctx context.Context, c *pglocal.Cluster) error {
	names := make([]string, len(c.Nodes()))
	for i, n := range c.Nodes() {
		names[i] = n.Name
	}
	for _, n := range c.Nodes() {
		if err := n.Set(ctx, "synchronous_standby_names", "ANY 1 ("+strings.Join(names, ", ")+")"); err != nil {
			return err
		}
	}
	return nil
}

// Client asks the admin port.
func (p *Proxy) Client() (*admin.Client, error) { return admin.NewClient(p.opts.Admin, Token) }

// Init prepares the servers and their host for operations, as `cstproxy ctl init` does.
func (p *Proxy) Init(ctx context.Context) error {
	client, err := p.Client()
	if err != nil {
		return err
	}
	var told strings.Builder
	if err := client.Init(ctx, ClusterName, func(line string) { fmt.Fprintln(&told, line) }); err != nil {
		return fmt.Errorf("prepare the servers: %w\n%s", err, told.String())
	}
	return nil
}

// write adds the section [cluster.operation].
func (o *Operation) write(b *strings.Builder) {
	if o == nil {
		return
	}
	b.WriteString("\n  [cluster.operation]\n  enabled = true\n")
	if o.SSH != nil {
		fmt.Fprintf(b, "  ssh_user = %q\n  ssh_port = %d\n  ssh_key_file = %q\n  ssh_known_hosts_file = %q\n",
			o.SSH.User, o.SSH.Port, o.SSH.KeyFile, o.SSH.KnownHosts)
	}
	writeLines(b, o.Lines)
}

// serverAccount is as whom pglocal runs servers.
func serverAccount() (string, error) {
	if os.Geteuid() == 0 {
		return "postgres", nil
	}
	u, err := user.Current()
	if err != nil {
		return "", fmt.Errorf("find out who we are: %w", err)
	}
	return u.Username, nil
}
