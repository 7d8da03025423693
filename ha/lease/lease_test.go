package lease

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

const length = 1500 * time.Millisecond

func terms() Terms { return Terms{Length: length, Drift: 0.01} }

// seven is epoch 7 with standbys 2 and 3.
func seven() *record.Cluster {
	return &record.Cluster{LastOperation: 4, Epoch: record.Epoch{Number: 7, Version: 1, Primary: 1,
		Standbys: record.Standbys{Eligible: []topology.NodeID{2, 3}}}}
}

// at is epoch 7 with operation 5 at step.
func at(step record.Step) *record.Cluster {
	c := seven()
	c.LastOperation = 5
	c.Operation = &record.Operation{ID: 5, Kind: record.Failover, From: 7, To: 8, Step: step}
	return c
}

func holder() *Holder {
	h := NewHolder(terms(), 1)
	h.Follow(seven())
	return h
}

func TestALeaseLastsFromWhenItsRequestWasSent(t *testing.T) {
	h := holder()
	r := h.Ask(10 * time.Second)
	if h.Held(10 * time.Second) {
		t.Error("held before it is granted")
	}
	if !h.Granted(Reply(r)) || h.Until() != 10*time.Second+length {
		t.Errorf("until %s", h.Until())
	}
	if h.Held(10*time.Second + length) {
		t.Error("held at its end")
	}
	if h.Granted(Reply(r)) {
		t.Error("one request was granted twice")
	}
}

func TestAnswersToOtherRequestsDoNotCount(t *testing.T) {
	for name, change := range map[string]func(*Reply){
		"of another epoch":  func(r *Reply) { r.Epoch++ },
		"of another life":   func(r *Reply) { r.Birth++ },
		"of another number": func(r *Reply) { r.Number++ },
	} {
		h := holder()
		r := Reply(h.Ask(0))
		change(&r)
		if h.Granted(r) || h.Until() != 0 {
			t.Errorf("a reply %s counted", name)
		}
	}
}

func TestAFreezeHoldsUntilTheLogLiftsIt(t *testing.T) {
	h := holder()
	late, r := h.Ask(0), h.Ask(0)
	h.Granted(Reply(r))
	if !h.Freeze(5, 7) || h.Held(1) || h.Frozen() != 5 {
		t.Fatal("the order was not obeyed")
	}
	if h.Granted(Reply(late)) || h.Granted(Reply(h.Ask(1))) || h.Proven(proof(1)) {
		t.Error("a frozen lease was renewed")
	}
	h.Follow(seven()) // the log is behind the order
	h.Follow(at(record.Intent))
	h.Follow(at(record.Freeze))
	h.Follow(at(record.Promote))
	if h.Frozen() != 5 {
		t.Fatal("the freeze was lifted early")
	}
	h.Follow(at(record.Undo))
	if h.Frozen() != 0 || h.Held(1) {
		t.Error("after the undoing: frozen, or held by an old grant")
	}
	if h.Freeze(5, 7) {
		t.Error("a late order froze again")
	}
	if !h.Granted(Reply(h.Ask(2))) {
		t.Error("no lease after the undoing")
	}
}

func TestOrdersOfOtherEpochsAreNotAcknowledged(t *testing.T) {
	h := holder()
	if h.Freeze(5, 6) || h.Freeze(5, 8) || h.Freeze(4, 7) || h.Frozen() != 0 {
		t.Errorf("frozen for %d", h.Frozen())
	}
}

func TestTheLogAloneFreezesToo(t *testing.T) {
	h := holder()
	h.Granted(Reply(h.Ask(0)))
	h.Follow(at(record.Fence))
	if h.Held(1) || h.Frozen() != 5 {
		t.Error("the log's Freeze was not obeyed")
	}
}

func TestANewEpochEndsTheLease(t *testing.T) {
	h := holder()
	r := h.Ask(0)
	h.Granted(Reply(h.Ask(0)))
	next := seven()
	next.Epoch.Number = 8
	h.Follow(next)
	if h.Held(1) || h.Granted(Reply(r)) || h.Proven(proof(0)) || h.Epoch() != 8 {
		t.Error("something of epoch 7 is left in epoch 8")
	}
}

func proof(began time.Duration) Proof {
	return Proof{Epoch: 7, Began: began, Heartbeat: 100, Standbys: seven().Epoch.Standbys,
		Flushed: map[topology.NodeID]topology.LSN{2: 100, 3: 101}}
}

func TestAProofNeedsEveryStandbyToHaveTheHeartbeat(t *testing.T) {
	h := holder()
	if h.Proven(proof(5)) {
		t.Error("a member that no leader has granted anything went on")
	}
	h.Granted(Reply(h.Ask(0)))
	if !h.Proven(proof(time.Second)) || h.Until() != time.Second+length {
		t.Errorf("until %s", h.Until())
	}
	behind := proof(2 * time.Second)
	behind.Flushed[3] = 99
	none := proof(2 * time.Second)
	none.Heartbeat = 0
	other := proof(2 * time.Second)
	other.Epoch = 6
	for name, p := range map[string]Proof{"a standby is behind": behind, "no heartbeat": none, "another epoch": other} {
		if h.Proven(p) {
			t.Errorf("%s: proven", name)
		}
	}
	behind.Weakness = AnyFlush
	if !h.Proven(behind) {
		t.Error("the weakness makes no difference, so the simulator's own test proves nothing")
	}
}

// A promotion waits for what BrokenForAll says, and for nothing less, an operator's order or not: without it
// a member that cannot be asked goes on for hours.
func TestAMemberGoesOnByItselfForAsLongAsItsStandbysAreNotCutOff(t *testing.T) {
	c := seven()
	c.Epoch.Sync = record.SyncSet{Method: "any", Count: 1, Names: []string{"stb2", "stb3"}, Nodes: []topology.NodeID{2, 3}}
	h := NewHolder(terms(), 1)
	h.Follow(c)
	h.Granted(Reply(h.Ask(0)))
	for at := time.Hour; at < 5*time.Hour; at += length / 3 {
		p := Proof{Epoch: 7, Began: at, Heartbeat: 100, Standbys: c.Epoch.Standbys, Flushed: map[topology.NodeID]topology.LSN{3: 100}}
		if cut := []topology.NodeID{2}; h.Proven(p) == c.Epoch.BrokenForAll(cut) || !h.Held(at) {
			t.Fatalf("after %s with node 2 cut off: held %t, which a leader takes for over: %t", at, h.Held(at), c.Epoch.BrokenForAll(cut))
		}
	}
	at := 6 * time.Hour
	p := Proof{Epoch: 7, Began: at, Heartbeat: 100, Standbys: c.Epoch.Standbys, Flushed: map[topology.NodeID]topology.LSN{3: 99}}
	if cut := []topology.NodeID{2, 3}; !c.Epoch.BrokenForAll(cut) || h.Proven(p) || h.Held(at) {
		t.Errorf("with both cut off: held %t", h.Held(at))
	}
}

func TestALeaderRefusesWhileItFreezes(t *testing.T) {
	g := NewGrantor(terms(), 0)
	ask := func(epoch topology.Epoch, known uint64) Ticket {
		return g.Arrived("m2", Request{Epoch: epoch, Known: known}, time.Minute)
	}
	for name, c := range map[string]*record.Cluster{"freeze": at(record.Freeze), "fence": at(record.Fence), "promote": at(record.Promote)} {
		if _, ok := g.Grant(ask(7, 1), c); ok {
			t.Errorf("granted at %s", name)
		}
	}
	if _, ok := g.Grant(ask(6, 1), seven()); ok {
		t.Error("granted for another epoch")
	}
	old := seven()
	old.Epoch.Version = 3
	old.Epoch.Former = []record.Former{{Version: 2}}
	if _, ok := g.Grant(ask(7, 1), old); ok {
		t.Error("granted to a member whose standbys are forgotten")
	}
	if _, ok := g.Grant(ask(7, 2), old); !ok {
		t.Error("refused a member whose standbys are reckoned with")
	}
	for name, c := range map[string]*record.Cluster{"intent": at(record.Intent), "undo": at(record.Undo)} {
		if _, ok := g.Grant(ask(7, 1), c); !ok {
			t.Errorf("refused at %s", name)
		}
	}
}

func TestALeaderRemembersWhatItAndOthersGranted(t *testing.T) {
	g := NewGrantor(terms(), 10*time.Second)
	wait := terms().Wait()
	if wait != 1515*time.Millisecond {
		t.Fatalf("wait %s", wait)
	}
	if g.Lapsed(10*time.Second+wait-1) || !g.Lapsed(10*time.Second+wait) {
		t.Error("leases of the leader before are not waited for exactly")
	}
	g.Grant(g.Arrived("m2", Request{Epoch: 7, Known: 1}, 20*time.Second), seven())
	if g.Lapsed(20*time.Second+wait-1) || !g.Lapsed(20*time.Second+wait) {
		t.Error("a granted lease is not waited for exactly")
	}
	if g.Until("m2") != 20*time.Second+wait || g.Until("m3") != 10*time.Second+wait {
		t.Errorf("m2 until %s, m3 until %s", g.Until("m2"), g.Until("m3"))
	}
}

// clock is a member's: off by offset, and rate times as fast as real time.
type clock struct {
	offset time.Duration
	rate   float64
}

func (c clock) show(real time.Duration) time.Duration {
	return c.offset + time.Duration(float64(real)*c.rate)
}

// One leader, then another, and a member, each with its own clock; requests and replies take any
// time. Whenever the leader in office says that leases have lapsed, the member holds none.
func TestNobodyHoldsWhatALeaderCallsLapsed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		drawClock := func(name string) clock {
			return clock{time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, name+" offset")), rapid.Float64Range(0.9951, 1.0049).Draw(t, name+" rate")}
		}
		member, leaders := drawClock("member"), []clock{drawClock("first"), drawClock("second")}
		h := NewHolder(terms(), 9)
		h.Follow(seven())
		grantors := []*Grantor{NewGrantor(terms(), leaders[0].show(0)), nil}
		now, leads := time.Duration(0), 0
		type granted struct {
			ticket Ticket
			by     int
		}
		var asked []Request
		var arrived []granted
		var replies []Reply
		take := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "which") }
		for range rapid.IntRange(5, 80).Draw(t, "steps") {
			now += time.Duration(rapid.Int64Range(0, int64(700*time.Millisecond)).Draw(t, "passes"))
			switch what := rapid.IntRange(0, 9).Draw(t, "what"); {
			case what <= 2:
				asked = append(asked, h.Ask(member.show(now)))
			case what <= 4 && len(asked) > 0:
				by := rapid.IntRange(0, leads).Draw(t, "at")
				arrived = append(arrived, granted{grantors[by].Arrived("m", asked[take(len(asked))], leaders[by].show(now)), by})
			case what <= 6 && len(arrived) > 0:
				// A quorum round that began after the arrival: the first leader's fails once the
				// second was elected.
				i := take(len(arrived))
				a := arrived[i]
				arrived = slices.Delete(arrived, i, i+1)
				if a.by < leads {
					continue
				}
				if r, ok := grantors[a.by].Grant(a.ticket, seven()); ok {
					replies = append(replies, r)
				}
			case what <= 8 && len(replies) > 0:
				h.Granted(replies[take(len(replies))])
			case leads == 0:
				leads = 1
				grantors[1] = NewGrantor(terms(), leaders[1].show(now))
			}
			if g := grantors[leads]; g.Lapsed(leaders[leads].show(now)) && h.Held(member.show(now)) {
				t.Fatalf("at %s leader %d says lapsed, and the member holds until %s of its clock, which shows %s", now, leads, h.Until(), member.show(now))
			}
		}
	})
}
