package e2e

import (
	"context"
	"encoding/json"
	"slices"
	"testing"
)

// A switchover for later is begun although ctl has ended and the member that led then is gone, and members
// tell where the virtual addresses are, before and after.
func TestAPlannedSwitchoverOutlivesItsLeader(t *testing.T) {
	slow(t)
	_, f := three(t, Layout{Cluster: map[string]string{"write_vip": `"10.77.0.100/24"`, "read_vip": `"10.77.0.101/24"`}})
	former := f.awaitWhole(t, patience)
	leader := f.leads()
	i := slices.Index(f.members, leader)
	asked, other := f.members[(i+1)%3], f.members[(i+2)%3]
	f.showsAddresses(t, asked, former)

	s := enact(t, f, usual(f.way(asked)))
	s.happens(func() {
		t.Log(f.orders(t, asked, "switch", "-i", fmtID(s.others()[0]), "--at", "+12s", "--yes", "--why", "patches"))
		leader.Kill()
		awaitFor(t, patience, "another leader", func(context.Context) bool {
			now := f.leads()
			return now != nil && now != leader
		})
	})
	now := s.awaitSuccessor()
	if now != s.others()[0] {
		t.Errorf("%s is the primary", now.Name)
	}
	f.awaitWhole(t, 2*patience)
	f.showsAddresses(t, other, now)
	t.Log(f.orders(t, other, "show_task"))
	s.ends(nothingIsLost, oneEpochMore, operationsEnd)
}

// showsAddresses waits until a member shows the write VIP on the primary's host, and the read VIP on another.
func (f *Fleet) showsAddresses(t *testing.T, m *Member, primary *Node) {
	t.Helper()
	awaitFor(t, patience, "the hosts of the virtual addresses", func(ctx context.Context) bool {
		_, body, err := m.get(ctx, "/api/v1/clusters")
		type place struct{ Hosts []string }
		var clusters []struct {
			Write place `json:"write_vip_at"`
			Read  place `json:"read_vip_at"`
		}
		if err != nil || json.Unmarshal(body, &clusters) != nil || len(clusters) != 1 {
			return false
		}
		write, read := clusters[0].Write.Hosts, clusters[0].Read.Hosts
		return slices.Equal(write, []string{primary.Host.Addr}) && len(read) == 1 && read[0] != primary.Host.Addr
	})
}
