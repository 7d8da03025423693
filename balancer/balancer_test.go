package balancer

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cstproxy/cstproxy/ha/topology"
)

var start = time.Unix(1_700_000_000, 0)

// view has node 1 as the primary and one standby per weight, numbered from 2, in epoch 1.
func view(weights ...int) *topology.View {
	v := &topology.View{Cluster: "c", Version: 1, Epoch: 1, Primary: 1, Rounds: topology.NewRounds()}
	v.Rounds.Reset(1)
	v.Nodes = append(v.Nodes, topology.NodeView{Node: topology.Node{ID: 1, Weight: 1}, Role: topology.RolePrimary, Health: topology.Healthy})
	for i, w := range weights {
		v.Nodes = append(v.Nodes, topology.NodeView{
			Node: topology.Node{ID: topology.NodeID(i + 2), Weight: w},
			Role: topology.RoleStandby, Health: topology.Healthy, Slot: i + 1,
		})
	}
	return v
}

// with is v as the agent would publish it after a change to one node.
func with(v *topology.View, id topology.NodeID, change func(*topology.NodeView)) *topology.View {
	next := *v
	next.Version++
	next.Nodes = append([]topology.NodeView{}, v.Nodes...)
	change(next.Node(id))
	return &next
}

func TestEveryWindowOfReadsHasSharesExactToTheWeights(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.IntRange(1, 9), 1, 5).Draw(t, "weights")
		skip := rapid.IntRange(0, 200).Draw(t, "skip")
		cycles := rapid.IntRange(1, 5).Draw(t, "cycles")
		v, b, total := view(weights...), New(DefaultConfig()), 0
		for _, w := range weights {
			total += w
		}
		for range skip {
			b.Pick(v, Need{}, start)
		}
		counts := map[topology.NodeID]int{}
		for range cycles * total {
			id, _ := b.Pick(v, Need{}, start)
			counts[id]++
		}
		for i, w := range weights {
			if got := counts[topology.NodeID(i+2)]; got != w*cycles {
				t.Fatalf("node %d of weight %d got %d of %d reads, want %d", i+2, w, got, cycles*total, w*cycles)
			}
		}
	})
}

func TestAHeavyStandbyIsNotServedInBursts(t *testing.T) {
	v, b := view(4, 1, 1), New(DefaultConfig())
	run, longest := 0, 0
	for range 60 {
		if id, _ := b.Pick(v, Need{}, start); id == 2 {
			run++
			longest = max(longest, run)
		} else {
			run = 0
		}
	}
	if longest > 4 {
		t.Errorf("node 2 was picked %d times in a row, want its 4 of 6 turns spread", longest)
	}
}

func TestWhoTakesReads(t *testing.T) {
	none := func(n *topology.NodeView) { n.Health = topology.Down }
	for _, c := range []struct {
		name   string
		policy PrimaryReads
		view   *topology.View
		need   Need
		want   topology.NodeID
		why    string
	}{
		{"a healthy standby", LastResort, view(1), Need{}, 2, InTurn},
		{"no standby of weight 0", LastResort, view(0), Need{}, 1, NoStandby},
		{"no standby with the tag", LastResort, with(view(1), 2, func(n *topology.NodeView) { n.NoLoadBalance = true }), Need{}, 1, NoStandby},
		{"the primary as the last resort", LastResort, with(view(1), 2, none), Need{}, 1, NoStandby},
		{"nobody when the primary never may", Never, with(view(1), 2, none), Need{}, 0, NotAllowed},
		{"nobody without nodes", LastResort, &topology.View{Rounds: topology.NewRounds()}, Need{}, 0, NoNode},
		{"the primary when the standbys were tried", LastResort, view(1), Need{Exclude: []topology.NodeID{2}}, 1, NoStandby},
		{"nobody when all were tried", LastResort, view(1), Need{Exclude: []topology.NodeID{1, 2}}, 0, NoNode},
		{"the primary for an own write", LastResort, view(1), Need{Ticket: topology.Ticket{Epoch: 1, Round: 1}}, 1, NotReplayed},
		{"the primary for an own write even if it never takes reads", Never, view(1), Need{Ticket: topology.Ticket{Epoch: 1, Round: 1}}, 1, NotReplayed},
		{"a standby when the write does not matter", LastResort, view(1), Need{Ticket: topology.Ticket{Epoch: 1, Round: 1}, Consistency: Eventual}, 2, InTurn},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := DefaultConfig()
			config.PrimaryReads = c.policy
			id, why := New(config).Pick(c.view, c.need, start)
			if id != c.want || why != c.why {
				t.Errorf("picked %d because %q, want %d because %q", id, why, c.want, c.why)
			}
		})
	}
}

func TestAPrimaryThatAlwaysReadsHasItsOwnShare(t *testing.T) {
	config := DefaultConfig()
	config.PrimaryReads = Always
	v, b, counts := view(2, 1), New(config), map[topology.NodeID]int{}
	for range 40 {
		id, _ := b.Pick(v, Need{}, start)
		counts[id]++
	}
	if counts[1] != 10 || counts[2] != 20 || counts[3] != 10 {
		t.Errorf("shares %v, want 10, 20, 10", counts)
	}
	id, why := b.Pick(v, Need{Ticket: topology.Ticket{Epoch: 1, Round: 9}}, start)
	if id != 1 || why != PrimaryInTurn {
		t.Errorf("a read that must see its write went to %d (%s), want the primary", id, why)
	}
}

func TestAReadSeesItsOwnWrite(t *testing.T) {
	v, b := view(1, 1), New(DefaultConfig())
	ticket := b.Stamp(v)
	if id, why := b.Pick(v, Need{Ticket: ticket}, time.Now()); id != 1 || why != NotReplayed {
		t.Fatalf("before any round: %d (%s), want the primary", id, why)
	}
	if round, at := v.Rounds.Wanted(); round == 0 || at.IsZero() {
		t.Error("a read that had to go to the primary asked for no round")
	}
	k := v.Rounds.Open(1)
	v.Rounds.Mark(v.Node(3).Slot, k)
	for range 4 {
		if id, why := b.Pick(v, Need{Ticket: ticket}, time.Now()); id != 3 {
			t.Errorf("after node 3 has it: %d (%s), want node 3", id, why)
		}
	}
	if id, _ := b.Pick(v, Need{Consistency: Cluster}, time.Now()); id != 3 {
		t.Errorf("another session that must see all writes read from %d, want node 3", id)
	}
	later := b.Stamp(v)
	if id, why := b.Pick(v, Need{Ticket: later}, time.Now()); id != 1 || why != NotReplayed {
		t.Errorf("after a second write: %d (%s), want the primary", id, why)
	}
}

func TestAFailedNodeIsBannedLongerEachTimeAndReturnsOnTrial(t *testing.T) {
	config := DefaultConfig()
	v, b, now := view(1, 1), New(config), start
	picks := func(n int) (two int) {
		for range n {
			if id, _ := b.Pick(v, Need{}, now); id == 2 {
				two++
			}
		}
		return two
	}
	b.Pick(v, Need{}, now)
	ban := config.Ban
	for i := range 8 {
		b.Failed(2, now)
		b.Failed(2, now) // the other connections of the same crash
		now = now.Add(min(ban, config.BanMax) - 1)
		if n := picks(10); n != 0 {
			t.Fatalf("failure %d: %d reads before the ban of %s was over", i+1, n, ban)
		}
		now = now.Add(1)
		if n := picks(10); n != 1 {
			t.Fatalf("failure %d: %d reads on trial after the ban of %s, want 1", i+1, n, ban)
		}
		ban *= 2
	}
	b.Succeeded(2)
	if n := picks(10); n != 5 {
		t.Errorf("%d of 10 reads after a success, want 5 and no burst", n)
	}
	if s := b.Stats(now); s.Failures != 16 || s.Trials != 8 {
		t.Errorf("counted %d failures and %d trials, want 16 and 8", s.Failures, s.Trials)
	}
}

func TestATrialWithoutAnOutcomeIsRepeated(t *testing.T) {
	v, b := view(1, 1), New(DefaultConfig())
	b.Pick(v, Need{}, start)
	b.Failed(2, start)
	now := start
	for i := range trials {
		now = now.Add(DefaultConfig().Ban)
		tried := 0
		for range 6 {
			if id, _ := b.Pick(v, Need{}, now); id == 2 {
				tried++
			}
		}
		if tried != 1 {
			t.Errorf("window %d: %d trials, want 1", i, tried)
		}
	}
	now = now.Add(DefaultConfig().Ban)
	b.Pick(v, Need{}, now)
	if s := b.Stats(now); s.Nodes[1].Failures != 0 {
		t.Errorf("after %d trials without a failure: %+v", trials, s.Nodes[1])
	}
}

func TestTheConfigurationSaysWhatAReadMustSee(t *testing.T) {
	for c, want := range map[Consistency]topology.NodeID{AsConfigured: 1, Session: 1, Cluster: 1, Eventual: 2} {
		config := DefaultConfig()
		config.ReadConsistency = c
		if id, why := New(config).Pick(view(1), Need{Ticket: topology.Ticket{Epoch: 1, Round: 1}}, start); id != want {
			t.Errorf("%s: picked %d (%s), want %d", c, id, why, want)
		}
	}
}

func TestAFailingNodeIsTriedBeforeAReadIsRefused(t *testing.T) {
	config := DefaultConfig()
	config.PrimaryReads = Never
	v, b := view(1, 1), New(config)
	b.Pick(v, Need{}, start)
	b.Failed(2, start)
	b.Failed(3, start.Add(time.Millisecond))
	id, why := b.Pick(v, Need{}, start.Add(2*time.Millisecond))
	if id != 2 || why != OnTrial {
		t.Errorf("picked %d (%s), want node 2, whose ban ends first", id, why)
	}
	if id, _ := b.Pick(v, Need{Exclude: []topology.NodeID{2, 3}}, start); id != 0 {
		t.Errorf("picked %d after both were tried, want none", id)
	}
}

func TestANodeThatTheAgentGivesBackIsNotBanned(t *testing.T) {
	v, b := view(1), New(DefaultConfig())
	b.Pick(v, Need{}, start)
	b.Failed(2, start)
	if id, _ := b.Pick(v, Need{}, start); id != 1 {
		t.Fatalf("picked %d, want the primary while node 2 is banned", id)
	}
	down := with(v, 2, func(n *topology.NodeView) { n.Health = topology.Down })
	b.Pick(down, Need{}, start)
	up := with(down, 2, func(n *topology.NodeView) { n.Health = topology.Healthy })
	if id, why := b.Pick(up, Need{}, start); id != 2 {
		t.Errorf("picked %d (%s), want node 2", id, why)
	}
}

func TestAPickAllocatesNothing(t *testing.T) {
	v, b := view(3, 2, 1), New(DefaultConfig())
	v.Rounds.Mark(1, v.Rounds.Open(1))
	need := Need{Ticket: topology.Ticket{Epoch: 1, Round: 1}, Exclude: []topology.NodeID{4}}
	b.Pick(v, need, start)
	if n := testing.AllocsPerRun(1000, func() {
		b.Pick(v, need, start)
		b.Pick(v, Need{}, start)
		b.Succeeded(2)
	}); n != 0 {
		t.Errorf("%v allocations per pick", n)
	}
}

func TestTheRotationIsWhatPickWouldServe(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		config := DefaultConfig()
		config.PrimaryReads = PrimaryReads(rapid.IntRange(0, 2).Draw(t, "policy"))
		v := view(rapid.SliceOfN(rapid.IntRange(0, 3), 0, 4).Draw(t, "weights")...)
		for i := range v.Nodes[1:] {
			if rapid.Bool().Draw(t, "down") {
				v.Nodes[i+1].Health = topology.Down
			}
		}
		b, served := New(config), map[topology.NodeID]bool{}
		for range 100 {
			if id, _ := b.Pick(v, Need{}, start); id != 0 {
				served[id] = true
			}
		}
		ring := Rotation(config)(v)
		if len(ring) != len(served) {
			t.Fatalf("rotation %v, served %v", ring, served)
		}
		for _, id := range ring {
			if !served[id] {
				t.Fatalf("rotation %v, served %v", ring, served)
			}
		}
	})
}

func TestConfigurationWordsGoBothWays(t *testing.T) {
	for _, p := range []PrimaryReads{LastResort, Never, Always} {
		text, _ := p.MarshalText()
		var q PrimaryReads
		if err := q.UnmarshalText(text); err != nil || q != p {
			t.Errorf("%s became %s: %v", p, q, err)
		}
	}
	for _, c := range []Consistency{Session, Cluster, Eventual} {
		text, _ := c.MarshalText()
		var d Consistency
		if err := d.UnmarshalText(text); err != nil || d != c {
			t.Errorf("%s became %s: %v", c, d, err)
		}
	}
	var p PrimaryReads
	if err := p.UnmarshalText([]byte("sometimes")); err == nil {
		t.Error("an unknown word was taken")
	}
}

func BenchmarkPick(b *testing.B) {
	v, bal := view(1, 1, 1), New(DefaultConfig())
	for b.Loop() {
		bal.Pick(v, Need{}, start)
	}
}
