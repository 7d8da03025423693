package decide

import (
	"slices"
	"time"

	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// work collects the actions of one plan for one operation. What was tried already it reads from the
// Picture: nothing is remembered between decisions.
type work struct {
	p       *Picture
	op      *record.Operation
	actions []Action
	again   time.Duration
}

func (p *Picture) work(op *record.Operation) *work { return &work{p: p, op: op} }

// progress is how far one action has come.
type progress int

const (
	pending   progress = iota // it runs, begins now, or is tried again soon
	succeeded                 // its newest ending is a success
	failed                    // tried often enough, or refused
)

// retryAfter is how long after a failure an action is tried again.
const retryAfter = 500 * time.Millisecond

// action is verb for node, as this operation at its present step.
func (w *work) action(verb Verb, node topology.NodeID) Action {
	return Action{Verb: verb, Node: node, Operation: w.op.ID, Epoch: w.op.To, Step: w.op.Ratchet(), Timeout: verb.timeout()}
}

// do sees to it that a is done, in at most tries tries of this leader, and says how far that is.
func (w *work) do(a Action, tries int) progress {
	if slices.Contains(w.p.Running, a) {
		return pending
	}
	failures, newest := 0, -1
	for i := range w.p.Finished {
		r := &w.p.Finished[i]
		if r.Action != a {
			continue
		}
		if r.Err != "" {
			failures++
		}
		if newest < 0 || r.At >= w.p.Finished[newest].At {
			newest = i
		}
	}
	if newest >= 0 {
		last := &w.p.Finished[newest]
		switch {
		case last.Err == "":
			return succeeded
		case last.Refused || failures >= tries:
			return failed
		case w.p.Now-last.At < retryAfter:
			w.wake(last.At + retryAfter - w.p.Now)
			return pending
		}
	}
	w.actions = append(w.actions, a)
	return pending
}

// runs says whether an action of the verb on the node is under way, from whatever step.
func (w *work) runs(verb Verb, node topology.NodeID) bool {
	return slices.ContainsFunc(w.p.Running, func(a Action) bool { return a.Verb == verb && a.Node == node && a.Operation == w.op.ID })
}

// hold is do for an effect that the facts do not show: when a succeeded some time ago, something
// has undone it, and it is done again. The caller bounds that by the age of the task.
func (w *work) hold(a Action, tries int) progress {
	state := w.do(a, tries)
	if state != succeeded {
		return state
	}
	if ago := w.p.sinceDone(a); ago < retryAfter {
		w.wake(retryAfter - ago)
	} else {
		w.actions = append(w.actions, a)
	}
	return pending
}

// look has the node asked again, now and then, until its fact says what is waited for.
func (w *work) look(id topology.NodeID) { w.repeat(w.action(Look, id), retryAfter) }

// askAfter is how long after an answer a server is asked again while writes are held for what it says.
const askAfter = 50 * time.Millisecond

// ask is look while writes are held: the server alone, which answers sooner than its host, and more often.
func (w *work) ask(id topology.NodeID) {
	a := w.action(Look, id)
	a.Mode = ServerAlone
	w.repeat(a, askAfter)
}

func (w *work) repeat(a Action, pause time.Duration) {
	if ago := w.p.sinceDone(a); ago > 0 && ago < pause {
		w.wake(pause - ago)
	} else if !slices.Contains(w.p.Running, a) {
		w.actions = append(w.actions, a)
	}
}

// tried says whether the newest ending of a is a failure, and its text.
func (w *work) tried(a Action) (string, bool) {
	for i := len(w.p.Finished) - 1; i >= 0; i-- {
		if r := &w.p.Finished[i]; r.Action == a {
			return r.Err, true
		}
	}
	return "", false
}

// wake makes the leader decide again after d at the latest.
func (w *work) wake(d time.Duration) {
	if d > 0 && (w.again == 0 || d < w.again) {
		w.again = d
	}
}

// wakeAt is wake at a time of Picture.Now's clock.
func (w *work) wakeAt(t time.Duration) { w.wake(t - w.p.Now) }

// plan has the collected actions done and says why.
func (w *work) plan(why string, args ...any) Plan {
	plan := wait(w.again, why, args...)
	plan.Actions = w.actions
	return plan
}

// timeout is how long an action of the verb may take. Those that hold writes up are short; a rebuild
// copies a whole server.
func (v Verb) timeout() time.Duration {
	switch v {
	case Recruit, Release, Look:
		return 2 * time.Second
	case Follow, TakeVIP, DropVIP:
		return 5 * time.Second
	case Stop, Start, PromoteIt, Hook:
		return 30 * time.Second
	case Revive, Checkpoint:
		return 60 * time.Second
	case Rewind:
		return 30 * time.Minute
	}
	return 24 * time.Hour
}

// sinceDone is how long ago a ended, as far as this leader knows.
func (p *Picture) sinceDone(a Action) (ago time.Duration) {
	for i := range p.Finished {
		if r := &p.Finished[i]; r.Action == a {
			ago = p.Now - r.At
		}
	}
	return ago
}
