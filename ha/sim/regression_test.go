package sim

import (
	"fmt"
	"testing"
	"time"

	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// regression is a script that once broke an invariant: what a seed had been shrunk to, and the shape
// of its world. The numbers of seeds mean something else whenever the drawing changes; these stay.
type regression struct {
	broke  string
	shape  func(*plan)
	faults []Fault
}

const ms = time.Millisecond

// plain is the ordinary fleet; each shape begins with it.
func plain(p *plan) {
	p.members, p.nodes, p.witness, p.together, p.selfStart = 3, 3, 0, false, false
	p.noFailover, p.rewindFails, p.sync = 0, 0, record.SyncSet{}
	p.priority = []int{0, 0, 0}
	p.policy.OnCrash, p.policy.AntiFlap, p.policy.WriteVIP = "failover", 0, ""
	for id, s := range p.settings {
		s.MaxConnections = 100
		p.settings[id] = s
	}
	for id := range p.settings {
		if int(id) > p.nodes {
			delete(p.settings, id)
		}
	}
	for len(p.settings) < p.nodes {
		p.settings[topology.NodeID(len(p.settings)+1)] = p.settings[1]
	}
}

func strict(p *plan) {
	plain(p)
	p.sync = record.SyncSet{Method: "any", Count: 1, Names: []string{"stb1", "stb2", "stb3"}}
}

func regressions() []regression {
	primary, candidate, leader, standbys := []string{"primary"}, []string{"candidate"}, []string{"leader"}, []string{"standbys"}
	rest := []string{"rest"}
	return []regression{
		{"I6: a rebuild that a deposed leader had ordered arrived late, and copied a primary that was none any more",
			func(p *plan) { plain(p); p.together, p.selfStart, p.policy.AntiFlap = true, true, 5*time.Second }, []Fault{
				{Kind: Cut, At: 5567 * ms, For: 3531 * ms, Who: primary, From: rest},
				{Kind: Cut, At: 13099 * ms, For: 17470 * ms, Who: []string{"primary", "m3"}, From: []string{"m1", "m2"}},
				{Kind: KillServer, At: 17833 * ms, For: time.Second, Who: primary},
			}},
		{"I7: the primary's own name among the synchronous ones made every failover impossible", strict, []Fault{
			{Kind: PowerOff, At: 6 * time.Second, For: 15 * time.Second, Who: primary},
		}},
		{"I2: a synchronous standby that may not be promoted had the last commit", func(p *plan) { strict(p); p.noFailover = 3 }, []Fault{
			{Kind: Cut, At: 6834 * ms, For: 17752 * ms, Who: []string{"n1", "m2"}, From: []string{"m1", "m3"}},
		}},
		{"I2: a synchronous standby was cut off, had the last commit, and was lost", func(p *plan) { strict(p); p.together = true; p.policy.OnCrash = "restart" }, []Fault{
			{Kind: PowerOff, At: 15680 * ms, For: 11606 * ms, Who: primary},
			{Kind: PauseHost, On: record.Fence, At: 263 * ms, For: 7754 * ms, Who: leader},
			{Kind: KillServer, At: 11591 * ms, For: 9776 * ms, Who: primary},
			{Kind: Cut, On: record.Intent, At: 85 * ms, For: 7683 * ms, Who: leader, From: rest},
		}},
		{"I3: two promotions made the same timeline from the same position", plain, []Fault{
			{Kind: PowerOff, At: 5 * time.Second, For: 12 * time.Second, Who: primary},
			{Kind: Cut, On: record.Promote, At: 271 * ms, For: 5779 * ms, Who: candidate, From: rest},
		}},
		{"I3: a promotion by hand on the epoch's timeline, then streaming", func(p *plan) { plain(p); p.selfStart = true }, []Fault{
			{Kind: PauseHost, At: 8671 * ms, For: 3637 * ms, Who: primary},
			{Kind: ByHand, At: 16542 * ms, Who: []string{"n1"}},
			{Kind: Cut, On: record.Promote, At: 504 * ms, For: 9604 * ms, Who: candidate, From: standbys},
		}},
		{"I1: a standby was seen cut off before its recruit had come back, and the wait was left out", strict, []Fault{
			{Kind: Cut, At: 8978 * ms, For: 14369 * ms, Who: []string{"n1", "m1"}, From: []string{"m2", "m3"}},
			{Kind: CutOneWay, On: record.Fence, At: 5 * ms, For: 3 * time.Second, Who: standbys, From: leader},
		}},
		{"I2: a standby that had not followed the epoch's timeline yet was promoted", func(p *plan) { strict(p); p.members = 1; p.selfStart = true }, []Fault{
			{Kind: Switchover, At: 5741 * ms, Who: []string{"n2"}},
			{Kind: Cut, On: record.After, At: 20 * ms, For: 9 * time.Second, Who: []string{"m1"}, From: []string{"n1"}},
			{Kind: PauseHost, At: 15200 * ms, For: 10234 * ms, Who: primary},
		}},
		{"I12: a candidate that was given up was the heir of every later failover, and barred from it", plain, []Fault{
			{Kind: KillServer, At: 12591 * ms, For: 14551 * ms, Who: primary},
			{Kind: Cut, On: record.Promote, At: 99 * ms, For: 9630 * ms, Who: leader, From: standbys},
		}},
		{"I12: the epoch of a candidate whose timeline was not higher was never made", plain, []Fault{
			{Kind: Switchover, At: 13394 * ms, Who: []string{"n2"}},
			{Kind: Cut, On: record.Fence, At: 72 * ms, For: 5894 * ms, Who: []string{"n1"}, From: []string{"n2", "n3"}},
			{Kind: KillServer, On: record.After, At: 307 * ms, For: 9102 * ms, Who: primary},
		}},
		{"I7: three tries of a repair within 3 ms", strict, []Fault{
			{Kind: HangDisk, At: 6910 * ms, For: 6506 * ms, Who: primary},
			{Kind: StopServer, At: 18869 * ms, For: 1523 * ms, Who: primary},
		}},
		{"I9: nobody took the VIP off a former primary that was rebuilt", func(p *plan) { plain(p); p.policy.WriteVIP = "192.168.0.40/24" }, []Fault{
			{Kind: Switchover, At: 5 * time.Second, Who: []string{"n2"}},
			{Kind: Cut, At: 12466 * ms, For: 16285 * ms, Who: []string{"n2", "m3"}, From: []string{"m1", "m2"}},
			{Kind: StopServer, At: 16 * time.Second, For: 20 * time.Second, Who: []string{"n2"}},
		}},
		{"I11: a member that stood still while a standby restarted went on with what that had proved before", func(p *plan) {
			strict(p)
			p.together, p.selfStart, p.sync.Method, p.policy.OnCrash = true, true, "first", "restart"
		}, []Fault{
			{Kind: PauseHost, At: 7007 * ms, For: 5648 * ms, Who: []string{"n1"}},
			{Kind: PowerOff, On: record.Fence, At: 63 * ms, For: 2354 * ms, Who: leader},
		}},
		{"I1: --accept-data-loss promoted while a member went on with the old primary, by proofs with a standby that was there, too", strict, []Fault{
			{Kind: Cut, At: 6 * time.Second, For: 30 * time.Second, Who: []string{"n1", "n3", "m3"}, From: []string{"m1", "m2", "n2"}},
			{Kind: TakeLoss, At: 8500 * ms, Who: []string{"n2"}},
			{Kind: TakeLoss, At: 14 * time.Second, Who: []string{"n2"}},
			{Kind: TakeLoss, At: 22 * time.Second, Who: []string{"n2"}},
		}},
		{"I12: 7,364 restarts in a minute", func(p *plan) { plain(p); p.members = 1; p.selfStart = true }, []Fault{
			{Kind: Switchover, At: 11207 * ms, Who: []string{"n2"}},
			{Kind: KillServer, On: record.Promote, At: 136 * ms, For: 3422 * ms, Who: candidate},
		}},
	}
}

func TestWhatOnceFailed(t *testing.T) {
	for i, c := range regressions() {
		t.Run(fmt.Sprint(i+1), func(t *testing.T) {
			for s := uint64(1); s <= 40; s++ {
				if r := Run(Options{Seed: s, Faults: c.faults, shape: c.shape}); r.Failure != nil {
					t.Fatalf("once %s\n%s", c.broke, &r)
				}
			}
		})
	}
}
