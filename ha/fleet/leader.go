package fleet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/cstproxy/cstproxy/ha/consensus"
	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/lease"
	"github.com/cstproxy/cstproxy/ha/record"
)

var errStranger = errors.New("the log knows no such member")

// reign is one time of leading. Fleet.mu guards it.
type reign struct {
	seats map[string]*seat // by cluster
	front front
	// levels are the record.Level of each member's build, as it has reported it.
	levels map[string]levelSaid
	// sworn are the identities of members that are certainly in the log: a later leader knows them, too.
	sworn map[string]bool
}

// levelSaid is a member's record.Level, and when it said so last.
type levelSaid struct {
	level int
	at    time.Duration
}

// lead rules until ctx ends with the leadership. What it began ends with it: an action that goes on at
// a host is found there by the next leader.
func (f *Fleet) lead(ctx context.Context, term uint64) error {
	f.log.Info("leads", zap.String("member", f.cfg.Name), zap.Uint64("term", term))
	f.following.Lock()
	f.caughtUp = true
	f.following.Unlock()
	state, _ := f.follow()
	f.remember()
	r := &reign{seats: map[string]*seat{}, levels: map[string]levelSaid{}, sworn: map[string]bool{}, front: front{since: Now() + f.frontTerms().Wait()}}
	for _, m := range f.parts.Log.Members() {
		r.sworn[m.Identity] = true // the barrier has passed, and nobody is added before the reign is set
	}
	f.mu.Lock()
	for _, c := range f.clusters {
		r.seats[c.Name] = f.newSeat(c, clusterOf(state, c.Name))
	}
	f.reign = r
	close(f.crowned)
	f.mu.Unlock()
	var seats errgroup.Group
	seats.Go(func() error { f.found(ctx); return nil })
	for _, s := range r.seats {
		seats.Go(func() error { f.govern(ctx, s); return nil })
		seats.Go(func() error { f.keepAppointments(ctx, s); return nil })
		if s.Servers.Reign != nil {
			seats.Go(func() error {
				if f.awaitBirth(ctx) {
					s.Servers.Reign(ctx, term)
				}
				return nil
			})
		}
	}
	err := seats.Wait()
	f.mu.Lock()
	f.reign, f.crowned = nil, make(chan struct{})
	f.mu.Unlock()
	f.log.Info("leads no more", zap.String("member", f.cfg.Name), zap.Uint64("term", term))
	return err
}

// awaitBirth waits until the fleet has its name, by which hosts know its decisions; false: ctx ended.
func (f *Fleet) awaitBirth(ctx context.Context) bool {
	for {
		changed := f.parts.Log.Changed()
		if state, _ := f.parts.Log.State(); state.Fleet != "" {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-changed:
		}
	}
}

// hesitation is the pause after a proposal that did not count, unless the record changes first.
const hesitation = 200 * time.Millisecond

// propose has an entry committed, or waits a little: the same proposal may be refused again.
func (f *Fleet) propose(ctx context.Context, e record.Entry) {
	changed := f.parts.Log.Changed()
	err := f.parts.Log.Propose(ctx, e)
	if err == nil {
		return
	}
	if ctx.Err() == nil && !errors.Is(err, consensus.ErrNotLeader) {
		f.log.Warn("entry does not count", zap.String("cluster", e.Cluster), zap.Error(err))
	}
	pause := time.NewTimer(hesitation)
	defer pause.Stop()
	select {
	case <-ctx.Done():
	case <-changed:
	case <-pause.C:
	}
}

// govern decides for one cluster, and does so again when anything has changed.
func (f *Fleet) govern(ctx context.Context, s *seat) {
	var actions errgroup.Group
	defer actions.Wait()
	for ctx.Err() == nil {
		changed := f.parts.Log.Changed()
		state, index := f.follow()
		f.mu.Lock()
		s.advanced(clusterOf(state, s.Name), index)
		f.journal(s, clusterOf(state, s.Name))
		f.written()
		f.mu.Unlock()
		if state.Fleet == "" {
			s.wait(ctx, changed, 0) // nothing counts before the fleet's birth
			continue
		}
		p := f.picture(s, clusterOf(state, s.Name))
		plan := decide.Decide(p)
		f.explain(s, &p.Record, plan)
		if plan.Entry != nil {
			f.propose(ctx, *plan.Entry)
			continue
		}
		for _, a := range plan.Actions {
			if f.begin(s, a) {
				actions.Go(func() error { f.act(ctx, s, state.Fleet, a); return nil })
			}
		}
		s.wait(ctx, changed, plan.Again)
	}
}

// wait returns when something is new, or after again; 0: that sets no limit.
func (s *seat) wait(ctx context.Context, changed <-chan struct{}, again time.Duration) {
	var due <-chan time.Time
	if again > 0 {
		timer := time.NewTimer(again)
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-ctx.Done():
	case <-changed:
	case <-s.woken:
	case <-due:
	}
}

// begin notes that an action runs, unless it does already.
func (f *Fleet) begin(s *seat, a decide.Action) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range s.running {
		if r == a {
			return false
		}
	}
	s.running = append(s.running, a)
	s.begins(a)
	f.written()
	return true
}

func (f *Fleet) act(ctx context.Context, s *seat, fleet string, a decide.Action) {
	result, seen := s.Servers.Do(ctx, fleet, a)
	now := Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	if seen.Fact.At != 0 {
		known := s.node(a.Node)
		fact := seen.Fact
		if seen.Host == nil && known != nil {
			fact.DiskFull = known.Fact.DiskFull
		}
		if !seen.VIPKnown && known != nil {
			fact.NoVIP = known.Fact.NoVIP
		}
		s.learn(a.Node, fact, now)
	}
	result.At = now
	s.finished(result)
	s.ends(result)
	f.written()
	s.wake()
}

// answer takes another member's report.
func (f *Fleet) answer(ctx context.Context, from string, body []byte) ([]byte, error) {
	r, err := decodeReport(body)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Terms.Length)
	defer cancel()
	answer, err := f.receive(ctx, from, r)
	if err != nil {
		return nil, err
	}
	return answer.encode()
}

// receive notes a report. Leases are granted when a majority, asked after the report had arrived,
// has confirmed this leader; one round of asking serves all that arrived before it.
func (f *Fleet) receive(ctx context.Context, from string, r *report) (reply, error) {
	answer := reply{Version: reportVersion, Leases: map[string]lease.Reply{}}
	if f.role(from) == "" {
		return answer, fmt.Errorf("%w: %s", errStranger, from)
	}
	if err := f.awaitReign(ctx); err != nil {
		return answer, err
	}
	reign, tickets, err := f.heard(from, r)
	if err != nil {
		return answer, err
	}
	answer.Epochs = f.ages(reign)
	if len(tickets) == 0 {
		return answer, nil
	}
	if err := f.swear(ctx, reign, from); err != nil {
		return answer, err
	}
	if err := f.parts.Log.VerifyQuorum(ctx); err != nil {
		return answer, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	state, _ := f.parts.Log.State() // not before: a picture of a freeze may have been taken meanwhile
	if f.reign != reign {
		return answer, consensus.ErrNotLeader
	}
	if !r.Witness {
		now, blind := Now(), false
		for name, s := range reign.seats {
			blind = blind || s.blind(from, clusterOf(state, name).Epoch.Primary, now-f.cfg.Terms.Length)
		}
		answer.Front = reign.front.choose(claim{from, r.Front, blind, r.FrontLapsed}, now, f.frontTerms().Wait())
	}
	for name, ticket := range tickets {
		if granted, ok := reign.seats[name].grantor.Grant(ticket, clusterOf(state, name)); ok {
			answer.Leases[name] = granted
		}
	}
	return answer, nil
}

// swear returns when the member is certainly in the log: the leader knows of one that is added before a
// majority does. Nobody else knows of a lease that this one would hold, should the leader die and the
// addition be lost with it; so it gets none until then. A member that was taken out comes back under
// another identity.
func (f *Fleet) swear(ctx context.Context, r *reign, member string) error {
	if f.alone() {
		return nil
	}
	for _, m := range f.parts.Log.Members() {
		if m.Name != member {
			continue
		}
		f.mu.Lock()
		sworn := r.sworn[m.Identity]
		f.mu.Unlock()
		if sworn {
			return nil
		}
		if err := f.parts.Log.Barrier(ctx); err != nil { // it comes after the addition
			return err
		}
		f.mu.Lock()
		r.sworn[m.Identity] = true
		f.mu.Unlock()
		return nil
	}
	return fmt.Errorf("%w: %s", errStranger, member)
}

// ages is what this leader knows of how long ago each cluster's epoch began.
func (f *Fleet) ages(r *reign) map[string]epochAge {
	f.mu.Lock()
	defer f.mu.Unlock()
	now, all := Now(), map[string]epochAge{}
	for name, s := range r.seats {
		all[name] = epochAge{Epoch: s.epoch}
		if s.epochSince != 0 {
			all[name] = epochAge{Epoch: s.epoch, Known: true, Age: now - s.epochSince}
		}
	}
	return all
}

// awaitReign waits while this member was elected and does not know yet all that was committed before:
// a report that came too early is worth waiting for, the next one comes much later.
func (f *Fleet) awaitReign(ctx context.Context) error {
	for {
		changed := f.parts.Log.Changed()
		f.mu.Lock()
		crowned := f.crowned
		f.mu.Unlock()
		if f.parts.Log.Leader().Name != f.cfg.Name && !f.alone() {
			return consensus.ErrNotLeader
		}
		select {
		case <-crowned:
			return nil
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for the leadership: %w", ctx.Err())
		}
	}
}

// role is the member's in the log; empty when it is not there. A member alone votes for itself.
func (f *Fleet) role(member string) consensus.Role {
	if f.alone() && member == f.cfg.Name {
		return consensus.Voter
	}
	for _, m := range f.parts.Log.Members() {
		if m.Name == member {
			return m.Role
		}
	}
	return ""
}

// heard puts a report into the pictures of the reign, and returns the requests that it holds.
func (f *Fleet) heard(from string, r *report) (*reign, map[string]lease.Ticket, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.reign == nil {
		return nil, nil, consensus.ErrNotLeader
	}
	now, tickets := Now(), map[string]lease.Ticket{}
	f.reign.levels[from] = levelSaid{r.Level, now}
	for name, share := range r.Clusters {
		s := f.reign.seats[name]
		if s == nil {
			continue
		}
		s.heard(from, r, now)
		if share.Request != nil && !r.Witness {
			tickets[name] = s.grantor.Arrived(from, *share.Request, now)
		}
	}
	return f.reign, tickets, nil
}
