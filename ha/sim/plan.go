package sim

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/lease"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// Guard is one of the things that a failover's safety rests on. A simulator that still finds nothing
// when one is missing does not look well enough; a test leaves each of them out.
type Guard int

const (
	NoGuard    Guard = iota
	LeaseWait        // promotion waits until no member can route writes of the old epoch
	Recruit          // standbys are cut off from the old primary before one is promoted
	Ratchet          // hosts refuse actions of an earlier epoch or step
	AnswerGate       // a server's success is passed on only under a lease
	FreshProof       // a member without quorum believes only a heartbeat of its own that was flushed
	Tickets          // a read goes to a standby only if that has the session's last write
	Forgetting       // what a standby has proved counts no more when it may have restarted
)

func (g Guard) String() string {
	names := [...]string{"none", "lease wait", "recruit", "ratchet", "answer gate", "fresh-streaming proof", "tickets", "forgetting"}
	if g < 0 || int(g) >= len(names) {
		return "unknown"
	}
	return names[g]
}

// plan is what a seed comes to: how large the world is, how it is configured, what goes wrong.
type plan struct {
	seed        uint64
	without     Guard
	members     int
	nodes       int
	witness     int  // which member is one, from 1; 0: none
	together    bool // members run on the nodes' hosts
	sync        record.SyncSet
	policy      decide.Policy
	settings    map[topology.NodeID]decide.Settings
	noFailover  topology.NodeID
	priority    []int
	pause       time.Duration // between two writes of a client, at most
	rewindFails float64
	selfStart   bool // servers come back by themselves when their host does, or after a crash
	faults      []Fault
	end         time.Duration // of the faults
}

func (p *plan) terms() lease.Terms {
	return lease.Terms{Length: p.policy.Lease, Drift: p.policy.Drift}
}

func (p *plan) settingsSuffice(id topology.NodeID) bool {
	return p.settings[id].MaxConnections >= 100
}

func (p *plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d members", p.members)
	if p.witness > 0 {
		fmt.Fprintf(&b, " (m%d is a witness)", p.witness)
	}
	if p.together {
		b.WriteString(" on the hosts of")
	} else {
		b.WriteString(",")
	}
	fmt.Fprintf(&b, " %d nodes", p.nodes)
	if p.sync.Count > 0 {
		fmt.Fprintf(&b, ", synchronous %s %d of %d", strings.ToUpper(p.sync.Method), p.sync.Count, len(p.sync.Names))
	} else {
		b.WriteString(", asynchronous")
	}
	fmt.Fprintf(&b, ", on_crash %s, anti-flap %s", p.policy.OnCrash, p.policy.AntiFlap)
	if p.noFailover != 0 {
		fmt.Fprintf(&b, ", n%d nofailover", p.noFailover)
	}
	if p.selfStart {
		b.WriteString(", servers start by themselves")
	}
	return b.String()
}

// drawPlan makes a plan of a seed.
func drawPlan(seed uint64) plan {
	rng := rand.New(rand.NewPCG(seed, 0x91a4))
	p := plan{seed: seed, members: 3, nodes: 3, pause: 150 * time.Millisecond, policy: drawPolicy(rng)}
	switch rng.IntN(12) {
	case 0:
		p.members = 1
	case 1:
		p.members = 2
	case 2:
		p.members, p.witness = 3, 3
	case 3:
		p.members = 5
	}
	switch rng.IntN(20) {
	case 0, 1:
		p.nodes = 2
	case 2, 3:
		p.nodes = 5
	}
	p.together = rng.IntN(3) == 0
	p.selfStart = rng.IntN(2) == 0
	p.settings = map[topology.NodeID]decide.Settings{}
	for id := topology.NodeID(1); int(id) <= p.nodes; id++ {
		p.settings[id] = decide.Settings{MaxConnections: 100, MaxWorkers: 8, MaxSenders: 10, MaxLocks: 64}
		p.priority = append(p.priority, rng.IntN(3))
	}
	if rng.IntN(2) == 0 {
		p.sync = record.SyncSet{Method: []string{"any", "any", "first"}[rng.IntN(3)], Count: 1}
		if p.nodes == 5 {
			p.sync.Count += rng.IntN(2)
		}
		for id := 1; id <= p.nodes; id++ {
			p.sync.Names = append(p.sync.Names, fmt.Sprintf("stb%d", id))
		}
	}
	switch rng.IntN(10) {
	case 0:
		p.noFailover = topology.NodeID(2 + rng.IntN(p.nodes-1))
	case 1:
		low := topology.NodeID(p.nodes)
		p.settings[low] = decide.Settings{MaxConnections: 50, MaxWorkers: 8, MaxSenders: 10, MaxLocks: 64}
	case 2:
		p.rewindFails = 0.5
	}
	p.faults = drawFaults(rng, &p)
	p.findEnd()
	return p
}

// findEnd finds when the last fault is over at the latest.
func (p *plan) findEnd() {
	p.end = 0
	for _, f := range p.faults {
		p.end = max(p.end, f.At+f.For)
		if f.On != 0 {
			p.end = max(p.end, lastFault+f.For)
		}
	}
}

func drawPolicy(rng *rand.Rand) decide.Policy {
	p := decide.Policy{
		Lease: 1500 * time.Millisecond, Drift: 0.01, OnCrash: "restart", RestartBudget: 5 * time.Second,
		Gray: 5 * time.Second, Unreachable: 4 * time.Second, AntiFlap: 5 * time.Second, MaxLag: 64 << 20,
		Drain: 200 * time.Millisecond, SwitchBudget: 10 * time.Second, MaxRepairs: 3, OnOpen: "stop",
	}
	if rng.IntN(2) == 0 {
		p.OnCrash = "failover"
	}
	if rng.IntN(3) == 0 {
		p.AntiFlap = 0
	}
	if rng.IntN(3) == 0 {
		p.OnOpen = ""
	}
	if rng.IntN(4) == 0 {
		p.Drift = 0.2 // clocks are not that bad; mistakes in sums show
	}
	if rng.IntN(4) == 0 {
		p.WriteVIP = "192.168.0.40/24"
	}
	return p
}
