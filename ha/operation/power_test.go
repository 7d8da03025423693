package operation

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/hook"
	"github.com/cstproxy/cstproxy/ha/record"
)

// log is a record that changes, of failover 5 from epoch 1 to 2.
type log struct {
	mu      sync.Mutex
	said    record.Cluster
	changed chan struct{}
	looked  chan struct{} // gets a word after each look at it
}

func newLog(step record.Step) *log {
	op := &record.Operation{ID: 5, Kind: record.Failover, From: 1, To: 2, Former: 1, Candidate: 2, Step: step}
	return &log{said: record.Cluster{Epoch: record.Epoch{Number: 1, Primary: 1}, Operation: op}, changed: make(chan struct{}), looked: make(chan struct{}, 100)}
}

func (l *log) Record() *record.Cluster {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.said
	l.looked <- struct{}{}
	return &c
}

func (l *log) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

func (l *log) change(how func(*record.Cluster)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	how(&l.said)
	close(l.changed)
	l.changed = make(chan struct{})
}

// fencing is an executor whose pre_fence says that it has begun, and ends when the file go is there.
func fencing(t *testing.T, l *log, confirm func(context.Context) error) (e *Executor, said chan string, end func()) {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "hook")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho $*\nuntil [ -e "+dir+"/go ]; do sleep 0.02; done\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	said = make(chan string, 100)
	e = &Executor{cfg: Config{Cluster: "c", Hooks: hook.Config{PreFence: program}, Record: l.Record, Changed: l.Changed, Confirm: confirm,
		Progress: func(_ decide.Action, line string) { said <- line }}}
	return e, said, func() {
		if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
			t.Error(err)
		}
	}
}

func leads(context.Context) error { return nil }

var powerOff = decide.Action{Verb: decide.Hook, Mode: hook.PreFence, Node: 1, Operation: 5, Epoch: 2, Step: record.Promote}

func TestNoPowerIsCutInAStepThatIsOver(t *testing.T) {
	for _, step := range []record.Step{record.Fence, record.Undo} {
		e, said, end := fencing(t, newLog(step), leads)
		end()
		if err := e.runHook(t.Context(), powerOff, Node{}); err == nil || !strings.Contains(err.Error(), "is at step "+step.String()) {
			t.Errorf("%s: %v", step, err)
		}
		if len(said) != 0 {
			t.Errorf("%s: it ran: %s", step, <-said)
		}
	}
}

// The record of a member that was out of touch shows the step for ever: only a majority can tell.
func TestNoPowerIsCutByAMemberThatLeadsNoMore(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	e, said, end := fencing(t, newLog(record.Promote), func(context.Context) error {
		cancel() // as the leadership's end does
		return errors.New("somebody else leads")
	})
	end()
	if err := e.runHook(ctx, powerOff, Node{}); err == nil || !strings.Contains(err.Error(), "somebody else leads") || len(said) != 0 {
		t.Errorf("%v, %d lines", err, len(said))
	}
	// What was confirmed before the operation ended is not what the record says after it.
	l := newLog(record.Promote)
	e, said, end = fencing(t, l, func(context.Context) error {
		l.change(func(c *record.Cluster) { c.Operation = nil })
		return nil
	})
	end()
	if err := e.runHook(t.Context(), powerOff, Node{}); err == nil || !strings.Contains(err.Error(), "is over") || len(said) != 0 {
		t.Errorf("%v, %d lines", err, len(said))
	}
}

func TestALostMessageCostsNoHook(t *testing.T) {
	asked := 0
	e, said, end := fencing(t, newLog(record.Promote), func(context.Context) error {
		if asked++; asked == 1 {
			return errors.New("no majority in time")
		}
		return nil
	})
	end()
	if err := e.runHook(t.Context(), powerOff, Node{}); err != nil {
		t.Fatal(err)
	}
	if line := <-said; asked != 2 || line != "pre_fence: c failover 5 2 1 - 2 - 0" {
		t.Errorf("asked %d times, %q", asked, line)
	}
}

func TestPreFenceEndsWithAFailoverThatMakesNoEpoch(t *testing.T) {
	for name, overturn := range map[string]func(*record.Cluster){
		"given up": func(c *record.Cluster) { c.Operation = nil },
		"led back": func(c *record.Cluster) { o := *c.Operation; o.Step = record.Undo; c.Operation = &o },
	} {
		l := newLog(record.Promote)
		e, said, _ := fencing(t, l, leads)
		ended := make(chan error, 1)
		go func() { ended <- e.runHook(t.Context(), powerOff, Node{}) }() // received below
		<-said
		l.change(overturn)
		if err := <-ended; err == nil || !strings.Contains(err.Error(), "was killed: operation 5 has not made the present epoch") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPreFenceGoesOnInTheNewEpoch(t *testing.T) {
	l := newLog(record.Promote)
	e, said, end := fencing(t, l, leads)
	ended := make(chan error, 1)
	go func() { ended <- e.runHook(t.Context(), powerOff, Node{}) }() // received below
	<-said
	for range 2 { // the look before it began, and the first of the watch
		<-l.looked
	}
	l.change(func(c *record.Cluster) {
		o := *c.Operation
		o.Step, c.Operation, c.Epoch = record.After, &o, record.Epoch{Number: 2, Primary: 2, Operation: 5}
	})
	<-l.looked
	l.change(func(c *record.Cluster) { c.Operation = nil })
	<-l.looked
	end()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
