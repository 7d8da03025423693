package e2e

import (
	"context"
	"testing"
	"time"
)

// No host has an IPv4 address: neither members nor servers nor clients, and the virtual addresses have none.
func TestEverythingWorksWithIPv6Alone(t *testing.T) {
	slow(t)
	const vip = "fd77::100"
	l := New(t, Options{Hosts: []string{"m1", "m2", "m3", "c1"}, OnlyIPv6: true})
	hosts := l.some("m1", "m2", "m3")
	f := newFleet(l, Layout{Members: hosts, Nodes: l.Postgres(nil, hosts...), Cluster: map[string]string{"write_vip": `"` + vip + `/64"`}})
	primary := f.awaitWhole(t, patience)
	f.awaitLeader(t, f.elsewhere(primary))
	load := usual(f.way(f.elsewhere(primary)))
	load.Readers = 2
	s := enact(t, f, load)
	direct := s.direct(vip)
	s.happens(s.former.PowerOff)
	now := s.awaitSuccessor()
	await(t, "writes by the address", func(context.Context) bool {
		return direct.ledger.acknowledged(time.Now().Add(-time.Second)) > 20
	})
	s.former.PowerOn()
	f.memberOn(s.former.Host).Start()
	if whole := f.awaitWhole(t, 2*time.Minute); whole != now {
		t.Errorf("%s is the primary, after %s", whole.Name, now.Name)
	}
	s.heldBy(vip, now.Host)
	s.ends(idleClientsStay, operationsEnd, nobodyWasAhead)
}
