package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/cstproxy/cstproxy/ha/record"
)

const (
	firstFault = 4 * time.Second
	lastFault  = 24 * time.Second // no fault begins later
)

// drawFaults makes one to four troubles, each of one or more faults. Most are aimed at what makes
// failovers go wrong rather than spread evenly over everything that can be broken.
func drawFaults(rng *rand.Rand, p *plan) []Fault {
	var faults []Fault
	for range 1 + rng.IntN(4) {
		if rng.IntN(40) == 0 {
			return troubleLists(rng, p) // it takes its time, and nothing else
		}
		at := firstFault + span(rng, 0, lastFault-firstFault)
		kinds := []func(*rand.Rand, *plan, time.Duration) []Fault{
			troublePrimary, troublePrimary, troubleMinority, troubleBridge, troubleStopped,
			troubleStep, troubleStep, troubleMember, troubleNetwork, troubleAny, troubleAny, troubleOperator,
			troubleView,
		}
		faults = append(faults, kinds[rng.IntN(len(kinds))](rng, p, at)...)
	}
	return faults
}

func span(rng *rand.Rand, lo, hi time.Duration) time.Duration {
	return lo + time.Duration(rng.Int64N(int64(hi-lo))).Round(time.Millisecond)
}

// troublePrimary loses the primary or its host.
func troublePrimary(rng *rand.Rand, _ *plan, at time.Duration) []Fault {
	kinds := []Kind{PowerOff, KillServer, KillServer, StopServer, PauseHost, HangDisk}
	f := Fault{Kind: kinds[rng.IntN(len(kinds))], At: at, For: span(rng, 500*time.Millisecond, 15*time.Second), Who: []string{"primary"}}
	return []Fault{f}
}

// troubleMinority leaves the primary with one member, away from the rest.
func troubleMinority(rng *rand.Rand, _ *plan, at time.Duration) []Fault {
	f := Fault{Kind: Cut, At: at, For: span(rng, 3*time.Second, 14*time.Second), Who: []string{"primary"}, From: []string{"rest"}}
	switch rng.IntN(4) {
	case 0, 1:
		f.Who = append(f.Who, "other")
	case 2:
		f.Who = append(f.Who, "leader")
	}
	if rng.IntN(5) == 0 {
		f.Kind = CutOneWay
	}
	return []Fault{f}
}

// troubleBridge: one member and the standbys reach the primary, the other members do not, and do not
// reach that member.
func troubleBridge(rng *rand.Rand, p *plan, at time.Duration) []Fault {
	lasts := span(rng, 5*time.Second, 18*time.Second)
	alone := fmt.Sprintf("m%d", 1+rng.IntN(p.members))
	var others []string
	for i := 1; i <= p.members; i++ {
		if name := fmt.Sprintf("m%d", i); name != alone {
			others = append(others, name)
		}
	}
	if len(others) == 0 {
		others = []string{alone}
	}
	faults := []Fault{{Kind: Cut, At: at, For: lasts, Who: []string{"primary", alone}, From: others}}
	if rng.IntN(3) == 0 {
		faults = append(faults, Fault{Kind: KillServer, At: at + span(rng, 0, lasts), For: time.Second, Who: []string{"primary"}})
	}
	return faults
}

// troubleView keeps one member from the primary; everybody else reaches it.
func troubleView(rng *rand.Rand, _ *plan, at time.Duration) []Fault {
	who := [][]string{{"leader"}, {"other"}}[rng.IntN(2)]
	return []Fault{{Kind: Cut, At: at, For: span(rng, 3*time.Second, 15*time.Second), Who: who, From: []string{"primary"}}}
}

// troubleLists takes a standby away until it is no longer listed as eligible, and lets it come back
// while a member does not hear of it; then that member is left with the primary and another standby.
func troubleLists(rng *rand.Rand, p *plan) []Fault {
	deaf, away, stays := fmt.Sprintf("m%d", p.members), fmt.Sprintf("n%d", p.nodes), "n2"
	var others []string
	for i := 1; i < p.members; i++ {
		others = append(others, fmt.Sprintf("m%d", i))
	}
	if p.nodes < 3 || p.members < 3 || p.together {
		return nil
	}
	last := span(rng, 22*time.Second, 24*time.Second)
	return []Fault{
		{Kind: Cut, At: firstFault, For: span(rng, 16*time.Second, 16500*time.Millisecond), Who: []string{away}, From: []string{"n1"}},
		{Kind: Cut, At: 19800 * time.Millisecond, For: 25 * time.Second, Who: []string{deaf}, From: others},
		{Kind: Cut, At: last, For: span(rng, 6*time.Second, 16*time.Second), Who: []string{"n1", stays}, From: append(others[:len(others):len(others)], away)},
	}
}

// troubleStopped freezes something that later goes on as if nothing had happened.
func troubleStopped(rng *rand.Rand, _ *plan, at time.Duration) []Fault {
	who := []string{"primary", "primary", "leader", "other", "standby"}[rng.IntN(5)]
	kind := []Kind{PauseHost, StopServer}[rng.IntN(2)]
	if who == "leader" || who == "other" {
		kind = []Kind{PauseHost, StopMember}[rng.IntN(2)]
	}
	return []Fault{{Kind: kind, At: at, For: span(rng, time.Second, 16*time.Second), Who: []string{who}}}
}

// troubleStep loses the primary, and then somebody at a step of the failover.
func troubleStep(rng *rand.Rand, p *plan, at time.Duration) []Fault {
	faults := troublePrimary(rng, p, at)
	if rng.IntN(4) == 0 {
		faults = troubleOperator(rng, p, at)
	}
	f := Fault{At: span(rng, 0, 600*time.Millisecond), On: record.Intent + record.Step(rng.IntN(int(record.Undo))), For: span(rng, 500*time.Millisecond, 10*time.Second)}
	f.Who = []string{[]string{"leader", "leader", "leader", "candidate", "standby", "primary"}[rng.IntN(6)]}
	switch rng.IntN(5) {
	case 0:
		f.Kind, f.From = Cut, []string{"rest"}
	case 1:
		f.Kind, f.From = Cut, []string{"standbys"}
	case 2:
		f.Kind = PauseHost
	case 3:
		f.Kind = PowerOff
	case 4:
		f.Kind = KillServer
		if f.Who[0] == "leader" {
			f.Kind = StopMember
		}
	}
	return append(faults, f)
}

// troubleMember loses members.
func troubleMember(rng *rand.Rand, _ *plan, at time.Duration) []Fault {
	f := Fault{Kind: KillMember, At: at, For: span(rng, 300*time.Millisecond, 8*time.Second)}
	f.Who = [][]string{{"leader"}, {"other"}, {"leader", "other"}, {"leader", "others"}}[rng.IntN(4)]
	if rng.IntN(3) == 0 {
		f.Kind = StopMember
	}
	if rng.IntN(8) == 0 {
		f.Kind, f.Who = PowerOff, []string{"rest"} // the whole site
	}
	return []Fault{f}
}

// troubleNetwork is bad weather everywhere.
func troubleNetwork(rng *rand.Rand, _ *plan, at time.Duration) []Fault {
	if rng.IntN(2) == 0 {
		return []Fault{{Kind: Lose, At: at, For: span(rng, 2*time.Second, 12*time.Second), Much: 0.05 + 0.3*rng.Float64()}}
	}
	return []Fault{{Kind: Jitter, At: at, For: span(rng, 2*time.Second, 12*time.Second), Much: 0.5 * rng.Float64()}}
}

// troubleAny breaks anything.
func troubleAny(rng *rand.Rand, p *plan, at time.Duration) []Fault {
	kinds := []Kind{PowerOff, PauseHost, KillServer, StopServer, HangDisk, Crowd, SlowReplay, KillMember, StopMember, Cut, CutOneWay}
	f := Fault{Kind: kinds[rng.IntN(len(kinds))], At: at, For: span(rng, 200*time.Millisecond, 12*time.Second)}
	f.Who = []string{anybody(rng, p)}
	if f.Kind == Cut || f.Kind == CutOneWay {
		f.From = []string{anybody(rng, p)}
		if rng.IntN(2) == 0 {
			f.From = append(f.From, anybody(rng, p))
		}
	}
	return []Fault{f}
}

func anybody(rng *rand.Rand, p *plan) string {
	if rng.IntN(2) == 0 {
		return fmt.Sprintf("m%d", 1+rng.IntN(p.members))
	}
	return fmt.Sprintf("n%d", 1+rng.IntN(p.nodes))
}

// troubleOperator is somebody with good intentions.
func troubleOperator(rng *rand.Rand, p *plan, at time.Duration) []Fault {
	switch rng.IntN(8) {
	case 0:
		return []Fault{{Kind: Freeze, At: at, For: span(rng, time.Second, 10*time.Second)}}
	case 1:
		return []Fault{{Kind: ByHand, At: at, Who: []string{"standby"}}}
	case 2:
		return troubleGivenUp(rng, p, at)
	}
	return []Fault{{Kind: Switchover, At: at, Who: []string{"standby"}}}
}

// troubleGivenUp leaves the primary with a member and a standby, away from the rest, where an operator gives
// up what is over there: several times, because he is refused while an operation is under way.
func troubleGivenUp(rng *rand.Rand, p *plan, at time.Duration) []Fault {
	with := []string{"primary", fmt.Sprintf("m%d", 1+rng.IntN(p.members)), fmt.Sprintf("n%d", 1+rng.IntN(p.nodes))}
	faults := []Fault{{Kind: Cut, At: at, For: span(rng, 6*time.Second, 20*time.Second), Who: with, From: []string{"rest"}}}
	heir := []string{fmt.Sprintf("n%d", 1+rng.IntN(p.nodes))}
	for range 3 {
		at += span(rng, 500*time.Millisecond, 5*time.Second)
		faults = append(faults, Fault{Kind: TakeLoss, At: at, Who: heir})
	}
	return faults
}
