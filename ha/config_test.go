package ha

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/ha/topology"
)

func goodConfig() Config {
	c := DefaultConfig()
	cl := DefaultCluster()
	cl.Name = "c1"
	for id := 1; id <= 2; id++ {
		n := DefaultNode()
		n.ID, n.Host, n.Port = id, "127.0.0.1", 5431+id
		cl.Nodes = append(cl.Nodes, n)
	}
	c.Clusters = []ClusterConfig{cl}
	return c
}

func TestEveryMistakeInAConfigurationIsNamed(t *testing.T) {
	if err := goodConfig().Validate(); err != nil {
		t.Fatal(err)
	}
	for want, spoil := range map[string]func(*Config, *ClusterConfig){
		"probe_interval":       func(c *Config, _ *ClusterConfig) { c.ProbeInterval = 0 },
		"probe_timeout":        func(c *Config, _ *ClusterConfig) { c.ProbeTimeout = -1 },
		"round_interval":       func(c *Config, _ *ClusterConfig) { c.RoundInterval = 0 },
		"idle_round_interval":  func(c *Config, _ *ClusterConfig) { c.IdleRoundInterval = time.Millisecond },
		"rival_grace":          func(c *Config, _ *ClusterConfig) { c.RivalGrace = -1 },
		"dead_after":           func(c *Config, _ *ClusterConfig) { c.DeadAfter = 0 },
		"two clusters":         func(c *Config, cl *ClusterConfig) { c.Clusters = append(c.Clusters, *cl) },
		"name must not":        func(_ *Config, cl *ClusterConfig) { cl.Name = "a/b" },
		"auth_user is empty":   func(_ *Config, cl *ClusterConfig) { cl.AuthUser = "" },
		"probe_db is empty":    func(_ *Config, cl *ClusterConfig) { cl.ProbeDB = "" },
		"lag limit":            func(_ *Config, cl *ClusterConfig) { cl.MaxLag = -1 },
		"are both set":         func(_ *Config, cl *ClusterConfig) { cl.Password, cl.PasswordFile = "x", "y" },
		"no node":              func(_ *Config, cl *ClusterConfig) { cl.Nodes = nil },
		"must be at least 1":   func(_ *Config, cl *ClusterConfig) { cl.Nodes[0].ID = 0 },
		"have the id 1":        func(_ *Config, cl *ClusterConfig) { cl.Nodes[1].ID = 1 },
		"have the address":     func(_ *Config, cl *ClusterConfig) { cl.Nodes[1].Port = 5432 },
		"is not one host name": func(_ *Config, cl *ClusterConfig) { cl.Nodes[0].Host = "a,b" },
		"port is 70000":        func(_ *Config, cl *ClusterConfig) { cl.Nodes[0].Port = 70000 },
		"weight is -1":         func(_ *Config, cl *ClusterConfig) { cl.Nodes[0].Weight = -1 },
	} {
		c := goodConfig()
		spoil(&c, &c.Clusters[0])
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want a problem with %q, got %v", want, err)
		}
	}
}

func TestAnAgentIsNotMadeFromHalfAConfiguration(t *testing.T) {
	c := goodConfig()
	boards := map[string]*topology.Board{"c1": topology.NewBoard("c1")}
	if _, err := New(c, nil, nil, zap.NewNop()); err == nil {
		t.Error("an agent without a board was made")
	}
	c.Clusters[0].PasswordFile = filepath.Join(t.TempDir(), "none")
	if _, err := New(c, boards, nil, zap.NewNop()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing password file: %v", err)
	}
	if err := os.WriteFile(c.Clusters[0].PasswordFile, []byte("geheim\r\nrest"), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := New(c, boards, nil, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	if got := a.clusters["c1"].access.Password; got != "geheim" {
		t.Errorf("password %q", got)
	}
	v := boards["c1"].View()
	if len(v.Nodes) != 2 || v.Primary != 0 || v.WhyNoPrimary == "" || v.Node(1).Health != topology.HealthUnknown {
		t.Errorf("first View: %s", describe(v))
	}
	if names := a.Clusters(); len(names) != 1 || names[0] != "c1" {
		t.Errorf("clusters %v", names)
	}
	if _, err := a.Snapshot("c2"); !errors.Is(err, ErrUnknown) {
		t.Errorf("snapshot of an unknown cluster: %v", err)
	}
	if a.Backends("c2") != nil {
		t.Error("an unknown cluster has backends")
	}
}
