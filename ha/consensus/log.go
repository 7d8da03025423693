package consensus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/ha/peer"
	"github.com/cstproxy/cstproxy/ha/record"
)

// Raft's own timings that nobody has to set.
const (
	commitTime    = 50 * time.Millisecond // at most this until followers learn what was committed
	maxAppend     = 64                    // entries in one message
	snapshotCheck = time.Minute
	messageTime   = 2 * time.Second // for a message of raft, the follower's fsync included
	maxPool       = 3               // idle streams to each member
	aloneTime     = 20 * time.Millisecond
)

// Log is this member's part of the fleet's log. Its methods may be called from any goroutine.
type Log struct {
	cfg     Config
	link    *peer.Link // nil: alone
	log     *zap.Logger
	machine *machine
	changed *signal
	jobs    chan *job
	rounds  rounds
	reign   reign
	waiting atomic.Pointer[string] // why this member has no part in a fleet yet

	up atomic.Pointer[running] // nil before and after Run
}

// running is what exists while Run does.
type running struct {
	node  *raft.Raft
	store *store
	over  chan struct{} // closed when no job is taken any more
}

// New returns a log that has not been read yet. A nil link makes a member alone: a fleet of one.
// Otherwise New adds its handlers to the link, and must come before the link runs.
func New(cfg Config, link *peer.Link, log *zap.Logger) (*Log, error) {
	if err := cfg.Validate(link); err != nil {
		return nil, err
	}
	if cfg.Address == "" {
		cfg.Address = cfg.Name
	}
	log = log.Named("consensus")
	changed := newSignal()
	l := &Log{
		cfg: cfg, link: link, log: log, changed: changed,
		machine: newMachine(changed, log),
		jobs:    make(chan *job),
		rounds:  rounds{turn: make(chan struct{}, 1)},
	}
	if link != nil {
		link.Handle(meetMethod, l.answerMeet)
		link.Handle(confirmMethod, l.answerConfirm)
	}
	return l, nil
}

// State is the newest record that this member knows to be committed, and the entry of the log that
// made it. The State is shared and must not be changed.
func (l *Log) State() (*record.State, uint64) {
	now := l.machine.now.Load()
	return now.State, now.Index
}

// Changed is closed at the next change of State, of Leader, or of this member's own leadership.
// Take it first and look then, or a change is missed.
func (l *Log) Changed() <-chan struct{} { return l.changed.wait() }

// Leader is the member that this one takes for the leader; empty when it knows none.
func (l *Log) Leader() peer.Member {
	up := l.up.Load()
	if up == nil {
		return peer.Member{}
	}
	address, id := up.node.LeaderWithID()
	if id == up.store.id && l.mute(up.store) {
		return peer.Member{}
	}
	return peer.Member{Name: nameOf(id), Address: string(address)}
}

// Term is the newest that this member has heard of; 0 before the fleet's birth.
func (l *Log) Term() uint64 {
	up := l.up.Load()
	if up == nil {
		return 0
	}
	return up.node.CurrentTerm()
}

// Waiting says why this member has no part in a fleet yet; empty when it does.
func (l *Log) Waiting() string { return text(l.waiting.Load()) }

// Trouble says why the disk takes no writes; empty while it does.
func (l *Log) Trouble() string {
	up := l.up.Load()
	if up == nil {
		return ""
	}
	return text(up.store.trouble.Load())
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// Run reads the log and takes part until ctx ends. A leader hands over before it goes. An error is
// one that this member cannot get over by itself: a file that cannot be read, or ErrNewer; or that the
// disk hangs when ctx ends. That write, and the goroutines that wait for it, it leaves behind.
func (l *Log) Run(ctx context.Context) error {
	stopping := make(chan struct{})
	st, err := openStore(l.cfg.Dir, l.cfg.Name, stopping, l.log)
	if err != nil {
		return err
	}
	st.bound = l.cfg.hangs()
	ran := make(chan error, 1)
	go func() {
		err := l.run(ctx, st, stopping)
		if closing := st.close(); err == nil && closing != nil {
			err = fmt.Errorf("close the fleet's log: %w", closing)
		}
		ran <- err
	}()
	return l.end(ctx, st, ran)
}

func (l *Log) run(ctx context.Context, st *store, stopping chan struct{}) error {
	notify := make(chan bool, 8)
	observed := make(chan raft.Observation, 16)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dialing, hangUp := context.WithCancel(context.WithoutCancel(ctx)) // the handing over needs streams, too
	defer hangUp()
	node, transport, err := l.startRaft(dialing, st, notify)
	if err != nil {
		return err
	}
	up := &running{node: node, store: st, over: make(chan struct{})}
	l.up.Store(up)
	observer := raft.NewObserver(observed, false, func(o *raft.Observation) bool {
		_, leader := o.Data.(raft.LeaderObservation)
		return leader
	})
	node.RegisterObserver(observer)
	l.changed.fire()

	var work, watch sync.WaitGroup
	watched, unwatch := context.WithCancel(context.WithoutCancel(ctx))
	watch.Add(1)
	go func() { defer watch.Done(); l.watch(watched, up, notify, observed) }()
	work.Add(2)
	go func() { defer work.Done(); l.serve(ctx, node) }()
	go func() { defer work.Done(); l.meet(ctx, up); l.keepAddress(ctx, up) }()

	select {
	case <-ctx.Done():
		l.handOver(up)
	case err = <-l.machine.failed:
	}
	cancel()
	close(stopping)
	close(up.over)
	work.Wait() // before raft's shutdown, which forgets to answer what it has committed
	hangUp()
	down := node.Shutdown()
	if transport != nil {
		transport.Close()
		transport.CloseStreams()
	}
	ending := down.Error()
	l.up.Store(nil)
	unwatch()
	watch.Wait()
	l.reign.end()
	l.changed.fire()
	return errors.Join(err, ending)
}

// startRaft also returns the transport to be closed, nil for a member alone.
func (l *Log) startRaft(ctx context.Context, st *store, notify chan<- bool) (*raft.Raft, *raft.NetworkTransport, error) {
	logger := newRaftLogger(l.log)
	conf := l.raftConfig(st.id)
	conf.Logger, conf.NotifyCh = logger, notify
	if l.link == nil {
		_, transport := raft.NewInmemTransport(raft.ServerAddress(l.cfg.Address))
		node, err := l.startAlone(conf, st, transport)
		return node, nil, err
	}
	layer := &streams{own: st.id, address: l.cfg.Address, streams: l.link.Streams(), hangs: st.hung.Load, dial: l.dialer(ctx)}
	transport := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: layer, MaxPool: maxPool, Timeout: messageTime, Logger: logger,
	})
	node, err := l.newRaft(conf, st, transport)
	if err != nil {
		transport.Close()
	}
	return node, transport, err
}

func (l *Log) startAlone(conf *raft.Config, st *store, transport raft.Transport) (*raft.Raft, error) {
	if st.empty() {
		alone := raft.Configuration{Servers: []raft.Server{{ID: st.id, Address: raft.ServerAddress(l.cfg.Address)}}}
		if err := raft.BootstrapCluster(conf, st, st, st, transport, alone); err != nil {
			return nil, fmt.Errorf("begin the fleet's log: %w", err)
		}
	}
	node, err := l.newRaft(conf, st, transport)
	if err != nil {
		return nil, err
	}
	if others := without(servers(node), st.id); len(others) > 0 {
		err := fmt.Errorf("the fleet's log has other members (%s): this one cannot be configured to be alone", strings.Join(others, ", "))
		return nil, errors.Join(err, node.Shutdown().Error())
	}
	return node, nil
}

// newRaft reads the log.
func (l *Log) newRaft(conf *raft.Config, st *store, transport raft.Transport) (*raft.Raft, error) {
	node, err := raft.NewRaft(conf, l.machine, st, st, st, transport)
	if err == nil {
		return node, nil
	}
	select {
	case why := <-l.machine.failed: // raft says only that no snapshot could be read
		err = why
	default:
	}
	return nil, fmt.Errorf("read the fleet's log: %w", err)
}

func without(all []raft.Server, id raft.ServerID) []string {
	var names []string
	for _, s := range all {
		if s.ID != id {
			names = append(names, nameOf(s.ID))
		}
	}
	return names
}

func (l *Log) raftConfig(id raft.ServerID) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = id
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = l.cfg.Heartbeat, l.cfg.Election, l.cfg.LeaderLease
	if l.link == nil { // nobody else can lead, so nobody is waited for
		c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = aloneTime, aloneTime, aloneTime
	}
	c.CommitTimeout, c.MaxAppendEntries = commitTime, maxAppend
	c.SnapshotInterval, c.SnapshotThreshold, c.TrailingLogs = snapshotCheck, l.cfg.SnapshotEvery, l.cfg.Trailing
	c.ShutdownOnRemove, c.NoLegacyTelemetry = false, true
	return c
}

// handOver lets another member lead before this one goes, if there is one and this one leads.
func (l *Log) handOver(up *running) {
	node := up.node
	if _, ok := l.leading(up); !ok || voters(node) < 2 {
		return
	}
	node.LeadershipTransfer() // its future may never be answered; the state says enough
	deadline := time.NewTimer(l.cfg.Election)
	defer deadline.Stop()
	for {
		changed := l.changed.wait()
		if node.State() != raft.Leader {
			return
		}
		select {
		case <-changed:
		case <-deadline.C:
			return
		}
	}
}

// watch passes on what raft says of leadership, and the disk, until ctx ends. What is so now counts, not
// what was said: that may have waited here since.
func (l *Log) watch(ctx context.Context, up *running, notify <-chan bool, observed <-chan raft.Observation) {
	for {
		turned := up.store.turned.wait()
		l.crown(up)
		l.changed.fire()
		select {
		case <-ctx.Done():
			return
		case <-observed:
		case <-notify:
		case <-turned:
		}
	}
}

// crown begins and ends the reign. A member leads once in a term, so in the same one it is the same reign,
// unless the disk has hung meanwhile.
func (l *Log) crown(up *running) {
	term, leads := l.leading(up)
	if !leads {
		term = 0
	}
	before := l.reign.now()
	if term == before {
		return
	}
	l.reign.end()
	if leads {
		l.reign.begin(term)
		l.log.Info("this member leads", zap.Uint64("term", term))
	} else {
		l.log.Info("this member leads no more", zap.Uint64("term", before))
	}
}

// leading is the term in which this member leads, for certain at some moment during the call: the term
// changes only after the state, and is the same before and after it was read.
func (l *Log) leading(up *running) (term uint64, ok bool) {
	term = up.node.CurrentTerm()
	ok = up.node.State() == raft.Leader && !l.mute(up.store)
	return term, ok && up.node.CurrentTerm() == term
}

func servers(node *raft.Raft) []raft.Server { return node.GetConfiguration().Configuration().Servers }

// voters counts them.
func voters(node *raft.Raft) int {
	n := 0
	for _, s := range servers(node) {
		if s.Suffrage == raft.Voter {
			n++
		}
	}
	return n
}
