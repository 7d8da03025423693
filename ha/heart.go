package ha

import (
	"context"
	"fmt"
	"hash/fnv"
	"math"
	"sync"
	"time"

	"github.com/cstproxy/cstproxy/ha/pgnode"
	"github.com/cstproxy/cstproxy/ha/topology"
)

const (
	// heartPatience is how long a heartbeat may be under way before it is given up and another one
	// tried. On a server whose disk hangs each of them leaves a session behind.
	heartPatience = time.Minute
	// heartRetry is the pause after database or table were not there.
	heartRetry = 5 * time.Second
)

// HeartbeatID is the row of cs_sys_heartbeat that belongs to a name. Two names with the same number
// wait for each other's commits, which does no harm.
func HeartbeatID(name string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name)) // it never fails
	return int(h.Sum32() & math.MaxInt32)
}

// Beat has the agent write a heartbeat, in the name of a member, to the primary of the agreed epoch
// whenever it probes that; see PrepareHeartbeat. It must be called before Run. The error is ErrUnknown.
func (a *Agent) Beat(cluster, member string) error {
	c, err := a.cluster(cluster)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.member = member
	return nil
}

// PrepareHeartbeat makes the heartbeats' database and table on the primary where they are missing. Until
// they are there, writes are not watched. ErrRefused while there is no primary. ctx alone bounds it.
func (a *Agent) PrepareHeartbeat(ctx context.Context, cluster string) error {
	c, err := a.cluster(cluster)
	if err != nil {
		return err
	}
	nodes, primary, why := c.asked()
	for _, n := range nodes {
		if n.node.ID == primary {
			return n.server.Heart(heartPatience).MakeHeartbeat(ctx)
		}
	}
	return fmt.Errorf("%w: cluster %q has no primary: %s", ErrRefused, cluster, why)
}

// Server leads to a node as the agent itself logs in; another one after its address or the access
// changed. The error is ErrUnknown.
func (a *Agent) Server(cluster string, id topology.NodeID) (*pgnode.Server, error) {
	c, err := a.cluster(cluster)
	if err != nil {
		return nil, err
	}
	if n := (*c.index.Load())[id]; n != nil {
		return n.server, nil
	}
	return nil, fmt.Errorf("%w: cluster %q has no node %d", ErrUnknown, cluster, id)
}

// duty says whether a node is written to.
type duty int

const (
	dutyNone  duty = iota // it is not the epoch's primary
	dutyPause             // it is, and no write is to be begun now
	dutyBeat
)

// duty is what this member has to do about a node, and what it writes there.
func (c *cluster) duty(id topology.NodeID) (pgnode.Heartbeat, duty) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.member == "" || c.ruling == nil || c.ruling.Epoch.Number == 0 || c.ruling.Epoch.Primary != id:
		return pgnode.Heartbeat{}, dutyNone
	case c.ruling.Frozen != "":
		return pgnode.Heartbeat{}, dutyPause // log that nobody else has would only be in the way
	}
	return pgnode.Heartbeat{ID: HeartbeatID(c.member), Epoch: c.ruling.Epoch.Number, Member: c.member}, dutyBeat
}

// heart writes the heartbeats to one node, one at a time, on a connection of its own. Nobody waits for
// it: how long one has been under way is what tells a server that takes no writes from one that is slow.
type heart struct {
	server *pgnode.Server // leads to pgnode.HeartbeatDatabase
	due    chan struct{}
	conn   *pgnode.Conn // run's

	mu     sync.Mutex
	began  time.Time          // of the one under way; zero when none is
	cancel context.CancelFunc // ends it
	last   pgnode.Pulse
	news   bool // last was not looked at yet
}

func newHeart(to *pgnode.Server) *heart {
	return &heart{server: to.Heart(heartPatience), due: make(chan struct{}, 1)}
}

// heartbeat is what became of heartbeats since the last look.
type heartbeat struct {
	duty   duty
	writes pgnode.Writes // WritesUnknown when there is nothing new
	why    string
}

// look says what is new, and has the next heartbeat begin unless one is under way. One that has been for
// longer than patience counts as stuck at each look.
func (h *heart) look(d duty, patience time.Duration) heartbeat {
	h.mu.Lock()
	defer h.mu.Unlock()
	b := heartbeat{duty: d}
	switch lasts := time.Since(h.began); {
	case h.began.IsZero():
		if h.news {
			b.writes, h.news = h.last.Writes, false
		}
		if b.writes != pgnode.WritesUnknown && h.last.Err != nil {
			b.why = fmt.Sprintf("a heartbeat failed (%s): %v", b.writes, h.last.Err)
		}
		wake(h.due)
	case lasts >= patience:
		b.writes, b.why = pgnode.Stuck, fmt.Sprintf("a heartbeat has not been committed for %s", lasts.Round(100*time.Millisecond))
	}
	return b
}

// drop gives up what is under way: nothing is known of the server any more.
func (h *heart) drop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.news = false
	if h.cancel != nil {
		h.cancel()
	}
}

// run writes whenever one is due, until ctx ends.
func (h *heart) run(ctx context.Context, duty func() (pgnode.Heartbeat, duty)) {
	defer h.hangUp(ctx)
	var notBefore time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.due:
		}
		beat, d := duty()
		switch {
		case d == dutyNone:
			h.hangUp(ctx)
		case d == dutyBeat && time.Now().After(notBefore):
			if h.beat(ctx, beat) == pgnode.NoTable {
				notBefore = time.Now().Add(heartRetry)
			}
		}
	}
}

func (h *heart) hangUp(ctx context.Context) {
	if h.conn != nil {
		h.conn.Close(ctx)
		h.conn = nil
	}
}

func (h *heart) beat(ctx context.Context, beat pgnode.Heartbeat) pgnode.Writes {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h.mu.Lock()
	h.began, h.cancel = time.Now(), cancel
	h.mu.Unlock()
	pulse := h.write(ctx, beat)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.began, h.cancel = time.Time{}, nil
	// One that was dropped says nothing.
	h.last, h.news = pulse, ctx.Err() == nil
	return pulse.Writes
}

// write writes once, on a new connection when the kept one turns out to have ended.
func (h *heart) write(ctx context.Context, beat pgnode.Heartbeat) pgnode.Pulse {
	if h.conn != nil {
		p := h.conn.Beat(ctx, beat)
		if !h.conn.Broken() {
			return p
		}
		h.hangUp(ctx)
		if p.Writes == pgnode.Stuck || ctx.Err() != nil {
			return p
		}
	}
	conn, err := h.server.Connect(ctx)
	if err != nil {
		return pgnode.Pulse{Writes: pgnode.NoWay(err), Err: err}
	}
	h.conn = conn
	p := conn.Beat(ctx, beat)
	if conn.Broken() {
		h.hangUp(ctx)
	}
	return p
}
