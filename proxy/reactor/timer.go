package reactor

import "time"

// A Timer calls a function on the loop, once per Set. It is embedded by value in what it serves, and
// must not be copied. Moving the deadline later or stopping costs no more than a store: the heap
// learns of it when the earlier moment comes.
type Timer struct {
	loop     *Loop
	fn       func()
	owner    *Conn
	deadline int64 // nanoseconds since the loop's birth; 0 = stopped
	index    int   // place in the heap, counted from 1; 0 = not there
}

// Init binds the timer to its loop and function. It is called once, before anything else.
func (t *Timer) Init(l *Loop, fn func()) { t.loop, t.fn = l, fn }

// Own names the connection that is closed with ErrPanicked when the timer's function panics.
func (t *Timer) Own(c *Conn) { t.owner = c }

// Set lets the timer fire d from now, and not at any moment set earlier.
func (t *Timer) Set(d time.Duration) {
	h := &t.loop.timers
	if t.deadline == 0 && t.index != 0 {
		h.stopped--
	}
	t.deadline = max(t.loop.clock+int64(d), 1)
	switch {
	case t.index == 0:
		h.push(t)
	case t.deadline < h.entries[t.index-1].when:
		h.entries[t.index-1].when = t.deadline
		h.up(t.index - 1)
	}
}

// Stop keeps the timer from firing. It may be Set again.
func (t *Timer) Stop() {
	if t.deadline == 0 {
		return
	}
	t.deadline = 0
	if t.index != 0 {
		t.loop.timers.stop()
	}
}

// Active says whether the timer is going to fire.
func (t *Timer) Active() bool { return t.deadline != 0 }

// timerHeap is a binary heap by the moment at which an entry has to be looked at. An entry's moment
// is never later than its timer's deadline; earlier ones are corrected when their moment comes.
type timerHeap struct {
	entries []timerEntry
	stopped int // entries whose timer is stopped
}

type timerEntry struct {
	when int64
	t    *Timer
}

// next is the moment at which the heap has to be looked at; ok is false when it is empty.
func (h *timerHeap) next() (when int64, ok bool) {
	if len(h.entries) == 0 {
		return 0, false
	}
	return h.entries[0].when, true
}

// due takes the next timer that has to fire at or before now out of the heap, or returns nil.
func (h *timerHeap) due(now int64) *Timer {
	for len(h.entries) > 0 && h.entries[0].when <= now {
		t := h.entries[0].t
		switch {
		case t.deadline == 0:
			h.stopped--
			h.pop()
		case t.deadline > now:
			h.entries[0].when = t.deadline
			h.down(0)
		default:
			h.pop()
			t.deadline = 0
			return t
		}
	}
	return nil
}

// stop counts a stopped entry, and throws all of them out once they are the larger part: otherwise
// they would keep the ended sessions that they are embedded in alive until their moment comes.
func (h *timerHeap) stop() {
	h.stopped++
	if h.stopped < 64 || h.stopped*2 < len(h.entries) {
		return
	}
	kept := h.entries[:0]
	for _, e := range h.entries {
		if e.t.deadline == 0 {
			e.t.index = 0
			continue
		}
		kept = append(kept, e)
		e.t.index = len(kept)
	}
	clear(h.entries[len(kept):])
	h.entries, h.stopped = kept, 0
	for i := len(kept)/2 - 1; i >= 0; i-- {
		h.down(i)
	}
}

func (h *timerHeap) push(t *Timer) {
	h.entries = append(h.entries, timerEntry{t.deadline, t})
	t.index = len(h.entries)
	h.up(t.index - 1)
}

func (h *timerHeap) pop() {
	last := len(h.entries) - 1
	h.entries[0].t.index = 0
	if last > 0 {
		h.entries[0] = h.entries[last]
		h.entries[0].t.index = 1
	}
	h.entries[last] = timerEntry{}
	h.entries = h.entries[:last]
	h.down(0)
}

func (h *timerHeap) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if h.entries[parent].when <= h.entries[i].when {
			return
		}
		h.swap(i, parent)
		i = parent
	}
}

func (h *timerHeap) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(h.entries) {
			return
		}
		if r := child + 1; r < len(h.entries) && h.entries[r].when < h.entries[child].when {
			child = r
		}
		if h.entries[i].when <= h.entries[child].when {
			return
		}
		h.swap(i, child)
		i = child
	}
}

func (h *timerHeap) swap(i, j int) {
	h.entries[i], h.entries[j] = h.entries[j], h.entries[i]
	h.entries[i].t.index, h.entries[j].t.index = i+1, j+1
}
