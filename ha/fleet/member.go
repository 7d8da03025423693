package fleet

import (
	"context"
	"fmt"
	"maps"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/cstproxy/cstproxy/ha"
	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/lease"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// maxReports bounds the reports that wait for an answer; one waits no longer than a lease lasts.
const maxReports = 8

// takePart follows the log and reports to the leader until ctx ends.
func (f *Fleet) takePart(ctx context.Context) {
	var reports, proofs errgroup.Group
	reports.SetLimit(maxReports)
	proofs.SetLimit(1)
	defer proofs.Wait()
	defer reports.Wait()
	tick := time.NewTicker(f.cfg.Terms.Length / 3)
	defer tick.Stop()
	for {
		changed := f.parts.Log.Changed()
		f.follow()
		f.remember()
		seen := f.look()
		reports.TryGo(func() error { f.report(ctx, seen); return nil })
		proofs.TryGo(func() error { f.prove(ctx); return nil })
		for news := false; !news; {
			select {
			case <-ctx.Done():
				return
			case <-f.drainLook():
				news = f.drained()
			case <-changed:
				news = true
			case <-tick.C:
				news = true
			case <-f.observed:
				news = f.somethingNew()
			}
		}
	}
}

// follow puts the newest record into force, and returns it when it is: what this member acknowledges,
// or does as a leader, comes after.
func (f *Fleet) follow() (*record.State, uint64) {
	f.following.Lock()
	defer f.following.Unlock()
	state, index := f.parts.Log.State()
	if f.ruled && index == f.applied || f.alone() && !f.caughtUp {
		return state, index // what is read from the disk may be long past, and no lease stands before it
	}
	for _, c := range f.clusters {
		f.amendHere(c, clusterOf(state, c.Name))
		c.Servers.Rule(f.obey(c, clusterOf(state, c.Name)))
	}
	f.applied, f.ruled = index, true
	return state, index
}

func clusterOf(state *record.State, name string) *record.Cluster {
	if c := state.Clusters[name]; c != nil {
		return c
	}
	return &record.Cluster{}
}

// obey brings the lease to what the log says; from its return on, writes of a former epoch, or of one
// that is frozen, are neither routed nor answered.
func (f *Fleet) obey(c *cluster, said *record.Cluster) ha.Ruling {
	f.mu.Lock()
	defer f.mu.Unlock()
	before, held := c.holder.Epoch(), c.held
	c.holder.Follow(said)
	c.epoch = said.Epoch
	if c.holder.Epoch() != before {
		// A member that reads the log of a time when it was away sees epochs begin that are old.
		if c.begun = 0; c.abreast {
			c.begun = Now()
		}
		c.abreast = false
		c.lease.End()
		c.lease = new(topology.Lease)
		f.log.Info("epoch begins", zap.String("cluster", c.Name), zap.Uint64("epoch", uint64(said.Epoch.Number)), zap.Int("node", int(said.Epoch.Primary)))
	}
	r := ha.Ruling{Epoch: said.Epoch, Faults: faults(said)}
	if !f.alone() {
		r.Lease = c.lease
	}
	c.drains = said.Drains(said.Epoch.Number)
	if c.holder.Frozen() != 0 {
		c.lease.Suspend()
	}
	if now := max(c.holder.Frozen(), c.drains); now != 0 {
		r.Frozen = fmt.Sprintf("operation %d is under way", now)
		if op := said.Find(now); op != nil {
			r.Frozen = fmt.Sprintf("%s to epoch %d is under way: %s", op.Kind, op.To, op.Why)
			r.Heir = op.Heir()
		}
		if r.Frozen != held {
			f.log.Info("writes are held", zap.String("cluster", c.Name), zap.Uint64("epoch", uint64(said.Epoch.Number)), zap.String("why", r.Frozen))
		}
	}
	c.held = r.Frozen
	return r
}

func faults(c *record.Cluster) map[topology.NodeID]string {
	list := map[topology.NodeID]string{}
	for id, m := range c.Nodes {
		switch {
		case m.Quarantine != "":
			list[id] = m.Quarantine
		case m.Fault != "":
			list[id] = m.Fault
		}
	}
	return list
}

// look is what changes the leader's mind at once.
type look struct {
	class     decide.Class
	host      string
	role      topology.Role
	streaming bool
	recruited topology.Epoch
	timeline  topology.Timeline
}

func looks(seen []Seen) map[topology.NodeID]look {
	all := map[topology.NodeID]look{}
	for _, s := range seen {
		l := look{class: s.Sight.Class, host: s.Sight.Host}
		if s.Fact != nil {
			l.role, l.streaming, l.recruited, l.timeline = s.Fact.Role, s.Fact.Streaming, s.Fact.Recruited, s.Fact.History.Timeline
		}
		all[s.Node] = l
	}
	return all
}

// look collects what is reported, and remembers that it was. Only takePart calls it.
func (f *Fleet) look() map[string][]Seen {
	all := map[string][]Seen{}
	for _, c := range f.clusters {
		seen := c.Servers.Look()
		all[c.Name], c.told = seen, looks(seen)
		if c.Servers.Open != nil {
			c.open = c.Servers.Open()
		}
	}
	return all
}

// drainLook is how often the open transactions are counted while a switchover waits for them.
const drainLook = 10 * time.Millisecond

// drainLook fires when open transactions are to be counted; nil while nobody waits for them. Only
// takePart calls it, and drained.
func (f *Fleet) drainLook() <-chan time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.clusters {
		if c.drains != 0 && c.open > 0 {
			return time.After(drainLook)
		}
	}
	return nil
}

// drained says whether fewer transactions are open than were reported.
func (f *Fleet) drained() bool {
	for _, c := range f.clusters {
		if c.Servers.Open != nil && c.Servers.Open() < c.open {
			return true
		}
	}
	return false
}

// somethingNew says whether a report would say something else than the last one. Only takePart calls it.
func (f *Fleet) somethingNew() bool {
	for _, c := range f.clusters {
		if !maps.Equal(c.told, looks(c.Servers.Look())) {
			return true
		}
	}
	return false
}

// report tells the leader, if there is one, and takes the leases that it grants.
func (f *Fleet) report(ctx context.Context, seen map[string][]Seen) {
	leader := f.parts.Log.Leader()
	if leader.Name == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Terms.Length)
	defer cancel()
	sent, r := Now(), f.compose(seen)
	var answer reply
	var err error
	if leader.Name == f.cfg.Name || f.alone() {
		answer, err = f.receive(ctx, f.cfg.Name, r)
	} else {
		var body []byte
		if body, err = r.encode(); err == nil {
			body, err = f.parts.Link.Call(ctx, leader, reportMethod, body)
		}
		if err == nil {
			answer, err = decodeReply(body)
		}
	}
	if err != nil {
		f.log.Debug("report not answered", zap.String("member", leader.Name), zap.Error(err))
		return
	}
	f.take(answer, sent)
}

// compose makes a report that is sent now or later.
func (f *Fleet) compose(seen map[string][]Seen) *report {
	open := map[string]int{}
	for _, c := range f.clusters {
		if c.Servers.Open != nil {
			open[c.Name] = c.Servers.Open()
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.number++
	now := Now()
	r := &report{Version: reportVersion, Level: record.Level, Number: f.number, Witness: f.cfg.Witness,
		Front: now < f.frontUntil, FrontLapsed: f.frontLapsed(now), Clusters: map[string]*share{}}
	for _, c := range f.clusters {
		request := c.holder.Ask(Now())
		r.Birth = request.Birth
		s := &share{Frozen: c.holder.Frozen(), Drains: c.drains, Epoch: request.Epoch, Known: request.Known, Open: open[c.Name], Nodes: seen[c.Name]}
		if !f.cfg.Witness && !f.alone() && request.Epoch != 0 {
			s.Request = &request
		}
		r.Clusters[c.Name] = s
	}
	return r
}

// take renews the leases, by the answer to a report that was sent at sent or later.
func (f *Fleet) take(answer reply, sent time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if answer.Front {
		f.frontUntil = max(f.frontUntil, sent+f.frontTerms().Length)
	}
	for _, c := range f.clusters {
		c.learnAge(answer.Epochs[c.Name], sent)
		if granted, ok := answer.Leases[c.Name]; ok && c.holder.Granted(lease.Reply(granted)) {
			if sent > f.out {
				f.out = 0
			}
			c.lease.Renew(int64(c.holder.Until()))
		}
	}
}

// learnAge takes from the leader's answer whether this member is abreast of it, and when the epoch began, as
// far as the leader knows better. Fleet.mu is held.
//
// Every member keeps that, because whoever leads next has to know how long ago the last failover was. One that
// was just started learns it; when all were, or the leader of a new epoch dies with the only knowledge of it,
// nobody knows, and a failover may follow sooner than anti_flap says.
func (c *cluster) learnAge(a epochAge, sent time.Duration) {
	if a.Epoch == 0 || a.Epoch != c.epoch.Number {
		return
	}
	c.abreast = true
	if a.Known && a.Age >= 0 && a.Age <= maxAge {
		c.begun = sent - a.Age
	}
}
