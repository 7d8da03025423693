package fleet

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// Decision is what this member decided as leader, and why.
type Decision struct {
	At    time.Time `json:"at"`
	Why   string    `json:"why"`
	Alarm string    `json:"alarm,omitempty"`
	// Entry says that something was proposed to the log; Actions are what was begun or goes on.
	Entry   bool            `json:"entry,omitempty"`
	Actions []decide.Action `json:"actions,omitempty"`
}

// Evidence is why a cluster's leader did what it did, or did nothing.
type Evidence struct {
	Leader string `json:"leader"`
	// Since is when it began to lead.
	Since time.Time `json:"since"`
	// Alarm is what an operator has to look at now; empty when nothing.
	Alarm string `json:"alarm,omitempty"`
	// Decisions are the last ones, oldest first.
	Decisions []Decision `json:"decisions"`
	// Sights are what each member sees of each node, as it reported last.
	Sights []MemberSight `json:"sights"`
	// Nodes are the newest facts.
	Nodes []NodeFact `json:"nodes"`
	// Addresses are where the virtual addresses were seen last.
	Addresses []Holding `json:"addresses,omitempty"`
}

// Holding is which hosts have a virtual address. Kind is "write" or "read"; no host has it when Hosts is empty.
type Holding struct {
	Kind    string   `json:"kind"`
	Address string   `json:"address"`
	Hosts   []string `json:"hosts"`
	// At is when that was seen, by Now; Ago how old it is, which Evidence sets.
	At  time.Duration `json:"-"`
	Ago time.Duration `json:"ago"`
}

// MemberSight is what one member sees of one node.
type MemberSight struct {
	Member string          `json:"member"`
	Node   topology.NodeID `json:"node"`
	Class  decide.Class    `json:"class"`
	// Since is for how long the class has been that, Ago how old the report is.
	Since time.Duration `json:"since"`
	Ago   time.Duration `json:"ago"`
	Host  string        `json:"host,omitempty"`
	Why   string        `json:"why,omitempty"`
}

// NodeFact is what a node said of itself last.
type NodeFact struct {
	Node topology.NodeID `json:"node"`
	Role string          `json:"role"`
	// Ago is how old that is; nil: it never said anything.
	Ago       *time.Duration    `json:"ago,omitempty"`
	Timeline  topology.Timeline `json:"timeline,omitempty"`
	Write     topology.LSN      `json:"write,omitempty"`
	Receive   topology.LSN      `json:"receive,omitempty"`
	Replay    topology.LSN      `json:"replay,omitempty"`
	Streaming bool              `json:"streaming"`
	Recruited topology.Epoch    `json:"recruited,omitempty"`
	Mark      record.Mark       `json:"mark"`
}

// Evidence asks the leader. Errors: ha.ErrUnknown, ErrNoLeader.
func (f *Fleet) Evidence(ctx context.Context, cluster string) (Evidence, error) {
	if err := f.configured(cluster); err != nil {
		return Evidence{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, questionTime)
	defer cancel()
	var e Evidence
	err := f.ask(ctx, evidenceMethod, cluster, &e)
	return e, err
}

func (f *Fleet) evidence(ctx context.Context, cluster string) (Evidence, error) {
	s, err := f.seatOf(ctx, cluster)
	if err != nil {
		return Evidence{}, err
	}
	state, _ := f.parts.Log.State()
	p, now := f.picture(s, clusterOf(state, cluster)), time.Now()
	e := Evidence{Leader: f.cfg.Name, Since: now.Add(p.LeaderSince - p.Now), Sights: []MemberSight{}, Nodes: []NodeFact{}}
	for _, m := range p.Members {
		for _, id := range slices.Sorted(maps.Keys(m.Sights)) {
			sight := m.Sights[id]
			e.Sights = append(e.Sights, MemberSight{Member: m.Name, Node: id, Class: sight.Class, Since: sight.Since, Ago: p.Now - m.Heard, Host: sight.Host, Why: sight.Why})
		}
	}
	for _, n := range p.Nodes {
		fact := NodeFact{Node: n.ID, Role: n.Fact.Role.String(), Timeline: n.Fact.History.Timeline, Write: n.Fact.Write, Receive: n.Fact.Receive, Replay: n.Fact.Replay,
			Streaming: n.Fact.Streaming, Recruited: n.Fact.Recruited, Mark: p.Record.Mark(n.ID)}
		if n.Fact.At != 0 {
			ago := p.Now - n.Fact.At
			fact.Ago = &ago
		}
		e.Nodes = append(e.Nodes, fact)
	}
	if s.Servers.Addresses != nil {
		for _, h := range s.Servers.Addresses() {
			h.Ago = p.Now - h.At
			e.Addresses = append(e.Addresses, h)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	e.Decisions, e.Alarm = append([]Decision{}, s.decisions...), s.alarm
	if f.unfounded != "" {
		e.Alarm = f.unfounded
	}
	return e, nil
}

// explain logs and keeps a decision, unless only the figures in its reason are new.
func (f *Fleet) explain(s *seat, c *record.Cluster, plan decide.Plan) {
	f.mu.Lock()
	defer f.mu.Unlock()
	log := f.log.With(zap.String("cluster", s.Name), zap.Uint64("epoch", uint64(s.epoch)))
	if plan.Alarm != s.alarm {
		s.alarm = plan.Alarm
		if plan.Alarm != "" {
			log.Warn("alarm", zap.String("why", plan.Alarm))
		}
	}
	why := unfigured(plan.Why)
	if why == s.why && plan.Entry == nil {
		return
	}
	s.why = why
	s.decisions = append(s.decisions, Decision{At: time.Now(), Why: plan.Why, Alarm: plan.Alarm, Entry: plan.Entry != nil, Actions: plan.Actions})
	s.decisions = s.decisions[max(0, len(s.decisions)-f.cfg.Evidence):]
	s.thinks(c, plan.Why)
	f.written()
	log.Info("decision", zap.String("why", plan.Why))
}

// unfigured leaves out of a reason what changes while it stays the same: durations and positions.
func unfigured(why string) string {
	return strings.Join(slices.DeleteFunc(strings.Fields(why), func(word string) bool { return strings.ContainsAny(word, "0123456789") }), " ")
}
