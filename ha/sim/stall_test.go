package sim

import (
	"cmp"
	"slices"
	"testing"
	"time"
)

// TestHowLongWritesWait runs one fault in many ordinary fleets and looks at the longest time without
// an acknowledged write. The times are virtual: they say what the decisions cost, with steps on
// hosts as long as on the test bed (restart up to 0.9 s, promotion up to 0.4 s, recruit 0.25 s).
func TestHowLongWritesWait(t *testing.T) {
	for _, c := range []struct {
		name    string
		fault   Fault
		onCrash string
		beside  bool // members run on the nodes' hosts
		most    time.Duration
	}{
		{"the primary's server crashes, on_crash = failover", Fault{Kind: KillServer, Who: []string{"primary"}}, "failover", false, 2500 * time.Millisecond},
		{"the primary's server crashes, on_crash = restart", Fault{Kind: KillServer, Who: []string{"primary"}}, "restart", false, 2500 * time.Millisecond},
		{"the primary's host loses power", Fault{Kind: PowerOff, For: 20 * time.Second, Who: []string{"primary"}}, "", false, 4500 * time.Millisecond},
		{"the primary's host loses power, and a member with it", Fault{Kind: PowerOff, For: 20 * time.Second, Who: []string{"primary"}}, "", true, 6 * time.Second},
		{"the primary's host is cut off", Fault{Kind: Cut, For: 20 * time.Second, Who: []string{"primary"}, From: []string{"rest"}}, "", false, 6 * time.Second},
		{"a switch", Fault{Kind: Switchover, Who: []string{"standby"}}, "", false, 1500 * time.Millisecond},
		{"the leader crashes", Fault{Kind: KillMember, For: 5 * time.Second, Who: []string{"leader"}}, "", false, 2 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			var stalls []time.Duration
			c.fault.At = 8 * time.Second
			shape := func(p *plan) {
				plain(p)
				p.together, p.policy.OnCrash = c.beside, cmp.Or(c.onCrash, "failover")
			}
			for s := uint64(1); len(stalls) < 40; s++ {
				r := Run(Options{Seed: s, Faults: []Fault{c.fault}, shape: shape})
				if r.Failure != nil {
					t.Fatalf("%s", &r)
				}
				stalls = append(stalls, r.Stall)
			}
			slices.Sort(stalls)
			t.Logf("writes wait %.2f s (median), %.2f s (9 of 10), %.2f s (most)", stalls[20].Seconds(), stalls[36].Seconds(), stalls[39].Seconds())
			if stalls[39] > c.most {
				t.Errorf("writes wait %s, at most %s is promised", stalls[39], c.most)
			}
		})
	}
}
