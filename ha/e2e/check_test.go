package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// trace is all that is known of an event when it is over: what clients were told, what the servers
// were seen to be, and what the members have logged.
type trace struct {
	fleet  *Fleet
	run    *trial
	report Report
	event  time.Time
	byHand *Node // one that the scenario has promoted past the members; nil: none

	// More are further clients, with rows of their own in the same table. Those that come past the
	// members, by a virtual address, are told what the servers say, not what the members guarantee.
	more, past []*trial
	reports    []Report // of all of these, when they have ended
}

// all are the reports of all clients.
func (x *trace) all() []Report { return append([]Report{x.report}, x.reports...) }

// invariant is one promise, as far as it can be seen from outside.
type invariant struct {
	Name  string
	Check func(x *trace) error
}

// The promises that every scenario keeps, whatever the fault was.
var always = []invariant{onePrimaryAnswers, epochsRise, onlyLeadersAct, copiesRemain, answersAreTrue, ownWritesAreSeen, oneHostHoldsTheAddress}

// check asserts these invariants.
func (x *trace) check(t *testing.T, promises ...invariant) {
	t.Helper()
	for _, p := range promises {
		if err := p.Check(x); err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
	}
}

// span is an epoch, and when the first member knew of it.
type span struct {
	epoch uint64
	first time.Time
}

// beginsEpoch says that a member has learned of an epoch of the cluster that the clients use.
func (l line) beginsEpoch() bool { return l.Msg == "epoch begins" && l.Cluster == "main" }

// epochs are the logged beginnings of epochs, by the first member that knew.
func (x *trace) epochs() []span {
	var spans []span
	for _, l := range x.fleet.log(time.Time{}) {
		if !l.beginsEpoch() {
			continue
		}
		if i := slices.IndexFunc(spans, func(s span) bool { return s.epoch == l.Epoch }); i < 0 {
			spans = append(spans, span{epoch: l.Epoch, first: l.Time})
		}
	}
	return spans
}

// The servers say with each row who they are: once another one has acknowledged a row, the former does
// so no more, unless a later epoch has made it the primary again.
var onePrimaryAnswers = invariant{"at most one primary acknowledges", func(x *trace) error {
	writes, _ := x.run.ledger.entries()
	for _, r := range x.more {
		more, _ := r.ledger.entries()
		writes = append(writes, more...)
	}
	slices.SortStableFunc(writes, func(a, b attempt) int { return a.Done.Compare(b.Done) })
	var turns []string
	var rows []int64
	for _, a := range writes {
		if a.Err == nil && a.Server != "" && (len(turns) == 0 || turns[len(turns)-1] != a.Server) {
			turns, rows = append(turns, a.Server), append(rows, a.ID)
		}
	}
	begun := 0
	for _, s := range x.epochs() {
		if s.first.After(x.event) {
			begun++
		}
	}
	if len(turns) > begun+1 {
		return fmt.Errorf("%v acknowledged one after the other, from the rows %v on, in %d new epochs", turns, rows, begun)
	}
	return nil
}}

// Every epoch has one primary in all logs, and a later one begins later; every promotion that was seen
// made a timeline of its own.
var epochsRise = invariant{"epochs rise, one primary and one new timeline each", func(x *trace) error {
	primaries := map[uint64]int{}
	for _, l := range x.fleet.log(time.Time{}) {
		if !l.beginsEpoch() {
			continue
		}
		if before, known := primaries[l.Epoch]; known && before != l.Node {
			return fmt.Errorf("epoch %d has the primaries %d and %d", l.Epoch, before, l.Node)
		}
		primaries[l.Epoch] = l.Node
	}
	spans := x.epochs()
	if !slices.IsSortedFunc(spans, func(a, b span) int { return int(a.epoch) - int(b.epoch) }) {
		return fmt.Errorf("epochs began in this order: %v", spans)
	}
	owners := map[string]*Node{}
	for _, s := range x.run.watch.seen(time.Time{}) {
		if !s.Writable || s.Node == x.byHand {
			continue
		}
		if before := owners[s.Timeline]; before != nil && before != s.Node {
			return fmt.Errorf("both %s and %s wrote timeline %s", before.Name, s.Node.Name, s.Timeline)
		}
		owners[s.Timeline] = s.Node
	}
	return nil
}}

// What a leader does to servers it begins as long as no later leader is known, and a host refuses what
// comes too late.
var onlyLeadersAct = invariant{"nobody acts on a server after another leader was elected", func(x *trace) error {
	destroys := []string{"recruit", "stop", "promote", "revive", "follow", "rewind", "rebuild"}
	log := x.fleet.log(time.Time{})
	for _, act := range log {
		if act.Msg != "action done" || !slices.Contains(destroys, act.Verb) {
			continue
		}
		lasted, err := time.ParseDuration(act.Lasted)
		if err != nil {
			return fmt.Errorf("%w in %s", err, act.Raw)
		}
		began, own := act.Time.Add(-lasted), uint64(0)
		for _, l := range log {
			if l.Msg == "leads" && l.Member == act.Member && l.Time.Before(began) {
				own = l.Term
			}
		}
		for _, l := range log {
			if l.Msg == "leads" && l.Term > own && l.Time.Before(began) {
				return fmt.Errorf("%s led since %s, in term %d, when %s of term %d began: %s", l.Member.Name, l.Time, l.Term, act.Member.Name, own, act.Raw)
			}
		}
	}
	return nil
}}

// While a directory was made anew, somebody else was a primary that works, and so holds all that is agreed
// on. It is not asked of the time before the clients came.
var copiesRemain = invariant{"no directory is replaced unless another node works as primary", func(x *trace) error {
	seen := x.run.watch.seen(time.Time{})
	for _, act := range x.fleet.log(time.Time{}) {
		if act.Msg != "action done" || act.Verb != "rebuild" || len(seen) == 0 || act.Time.Before(seen[0].At) {
			continue
		}
		works := map[int]bool{}
		for _, s := range seen {
			if s.At.Before(act.Time) {
				works[s.Node.ID()] = s.Writable
			}
		}
		delete(works, act.Node)
		if !slices.Contains(slices.Collect(maps.Values(works)), true) {
			return fmt.Errorf("nobody else was writable at: %s", act.Raw)
		}
	}
	return nil
}}

// No row that the client was told is not there is there, and none is there twice.
var answersAreTrue = invariant{"what is reported as failed was not done, and nothing is done twice", func(x *trace) error {
	for _, r := range x.all() {
		if len(r.Ghosts)+len(r.Twice) > 0 {
			return fmt.Errorf("rows %v were refused and are there, rows %v are there more than once; clients were told %v", r.Ghosts, r.Twice, r.Codes)
		}
	}
	return nil
}}

var ownWritesAreSeen = invariant{"clients read their own writes", func(x *trace) error {
	var missed error
	for _, r := range x.all() {
		missed = errors.Join(missed, r.Missed)
	}
	return missed
}}

// Where replication is synchronous, or the primary left in good order.
var nothingIsLost = invariant{"no acknowledged row is lost", func(x *trace) error {
	for _, r := range x.all() {
		if len(r.Lost) > 0 {
			return fmt.Errorf("%d of %d: %v", len(r.Lost), r.Acknowledged, r.Lost)
		}
	}
	return nil
}}

// Where the servers were fine, whatever else was not.
var epochUnchanged = invariant{"a primary that lives keeps its epoch", func(x *trace) error {
	for _, s := range x.epochs() {
		if s.first.After(x.event) {
			return fmt.Errorf("epoch %d began %s after the event", s.epoch, s.first.Sub(x.event))
		}
	}
	return nil
}}

// Where one failover had to suffice.
var oneEpochMore = invariant{"one event makes one epoch", func(x *trace) error {
	var begun []uint64
	for _, s := range x.epochs() {
		if s.first.After(x.event) {
			begun = append(begun, s.epoch)
		}
	}
	if len(begun) != 1 {
		return fmt.Errorf("the epochs %v began", begun)
	}
	return nil
}}

// Where a failover is allowed, and a second one is not.
var atMostOneEpochMore = invariant{"one event makes at most one epoch", func(x *trace) error {
	if epochUnchanged.Check(x) == nil {
		return nil
	}
	return oneEpochMore.Check(x)
}}

// The promoted node had received most: whoever else was cut off could follow as it was. Only the former
// primary may have to give something back.
var nobodyWasAhead = invariant{"nobody but the former primary had log that the promoted node lacks", func(x *trace) error {
	former := x.primaryBefore()
	for _, l := range x.fleet.log(x.event) {
		if (l.Verb == "rewind" || l.Verb == "rebuild") && l.Node != former {
			return fmt.Errorf("node %d needed a %s: %s", l.Node, l.Verb, l.Raw)
		}
	}
	return nil
}}

// primaryBefore is the node of the last epoch that began before the event.
func (x *trace) primaryBefore() int {
	node := 0
	for _, l := range x.fleet.log(time.Time{}) {
		if l.beginsEpoch() && l.Time.Before(x.event) {
			node = l.Node
		}
	}
	return node
}

// Clients of the proxy that were idle stay connected, unless their own member is what was lost.
var idleClientsStay = invariant{"idle clients stay connected", func(x *trace) error {
	if x.report.IdleLost > 0 {
		return fmt.Errorf("%d of %d were cut", x.report.IdleLost, x.run.load.Idle)
	}
	return nil
}}

// arping hears every host that holds the address; for IPv6 the hosts are asked.
var oneHostHoldsTheAddress = invariant{"at most one host answers a virtual address", func(x *trace) error {
	for _, key := range []string{"write_vip", "read_vip"} {
		vip, _, _ := strings.Cut(strings.Trim(x.fleet.layout.Cluster[key], `"`), "/")
		if vip == "" {
			continue
		}
		if strings.Contains(vip, ":") {
			if holders := x.fleet.lab.holders(vip); len(holders) != 1 {
				return fmt.Errorf("%s of %s is on %v", key, vip, holders)
			}
			continue
		}
		ctx, cancel := context.WithTimeout(x.fleet.lab.t.Context(), patience)
		said, err := x.run.client.Exec(ctx, "arping", "-I", "eth0", "-c", "2", vip)
		cancel()
		hosts := map[string]bool{}
		for word := range strings.FieldsSeq(said) {
			if strings.HasPrefix(word, "[") {
				hosts[word] = true
			}
		}
		if len(hosts) != 1 {
			return fmt.Errorf("%s of %s is answered by %d hosts: %s %w", key, vip, len(hosts), said, err)
		}
	}
	return nil
}}

// Every operation that was begun is done, undone, or waits for an operator. It is asked of a member,
// and given time: a repair is not a matter of an instant.
var operationsEnd = invariant{"every operation ends", func(x *trace) error {
	ctx, cancel := context.WithTimeout(x.fleet.lab.t.Context(), 2*time.Minute)
	defer cancel()
	for {
		open, err := x.fleet.openTasks(ctx)
		if err == nil && len(open) == 0 {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("open after two minutes: %v %w", open, err)
		}
		pause(ctx, 200*time.Millisecond)
	}
}}

// openTasks are the operations that go on, as a member that runs tells it.
func (f *Fleet) openTasks(ctx context.Context) ([]string, error) {
	for _, m := range f.members {
		if m.pid.Load() == 0 {
			continue
		}
		bounded, cancel := context.WithTimeout(ctx, 5*time.Second)
		status, body, err := m.get(bounded, "/api/v1/clusters/main/tasks")
		cancel()
		if err != nil || status != 200 {
			continue
		}
		var tasks []struct {
			ID      uint64 `json:"id"`
			Kind    string `json:"kind"`
			Step    string `json:"step"`
			Outcome string `json:"outcome"` // "waits" is for an operator, and an end
		}
		if err := json.Unmarshal(body, &tasks); err != nil {
			return nil, fmt.Errorf("%w: %s", err, body)
		}
		var open []string
		for _, task := range tasks {
			if task.Step != "done" && task.Outcome == "" {
				open = append(open, fmt.Sprintf("%s %d at %s", task.Kind, task.ID, task.Step))
			}
		}
		return open, nil
	}
	return nil, fmt.Errorf("no member tells its tasks")
}
