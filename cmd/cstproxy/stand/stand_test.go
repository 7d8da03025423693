package stand

import (
	"testing"

	"github.com/cstproxy/cstproxy/conf"
	"github.com/cstproxy/cstproxy/ha/pglocal"
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
