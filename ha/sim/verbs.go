package sim

import (
	"slices"
	"time"

	"github.com/cstproxy/cstproxy/ha/decide"
)

// do does what the action says to the node, as the executors do it over SSH.
func (j *job) do() {
	n := j.n
	switch j.action.Verb {
	case decide.Recruit:
		j.recruit()
	case decide.Release:
		j.attach()
	case decide.Follow:
		j.attach()
	case decide.Stop:
		j.stop()
	case decide.Start:
		n.signal = n.signal || !n.postmaster.alive
		j.startServer()
	case decide.Revive:
		if n.signal && n.recovery {
			j.end("the server was a standby when it last ran: that is a promotion, not a restart")
			return
		}
		n.signal = false
		j.startServer()
	case decide.Checkpoint:
		j.await(n.taking, 2*time.Second, func() { j.after(n.w.between(0, 200*time.Millisecond), func() { j.end("") }) })
	case decide.PromoteIt:
		j.promote()
	case decide.Rewind, decide.Rebuild:
		j.copy()
	case decide.TakeVIP:
		n.host.addressed, n.host.vip = max(n.host.addressed, j.action.Epoch), true
		j.end("")
	case decide.DropVIP:
		n.host.vip = false
		j.end("")
	default:
		j.end("")
	}
}

func (j *job) recruit() {
	n := j.n
	if !n.taking() {
		j.end("the server takes no connections")
		return
	}
	if n.primary {
		j.end("the server is a primary")
		return
	}
	n.marker = j.action.Epoch
	if n.w.plan.without != Recruit {
		n.upstream = 0
	}
	j.after(n.w.between(20*time.Millisecond, 250*time.Millisecond), func() {
		if n.upstream == 0 {
			n.closeReceiver()
		}
		j.end("")
	})
}

// attach points a standby at an upstream, running or not.
func (j *job) attach() {
	n := j.n
	if n.primary {
		j.end("the server is a primary")
		return
	}
	if n.postmaster.alive && !n.taking() {
		j.end("the server takes no connections")
		return
	}
	n.marker = 0
	if n.upstream != j.action.Upstream {
		n.closeReceiver()
	}
	n.upstream = j.action.Upstream
	j.after(n.w.between(20*time.Millisecond, 250*time.Millisecond), func() { j.end("") })
}

// stop ends the server and makes sure that it does not come back as a primary by itself. A server
// that is stopped by SIGSTOP does not end.
func (j *job) stop() {
	n := j.n
	n.host.vip = false
	gone := func() {
		n.signal = true
		n.w.trace("%s is stopped (%s)", n.name(), j.action.Mode)
		j.end("")
	}
	switch {
	case !n.postmaster.alive:
		gone()
	case j.action.Mode == "immediate" && n.postmaster.stopped:
		n.w.schedule(0, n.postmaster, n.crash) // SIGQUIT waits until it goes on
		j.await(func() bool { return !n.postmaster.alive }, 3*time.Second, gone)
	case j.action.Mode == "immediate":
		n.crash()
		j.after(n.w.between(20*time.Millisecond, 100*time.Millisecond), gone)
	default:
		n.w.schedule(0, n.postmaster, func() { n.shutdown(func() {}) })
		j.await(func() bool { return !n.postmaster.alive }, 8*time.Second, gone)
	}
}

func (j *job) startServer() {
	n := j.n
	if n.partial {
		j.end("the directory is not complete")
		return
	}
	n.boot()
	j.await(n.taking, 4*time.Second, func() { j.end("") })
}

func (j *job) promote() {
	n := j.n
	switch {
	case !n.taking():
		j.end("the server takes no connections")
	case n.primary:
		j.end("")
	default:
		n.known = max(n.known, j.action.Timeline-1)
		n.promote(j.action.Epoch, func() {})
		j.await(func() bool { return n.primary }, 3*time.Second, func() { j.end("") })
	}
}

// copy is pg_rewind or pg_basebackup: both need a source that runs and leave a directory that is of
// no use until they have ended.
func (j *job) copy() {
	n, source := j.n, j.n.w.node(j.action.Upstream)
	reachable := func() bool {
		return source != nil && source != n && source.taking() && source.primary && n.w.net.bothWays(n.host, source.host)
	}
	if !reachable() {
		j.end("the source cannot be reached")
		return
	}
	rewind := j.action.Verb == decide.Rewind
	switch {
	case rewind && n.w.chance(n.w.plan.rewindFails):
		j.end("pg_rewind: could not find previous WAL record")
		return
	case rewind && (n.partial || n.system != source.system):
		j.end("pg_rewind: the directory cannot be used")
		return
	}
	if rewind && n.history.Equal(source.history) && !source.holds(&n.directory) {
		n.w.twins(n, source)
	}
	n.crash()
	n.w.wiping(n, source, j.action)
	took := n.w.between(500*time.Millisecond, 1500*time.Millisecond)
	n.partial = true
	if !rewind {
		n.wal = nil
		took = n.w.between(2*time.Second, 5*time.Second)
	}
	j.after(took, func() {
		if !reachable() {
			j.end("the source was lost")
			return
		}
		n.wal, n.history, n.known, n.system = slices.Clone(source.wal), source.history, source.known, source.system
		n.partial, n.signal, n.recovery, n.marker, n.upstream, n.promoted = false, true, true, 0, source.id, 0
		j.startServer()
	})
}
