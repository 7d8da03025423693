package sim

import (
	"time"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// token is what a host's ratchet keeps, on disk.
type token struct {
	epoch topology.Epoch
	step  record.Step
}

func (t token) below(u token) bool {
	return t.epoch < u.epoch || t.epoch == u.epoch && t.step < u.step
}

// job is an action at work on its node's host.
type job struct {
	n      *node
	action decide.Action
	token  token
	over   bool
	answer func(decide.Result)
}

// ratchet is the wrapper under which every action on a node's host runs: a lower token is refused, a
// higher one ends what runs, an equal one waits for its turn.
type ratchet struct {
	w       *world
	seen    token
	running *job
	queue   []*job
}

// arrive is called on the host when the command gets there, however late that is.
func (r *ratchet) arrive(j *job) {
	if j.action.Verb == decide.Look {
		j.end("")
		return
	}
	if r.w.plan.without != Ratchet {
		if j.token.below(r.seen) {
			j.over = true
			r.w.trace("%s refuses %s of (%d, %s)", j.n.name(), j.action.Verb, j.token.epoch, j.token.step)
			j.answer(decide.Result{Action: j.action, Err: "the host has seen a higher epoch", Refused: true})
			return
		}
		if r.seen.below(j.token) {
			r.seen = j.token
			r.abort()
		}
	}
	r.queue = append(r.queue, j)
	r.next()
}

// abort kills the running command and forgets those that wait.
func (r *ratchet) abort() {
	for _, j := range append(r.queue, r.running) {
		if j != nil && !j.over {
			j.end("ended by an action of a later step")
		}
	}
	r.queue, r.running = nil, nil
}

func (r *ratchet) next() {
	if r.running != nil && !r.running.over || len(r.queue) == 0 {
		return
	}
	r.running, r.queue = r.queue[0], r.queue[1:]
	j := r.running
	r.w.acting(j)
	j.do()
}

// after goes on with the job when d has passed, unless it was ended meanwhile or its host lost power.
func (j *job) after(d time.Duration, f func()) {
	j.n.w.schedule(d, j.n.host.sshd, func() {
		if !j.over {
			f()
		}
	})
}

// await goes on when done, and ends the job with an error after patience.
func (j *job) await(done func() bool, patience time.Duration, f func()) {
	switch {
	case done():
		f()
	case patience <= 0:
		j.end("waited in vain")
	default:
		j.after(50*time.Millisecond, func() { j.await(done, patience-50*time.Millisecond, f) })
	}
}

func (j *job) end(err string) {
	if j.over {
		return
	}
	j.over = true
	j.answer(decide.Result{Action: j.action, Err: err})
	j.n.w.schedule(0, j.n.host.sshd, j.n.ratchet.next)
}
