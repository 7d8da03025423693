package fleet

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cstproxy/cstproxy/ha"
	"github.com/cstproxy/cstproxy/ha/consensus"
	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/peer"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

func lossy(node topology.NodeID) Command {
	return Command{Cluster: "c", Verb: Failover, Order: decide.Order{Node: node, By: "dba", Why: "a drill", Accept: record.AcceptLoss}}
}

func TestAnOrderToAnyMemberReachesTheLeader(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	w.rules(1, w.members...)
	follower := w.others(w.leader(w.members...))[0].fleet
	froze := Command{Cluster: "c", Verb: Froze, Order: decide.Order{By: "dba", Why: "maintenance"}}

	if _, err := follower.Command(t.Context(), Command{Cluster: "d", Verb: Froze}); !errors.Is(err, ha.ErrUnknown) {
		t.Errorf("of another cluster it says %v", err)
	}
	sw := Command{Cluster: "c", Verb: Switch, Order: decide.Order{Node: 1, By: "dba"}}
	if _, err := follower.Command(t.Context(), sw); !errors.Is(err, ha.ErrRefused) || !strings.HasPrefix(err.Error(), "node 1 is the primary already") {
		t.Errorf("of a switch to the primary it says %v", err)
	}
	for _, verb := range []Verb{Switch, Failover, Repair, Clone, Restart} {
		order := Command{Cluster: "c", Verb: verb, Order: decide.Order{Node: 9, By: "dba"}}
		if _, err := follower.Command(t.Context(), order); !errors.Is(err, ha.ErrUnknown) || err.Error() != "cluster c has no node 9" {
			t.Errorf("of a %s of a node that there is not it says %v", verb, err)
		}
	}
	if _, err := follower.Command(t.Context(), Command{Cluster: "c", Verb: "explode", Order: decide.Order{By: "dba"}}); !errors.Is(err, ha.ErrRefused) {
		t.Errorf("of an unknown verb it says %v", err)
	}
	if id, err := follower.Command(t.Context(), froze); err != nil || id != 0 {
		t.Fatalf("froze: %d, %v", id, err)
	}
	if c, err := follower.Record("c"); err != nil || c.Froze == nil {
		t.Errorf("the member that took the order does not show it: %v", err)
	}
	for _, n := range w.members {
		w.await(func() error {
			if c, err := n.fleet.Record("c"); err != nil || c.Froze == nil || c.Froze.Why != "maintenance" {
				return fmt.Errorf("%s: %v", n.name, err)
			}
			return nil
		})
	}
	froze.Verb = Unfroze
	_, err := follower.Command(t.Context(), froze)
	must(t, err)

	op, err := follower.Foresee(t.Context(), lossy(2))
	if err != nil || op.ID != 1 || op.Kind != record.Failover || op.Node != 2 {
		t.Fatalf("foreseen: %+v, %v", op, err)
	}
	if c, _ := follower.Record("c"); c.LastOperation != 0 {
		t.Error("what was only foreseen has begun")
	}
	id, err := follower.Command(t.Context(), lossy(2))
	if err != nil || id != 1 {
		t.Fatalf("failover: %d, %v", id, err)
	}
	w.rules(2, w.members...)
	w.sound()
}

func TestAnOrderBeginsOnceAlthoughItsAnswerWasLost(t *testing.T) {
	w := newWorld(t, "a")
	n := w.members[0]
	w.await(func() error {
		if n.ruled().Epoch.Number == 0 {
			return errors.New("no epoch")
		}
		return nil
	})
	q := request{Command: lossy(0)}
	first, err := n.fleet.command(t.Context(), q)
	must(t, err)
	again, err := n.fleet.command(t.Context(), q)
	if err != nil || again.ID != first.ID {
		t.Errorf("the first attempt began %d, the second %d, %v", first.ID, again.ID, err)
	}
	n.ends(first.ID)
	again, err = n.fleet.command(t.Context(), q)
	if err != nil || again.ID != first.ID || n.failovers() != 1 {
		t.Errorf("an attempt after its end began %d, %v; there are %d", again.ID, err, n.failovers())
	}
}

// failovers counts those that the record knows.
func (n *member) failovers() int {
	c, err := n.fleet.Record("c")
	must(n.world.t, err)
	count := 0
	for id := record.OperationID(1); id <= c.LastOperation; id++ {
		if op := operationOf(c, id); op != nil && op.Kind == record.Failover {
			count++
		}
	}
	return count
}

// ends waits until an operation has ended.
func (n *member) ends(id record.OperationID) record.Operation {
	n.world.t.Helper()
	var ended record.Operation
	n.world.await(func() error {
		c, err := n.fleet.Record("c")
		must(n.world.t, err)
		op := operationOf(c, id)
		if op == nil || op.Step != record.Done {
			return fmt.Errorf("operation %d has not ended", id)
		}
		ended = *op
		return nil
	})
	return ended
}

func TestAnOrderWaitsForTheNextLeader(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	w.rules(1, w.members...)
	leader := w.leader(w.members...)
	rest := w.others(leader)
	w.cuts.set(leader.at, true)
	id, err := rest[0].fleet.Command(t.Context(), lossy(2))
	if err != nil || id != 1 {
		t.Fatalf("failover: %d, %v", id, err)
	}
	w.rules(2, rest...)
	if op := rest[0].ends(1); op.Outcome != record.Completed {
		t.Errorf("it ended so: %+v", op)
	}
	if began := rest[0].failovers(); began != 1 {
		t.Errorf("%d failovers have begun", began)
	}
	w.sound()
}

func TestWithoutALeaderAnOrderSaysWhatToDo(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	w.rules(1, w.members...)
	lost := w.others(w.leader(w.members...))[0]
	for _, n := range w.members {
		w.cuts.set(n.at, true)
	}
	w.await(func() error {
		if l := lost.log.Leader().Name; l != "" {
			return fmt.Errorf("it takes %s for the leader", l)
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := lost.fleet.Command(ctx, lossy(2))
	if !errors.Is(err, ErrNoLeader) || !strings.Contains(err.Error(), "a majority of the voters must be up") {
		t.Errorf("it says %v", err)
	}
	if list, err := lost.fleet.Members(ctx); !errors.Is(err, ErrNoLeader) || len(list) != 3 {
		t.Errorf("members: %v, %v", list, err)
	}
}

func TestTheLogOfAnOperationIsReadFromAnyMember(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	w.rules(1, w.members...)
	leader := w.leader(w.members...)
	reader := w.others(leader)[0].fleet
	id, err := reader.Command(t.Context(), lossy(2))
	must(t, err)
	leader.fleet.Progress("c", decide.Action{Verb: decide.Rebuild, Node: 3, Operation: id}, "42 % of 1 GB")
	place, steps, kinds := Place{Cluster: "c", ID: id}, "", map[LineKind]int{}
	for {
		got, err := reader.TaskLog(t.Context(), place)
		must(t, err)
		for i, l := range got.Lines {
			if l.Number <= place.From || i > 0 && l.Number <= got.Lines[i-1].Number {
				t.Errorf("line %d comes after %d", l.Number, place.From)
			}
			kinds[l.Kind]++
			if l.Kind == LineStep || l.Kind == LineOutcome {
				steps += l.Step + " "
			}
		}
		place.Log, place.From = got.Log, got.Next
		if got.Operation.Step == record.Done && len(got.Lines) == 0 {
			break
		}
	}
	if want := "intent freeze fence promote after done "; steps != want {
		t.Errorf("the steps are %q, want %q", steps, want)
	}
	if kinds[LineBegin] == 0 || kinds[LineBegin] != kinds[LineEnd] || kinds[LineWhy] == 0 || kinds[LineProgress] != 1 {
		t.Errorf("lines: %v", kinds)
	}

	// Another leader knows what the record says.
	w.cuts.set(leader.at, true)
	next := w.leader(w.others(leader)...)
	got, err := next.fleet.TaskLog(t.Context(), place)
	if err != nil || len(got.Lines) != 1 || !strings.Contains(got.Lines[0].Text, "a drill, by dba: done") {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := next.fleet.TaskLog(t.Context(), Place{Cluster: "c", ID: 99}); !errors.Is(err, ha.ErrUnknown) {
		t.Errorf("of a task that never was it says %v", err)
	}
}

func TestAReaderFollowsAnOperationOverAChangeOfTheLeader(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	w.rules(1, w.members...)
	leader := w.leader(w.members...)
	rest := w.others(leader)
	held := make(chan struct{})
	w.mu.Lock()
	w.recruits = held
	w.mu.Unlock()
	id, err := rest[0].fleet.Command(t.Context(), lossy(2))
	must(t, err)
	place, logs, said := Place{Cluster: "c", ID: id}, map[string]bool{}, ""
	read := func() Lines {
		t.Helper()
		var got Lines
		w.await(func() (err error) { got, err = rest[0].fleet.TaskLog(t.Context(), place); return err })
		place.Log, place.From = got.Log, got.Next
		logs[got.Log] = true
		for _, l := range got.Lines {
			said += string(l.Kind) + " " + l.Step + "\n"
		}
		return got
	}
	for !strings.Contains(said, "begin fence") {
		read()
	}
	w.cuts.set(leader.at, true)
	w.leader(rest...)
	close(held)
	for {
		if got := read(); got.Operation.Step == record.Done && len(got.Lines) == 0 {
			break
		}
	}
	if len(logs) != 2 || !strings.Contains(said, "leader fence\nstep fence\n") || !strings.HasSuffix(said, "outcome done\n") {
		t.Errorf("from %d logs came\n%s", len(logs), said)
	}
	if rest[0].failovers() != 1 {
		t.Errorf("%d failovers have begun", rest[0].failovers())
	}
	w.sound()
}

func TestANewLeaderGoesOnWithTheLogOfAnOperation(t *testing.T) {
	f := &Fleet{cfg: Config{Name: "m2", Terms: terms}, log: testLog(t), writers: map[string]*writer{"c": {logs: map[record.OperationID]*taskLog{}}}}
	op := record.Operation{ID: 7, Kind: record.Failover, To: 2, Step: record.Promote, Candidate: 3, Why: "it is gone", By: "m1"}
	s := f.newSeat(&cluster{Cluster: Cluster{Name: "c"}}, &record.Cluster{Operation: &op})
	f.journal(s, &record.Cluster{Operation: &op})
	after := op
	after.Step = record.After
	f.journal(s, &record.Cluster{Operation: &after})
	after.Step, after.Outcome, after.Note = record.Done, record.Failed, "no space"
	f.journal(s, &record.Cluster{Past: []record.Operation{after}})
	var got []string
	for _, l := range s.log.logs[7].lines {
		got = append(got, fmt.Sprintf("%d %s: %s", l.Number, l.Kind, l.Text))
	}
	want := []string{"1 leader: m2 leads and goes on: failover 7 (it is gone) is at step promote", "2 step: node 3 becomes the primary of epoch 2",
		"3 step: epoch 2 has begun; the others follow node 3", "4 outcome: failed: no space"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestALogKeepsItsStepsWhenProgressFloodsIt(t *testing.T) {
	l := &taskLog{}
	l.add(Line{Kind: LineStep, Text: "first"})
	for range 10 * maxTaskLines {
		l.add(Line{Kind: LineProgress, Text: strings.Repeat("ä", maxLine)})
	}
	if len(l.lines) > maxTaskLines || l.lines[0].Text != "first" || l.lines[len(l.lines)-1].Number != l.last || len(l.lines[1].Text) > maxLine {
		t.Errorf("%d lines, from %q to number %d of %d", len(l.lines), l.lines[0].Text, l.lines[len(l.lines)-1].Number, l.last)
	}
}

func TestEvidenceMembersAndVotersComeFromTheLeader(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	w.rules(1, w.members...)
	leader := w.leader(w.members...)
	rest := w.others(leader)
	asked := rest[0].fleet
	e, err := asked.Evidence(t.Context(), "c")
	if err != nil || e.Leader != leader.name || len(e.Decisions) == 0 || len(e.Sights) == 0 || len(e.Nodes) != 3 {
		t.Errorf("evidence: %+v, %v", e, err)
	}
	list, err := asked.Members(t.Context())
	must(t, err)
	for _, m := range list {
		if m.Role != consensus.Voter || m.Heard == nil || m.Leads != (m.Name == leader.name) {
			t.Errorf("member %+v", m)
		}
	}
	status := asked.Status()
	if status.Leader != leader.name || status.Fleet == "" || len(status.Clusters) != 1 || status.Clusters[0].Lease == nil || *status.Clusters[0].Lease <= 0 {
		t.Errorf("status %+v", status)
	}
	w.proves(true)
	gone := Change{Verb: "remove", Member: peer.Member{Name: rest[1].name}}
	must(t, asked.Voter(t.Context(), gone))
	w.await(func() error {
		if list, err := asked.Members(t.Context()); err != nil || len(list) != 2 {
			return fmt.Errorf("%d members, %w", len(list), err)
		}
		return nil
	})
	if err := asked.Voter(t.Context(), gone); !errors.Is(err, ha.ErrUnknown) {
		t.Errorf("a member that is not there was removed: %v", err)
	}
	// Its servers would let it prove for ever that nobody else was promoted.
	w.await(func() error {
		status := rest[1].fleet.Status()
		if lease := status.Clusters[0].Lease; lease == nil || *lease > 0 {
			return fmt.Errorf("the member that was taken out has a lease: %+v", status)
		}
		return nil
	})
	rest[1].fleet.prove(t.Context())
	if rest[1].ruled().Lease.Held(int64(Now())) {
		t.Error("the member that was taken out has proven a lease")
	}
}

func TestALeaderWaitsForTheLeaseOfAMemberThatWasTakenOutBeforeItsElection(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	w.rules(1, w.members...)
	n := w.others(w.leader(w.members...))[0]
	n.fleet.mu.Lock()
	n.fleet.met["d"] = Now() // it was in the log a moment ago
	n.fleet.mu.Unlock()
	s := n.fleet.newSeat(n.fleet.clusters[0], &record.Cluster{})
	counted := func() bool {
		for _, m := range n.fleet.picture(s, &record.Cluster{}).Members {
			if m.Name == "d" && !m.Voter && m.LeaseUntil > Now() {
				return true
			}
		}
		return false
	}
	if !counted() {
		t.Error("the picture of a new leader does not hold the member that was taken out")
	}
	w.outlast()
	if counted() {
		t.Error("it is waited for although its lease has lapsed")
	}
}

func TestAFleetTakesServersOfAnotherOneOnlyWhenItIsTold(t *testing.T) {
	w := newWorldAfter(t, []Stamp{{Fleet: "old", Cluster: "c", Epoch: 41}, {Fleet: "old", Cluster: "other", Epoch: 99}}, "a")
	n := w.members[0]
	w.await(func() error {
		if s := n.fleet.Status(); !strings.Contains(s.Waiting, "another fleet (old)") {
			return errors.New(s.Waiting)
		}
		return nil
	})
	if n.ruled().Epoch.Number != 0 {
		t.Error("it has begun nevertheless")
	}
	got, err := n.fleet.Adopt(t.Context(), Adoption{By: "dba"})
	if err != nil || got.Floors["c"] != 41 || got.Former[0] != "old" {
		t.Fatalf("adopted: %+v, %v", got, err)
	}
	w.await(func() error {
		if e := n.ruled().Epoch.Number; e != 42 {
			return fmt.Errorf("epoch %d", e)
		}
		return nil
	})
	if _, err := n.fleet.Adopt(t.Context(), Adoption{By: "dba"}); !errors.Is(err, ha.ErrRefused) || !strings.Contains(err.Error(), "c is at epoch 42") {
		t.Errorf("adopting twice: %v", err)
	}
}
