package ha

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/ha/pgnode"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// assignment is what the rounds of a cluster are about at present.
type assignment struct {
	epoch    topology.Epoch
	timeline topology.Timeline
	// primary is nil while there is none; then no round is opened, and standbys are still asked
	// how far they are.
	primary *node
	// standbys are the nodes that count: standbys of this system on a prefix of this history.
	standbys map[*node]standbyPart
	// flushed is flushDelay of the primary.
	flushed time.Duration
}

type standbyPart struct {
	// serves: reads may go there, so a waiting session waits for it.
	serves bool
	// timeline is what its last probe knew.
	timeline topology.Timeline
}

// pace is how often rounds run.
type pace struct{ wanted, idle time.Duration }

// monitor runs the rounds of one cluster: it alone opens and marks them.
type monitor struct {
	rounds *topology.Rounds
	log    *zap.Logger
	kick   chan struct{} // the assignment changed

	mu    sync.Mutex // guards what follows and orders marks with lost; never held during I/O
	now   assignment
	pace  pace
	track track
	// lives counts how often a node may have restarted. A position counts only if it was asked
	// on a connection of the present life: a standby that restarts can answer before it has
	// replayed again what it had replayed before.
	lives map[topology.NodeID]uint64
	lags  map[topology.NodeID]lag
}

func newMonitor(rounds *topology.Rounds, p pace, log *zap.Logger) *monitor {
	return &monitor{
		rounds: rounds, log: log, pace: p,
		kick:  make(chan struct{}, 1),
		lives: map[topology.NodeID]uint64{},
		lags:  map[topology.NodeID]lag{},
	}
}

// assign tells the monitor what to run rounds about. A higher epoch starts them anew.
func (m *monitor) assign(a assignment) {
	m.mu.Lock()
	news := a.epoch != m.now.epoch || a.primary != m.now.primary
	if a.epoch > m.rounds.Epoch() {
		m.rounds.Reset(a.epoch)
		m.track = track{}
		clear(m.lags)
	}
	m.now = a
	m.mu.Unlock()
	if news {
		wake(m.kick)
	}
}

func (m *monitor) setPace(p pace) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pace = p
}

func (m *monitor) current() assignment {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// lost takes back what a node has proved. It blocks for no longer than a few map accesses.
func (m *monitor) lost(n *node) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lives[n.id]++
	m.rounds.Clear(n.slot)
}

func (m *monitor) life(n *node) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lives[n.id]
}

func (m *monitor) lagOf(id topology.NodeID) lag {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lags[id]
}

// forget drops a node that is gone, so that another may take its slot.
func (m *monitor) forget(n *node) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lives[n.id]++
	delete(m.lags, n.id)
	m.rounds.Clear(n.slot)
}

// run opens rounds until ctx ends.
func (m *monitor) run(ctx context.Context) {
	var at *node // whom conn asks
	var conn *pgnode.Conn
	var tried time.Time
	hangUp := func() {
		if conn != nil {
			conn.Close(ctx)
			conn = nil
		}
	}
	defer func() { hangUp() }()
	for ctx.Err() == nil {
		began := time.Now()
		a := m.current()
		if a.primary != at {
			hangUp()
			at = a.primary
		}
		if at != nil && conn == nil && time.Since(tried) >= breath {
			tried = began
			// A failure here is the watcher's to tell: it probes the same server.
			conn, _ = at.server.Connect(ctx)
		}
		if conn != nil && !m.round(ctx, a, conn) {
			hangUp()
			at.probeNow()
		}
		for n := range a.standbys {
			wake(n.lane)
		}
		m.rest(ctx, began)
	}
}

// round opens one round and asks the primary. False means that the connection is of no more use.
func (m *monitor) round(ctx context.Context, a assignment, conn *pgnode.Conn) bool {
	k := m.open(a.epoch)
	if k == 0 {
		return true // a newer epoch has begun; the next assignment is on its way
	}
	began := time.Now()
	p, err := conn.Position(ctx)
	if err != nil || p.Timeline != a.timeline {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.now.epoch == a.epoch {
		m.track.add(mark{round: k, insert: p.Insert, began: began}, p.Flush, a.flushed)
	}
	return true
}

func (m *monitor) open(epoch topology.Epoch) topology.Round {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rounds.Open(epoch)
}

// rest waits for the next round: the short pause while a session waits for a standby that serves
// reads, else the long one or until somebody wants a round.
func (m *monitor) rest(ctx context.Context, began time.Time) {
	p, wanted := m.hurry()
	if wanted {
		pause(ctx, time.Until(began.Add(p.wanted)), nil, m.kick)
		return
	}
	pause(ctx, time.Until(began.Add(p.idle)), m.rounds.Wake(), m.kick)
}

// hurry says whether somebody still waits: the wish is at most one idle interval old, and a
// standby that serves reads has not proved the round wished for.
func (m *monitor) hurry() (pace, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	round, at := m.rounds.Wanted()
	if at.IsZero() || time.Since(at) > m.pace.idle {
		return m.pace, false
	}
	for n, part := range m.now.standbys {
		if part.serves && m.rounds.Safe(n.slot) < round {
			return m.pace, true
		}
	}
	return m.pace, false
}

// replayed takes in a standby's answer, asked on a connection of the given life. False means that
// the server may have restarted since.
func (m *monitor) replayed(n *node, life uint64, r pgnode.Replayed) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lives[n.id] != life {
		return false
	}
	part, counts := m.now.standbys[n]
	// Without the primary's timeline a position proves nothing: the same number on an older
	// branch may be other log.
	if !counts || !r.Standby || r.Received != m.now.timeline && part.timeline != m.now.timeline {
		return true
	}
	m.rounds.Mark(n.slot, m.track.safe(r.Replay))
	m.lags[n.id] = m.track.lag(r.Replay)
	return true
}

// runLane asks one node for its replay position whenever a round was opened.
func (m *monitor) runLane(ctx context.Context, n *node) {
	var conn *pgnode.Conn
	var life uint64
	var tried time.Time
	defer func() {
		if conn != nil {
			conn.Close(ctx)
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.lane:
		}
		if conn == nil {
			if time.Since(tried) < breath {
				continue
			}
			tried, life = time.Now(), m.life(n)
			if conn, _ = n.server.Connect(ctx); conn == nil {
				continue // the watcher of the same server tells why
			}
		}
		r, err := conn.Replayed(ctx)
		if err != nil {
			m.lost(n)
			n.probeNow()
		}
		if err != nil || !m.replayed(n, life, r) {
			conn.Close(ctx)
			conn = nil
		}
	}
}

// wake leaves a message that somebody should look, unless one is already there.
func wake(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// pause waits until d is over, ctx ends, or one of the channels has something.
func pause(ctx context.Context, d time.Duration, a, b <-chan struct{}) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	case <-a:
	case <-b:
	}
}
