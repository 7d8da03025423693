package sim

import (
	"slices"
	"time"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// walRecord is one record of the log. No two have the same serial number, so two logs that have the
// same record in the same place are the same up to there.
type walRecord struct {
	serial int
	write  int // the client's write that it commits; 0: anything else
}

// Positions: every record is as long as the next.
const (
	walStart topology.LSN = 0x3000000
	walStep  topology.LSN = 0x100
)

func position(records int) topology.LSN { return walStart + walStep*topology.LSN(records) }

func recordsTo(at topology.LSN) int { return int((at - walStart) / walStep) }

// directory is a node's data directory: what survives a crash.
type directory struct {
	wal      []walRecord // appended to in place; a shorter one is always a copy
	history  topology.History
	known    topology.Timeline // the highest of which it has a history file
	system   uint64
	signal   bool            // standby.signal
	recovery bool            // pg_control says that it last ran as a standby
	upstream topology.NodeID // primary_conninfo
	marker   topology.Epoch  // cstproxy.epoch
	partial  bool            // a copy or a rewind did not end
	promoted topology.Epoch  // the epoch whose promotion made it a primary; 0: it never was, or by hand
	ended    topology.LSN    // where the shutdown checkpoint begins; 0: it did not end in order as a primary
}

func (d *directory) end() topology.LSN { return position(len(d.wal)) }

// node is one PostgreSQL server.
type node struct {
	w       *world
	id      topology.NodeID
	host    *host
	conf    decide.Node
	ratchet ratchet
	directory
	postmaster *process
	ready      bool // takes connections
	primary    bool // not in recovery
	closing    bool // in a fast shutdown
	replayed   int
	receiver   *stream
	senders    map[*node]*sender
	commits    []*commit
	turns      []*turn // of clients, that have no answer yet
	hung       bool    // writes to the disk do not end
	crowded    bool    // out of connections
	slowReplay time.Duration
}

// commit is one that waits for standbys.
type commit struct {
	at   topology.LSN
	done func()
}

func (n *node) taking() bool { return n.postmaster.running() && n.ready && !n.closing }

// boot starts the server in the role that its directory says.
func (n *node) boot() {
	if n.postmaster.alive || !n.host.up {
		return
	}
	n.w.start(n.postmaster)
	n.ready, n.primary, n.closing = false, false, false
	n.receiver, n.senders, n.commits = nil, map[*node]*sender{}, nil
	n.replayed, n.ended = 0, 0
	n.w.every(walRetry, n.postmaster, n.tendStreams)
	n.w.schedule(n.w.between(100*time.Millisecond, 900*time.Millisecond), n.postmaster, func() {
		if n.partial || len(n.wal) == 0 {
			n.crash()
			return
		}
		again := n.recovery
		n.ready, n.primary, n.recovery = true, !n.signal, n.signal
		n.replayed = len(n.wal)
		// It lets clients in when its files are consistent, which may be before it has replayed all; one that
		// was a primary goes through all of its log before it is that.
		if again && !n.primary {
			n.w.aside(func() {
				n.replayed = max(0, n.replayed-int(n.w.upTo(30)))
				end, took := len(n.wal), n.w.upTo(time.Second)
				n.w.schedule(took, n.postmaster, func() { n.replayed = max(n.replayed, min(end, len(n.wal))) })
			})
		}
		if n.primary {
			n.write(0) // the checkpoint at the end of crash recovery
		}
		n.w.trace("%s is up, %s at %s of timeline %s", n.name(), n.roleName(), n.end(), n.history.Timeline)
	})
}

func (n *node) name() string { return n.host.name }

func (n *node) roleName() string {
	if n.primary {
		return "primary"
	}
	return "standby"
}

// crash ends the server at once: SIGKILL, or pg_ctl stop -m immediate.
func (n *node) crash() {
	if !n.postmaster.alive {
		return
	}
	n.w.kill(n.postmaster)
	n.ready, n.primary, n.closing = false, false, false
	n.hangUp()
}

// write appends a record and starts sending it. It gives the position after it.
func (n *node) write(id int) topology.LSN {
	n.w.serial++
	n.wal = append(n.wal, walRecord{serial: n.w.serial, write: id})
	n.replayed = len(n.wal)
	n.pumpAll()
	return n.end()
}

// commitWrite is a client's transaction; done is called when PostgreSQL says that it is committed.
func (n *node) commitWrite(id int, done func()) {
	at := n.write(id)
	n.w.schedule(n.w.between(200*time.Microsecond, 2*time.Millisecond), n.postmaster, func() {
		n.flushed(at, done)
	})
}

func (n *node) flushed(at topology.LSN, done func()) {
	switch {
	case n.hung:
		n.w.schedule(200*time.Millisecond, n.postmaster, func() { n.flushed(at, done) })
	case n.w.plan.sync.Count == 0:
		done()
	default:
		n.commits = append(n.commits, &commit{at, done})
		n.releaseCommits()
	}
}

// releaseCommits answers the commits that enough synchronous standbys have flushed.
func (n *node) releaseCommits() {
	if len(n.commits) == 0 {
		return
	}
	upTo, ok := n.confirmed()
	if !ok {
		return
	}
	waiting := n.commits
	n.commits = nil
	for _, c := range waiting {
		if c.at <= upTo {
			c.done()
		} else {
			n.commits = append(n.commits, c)
		}
	}
}

// confirmed is up to where the standbys that synchronous_standby_names asks for have flushed; false
// when too few are connected.
func (n *node) confirmed() (topology.LSN, bool) {
	sync := &n.w.plan.sync
	var flushed []topology.LSN
	for _, name := range sync.Names {
		for _, standby := range n.w.nodes {
			if s := n.senders[standby]; s != nil && standby.conf.AppName == name {
				flushed = append(flushed, s.flush)
			}
		}
	}
	if len(flushed) < sync.Count {
		return 0, false
	}
	if sync.Method == "first" {
		return slices.Min(flushed[:sync.Count]), true
	}
	slices.Sort(flushed)
	return flushed[len(flushed)-sync.Count], true
}

// shutdown is a fast stop: no new work, everything sent to the standbys that are connected, a clean
// end. done is told when the postmaster is gone.
func (n *node) shutdown(done func()) {
	n.closing = true
	end := topology.LSN(0)
	if n.primary {
		end = n.end()
		n.write(0) // the shutdown checkpoint
	}
	var wait func()
	wait = func() {
		if n.primary {
			for _, s := range n.senders {
				if s.flush < n.end() {
					n.w.schedule(20*time.Millisecond, n.postmaster, wait)
					return
				}
			}
		}
		n.crash()
		n.ended = end
		done()
	}
	n.w.schedule(n.w.between(50*time.Millisecond, 200*time.Millisecond), n.postmaster, wait)
}

// promote makes a standby a primary of the next timeline that it does not know of.
func (n *node) promote(epoch topology.Epoch, done func()) {
	n.closeReceiver()
	n.w.schedule(n.w.between(50*time.Millisecond, 400*time.Millisecond), n.postmaster, func() {
		if n.primary {
			done()
			return
		}
		n.closeReceiver()
		n.w.promoting(n, epoch)
		old := n.history
		next := max(old.Timeline, n.known) + 1
		n.history = topology.History{Timeline: next, Forks: append(slices.Clone(old.Forks), topology.Fork{Timeline: old.Timeline, End: n.end()})}
		n.known, n.signal, n.recovery, n.promoted, n.primary = next, false, false, epoch, true
		n.write(0) // the end of recovery
		n.w.trace("%s is promoted for epoch %d: timeline %s from %s", n.name(), epoch, next, position(len(n.wal)-1))
		done()
	})
}

// fact is what the server says of itself, to who asked at the time asked on its own clock.
func (n *node) fact(asked time.Duration) decide.Fact {
	f := n.fromOutside(asked)
	f.NoVIP = n.w.plan.policy.WriteVIP != "" && !n.host.vip
	if !n.taking() {
		return f
	}
	f.Role, f.SystemID, f.History, f.Complete = topology.RoleStandby, n.system, n.history, true
	f.Receive, f.Replay = n.end(), position(n.replayed)
	if n.primary {
		f.Role, f.Write = topology.RolePrimary, n.end()
	}
	f.Streaming = n.receiver != nil
	f.Upstream, f.Recruited = n.upstream, n.marker
	f.Settings = n.w.plan.settings[n.id]
	f.Sync = n.w.plan.sync
	return f
}

// fromOutside is what somebody on its host sees without asking the server: of a stopped one, what
// pg_controldata and the files say.
func (n *node) fromOutside(asked time.Duration) decide.Fact {
	if n.postmaster.alive {
		return decide.Fact{At: asked, Running: true}
	}
	return decide.Fact{At: asked, Stopped: true, SystemID: n.system, History: n.history, Write: n.ended, Complete: !n.partial, Settings: n.w.plan.settings[n.id]}
}

// holds says whether n's log contains everything of other's.
func (n *node) holds(other *directory) bool {
	k := len(other.wal)
	return k == 0 || len(n.wal) >= k && n.wal[k-1].serial == other.wal[k-1].serial
}

// shared is up to how many records two logs are the same.
func shared(a, b []walRecord) int {
	lo, hi := 0, min(len(a), len(b))
	for lo < hi {
		mid := (lo + hi + 1) / 2
		if a[mid-1].serial == b[mid-1].serial {
			lo = mid
		} else {
			hi = mid - 1
		}
	}
	return lo
}

// historyAt is the part of a history that a server has which received it up to at.
func historyAt(h topology.History, at topology.LSN) topology.History {
	for i, f := range h.Forks {
		if at <= f.End {
			return topology.History{Timeline: f.Timeline, Forks: h.Forks[:i:i]}
		}
	}
	return h
}
