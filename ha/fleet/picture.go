package fleet

import (
	"maps"
	"slices"
	"time"

	"github.com/cstproxy/cstproxy/ha/consensus"
	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/lease"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// seat is what a leader knows of one cluster, from its election until its end. Fleet.mu guards what is
// in it but the channel and what New was given.
type seat struct {
	Cluster
	woken   chan struct{}
	grantor *lease.Grantor
	members map[string]*heard
	nodes   []decide.Node
	since   time.Duration

	index       uint64 // of the record that was looked at last
	epoch       topology.Epoch
	epochSince  time.Duration
	step        step
	stepSince   time.Duration
	tasks       map[topology.NodeID]step
	taskSince   map[topology.NodeID]time.Duration
	lastRecruit time.Duration
	finishedBy  []decide.Result
	running     []decide.Action

	decisions []Decision
	why       string // of the last one, without its figures
	alarm     string

	log      *writer
	followed map[record.OperationID]bool // operations under way that the log knows of
}

// heard is a member as its newest report shows it.
type heard struct {
	decide.Member
	birth, number uint64
	epoch         topology.Epoch // of Known
}

// step is a step of an operation, to notice that it is a new one.
type step struct {
	operation record.OperationID
	step      record.Step
}

func stepOf(o *record.Operation) step {
	if o == nil {
		return step{}
	}
	return step{o.ID, o.Step}
}

// newSeat is for a leader whose barrier has passed; said is the record by then.
func (f *Fleet) newSeat(c *cluster, said *record.Cluster) *seat {
	now := Now()
	s := &seat{
		Cluster: c.Cluster, woken: make(chan struct{}, 1), grantor: lease.NewGrantor(f.cfg.Terms, now), since: now,
		members: map[string]*heard{}, nodes: slices.Clone(c.Nodes), epoch: said.Epoch.Number, step: stepOf(said.Operation), stepSince: now,
		tasks: map[topology.NodeID]step{}, taskSince: map[topology.NodeID]time.Duration{},
		log: f.writers[c.Name], followed: map[record.OperationID]bool{},
	}
	if said.Operation != nil {
		s.lastRecruit = now // a leader before may have recruited until then
	}
	if c.epoch.Number == s.epoch {
		s.epochSince = c.begun
	}
	return s
}

func (s *seat) wake() {
	select {
	case s.woken <- struct{}{}:
	default:
	}
}

// heard takes what a member reports. A report that comes later than a newer one says nothing.
func (s *seat) heard(from string, r *report, now time.Duration) {
	m, share := s.members[from], r.Clusters[s.Name]
	if m == nil {
		m = &heard{}
		s.members[from] = m
	}
	if m.birth == r.Birth && m.number >= r.Number {
		return
	}
	m.birth, m.number, m.epoch = r.Birth, r.Number, share.Epoch
	m.Member = decide.Member{Name: from, Witness: r.Witness, Heard: now, Frozen: share.Frozen, Drains: share.Drains, Open: share.Open, Known: share.Known,
		Sights: map[topology.NodeID]decide.Sight{}}
	for i := range share.Nodes {
		seen := &share.Nodes[i]
		m.Sights[seen.Node] = seen.Sight
		if seen.Fact == nil {
			continue
		}
		fact := *seen.Fact
		fact.At = max(now-seen.Age, 1)
		fact.PrimaryAt = 0
		if fact.Primary != decide.Unprobed {
			fact.PrimaryAt = max(now-seen.PrimaryAge, 1)
		}
		if n := s.node(seen.Node); n != nil {
			fact.DiskFull, fact.NoVIP = n.Fact.DiskFull, n.Fact.NoVIP
			s.learn(seen.Node, fact, now)
		}
	}
	s.wake()
}

func (s *seat) node(id topology.NodeID) *decide.Node {
	for i := range s.nodes {
		if s.nodes[i].ID == id {
			return &s.nodes[i]
		}
	}
	return nil
}

func (s *seat) learn(id topology.NodeID, f decide.Fact, now time.Duration) {
	if n := s.node(id); n != nil {
		n.Learn(f, now)
	}
}

// finished notes how an action ended.
func (s *seat) finished(r decide.Result) {
	s.running = slices.DeleteFunc(s.running, func(a decide.Action) bool { return a == r.Action })
	s.finishedBy = append(s.finishedBy, r)
	if r.Action.Verb == decide.Recruit && r.Action.Operation == s.step.operation {
		s.lastRecruit = r.At
	}
}

// advanced looks at what the record has come to.
func (s *seat) advanced(c *record.Cluster, index uint64) {
	if index == s.index {
		return
	}
	now := Now()
	s.index = index
	if c.Epoch.Number != s.epoch {
		s.epoch, s.epochSince = c.Epoch.Number, now
	}
	if present := stepOf(c.Operation); present != s.step {
		s.stepSince = now
		if present.operation != s.step.operation {
			s.lastRecruit = 0
		}
		s.step = present
	}
	tasks := map[topology.NodeID]step{}
	for id, t := range c.Tasks {
		tasks[id] = stepOf(t)
		if s.tasks[id] != tasks[id] {
			s.taskSince[id] = now
		}
	}
	s.tasks = tasks
	s.finishedBy = slices.DeleteFunc(s.finishedBy, func(r decide.Result) bool { return c.Find(r.Action.Operation) == nil })
}

// picture is the Picture of now; it shares nothing that changes later.
func (f *Fleet) picture(s *seat, c *record.Cluster) decide.Picture {
	var voting []consensus.Voting
	if !f.alone() {
		voting = f.parts.Log.Members()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	p := decide.Picture{
		Cluster: s.Name, Now: Now(), Self: f.cfg.Name, LeaderSince: s.since, Alone: f.alone(), Record: *c, Policy: s.Policy,
		Nodes: slices.Clone(s.nodes), StepSince: s.stepSince, TaskSince: map[topology.NodeID]time.Duration{}, EpochSince: s.epochSince,
		LastRecruit: s.lastRecruit, Finished: slices.Clone(s.finishedBy), Running: slices.Clone(s.running),
	}
	for id, since := range s.taskSince {
		p.TaskSince[id] = since
	}
	if f.alone() {
		p.Members = append(p.Members, s.member(f.cfg.Name, consensus.Voter))
	}
	in := map[string]bool{}
	for _, m := range voting {
		in[m.Name] = true
		p.Members = append(p.Members, s.member(m.Name, m.Role))
	}
	// Who was taken out of the log meanwhile, or just before this leader came, may hold a lease yet.
	for _, name := range append(f.departed(s, in), slices.Sorted(maps.Keys(s.members))...) {
		if !f.alone() && !in[name] && s.grantor.Until(name) > p.Now {
			in[name] = true
			p.Members = append(p.Members, s.member(name, consensus.Follower))
		}
	}
	return p
}

func (s *seat) member(name string, role consensus.Role) decide.Member {
	m := decide.Member{Name: name}
	if h := s.members[name]; h != nil {
		m = h.Member
		if h.epoch != s.epoch {
			m.Known = 0 // it counts the versions of another epoch
		}
	}
	m.Voter, m.LeaseUntil = role == consensus.Voter, s.grantor.Until(name)
	return m
}
