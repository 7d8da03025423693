package sim

import "time"

// event is something that happens in a process.
type event struct {
	proc *process
	life int
	run  func()
}

// agenda holds the events to come. The heap itself has no pointers, as most of the work is there.
type agenda struct {
	heap   []appointment
	events []event
	free   []int32
	seq    uint64
}

// appointment is when an event is due; among equals, the first made is the first kept.
type appointment struct {
	at    time.Duration
	seq   uint64
	event int32
}

func (a *appointment) before(b *appointment) bool {
	return a.at < b.at || a.at == b.at && a.seq < b.seq
}

func (q *agenda) push(at time.Duration, e event) {
	slot := int32(len(q.events))
	if n := len(q.free); n > 0 {
		slot, q.free = q.free[n-1], q.free[:n-1]
		q.events[slot] = e
	} else {
		q.events = append(q.events, e)
	}
	q.seq++
	q.heap = append(q.heap, appointment{at, q.seq, slot})
	for i := len(q.heap) - 1; i > 0; {
		up := (i - 1) / 2
		if !q.heap[i].before(&q.heap[up]) {
			break
		}
		q.heap[i], q.heap[up] = q.heap[up], q.heap[i]
		i = up
	}
}

// pop takes the next event that is due no later than end.
func (q *agenda) pop(end time.Duration) (e event, at time.Duration, ok bool) {
	if len(q.heap) == 0 || q.heap[0].at > end {
		return event{}, 0, false
	}
	first, n := q.heap[0], len(q.heap)-1
	q.heap[0] = q.heap[n]
	q.heap = q.heap[:n]
	for i := 0; 2*i+1 < n; {
		down := 2*i + 1
		if down+1 < n && q.heap[down+1].before(&q.heap[down]) {
			down++
		}
		if !q.heap[down].before(&q.heap[i]) {
			break
		}
		q.heap[i], q.heap[down] = q.heap[down], q.heap[i]
		i = down
	}
	e = q.events[first.event]
	q.events[first.event] = event{}
	q.free = append(q.free, first.event)
	return e, first.at, true
}

// process is what can crash, be stopped and go on: a member, a postmaster, a host's sshd. Its
// events wait while it is stopped, and are forgotten when it crashes: life counts its starts.
type process struct {
	name    string
	host    *host
	alive   bool
	stopped bool // SIGSTOP, or its host's virtual machine is paused
	life    int
	waiting []event
}

func (p *process) running() bool { return p.alive && !p.stopped }

// schedule runs f in p after d, unless p has crashed by then; nil is the world itself.
func (w *world) schedule(d time.Duration, p *process, f func()) {
	e := event{proc: p, run: f}
	if p != nil {
		e.life = p.life
	}
	w.agenda.push(w.now+max(d, 0), e)
}

// every runs f in p each d, beginning after a part of d, for as long as p lives.
func (w *world) every(d time.Duration, p *process, f func()) {
	var again func()
	again = func() {
		f()
		w.schedule(d, p, again)
	}
	w.schedule(w.upTo(d), p, again)
}

// turn runs the next event; false when there is none until the end.
func (w *world) turn(end time.Duration) bool {
	e, at, ok := w.agenda.pop(end)
	if !ok {
		return false
	}
	w.now = at
	w.events++
	switch p := e.proc; {
	case p == nil:
		e.run()
	case p.life != e.life || !p.alive:
	case p.stopped:
		p.waiting = append(p.waiting, e)
	default:
		e.run()
	}
	return true
}

// deliver runs f in p now, later when p is stopped, never when p is not alive.
func (w *world) deliver(p *process, f func()) {
	switch {
	case p == nil || p.running():
		f()
	case p.alive:
		p.waiting = append(p.waiting, event{proc: p, life: p.life, run: f})
	}
}

func (w *world) kill(p *process) {
	p.alive, p.stopped, p.waiting = false, false, nil
	p.life++
}

func (w *world) start(p *process) {
	p.alive, p.stopped = true, p.host.paused
	p.life++
}

func (w *world) stop(p *process) {
	if p.alive {
		p.stopped = true
	}
}

// resume lets everything happen at once that came while p was stopped, in its order.
func (w *world) resume(p *process) {
	if !p.alive || !p.stopped || p.host.paused {
		return
	}
	p.stopped = false
	for _, e := range p.waiting {
		w.agenda.push(w.now, e)
	}
	p.waiting = nil
}

// upTo is a random duration below d.
func (w *world) upTo(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return time.Duration(w.rng.Int64N(int64(d)))
}

// between is a random duration in [lo, hi).
func (w *world) between(lo, hi time.Duration) time.Duration { return lo + w.upTo(hi-lo) }

// chance is true p times of one.
func (w *world) chance(p float64) bool { return p > 0 && w.rng.Float64() < p }
