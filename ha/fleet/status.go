package fleet

import (
	"context"
	"time"

	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// Status is this member's own view of its part in the fleet; nobody else is asked.
type Status struct {
	Member string `json:"member"`
	// Fleet is the fleet's name; empty before its birth.
	Fleet string `json:"fleet,omitempty"`
	// Leader is whom this member takes for the leader; empty: nobody.
	Leader string `json:"leader,omitempty"`
	Term   uint64 `json:"term"`
	Alone  bool   `json:"alone,omitempty"`
	// Waiting says why this member has no part in a fleet yet, Trouble why its disk takes no writes.
	Waiting string `json:"waiting,omitempty"`
	Trouble string `json:"trouble,omitempty"`
	// Members are those in the log, without what the leader has heard of them.
	Members  []MemberStatus  `json:"members"`
	Clusters []ClusterStatus `json:"clusters"`
}

// ClusterStatus is this member's part in one cluster.
type ClusterStatus struct {
	Cluster string         `json:"cluster"`
	Epoch   topology.Epoch `json:"epoch"`
	// Primary is that of the epoch, whether or not it answers.
	Primary topology.NodeID `json:"primary"`
	// Lease is how much longer this member may route writes without asking; 0 when it may not, and
	// nil when it needs none (alone) or never routes any (witness).
	Lease *time.Duration `json:"lease,omitempty"`
	// Held says why writes are held; empty when they are not.
	Held string `json:"held,omitempty"`
	// Froze is the operator's order to do nothing automatic; nil when there is none.
	Froze *record.Froze `json:"froze,omitempty"`
}

// Status is this member's view of now.
func (f *Fleet) Status() Status {
	state, _ := f.parts.Log.State()
	s := Status{Member: f.cfg.Name, Fleet: state.Fleet, Leader: f.parts.Log.Leader().Name, Term: f.parts.Log.Term(), Alone: f.alone(),
		Waiting: f.parts.Log.Waiting(), Trouble: f.parts.Log.Trouble(), Members: f.inLog()}
	if f.alone() {
		s.Leader = f.cfg.Name
	}
	now := Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case s.Waiting != "" || state.Fleet != "":
	case f.unfounded != "":
		s.Waiting = f.unfounded
	case s.Leader != "":
		s.Waiting = "the fleet has not begun yet; `cstproxy ctl evidence` may say why"
	}
	for _, c := range f.clusters {
		said := clusterOf(state, c.Name)
		one := ClusterStatus{Cluster: c.Name, Epoch: said.Epoch.Number, Primary: said.Epoch.Primary, Held: c.held, Froze: said.Froze}
		if !f.alone() && !f.cfg.Witness {
			left := max(c.holder.Until()-now, 0)
			one.Lease = &left
		}
		s.Clusters = append(s.Clusters, one)
	}
	return s
}

// Record is what the fleet has agreed on about the cluster, as far as this member has read the log.
// It is shared and must not be changed. The error is ha.ErrUnknown.
func (f *Fleet) Record(cluster string) (*record.Cluster, error) {
	if err := f.configured(cluster); err != nil {
		return nil, err
	}
	state, _ := f.parts.Log.State()
	return clusterOf(state, cluster), nil
}

// Confirm is nil when, at some moment after the call, this member led as a majority of the voters knew.
// Record, read after that, shows all that was committed before the call, but for what this member is applying.
func (f *Fleet) Confirm(ctx context.Context) error { return f.parts.Log.VerifyQuorum(ctx) }

// Changed is closed at the next change of the record or of the leadership; see consensus.Log.
func (f *Fleet) Changed() <-chan struct{} { return f.parts.Log.Changed() }
