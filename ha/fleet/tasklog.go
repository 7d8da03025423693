package fleet

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/ha"
	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

const (
	maxTaskLogs  = 50   // of each cluster
	maxTaskLines = 2000 // of each log; then every second line of progress is forgotten
	maxLine      = 500  // bytes
	maxLinesSent = 500  // in one answer
)

// LineKind says what a Line is about.
type LineKind string

// The kinds of lines.
const (
	LineLeader   LineKind = "leader"   // a leader begins to write the log, and what the record says
	LineStep     LineKind = "step"     // a step is committed
	LineWhy      LineKind = "why"      // what the leader thinks
	LineBegin    LineKind = "begin"    // an action begins
	LineEnd      LineKind = "end"      // an action ended
	LineProgress LineKind = "progress" // what a long action writes
	LineOutcome  LineKind = "outcome"  // the operation ended
)

// Line is one line of the log of an operation.
type Line struct {
	// Number counts from 1 within one log.
	Number int       `json:"number"`
	At     time.Time `json:"at"`
	Kind   LineKind  `json:"kind"`
	// Step is the operation's, as committed.
	Step string `json:"step,omitempty"`
	// Node and Verb are the action's, with LineBegin, LineEnd and LineProgress.
	Node topology.NodeID `json:"node,omitempty"`
	Verb decide.Verb     `json:"verb,omitempty"`
	// Lasted is how long the action took, with LineEnd.
	Lasted time.Duration `json:"lasted,omitempty"`
	// Failed: the action, or the operation, did not do what it was for.
	Failed bool   `json:"failed,omitempty"`
	Text   string `json:"text"`
}

// Place is where a reader of an operation's log stands.
type Place struct {
	Cluster string             `json:"cluster"`
	ID      record.OperationID `json:"id"`
	// Log and From are those of the Lines read last; both zero: the beginning.
	Log  string `json:"log,omitempty"`
	From int    `json:"from,omitempty"`
}

// Lines are a part of an operation's log.
type Lines struct {
	// Log names it. Another one than before: another leader keeps the log now, and has begun with
	// what the record says; the reader goes on there from its first line.
	Log string `json:"log"`
	// Next is the From of the next question.
	Next  int    `json:"next"`
	Lines []Line `json:"lines"`
	// Operation is as the record says.
	Operation record.Operation `json:"operation"`
}

// taskLog is the log of one operation. Fleet.mu guards it.
type taskLog struct {
	name  string
	lines []Line
	last  int // number of the last one
	step  record.Step
	began map[decide.Action]time.Time
}

// writer is the logs of one cluster's operations; it outlives a reign, so that a leader that comes
// back goes on where it was.
type writer struct {
	logs map[record.OperationID]*taskLog
}

func (w *writer) of(id record.OperationID) *taskLog {
	l := w.logs[id]
	if l == nil {
		l = &taskLog{name: rand.Text(), began: map[decide.Action]time.Time{}}
		w.logs[id] = l
		for len(w.logs) > maxTaskLogs {
			delete(w.logs, slices.Min(slices.Collect(maps.Keys(w.logs))))
		}
	}
	return l
}

func (l *taskLog) add(line Line) {
	l.last++
	line.Number, line.At = l.last, time.Now()
	line.Text = strings.ToValidUTF8(line.Text[:min(len(line.Text), maxLine)], "")
	l.lines = append(l.lines, line)
	if len(l.lines) <= maxTaskLines {
		return
	}
	odd := false
	l.lines = slices.DeleteFunc(l.lines, func(o Line) bool {
		odd = !odd
		return odd && o.Number != l.last && (o.Kind == LineProgress || o.Kind == LineWhy)
	})
}

// journal writes down which steps were committed since the last time. f.mu is held.
func (f *Fleet) journal(s *seat, c *record.Cluster) {
	underWay := map[record.OperationID]*record.Operation{}
	for _, op := range c.Tasks {
		underWay[op.ID] = op
	}
	if c.Operation != nil {
		underWay[c.Operation.ID] = c.Operation
	}
	for id, op := range underWay {
		l := s.log.of(id)
		if !s.followed[id] && op.Step > record.Intent {
			l.add(Line{Kind: LineLeader, Step: op.Step.String(), Text: fmt.Sprintf("%s leads and goes on: %s %d (%s) is at step %s", f.cfg.Name, op.Kind, op.ID, op.Why, op.Step)})
		}
		if l.step != op.Step {
			l.step = op.Step
			f.stepped(s, l, op)
		}
		s.followed[id] = true
	}
	for id := range s.followed {
		if underWay[id] != nil {
			continue
		}
		delete(s.followed, id)
		if op := operationOf(c, id); op != nil {
			l := s.log.of(id)
			l.step = record.Done
			f.stepped(s, l, op)
		}
	}
}

// stepped writes down one step. f.mu is held.
func (f *Fleet) stepped(s *seat, l *taskLog, op *record.Operation) {
	line := Line{Kind: LineStep, Step: op.Step.String(), Text: meaning(op)}
	if op.Step == record.Done {
		line = outcome(op)
	}
	l.add(line)
	f.log.Info("step", zap.String("cluster", s.Name), zap.Uint64("operation", uint64(op.ID)), zap.String("kind", string(op.Kind)),
		zap.Uint64("epoch", uint64(op.To)), zap.String("step", op.Step.String()), zap.String("why", line.Text))
}

func outcome(op *record.Operation) Line {
	text := string(op.Outcome)
	if op.Note != "" {
		text += ": " + op.Note
	}
	return Line{Kind: LineOutcome, Step: record.Done.String(), Failed: op.Outcome != record.Completed, Text: text}
}

// meaning says what the operation does from this step on.
func meaning(op *record.Operation) string {
	switch {
	case op.Step == record.Intent:
		return op.Why + ", by " + op.By
	case op.Step == record.Freeze:
		return "members route no new writes"
	case op.Step == record.Fence && op.Kind == record.Switch:
		return fmt.Sprintf("node %d is shut down in order", op.Former)
	case op.Step == record.Fence:
		return fmt.Sprintf("the standbys are cut off from node %d", op.Former)
	case op.Step == record.Promote:
		return fmt.Sprintf("node %d becomes the primary of epoch %d", op.Candidate, op.To)
	case op.Step == record.After && op.Kind.MakesEpoch():
		return fmt.Sprintf("epoch %d has begun; the others follow node %d", op.To, op.Candidate)
	case op.Step == record.After:
		return fmt.Sprintf("node %d is worked on", op.Node)
	case op.Step == record.Undo:
		return "nobody was promoted; everybody goes back: " + op.Note
	}
	return op.Why
}

// thinks writes down a new reason of the leader's. f.mu is held.
func (s *seat) thinks(c *record.Cluster, why string) {
	op := c.Operation
	if op == nil && len(c.Tasks) == 1 {
		for _, op = range c.Tasks {
		}
	}
	if op != nil && why != "" {
		s.log.of(op.ID).add(Line{Kind: LineWhy, Step: op.Step.String(), Text: why})
	}
}

// begins writes down that an action begins. f.mu is held.
func (s *seat) begins(a decide.Action) {
	l := s.log.of(a.Operation)
	l.began[a] = time.Now()
	l.add(Line{Kind: LineBegin, Step: l.step.String(), Node: a.Node, Verb: a.Verb, Text: describe(a)})
}

// ends writes down how an action ended. f.mu is held.
func (s *seat) ends(r decide.Result) {
	l := s.log.of(r.Action.Operation)
	line := Line{Kind: LineEnd, Step: l.step.String(), Node: r.Action.Node, Verb: r.Action.Verb, Lasted: time.Since(l.began[r.Action]), Text: describe(r.Action) + ": done"}
	delete(l.began, r.Action)
	if r.Err != "" {
		line.Failed, line.Text = true, describe(r.Action)+": "+r.Err
	}
	l.add(line)
}

func describe(a decide.Action) string {
	text := fmt.Sprintf("%s node %d", a.Verb, a.Node)
	if a.Upstream != 0 {
		text += fmt.Sprintf(" from node %d", a.Upstream)
	}
	if a.Mode != "" {
		text += " (" + a.Mode + ")"
	}
	return text
}

// Progress takes a line that a long action of the cluster writes. It may be operation.Config.Progress.
func (f *Fleet) Progress(cluster string, a decide.Action, line string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := f.writers[cluster]
	if w == nil || a.Operation == 0 {
		return
	}
	l := w.of(a.Operation)
	l.add(Line{Kind: LineProgress, Step: l.step.String(), Node: a.Node, Verb: a.Verb, Text: line})
	f.written()
}

// written wakes who waits for new lines. f.mu is held.
func (f *Fleet) written() {
	close(f.lines)
	f.lines = make(chan struct{})
}

// pollLog is how often a member asks a leader elsewhere for new lines.
const pollLog = 400 * time.Millisecond

// TaskLog are the lines of an operation's log behind the place, from the member that leads. When there
// are none yet and the operation has not ended, it waits for some until ctx ends, and then returns
// none. Without a leader it returns what this member's own record says. Errors: ha.ErrUnknown, and
// of a lost way to the leader.
func (f *Fleet) TaskLog(ctx context.Context, p Place) (Lines, error) {
	if err := f.configured(p.Cluster); err != nil {
		return Lines{}, err
	}
	for {
		changed := f.parts.Log.Changed()
		f.mu.Lock()
		local := f.lines
		f.mu.Unlock()
		asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), questionTime)
		var got Lines
		err := f.ask(asking, logMethod, p, &got)
		cancel()
		if err != nil || len(got.Lines) > 0 || got.Operation.Step == record.Done || ctx.Err() != nil {
			return got, err
		}
		pause := time.NewTimer(pollLog)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-local:
		case <-pause.C:
		}
		pause.Stop()
		if ctx.Err() != nil {
			return got, nil
		}
	}
}

// taskLog is what the leader answers.
func (f *Fleet) taskLog(ctx context.Context, p Place) (Lines, error) {
	s, err := f.seatOf(ctx, p.Cluster)
	if err != nil {
		return Lines{}, err
	}
	state, _ := f.parts.Log.State()
	op := operationOf(clusterOf(state, p.Cluster), p.ID)
	if op == nil {
		return Lines{}, fmt.Errorf("cluster %s: the record knows no task %d: %w", p.Cluster, p.ID, ha.ErrUnknown)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	got := Lines{Log: "record", Operation: *op, Lines: []Line{}}
	l := f.writers[p.Cluster].logs[p.ID]
	if l == nil {
		// It ended under another leader: the record is all that is left of it.
		if p.Log != got.Log && op.Step == record.Done {
			line := outcome(op)
			line.Number, line.Text = 1, fmt.Sprintf("%s, by %s: %s", op.Why, op.By, line.Text)
			got.Lines = append(got.Lines, line)
		}
		got.Next = 1
		return got, nil
	}
	switch {
	case op.Step != record.Done || l.step == record.Done:
	case s.followed[p.ID]:
		got.Operation.Step = l.step // the last line is about to be written: nobody may leave before it
	default: // it ended under another leader since this one last wrote
		l.step = record.Done
		l.add(outcome(op))
	}
	got.Log, got.Next = l.name, p.From
	if p.Log != l.name {
		got.Next = 0
	}
	for _, line := range l.lines {
		if line.Number > got.Next && len(got.Lines) < maxLinesSent {
			got.Lines = append(got.Lines, line)
		}
	}
	if len(got.Lines) > 0 {
		got.Next = got.Lines[len(got.Lines)-1].Number
	}
	return got, nil
}
