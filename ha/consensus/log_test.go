package consensus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/ha/record"
)

func TestAFleetIsBornAgreesAndGoesOnWithoutItsLeader(t *testing.T) {
	f := newFleet(t, "m1", "m2", "m3")
	f.start()
	f.propose(founding("f"), f.members...)
	f.propose(froze("one"), f.members...)
	f.holds("one", f.members...)
	leader := f.do(func(l *Log) error {
		if err := l.Propose(within(t), founding("g")); !errors.Is(err, record.ErrStale) {
			return fmt.Errorf("founded twice: %w", err)
		}
		if err := l.Propose(within(t), record.Entry{}); !errors.Is(err, record.ErrMalformed) {
			return fmt.Errorf("an empty entry: %w", err)
		}
		return l.VerifyQuorum(within(t))
	}, f.members...)
	rest := f.others(leader)
	term := leader.log.Term()
	leader.down()
	next := f.propose(froze("two"), rest...)
	if next.log.Term() <= term {
		t.Errorf("term %d after %d", next.log.Term(), term)
	}
	f.holds("two", rest...)
	leader.start()
	f.leader(f.members...)
	f.holds("two", f.members...)
	if got := len(leader.log.Members()); got != 3 {
		t.Errorf("%d members", got)
	}
}

// Followers learn what is committed from the entry after it, without waiting for raft's own time.
func TestAnEntryIsFollowedByOneThatTellsOfItsCommitment(t *testing.T) {
	f := newFleet(t, "m1", "m2", "m3")
	f.start()
	f.propose(founding("f"), f.members...)
	up := f.propose(froze("one"), f.members...).log.up.Load()
	f.await(func() error {
		var last raft.Log
		if err := up.store.GetLog(up.node.LastIndex(), &last); err != nil || last.Type != raft.LogBarrier {
			return fmt.Errorf("the last entry is %s: %w", last.Type, err)
		}
		return nil
	})
}

func TestAFollowerSaysWhoLeads(t *testing.T) {
	f := newFleet(t, "m1", "m2", "m3")
	f.start()
	f.await(func() error {
		leader := f.leader(f.members...)
		follower := f.others(leader)[0]
		var not *NotLeaderError
		err := follower.log.Propose(within(t), froze("x"))
		if !errors.As(err, &not) || !errors.Is(err, ErrNotLeader) {
			return fmt.Errorf("a follower proposes: %w", err)
		}
		if not.Leader != leader.member() || !strings.Contains(err.Error(), leader.name) {
			return fmt.Errorf("%s leads, and %w", leader.name, err)
		}
		if err := follower.log.VerifyQuorum(within(t)); !errors.Is(err, ErrNotLeader) {
			return fmt.Errorf("a follower is confirmed: %w", err)
		}
		return nil
	})
}

func TestWhatWasCommittedIsThereAfterAllRestart(t *testing.T) {
	f := newFleet(t, "m1", "m2", "m3")
	f.start()
	f.propose(founding("f"), f.members...)
	f.propose(froze("kept"), f.members...)
	for _, n := range f.members {
		n.down()
	}
	f.start()
	f.leader(f.members...)
	f.holds("kept", f.members...)
}

func TestALeaderThatIsCutOffStopsAndItsProposalDoesNotCount(t *testing.T) {
	f := newFleet(t, "m1", "m2", "m3")
	f.start()
	old := f.propose(founding("f"), f.members...)
	rest := f.others(old)
	f.isolate(old)
	ctx := within(t)
	if err := old.log.Propose(ctx, froze("lost")); !errors.Is(err, ErrUnknownOutcome) && !errors.Is(err, ErrNotLeader) {
		t.Errorf("a leader without a majority proposes: %v", err)
	}
	if err := old.log.VerifyQuorum(ctx); err == nil {
		t.Error("a leader without a majority is confirmed")
	}
	f.propose(froze("kept"), rest...)
	if err := old.log.Propose(ctx, froze("lost")); !errors.Is(err, ErrNotLeader) {
		t.Errorf("a deposed leader proposes: %v", err)
	}
	f.heal()
	f.leader(f.members...)
	f.holds("kept", f.members...)
}

func TestLeadEndsWithTheLeadershipAndBeginsAgain(t *testing.T) {
	f := newFleet(t, "m1", "m2", "m3")
	f.start()
	type event struct {
		name string
		term uint64
		ends bool
	}
	events := make(chan event, 100)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, len(f.members))
	for _, n := range f.members {
		log, name := n.log, n.name
		go func() {
			done <- log.Lead(ctx, func(ctx context.Context, term uint64) error {
				events <- event{name, term, false}
				<-ctx.Done()
				events <- event{name, term, true}
				return ctx.Err()
			})
		}()
	}
	first := <-events
	old := f.leader(f.members...)
	f.isolate(old)
	f.leader(f.others(old)...)
	reigns := map[uint64][]event{first.term: {first}}
	open, newest := first.name != "", first.term
	for open || newest == first.term { // until the first has ended and another has begun
		e := <-events
		reigns[e.term] = append(reigns[e.term], e)
		newest = max(newest, e.term)
		open = len(reigns[first.term]) < 2
	}
	for term, list := range reigns {
		for i, e := range list {
			if i > 1 || e.ends != (i == 1) || e.name != list[0].name {
				t.Errorf("term %d: %+v", term, list)
			}
		}
	}
	cancel()
	for range f.members {
		must(t, <-done)
	}
}

func TestARuleThatFailsEndsLead(t *testing.T) {
	l := alone(t, DefaultConfig("m1"))
	broken := errors.New("broken")
	runs := 0
	err := l.Lead(within(t), func(context.Context, uint64) error { runs++; return broken })
	if !errors.Is(err, broken) || runs != 1 {
		t.Errorf("%d runs, %v", runs, err)
	}
}

// alone runs a member without a link until the test ends.
func alone(t *testing.T, cfg Config) *Log {
	t.Helper()
	l, _ := run(t, cfg)
	return l
}

func run(t *testing.T, cfg Config) (l *Log, stop func() error) {
	t.Helper()
	l, err := New(cfg, nil, zap.NewNop())
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	var result error
	ended := false
	stop = func() error {
		cancel()
		if !ended {
			result, ended = <-done, true
		}
		return result
	}
	t.Cleanup(func() { stop() })
	return l, stop
}

func awaitLeader(t *testing.T, l *Log) {
	t.Helper()
	ctx := within(t)
	for {
		changed := l.Changed()
		if l.Leader().Name != "" && l.Barrier(ctx) == nil {
			return
		}
		select {
		case <-changed:
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal("no leader")
		}
	}
}

func TestAMemberAloneAgreesWithItself(t *testing.T) {
	for _, dir := range []string{"", t.TempDir()} {
		cfg := DefaultConfig("m1")
		cfg.Dir = dir
		l, stop := run(t, cfg)
		if err := l.Propose(within(t), founding("f")); !errors.Is(err, ErrNotLeader) && err != nil {
			t.Error(err)
		}
		awaitLeader(t, l)
		if err := l.Propose(within(t), founding("f")); err != nil && !errors.Is(err, record.ErrStale) {
			t.Fatal(err)
		}
		must(t, l.Propose(within(t), froze("here")))
		must(t, l.VerifyQuorum(within(t)))
		if members := l.Members(); len(members) != 1 || members[0].Name != "m1" || members[0].Role != Voter {
			t.Errorf("%+v", members)
		}
		must(t, stop())
		if err := l.Propose(within(t), froze("late")); !errors.Is(err, ErrNotLeader) {
			t.Errorf("after the end: %v", err)
		}
		again, stop := run(t, cfg)
		awaitLeader(t, again)
		if got := frozenBy(again); (got == "here") != (dir != "") {
			t.Errorf("in %q: %q after a restart", dir, got)
		}
		must(t, stop())
	}
}

func TestASnapshotReplacesTheLogAndBringsABehindMemberUp(t *testing.T) {
	f := newFleet(t, "m1", "m2", "m3")
	for _, n := range f.members {
		n.cfg.SnapshotEvery, n.cfg.Trailing = 10, 2
	}
	f.start()
	behind := f.others(f.propose(founding("f"), f.members...))[0]
	behind.down()
	rest := f.others(behind)
	for i := range 30 {
		f.propose(froze(fmt.Sprint(i)), rest...)
	}
	for _, n := range rest {
		f.holds("29", n)
		must(t, n.log.up.Load().node.Snapshot().Error())
		if first, err := n.log.up.Load().store.FirstIndex(); err != nil || first < 20 {
			t.Errorf("%s keeps the log from %d, %v", n.name, first, err)
		}
	}
	behind.start()
	f.holds("29", behind)
	for _, n := range f.members {
		n.down()
	}
	f.start()
	f.leader(f.members...)
	f.holds("29", f.members...)
}

func TestWhatANewerVersionWroteIsNotSkipped(t *testing.T) {
	cfg := DefaultConfig("m1")
	cfg.Dir = t.TempDir()
	l, stop := run(t, cfg)
	awaitLeader(t, l)
	must(t, l.Propose(within(t), founding("f")))
	err := l.up.Load().node.Apply([]byte(`{"cluster":"c","teleport":{}}`), time.Second).Error()
	must(t, err)
	if err := stop(); !errors.Is(err, ErrNewer) {
		t.Errorf("it went on: %v", err)
	}
	again, err := New(cfg, nil, zap.NewNop())
	must(t, err)
	if err := again.Run(within(t)); !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), "entry ") {
		t.Errorf("after a restart: %v", err)
	}
}

func TestASnapshotOfANewerVersionIsNotTaken(t *testing.T) {
	for name, content := range map[string]string{
		"format": `{"format":2,"index":1,"state":{}}`, "field": `{"format":1,"index":1,"state":{"warp":1}}`,
		"nothing": `{"format":1}`, "more": `{"format":1,"index":1,"state":{}} {}`, "garbage": `x`,
	} {
		cfg := DefaultConfig("m1")
		cfg.Dir = t.TempDir()
		s, err := openStore(cfg.Dir, "m1", nil, zap.NewNop())
		must(t, err)
		k, err := s.Create(1, 5, 1, raft.Configuration{Servers: []raft.Server{{ID: s.id, Address: "m1"}}}, 1, nil)
		must(t, err)
		_, err = k.Write([]byte(content))
		must(t, errors.Join(err, k.Close(), s.close()))
		l, err := New(cfg, nil, zap.NewNop())
		must(t, err)
		if err := l.Run(within(t)); !errors.Is(err, ErrNewer) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWrongConfigurationsAreRefused(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"name":      func(c *Config) { c.Name = "" },
		"lease":     func(c *Config) { c.LeaderLease = c.Heartbeat + 1 },
		"no lease":  func(c *Config) { c.LeaderLease = 0 },
		"election":  func(c *Config) { c.Election = c.Heartbeat - 1 },
		"snapshots": func(c *Config) { c.SnapshotEvery = 0 },
	} {
		cfg := DefaultConfig("m1")
		change(&cfg)
		if _, err := New(cfg, nil, zap.NewNop()); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	f := newFleet(t, "m1", "m2")
	f.members[0].start()
	for name, change := range map[string]func(*Config){
		"no directory":   func(c *Config) { c.Dir = "" },
		"no address":     func(c *Config) { c.Address = "" },
		"another's link": func(c *Config) { c.Name = "m2" },
		"no voters":      func(c *Config) { c.Voters = nil },
		"a voter twice":  func(c *Config) { c.Voters = append(c.Voters[:1:1], c.Voters[0]) },
		"an address twice": func(c *Config) {
			c.Voters = append(c.Voters[:1:1], c.Voters[1])
			c.Voters[1].Address = c.Voters[0].Address
		},
		"a nameless voter":  func(c *Config) { c.Voters = append(c.Voters[:1:1], c.Voters[1]); c.Voters[1].Name = "" },
		"an unaddressed on": func(c *Config) { c.Voters = append(c.Voters[:1:1], c.Voters[1]); c.Voters[1].Address = "" },
	} {
		cfg := f.members[0].cfg
		change(&cfg)
		if _, err := New(cfg, f.members[0].link, zap.NewNop()); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestAMemberOfAFleetCannotBeMadeAlone(t *testing.T) {
	f := newFleet(t, "m1", "m2")
	f.start()
	f.leader(f.members...)
	cfg := f.members[0].cfg
	for _, n := range f.members {
		n.down()
	}
	cfg.Voters = nil
	l, err := New(cfg, nil, zap.NewNop())
	must(t, err)
	if err := l.Run(within(t)); err == nil || !strings.Contains(err.Error(), "m2") {
		t.Errorf("alone: %v", err)
	}
}

func TestADamagedFileIsAnError(t *testing.T) {
	cfg := DefaultConfig("m1")
	cfg.Dir = t.TempDir()
	must(t, os.WriteFile(cfg.Dir+"/"+fileName, []byte(strings.Repeat("x", 1<<15)), 0o600))
	l, err := New(cfg, nil, zap.NewNop())
	must(t, err)
	if err := l.Run(within(t)); err == nil {
		t.Error("a file of x is a log")
	}
}
