package stand

import (
	"os"
	"testing"

	"github.com/cstproxy/cstproxy/conf"
	"github.com/cstproxy/cstproxy/ha/pglocal"
	"github.com/cstproxy/cstproxy/ha/remote/sshlocal"
)

func TestTheWrittenConfigurationIsOneThatTheProxyReads(t *testing.T) {
	p, err := New(Options{
		Cluster: pglocal.New(pglocal.Options{Password: `with:a\colon`}),
		Nodes: []*pglocal.Node{
			{Name: "node1", Host: "127.0.0.1", Port: 12001, Dir: t.TempDir()},
			{Name: "node2", Host: "127.0.0.1", Port: 12002, Dir: t.TempDir()},
		},
		Dir: t.TempDir(), Weights: map[string]int{"node2": 3},
		Proxy: "pool_size = 2", ClusterLines: `max_lag = "5s"`,
		More: "[[hba]]\ntype = \"host\"\ndatabase = \"all\"\nuser = \"all\"\naddress = \"all\"\nmethod = \"trust\"\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.writeConfig(); err != nil {
		t.Fatal(err)
	}
	c, err := conf.Load(p.ConfigFile(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Admin.Listen != p.Admin() || c.Admin.Token != Token {
		t.Errorf("admin section: %+v", c.Admin)
	}
}

func TestAnOperatedClustersConfigurationIsOneThatTheProxyReads(t *testing.T) {
	ssh := sshlocal.New(sshlocal.Options{Dir: t.TempDir()})
	ssh.Port, ssh.User = 2222, "somebody"
	for _, file := range []string{ssh.KeyFile, ssh.KnownHosts} {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p, err := New(Options{
		Cluster: pglocal.New(pglocal.Options{}),
		Nodes:   []*pglocal.Node{{Name: "node1", Host: "127.0.0.1", Port: 12001, Dir: t.TempDir()}},
		Dir:     t.TempDir(), ClusterLines: `max_lag = "5s"`,
		Operation: &Operation{SSH: ssh, Lines: `on_crash = "failover"`},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.writeConfig(); err != nil {
		t.Fatal(err)
	}
	c, err := conf.Load(p.ConfigFile(), nil)
	if err != nil {
		t.Fatal(err)
	}
	o := c.HA.Clusters[0].Operation
	if !o.Enabled || o.OnCrash != "failover" || o.SSHUser != "somebody" || o.SSHKeyFile == "" || c.HA.StateDir == "" {
		t.Errorf("operation: %+v, state_dir %q", o, c.HA.StateDir)
	}
}
