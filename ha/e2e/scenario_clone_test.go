package e2e

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

// A fourth host with nothing but an account for PostgreSQL becomes a standby by one order.
func TestAnEmptyHostBecomesAStandby(t *testing.T) {
	slow(t)
	l := New(t, Options{Hosts: []string{"m1", "m2", "m3", "n4", "c1"}})
	hosts := []*Host{l.Host("m1"), l.Host("m2"), l.Host("m3")}
	nodes := l.Postgres(nil, hosts...)
	fresh := &Node{l.Host("n4")}
	f := newFleet(l, Layout{Members: hosts, Nodes: append(nodes, fresh)})
	f.nodes = nodes
	s := enact(t, f, usual(f.way(f.members[0])))
	s.happens(func() { t.Logf("%s", f.orders(t, f.members[1], "clone", "-i", fmtID(fresh), "--yes")) })
	f.nodes = append(nodes, fresh)
	if now := f.awaitWhole(t, 2*patience); now != s.former {
		t.Errorf("%s is the primary", now.Name)
	}
	s.ends(epochUnchanged, nothingIsLost, noClientWasTold, operationsEnd)
}

// Two clusters with the same members: what becomes of one is nothing to the other.
func TestAFailoverOfOneClusterLeavesTheOtherAlone(t *testing.T) {
	slow(t)
	l := New(t, Options{Hosts: []string{"m1", "m2", "m3", "s1", "s2", "c1"}})
	hosts := []*Host{l.Host("m1"), l.Host("m2"), l.Host("m3")}
	nodes := l.Postgres(nil, hosts...)
	if err := os.RemoveAll(filepath.Join(l.dir, "template")); err != nil { // another system
		t.Fatal(err)
	}
	second := l.Postgres(nil, l.Host("s1"), l.Host("s2"))
	f := newFleet(l, Layout{Members: hosts, Nodes: nodes, More: secondCluster(second)})
	s := enact(t, f, usual(f.way(f.members[0])))
	s.happens(second[0].PowerOff)
	awaitFor(t, patience, "another primary of the second cluster", func(ctx context.Context) bool {
		return writable(ctx, second) == second[1]
	})
	await(t, "writes to it through a member", func(ctx context.Context) bool {
		_, err := output(s.run.client.Command(ctx, "root", "env", "PGPASSWORD="+Password, "PGCONNECT_TIMEOUT=2", "psql", "-XAtq",
			"-h", hosts[0].Addr, "-p", "9998", "-U", "postgres", "-c", "CREATE TABLE IF NOT EXISTS after (i int); INSERT INTO after VALUES (1)"))
		return err == nil
	})
	s.awaitWrites("writes to the first cluster", s.event)
	second[0].PowerOn()
	awaitWhole(t, 3*patience, second)
	s.ends(epochUnchanged, nothingIsLost, noClientWasTold, operationsEnd)
}

func secondCluster(nodes []*Node) string {
	text := `
[[listen]]
address = "0.0.0.0:9998"
mode = "auto"
cluster = "second"
[[cluster]]
name = "second"
auth_user = "postgres"
password = "` + Password + `"
[cluster.operation]
enabled = true
ssh_user = "root"
ssh_key_file = "/root/.ssh/id_ed25519"
ssh_known_hosts_file = "/etc/ssh/ssh_known_hosts"
`
	for _, n := range nodes {
		text += `[[cluster.node]]
id = ` + fmtID(n) + `
host = "` + n.Addr + `"
os_user = "postgres"
pgdata = "` + PGData + `"
repl_app_name = "` + n.Name + `"
`
	}
	return text
}
