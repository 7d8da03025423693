package record

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/cstproxy/cstproxy/ha/topology"
)

const cluster = "c1"

// log applies entries in turn and fails the test when one does not count.
func log(t *testing.T, s *State, entries ...Entry) *State {
	t.Helper()
	for _, e := range entries {
		next, err := s.Apply(e)
		if err != nil {
			t.Fatalf("%+v: %v", e, err)
		}
		s = next
	}
	return s
}

func found() Entry {
	return Entry{Found: &Found{Fleet: "f", Floors: map[string]topology.Epoch{cluster: 6}}}
}

func adopt() Entry {
	return Entry{Cluster: cluster, Adopt: &Adopt{Epoch: Epoch{Number: 7, Primary: 1, SystemID: 42,
		History: topology.History{Timeline: 1}, Standbys: Standbys{Eligible: []topology.NodeID{2, 3}}}}}
}

func begin(o Operation) Entry { return Entry{Cluster: cluster, Begin: &Begin{Operation: o}} }

func failover() Operation {
	return Operation{ID: 1, Kind: Failover, From: 7, To: 8, Step: Intent, By: "m1", Why: "node 1 is silent"}
}

// to is the entry that moves what is under way to step; change may alter it.
func to(s *State, step Step, change func(*Advance)) Entry {
	o := *s.Clusters[cluster].Operation
	a := &Advance{From: o.Step, To: o}
	a.To.Step = step
	if change != nil {
		change(a)
	}
	return Entry{Cluster: cluster, Advance: a}
}

func promote(a *Advance) { a.To.Candidate, a.To.Expected, a.To.Timeline = 2, 0x3000060, 2 }

func cross(a *Advance) {
	a.Epoch = &Epoch{Number: 8, Operation: 1, Primary: 2, SystemID: 42,
		History: topology.History{Timeline: 2, Forks: []topology.Fork{{Timeline: 1, End: 0x3000060}}}}
}

func finish(a *Advance) { a.To.Outcome = Completed }

func TestAFailoverGoesFromIntentToDone(t *testing.T) {
	s := log(t, &State{}, found(), adopt(), begin(failover()))
	if c := s.Clusters[cluster]; c.LastEpoch != 8 || c.Epoch.Number != 7 || c.Frozen(7) != 0 || c.Operation.Former != 1 {
		t.Fatalf("begun: %+v", c)
	}
	s = log(t, s, to(s, Freeze, nil))
	if s.Clusters[cluster].Frozen(7) != 1 {
		t.Error("members are not told to freeze")
	}
	s = log(t, s, to(s, Fence, func(a *Advance) { a.To.Recruited = []topology.NodeID{2, 3} }))
	s = log(t, s, to(s, Promote, promote))
	s = log(t, s, to(s, After, cross))
	c := s.Clusters[cluster]
	if c.Epoch.Number != 8 || c.Epoch.Primary != 2 || c.Frozen(8) != 0 || c.Mark(1).Quarantine == "" || c.LastTimeline != 2 {
		t.Errorf("after: %+v", c)
	}
	s = log(t, s, to(s, Done, finish))
	if c := s.Clusters[cluster]; c.Operation != nil || len(c.Past) != 1 || c.Past[0].Outcome != Completed {
		t.Errorf("done: %+v", c)
	}
}

func TestWhatDoesNotFitChangesNothing(t *testing.T) {
	founded := log(t, &State{}, found())
	adopted := log(t, founded, adopt())
	begun := log(t, adopted, begin(failover()))
	frozen := log(t, begun, to(begun, Freeze, nil))
	fenced := log(t, frozen, to(frozen, Fence, func(a *Advance) { a.To.Recruited = []topology.NodeID{2, 3} }))
	promoting := log(t, fenced, to(fenced, Promote, promote))
	undoing := log(t, promoting, to(promoting, Undo, nil))
	after := log(t, promoting, to(promoting, After, cross))
	repair := Operation{ID: 1, Kind: Repair, From: 7, To: 7, Step: Intent, Node: 3, By: "dba"}
	repairing := log(t, adopted, begin(repair))
	for _, c := range []struct {
		name string
		s    *State
		e    Entry
		want error
		text string
	}{
		{"nothing", founded, Entry{Cluster: cluster}, ErrMalformed, "0 things"},
		{"two things", founded, Entry{Cluster: cluster, Froze: &Frozen{}, Mark: &Marking{Node: 1}}, ErrMalformed, "2 things"},
		{"no cluster", founded, Entry{Froze: &Frozen{}}, ErrMalformed, "cluster"},
		{"before the fleet has a name", &State{}, adopt(), ErrStale, "not been founded"},
		{"a second birth", founded, found(), ErrStale, "already"},
		{"below the floor", founded, Entry{Cluster: cluster, Adopt: &Adopt{Epoch: Epoch{Number: 1, Primary: 1}}}, ErrStale, "is not above 6"},
		{"adopted twice", adopted, adopt(), ErrStale, "epoch 7 is current"},
		{"adopted beside a failover", begun, Entry{Cluster: cluster, Adopt: &Adopt{Current: 7, Epoch: Epoch{Number: 9, Primary: 2}}}, ErrStale, "under way"},
		{"a number given before", begun, begin(failover()), ErrStale, "does not follow 1"},
		{"of another epoch", adopted, begin(Operation{ID: 1, Kind: Failover, From: 6, To: 8, Step: Intent}), ErrStale, "epoch 7 is current"},
		{"a failover beside another", begun, begin(Operation{ID: 2, Kind: Failover, From: 7, To: 9, Step: Intent}), ErrStale, "under way"},
		{"a task beside a failover", begun, begin(Operation{ID: 2, Kind: Repair, From: 7, To: 8, Step: Intent, Node: 3}), ErrStale, "under way"},
		{"a second task of a node", repairing, begin(Operation{ID: 2, Kind: Clone, From: 7, To: 7, Step: Intent, Node: 3}), ErrStale, "of node 3"},
		{"a task below an epoch that hosts have seen", log(t, undoing, to(undoing, Done, func(a *Advance) { a.To.Outcome = Undone })),
			begin(Operation{ID: 2, Kind: Repair, From: 7, To: 7, Step: Intent, Node: 3}), ErrStale, "highest"},
		{"from a step that has passed", frozen, Entry{Cluster: cluster, Advance: &Advance{From: Intent, To: *frozen.Clusters[cluster].Operation}}, ErrStale, "step freeze"},
		{"over a step", frozen, to(frozen, Promote, promote), ErrMalformed, "does not lead"},
		{"somebody recruited is forgotten", fenced, to(fenced, Promote, func(a *Advance) { promote(a); a.To.Recruited = nil }), ErrMalformed, "forgotten"},
		{"nobody to promote", fenced, to(fenced, Promote, nil), ErrMalformed, "nobody"},
		{"on the timeline of before", fenced, to(fenced, Promote, func(a *Advance) { promote(a); a.To.Timeline = 1 }), ErrMalformed, "timeline 1"},
		{"another candidate", promoting, to(promoting, After, func(a *Advance) { cross(a); a.To.Candidate = 3 }), ErrMalformed, "another one"},
		{"an epoch of another candidate", promoting, to(promoting, After, func(a *Advance) { cross(a); a.Epoch.Primary = 3 }), ErrMalformed, "not what"},
		{"an epoch on an old timeline", promoting, to(promoting, After, func(a *Advance) { cross(a); a.Epoch.History.Timeline = 1 }), ErrMalformed, "below timeline 2"},
		{"of another system", promoting, to(promoting, After, func(a *Advance) { cross(a); a.Epoch.SystemID = 43 }), ErrMalformed, "another system"},
		{"no epoch", promoting, to(promoting, After, nil), ErrMalformed, "needs the new epoch"},
		{"an epoch in passing", frozen, to(frozen, Fence, cross), ErrMalformed, "begins with step after"},
		{"back from after", after, to(after, Undo, nil), ErrMalformed, "does not lead"},
		{"forward from undo", undoing, to(undoing, After, cross), ErrMalformed, "does not lead"},
		{"done without an outcome", after, to(after, Done, nil), ErrMalformed, "outcome"},
		{"an outcome on the way", begun, to(begun, Freeze, finish), ErrMalformed, "outcome"},
		{"standbys of another epoch", adopted, Entry{Cluster: cluster, Standbys: &Publish{Epoch: 6, Version: 1}}, ErrStale, "epoch 7"},
		{"standbys of an older version", adopted, Entry{Cluster: cluster, Standbys: &Publish{Epoch: 7, Version: 9}}, ErrStale, "version 9"},
		{"standbys in the middle of a failover", begun, Entry{Cluster: cluster, Standbys: &Publish{Epoch: 7, Version: 1}}, ErrStale, "under way"},
	} {
		before, _ := json.Marshal(c.s)
		got, err := c.s.Apply(c.e)
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, want %v with %q", c.name, err, c.want, c.text)
		}
		if now, _ := json.Marshal(c.s); got != c.s || string(now) != string(before) {
			t.Errorf("%s: the state changed", c.name)
		}
	}
}

func TestAFailoverOvertakesTasks(t *testing.T) {
	s := log(t, &State{}, found(), adopt(), begin(Operation{ID: 1, Kind: Repair, From: 7, To: 7, Step: Intent, Node: 3, By: "m1"}))
	o := failover()
	o.ID = 2
	s = log(t, s, begin(o))
	if c := s.Clusters[cluster]; len(c.Tasks) != 0 || len(c.Past) != 1 || c.Past[0].Outcome != Failed || c.Past[0].Note != "overtaken" {
		t.Errorf("%+v", c)
	}
}

func TestARepairIsNotedInTheMark(t *testing.T) {
	repair := Operation{ID: 1, Kind: Repair, From: 7, To: 7, Step: Intent, Node: 3, By: "m1"}
	s := log(t, &State{}, found(), adopt(), begin(repair))
	repair.Step, repair.Former, repair.Left, repair.Outcome = Done, 1, 1, Failed
	failed := log(t, s, Entry{Cluster: cluster, Advance: &Advance{From: Intent, To: repair}})
	if got := failed.Clusters[cluster].Mark(3).Tries; got != 1 {
		t.Errorf("%d tries after one that failed", got)
	}
	again := repair
	again.ID, again.Step, again.Outcome = 2, Intent, Open
	s = log(t, failed, begin(again))
	again.Step, again.Outcome = Done, Completed
	s = log(t, s, Entry{Cluster: cluster, Advance: &Advance{From: Intent, To: again}})
	if got := s.Clusters[cluster].Mark(3); got != (Mark{}) {
		t.Errorf("%+v after a repair", got)
	}
}

func TestFormerStandbysAreForgottenWhenNobodyGoesByThem(t *testing.T) {
	publish := func(version, known uint64, ids ...topology.NodeID) Entry {
		return Entry{Cluster: cluster, Standbys: &Publish{Epoch: 7, Version: version, Known: known, Standbys: Standbys{Eligible: ids}}}
	}
	s := log(t, &State{}, found(), adopt(), publish(1, 1, 2), publish(2, 1, 2, 4))
	e := s.Clusters[cluster].Epoch
	if e.Version != 3 || len(e.Former) != 2 {
		t.Fatalf("%+v", e)
	}
	// Node 4 is new: whoever goes by version 1 or 2 does not look at it.
	if e.BrokenForAll([]topology.NodeID{4}) || !e.BrokenForAll([]topology.NodeID{2}) {
		t.Error("a member that does not know of node 4 is not reckoned with")
	}
	e = log(t, s, publish(3, 3, 4, 2)).Clusters[cluster].Epoch
	if e.Version != 3 || len(e.Former) != 0 || !e.BrokenForAll([]topology.NodeID{4}) {
		t.Errorf("%+v", e)
	}
}

func TestProofAndItsBreakingExcludeEachOther(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ids := rapid.SliceOfDistinct(rapid.IntRange(1, 6), func(n int) int { return n })
		s := Standbys{}
		for _, id := range ids.Draw(t, "eligible") {
			s.Eligible = append(s.Eligible, topology.NodeID(id))
		}
		for _, id := range ids.Draw(t, "synchronous") {
			s.Sync.Nodes = append(s.Sync.Nodes, topology.NodeID(id))
			s.Sync.Names = append(s.Sync.Names, "stb")
		}
		for range rapid.IntRange(0, 2).Draw(t, "names of nobody") {
			s.Sync.Names = append(s.Sync.Names, "elsewhere")
		}
		s.Sync.Count = rapid.IntRange(0, 4).Draw(t, "count")
		s.Sync.Any = rapid.Bool().Draw(t, "any")
		var streaming, cut []topology.NodeID
		for id := topology.NodeID(1); id <= 6; id++ {
			switch rapid.IntRange(0, 2).Draw(t, "node") {
			case 0:
				streaming = append(streaming, id)
			case 1:
				cut = append(cut, id)
			}
		}
		if s.Proves(streaming) && s.Broken(cut) {
			t.Fatalf("%+v is proved by %v and broken by %v", s, streaming, cut)
		}
	})
}

// anyEntry draws entries that often fit, and often nearly.
func anyEntry(t *rapid.T, s *State) Entry {
	small := rapid.IntRange(-1, 5)
	c := s.Clusters[cluster]
	if c == nil {
		c = &Cluster{}
	}
	node := func() topology.NodeID { return topology.NodeID(small.Draw(t, "node")) }
	near := func(n uint64) uint64 { return n + uint64(rapid.SampledFrom([]int{0, 1, 1, 1, 2, -1}).Draw(t, "near")) }
	e := Entry{Cluster: cluster}
	switch rapid.IntRange(0, 10).Draw(t, "entry") {
	case 0:
		return found()
	case 1:
		e.Adopt = &Adopt{Current: c.Epoch.Number, Epoch: Epoch{Number: topology.Epoch(near(uint64(c.LastEpoch))), Primary: node(), SystemID: 42}}
	case 2, 3:
		o := Operation{ID: OperationID(near(uint64(c.LastOperation))), Kind: rapid.SampledFrom([]Kind{Failover, Switch, Repair, Clone, Restart, "x"}).Draw(t, "kind"),
			From: c.Epoch.Number, To: topology.Epoch(near(uint64(c.LastEpoch))), Step: Intent, Node: node(), By: "m1"}
		e.Begin = &Begin{Operation: o}
	case 4:
		e.Froze = &Frozen{Froze: &Froze{By: "dba"}}
	case 5:
		e.Mark = &Marking{Node: node(), Mark: &Mark{Fault: "down", Tries: small.Draw(t, "tries")}}
	case 6:
		e.Standbys = &Publish{Epoch: c.Epoch.Number, Version: c.Epoch.Version, Known: near(c.Epoch.Version), Standbys: Standbys{Eligible: []topology.NodeID{node(), node()}}}
	case 7:
		key := rapid.SampledFrom([]string{"on_crash", "gray_after", "node.2.priority", ""})
		e.Amend = &Amend{Version: near(c.Policies().Version) - 1, By: "dba", Set: map[string]string{key.Draw(t, "set"): "1"}, Unset: []string{key.Draw(t, "unset")}}
	default:
		e.Advance = anyAdvance(t, c)
	}
	return e
}

func anyAdvance(t *rapid.T, c *Cluster) *Advance {
	var under []Operation
	if c.Operation != nil {
		under = append(under, *c.Operation)
	}
	for id := topology.NodeID(-1); id < 9; id++ {
		if c.Tasks[id] != nil {
			under = append(under, *c.Tasks[id])
		}
	}
	if len(under) == 0 {
		return &Advance{From: Intent, To: Operation{ID: c.LastOperation, Kind: Failover, Step: Freeze}}
	}
	o := rapid.SampledFrom(under).Draw(t, "which")
	a := &Advance{From: o.Step, To: o}
	a.To.Step = Step(rapid.IntRange(-1, 8).Draw(t, "step"))
	if a.To.Step == Done || rapid.IntRange(0, 9).Draw(t, "outcome") == 0 {
		a.To.Outcome = rapid.SampledFrom([]Outcome{Completed, Undone, Failed, Waits, "x"}).Draw(t, "which outcome")
	}
	if a.To.Step == Promote && o.Candidate == 0 {
		a.To.Candidate, a.To.Timeline = 2, c.LastTimeline+1
	}
	if a.To.Step == After && o.Kind.MakesEpoch() {
		a.Epoch = &Epoch{Number: o.To, Operation: o.ID, Primary: o.Candidate, SystemID: 42, History: topology.History{Timeline: max(o.Timeline, 1)}}
	}
	return a
}

func TestAnySequenceOfEntriesKeepsTheRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, other := &State{}, &State{}
		crossed := map[topology.Epoch]topology.NodeID{}
		for range rapid.IntRange(1, 120).Draw(t, "entries") {
			e := anyEntry(t, s)
			text, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			before, _ := json.Marshal(s)
			next, err := s.Apply(e)
			if now, _ := json.Marshal(s); string(now) != string(before) {
				t.Fatalf("%s changed the state that it was applied to", text)
			}
			if (err != nil) != (next == s) {
				t.Fatalf("%s: %v, and the state is the same: %t", text, err, next == s)
			}
			var read Entry
			if err := json.Unmarshal(text, &read); err != nil {
				t.Fatal(err)
			}
			other, _ = other.Apply(read)
			check(t, s, next, crossed)
			s = next
		}
		a, _ := json.Marshal(s)
		b, _ := json.Marshal(other)
		if string(a) != string(b) {
			t.Fatalf("two members disagree:\n%s\n%s", a, b)
		}
		var read State
		if err := json.Unmarshal(a, &read); err != nil {
			t.Fatal(err)
		}
		if c, _ := json.Marshal(&read); string(c) != string(a) {
			t.Fatalf("a snapshot of %s reads as %s", a, c)
		}
	})
}

func check(t *rapid.T, before, after *State, primaries map[topology.Epoch]topology.NodeID) {
	old, c := before.Clusters[cluster], after.Clusters[cluster]
	if c == nil {
		return
	}
	if old == nil {
		old = &Cluster{}
	}
	switch {
	case c.Epoch.Number < old.Epoch.Number, c.LastEpoch < old.LastEpoch, c.LastOperation < old.LastOperation, c.LastTimeline < old.LastTimeline:
		t.Fatalf("a number fell from %+v to %+v", old, c)
	case c.LastEpoch < c.Epoch.Number, c.Operation != nil && c.LastEpoch < c.Operation.To:
		t.Fatalf("the highest epoch is not the highest: %+v", c)
	case c.Policies().Version < old.Policies().Version || c.Policies().Version > old.Policies().Version+1:
		t.Fatalf("version %d of the policies follows %d", c.Policies().Version, old.Policies().Version)
	case len(c.Past) > maxPast:
		t.Fatalf("%d operations are remembered", len(c.Past))
	case c.Operation != nil && len(c.Tasks) > 0 && c.Operation.Step < After:
		t.Fatalf("tasks run beside a failover: %+v", c)
	}
	if n := c.Epoch.Number; n != 0 {
		if was, ok := primaries[n]; ok && was != c.Epoch.Primary {
			t.Fatalf("epoch %d has primaries %d and %d", n, was, c.Epoch.Primary)
		}
		primaries[n] = c.Epoch.Primary
	}
	for id, task := range c.Tasks {
		if task.Node != id || task.Kind.MakesEpoch() {
			t.Fatalf("task of node %d: %+v", id, task)
		}
	}
}

func TestStatesShareNothingThatAProposerCanChange(t *testing.T) {
	eligible := []topology.NodeID{2, 3}
	e := adopt()
	e.Adopt.Epoch.Eligible = eligible
	s := log(t, &State{}, found(), e)
	o := failover()
	o.Recruited = []topology.NodeID{2}
	b := begin(o)
	s = log(t, s, b)
	eligible[0], b.Begin.Operation.Recruited[0] = 9, 9
	if c := s.Clusters[cluster]; !slices.Equal(c.Epoch.Eligible, []topology.NodeID{2, 3}) || c.Operation.Recruited[0] != 2 {
		t.Errorf("%+v", c)
	}
}

func TestATasksRatchetLiesAboveAllStepsAndOlderTasks(t *testing.T) {
	older, newer := Operation{ID: 1, Kind: Repair}, Operation{ID: 2, Kind: Restart}
	last := Operation{ID: 9, Kind: Failover, Step: Done}
	if last.Ratchet() >= older.Ratchet() || older.Ratchet() >= newer.Ratchet() {
		t.Errorf("%d, %d, %d", last.Ratchet(), older.Ratchet(), newer.Ratchet())
	}
}

func FuzzEntry(f *testing.F) {
	for _, e := range []Entry{found(), adopt(), begin(failover()), amend(0, map[string]string{"on_crash": "1"}, "gray_after")} {
		text, err := json.Marshal(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var e Entry
		if json.Unmarshal(text, &e) != nil {
			return
		}
		for _, s := range []*State{{}, {Fleet: "f"}} {
			next, err := s.Apply(e)
			if (err == nil) == (next == s) {
				t.Fatalf("%s: %v", text, err)
			}
			if err != nil && !errors.Is(err, ErrStale) && !errors.Is(err, ErrMalformed) {
				t.Fatalf("%s: %v", text, err)
			}
			again, _ := json.Marshal(next)
			var read State
			if err := json.Unmarshal(again, &read); err != nil {
				t.Fatalf("the state after %s cannot be read: %v", text, err)
			}
			if second, _ := s.Apply(e); !reflect.DeepEqual(second, next) {
				t.Fatalf("%s: two answers", text)
			}
		}
	})
}

func TestTasksDoNotPushFailoversOutOfThePast(t *testing.T) {
	s := log(t, &State{}, found(), adopt(), begin(failover()))
	end := func(o Operation) {
		t.Helper()
		o.Step, o.Outcome = Done, Undone
		s = log(t, s, Entry{Cluster: cluster, Advance: &Advance{From: Intent, To: o}})
	}
	end(*s.Clusters[cluster].Operation)
	tasks := func(n int) {
		t.Helper()
		for range n {
			c := s.Clusters[cluster]
			s = log(t, s, begin(Operation{ID: c.LastOperation + 1, Kind: Repair, From: 7, To: c.LastEpoch, Step: Intent, Node: 3, By: "m1"}))
			end(*s.Clusters[cluster].Tasks[3])
		}
	}
	counted := func(failovers, tasks int) {
		t.Helper()
		past := s.Clusters[cluster].Past
		n := 0
		for _, o := range past {
			if o.Kind == Failover {
				n++
			}
		}
		if n != failovers || len(past)-n != tasks || !slices.IsSortedFunc(past, func(a, b Operation) int { return int(a.ID) - int(b.ID) }) {
			t.Fatalf("%d failovers and %d tasks are remembered, not %d and %d", n, len(past)-n, failovers, tasks)
		}
	}
	tasks(3 * maxPast)
	counted(1, maxPast-1)
	for range 2 * maxPast {
		c := s.Clusters[cluster]
		s = log(t, s, begin(Operation{ID: c.LastOperation + 1, Kind: Failover, From: 7, To: c.LastEpoch + 1, Step: Intent, By: "m1"}))
		end(*s.Clusters[cluster].Operation)
	}
	counted(maxPast/2, maxPast/2)
	tasks(maxPast)
	counted(maxPast/2, maxPast/2)
}
