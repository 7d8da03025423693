package stand

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cstproxy/cstproxy/ha/pglocal"
)

// writeConfig writes the file that `cstproxy run -f` reads, and the passwords beside it.
func (p *Proxy) writeConfig() error {
	var b strings.Builder
	fmt.Fprintf(&b, "[proxy]\nlisten = %q\npassword_file = \"pgpass\"\n", p.opts.Listen)
	writeLines(&b, p.opts.Proxy)
	fmt.Fprintf(&b, "\n[admin]\nlisten = %q\ntoken = %q\n\n", p.opts.Admin, Token)
	writeLines(&b, p.opts.More)
	account, err := serverAccount()
	if err != nil {
		return err
	}
	if p.opts.Operation != nil {
		fmt.Fprintf(&b, "\n[ha]\nstate_dir = %q\n", filepath.Join(p.opts.Dir, "state"))
	}
	fmt.Fprintf(&b, "\n[[cluster]]\nname = %q\nauth_user = %q\npassword_file = \"superuser.password\"\n", ClusterName, pglocal.Superuser)
	writeLines(&b, p.opts.ClusterLines)
	p.opts.Operation.write(&b)
	for i, n := range p.opts.Nodes {
		weight, ok := p.opts.Weights[n.Name]
		if !ok {
			weight = 1
		}
		fmt.Fprintf(&b, "\n  [[cluster.node]] # %s\n  id = %d\n  host = %q\n  port = %d\n  weight = %d\n  repl_app_name = %q\n  os_user = %q\n  pgdata = %q\n",
			n.Name, i+1, n.Host, n.Port, weight, n.Name, account, n.Dir)
	}
	return errors.Join(
		os.WriteFile(p.ConfigFile(), []byte(b.String()), 0o600),
		os.WriteFile(filepath.Join(p.opts.Dir, "superuser.password"), []byte(p.opts.Cluster.Password()+"\n"), 0o600),
		os.WriteFile(filepath.Join(p.opts.Dir, "pgpass"), []byte(p.pgpass()), 0o600))
}

func writeLines(b *strings.Builder, text string) {
	if text != "" {
		b.WriteString(strings.TrimSpace(text) + "\n")
	}
}

// pgpass holds the passwords for server logins, in the form of libpq's file.
func (p *Proxy) pgpass() string {
	escape := strings.NewReplacer(`\`, `\\`, `:`, `\:`)
	lines := "*:*:*:" + pglocal.Superuser + ":" + escape.Replace(p.opts.Cluster.Password()) + "\n"
	for user, password := range p.opts.Passwords {
		lines += "*:*:*:" + escape.Replace(user) + ":" + escape.Replace(password) + "\n"
	}
	return lines
}
