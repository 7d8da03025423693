package sim

import (
	"time"

	"github.com/cstproxy/cstproxy/ha/topology"
)

const (
	walTimeout = 5 * time.Second        // wal_sender_timeout, wal_receiver_timeout
	walRetry   = 200 * time.Millisecond // wal_retrieve_retry_interval
)

// stream is one replication connection.
type stream struct {
	from, to *node
	closed   bool
	heard    time.Duration // by the receiver
	pumped   time.Duration
}

// sender is a row of pg_stat_replication. It stays after the other end is gone for as long as nobody
// has told this one: until walTimeout after the last reply.
type sender struct {
	stream *stream
	flush  topology.LSN
	reply  time.Duration
}

// tendStreams is what a server does now and then: connect, keep alive, notice that nobody answers.
func (n *node) tendStreams() {
	if n.receiver != nil && n.w.now-n.receiver.heard > walTimeout {
		n.closeReceiver()
	}
	for _, standby := range n.w.nodes {
		switch s := n.senders[standby]; {
		case s == nil:
		case n.w.now-s.reply > walTimeout:
			n.w.trace("%s gives up the stream to %s", n.name(), standby.name())
			delete(n.senders, standby)
		case n.w.now-s.stream.pumped > walTimeout/10:
			n.pump(s.stream)
		}
	}
	if n.ready && !n.primary && n.receiver == nil && n.upstream != 0 {
		n.connect(n.w.node(n.upstream))
	}
}

// connect asks the upstream for the log. PostgreSQL refuses a standby by timelines and positions; that
// two promotions made the same timeline from the same position it does not see.
func (n *node) connect(up *node) {
	if up == nil || up == n {
		return
	}
	life := n.postmaster.life
	n.w.net.send(n.host, up.host, up.postmaster, func() {
		if n.postmaster.life != life || n.primary || n.upstream != up.id {
			return // who asked has hung up meanwhile
		}
		if !up.taking() || n.system != up.system || !n.history.IsPrefixOf(up.history, n.end()) || len(n.wal) > len(up.wal) {
			return
		}
		if !up.holds(&n.directory) {
			n.w.twins(n, up)
			return
		}
		s := &stream{from: up, to: n, heard: n.w.now}
		up.senders[n] = &sender{stream: s, reply: n.w.now}
		up.w.net.send(up.host, n.host, n.postmaster, func() {
			if n.receiver != nil || n.primary || n.upstream != up.id || !n.ready {
				return
			}
			n.receiver = s
			s.heard = n.w.now
			n.known = max(n.known, up.history.Timeline)
			up.pump(s)
		})
	})
}

func (n *node) pumpAll() {
	for _, standby := range n.w.nodes {
		if s := n.senders[standby]; s != nil {
			n.pump(s.stream)
		}
	}
}

// pump sends a stream all that the server has.
func (n *node) pump(s *stream) {
	if s.closed || n.hung {
		return
	}
	s.pumped = n.w.now
	log, history := n.wal, n.history
	n.w.net.send(n.host, s.to.host, s.to.postmaster, func() { s.to.receive(s, log, history) })
}

func (n *node) receive(s *stream, log []walRecord, history topology.History) {
	if s.closed || n.receiver != s || n.hung {
		return
	}
	s.heard = n.w.now
	if len(log) > len(n.wal) {
		n.wal = append(n.wal, log[len(n.wal):]...)
		n.history = historyAt(history, n.end())
		n.known = max(n.known, history.Timeline)
		n.replaySoon(len(n.wal))
		n.pumpAll() // to those that stream from this one
	}
	flush := n.end()
	n.w.net.send(n.host, s.from.host, s.from.postmaster, func() {
		row := s.from.senders[n]
		if row == nil || row.stream != s {
			return
		}
		row.flush, row.reply = max(row.flush, flush), n.w.now
		s.from.releaseCommits()
	})
}

func (n *node) replaySoon(upTo int) {
	n.w.schedule(n.slowReplay+n.w.upTo(5*time.Millisecond), n.postmaster, func() {
		n.replayed = max(n.replayed, min(upTo, len(n.wal)))
	})
}

// closeReceiver ends the WAL receiver; the other end learns of it if it can be told.
func (n *node) closeReceiver() {
	s := n.receiver
	if s == nil {
		return
	}
	n.receiver, s.closed = nil, true
	n.w.net.send(n.host, s.from.host, s.from.postmaster, func() {
		if row := s.from.senders[n]; row != nil && row.stream == s {
			delete(s.from.senders, n)
		}
	})
}

// hangUp ends all connections of a server that has crashed; its kernel tells the other ends.
func (n *node) hangUp() {
	for _, t := range n.turns {
		m := t.client.m
		n.w.net.send(n.host, m.host, m.process, func() { t.client.end(t) })
	}
	n.turns = nil
	for _, m := range n.w.members {
		n.w.sendAside(n.host, m.host, m.process, func() { m.library.lost(n) })
	}
	n.closeReceiver()
	for _, standby := range n.w.nodes {
		s := n.senders[standby]
		if s == nil {
			continue
		}
		n.w.net.send(n.host, standby.host, standby.postmaster, func() {
			if standby.receiver == s.stream {
				standby.receiver = nil
			}
		})
	}
	n.senders, n.commits = map[*node]*sender{}, nil
}
