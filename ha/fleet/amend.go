package fleet

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/ha/consensus"
	"github.com/cstproxy/cstproxy/ha/record"
)

// Amendment is an operator's change of a cluster's policies, for all members.
type Amendment struct {
	Cluster string `json:"cluster"`
	// Amend.Version is that of the policies which the operator has seen; At is set by the member that
	// takes the order.
	record.Amend
}

// amendment is an Amendment on its way to the leader.
type amendment struct {
	Amendment
	// Trial asks only what would be.
	Trial bool `json:"trial,omitempty"`
}

// policiesLevel is the record.Level that reads a change of policies.
const policiesLevel = 2

// Amend has the leader change policies, and returns them as they are then. It changes them once, also
// when the leadership moves meanwhile. Errors as of Command, and ha.ErrPolicy: the values cannot be obeyed.
func (f *Fleet) Amend(ctx context.Context, a Amendment) (record.Meta, error) {
	return f.amend(ctx, amendment{Amendment: a})
}

// ForeseeAmend says what Amend would make of the policies, and changes nothing. Errors as of Amend.
func (f *Fleet) ForeseeAmend(ctx context.Context, a Amendment) (record.Meta, error) {
	return f.amend(ctx, amendment{Amendment: a, Trial: true})
}

func (f *Fleet) amend(ctx context.Context, q amendment) (record.Meta, error) {
	if err := f.configured(q.Cluster); err != nil {
		return record.Meta{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, orderTime)
	defer cancel()
	q.At = time.Now().UnixMilli()
	var m record.Meta
	err := f.ask(ctx, amendMethod, q, &m)
	if err == nil && !q.Trial {
		f.readUp(ctx, q.Cluster, func(c *record.Cluster) bool { return c.Policies().Version >= m.Version })
	}
	return m, err
}

// amended is what the leader does with an Amendment.
func (f *Fleet) amended(ctx context.Context, q amendment) (record.Meta, error) {
	s, err := f.seatOf(ctx, q.Cluster)
	if err != nil {
		return record.Meta{}, err
	}
	for {
		state, _ := f.parts.Log.State()
		if state.Fleet == "" {
			return record.Meta{}, refused("the fleet has not begun yet; `cstproxy ctl evidence` may say why")
		}
		now := clusterOf(state, q.Cluster).Policies()
		if q.took(now) {
			return now, nil
		}
		entry, err := q.entry(now, s.Servers.Check)
		if err != nil || entry.Amend == nil {
			return now, err
		}
		if err := f.readable(ctx, state, s); err != nil {
			return record.Meta{}, err
		}
		next, err := state.Apply(entry)
		if errors.Is(err, record.ErrMalformed) {
			return record.Meta{}, &failure{Kind: "policy", Text: err.Error()}
		}
		if err == nil && !q.Trial {
			entry.Proposer = f.cfg.Name
			err = f.parts.Log.Propose(ctx, entry)
		}
		if err == nil {
			meta := next.Clusters[q.Cluster].Policies()
			if !q.Trial {
				f.log.Info("policies changed", zap.String("cluster", q.Cluster), zap.Uint64("version", meta.Version), zap.Any("set", entry.Amend.Set),
					zap.Strings("unset", entry.Amend.Unset), zap.String("why", strings.TrimSuffix("asked for by "+q.By+": "+q.Why, ": ")))
			}
			return meta, nil
		}
		if !errors.Is(err, record.ErrStale) || ctx.Err() != nil {
			return record.Meta{}, err
		}
	}
}

// took says whether an attempt before, whose answer was lost, made the change.
func (q *amendment) took(now record.Meta) bool {
	return slices.ContainsFunc(now.Changes, func(c record.Change) bool {
		return c.Version == q.Version+1 && c.By == q.By && c.At == q.At && c.Why == q.Why
	})
}

// entry is the change as an entry of the log, whose Amend is nil when nothing would change; or why it is
// refused.
func (q *amendment) entry(now record.Meta, check func(kept, set map[string]string) (map[string]string, error)) (record.Entry, error) {
	if q.Version != now.Version {
		return record.Entry{}, refused("the policies of %s are at version %d, not %d%s; look at them again", q.Cluster, now.Version, q.Version, lastChange(now))
	}
	if check == nil {
		return record.Entry{}, refused("this member operates no cluster %s", q.Cluster)
	}
	kept, unset := maps.Clone(now.Values), []string(nil)
	for _, key := range q.Unset {
		if _, changed := kept[key]; changed {
			unset = append(unset, key)
			delete(kept, key)
		}
	}
	set, err := check(kept, q.Set)
	if err != nil {
		return record.Entry{}, err
	}
	maps.DeleteFunc(set, func(key, value string) bool { return kept[key] == value })
	if len(set)+len(unset) == 0 {
		return record.Entry{}, nil
	}
	a := q.Amend
	a.Set, a.Unset = set, unset
	return record.Entry{Cluster: q.Cluster, Amend: &a}, nil
}

// lastChange says who changed policies last, and what.
func lastChange(m record.Meta) string {
	if len(m.Changes) == 0 {
		return ""
	}
	last := m.Changes[len(m.Changes)-1]
	keys := append(slices.Sorted(maps.Keys(last.Set)), last.Unset...)
	return ": " + last.By + " has changed " + strings.Join(keys, ", ") + " at " + time.UnixMilli(last.At).Format(time.DateTime)
}

// readable refuses the first change of policies while a member of the log may be of a build that could
// not read it: such a member could not go on.
func (f *Fleet) readable(ctx context.Context, state *record.State, s *seat) error {
	if state.Amended() {
		return nil
	}
	return f.readableAt(ctx, s, policiesLevel)
}

// readableAt refuses an entry of a level while a member of the log may be of a build that could not read it.
func (f *Fleet) readableAt(ctx context.Context, s *seat, least int) error {
	if f.alone() {
		return nil
	}
	if err := f.settle(ctx, s); err != nil {
		return err
	}
	members := f.parts.Log.Members()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.reign == nil {
		return consensus.ErrNotLeader
	}
	var older, unheard []string
	for _, m := range members {
		said, heard := f.reign.levels[m.Name]
		switch {
		case heard && said.level < least:
			older = append(older, m.Name)
		case !heard || Now()-said.at > f.lingering(): // it may be down to be run as another build
			unheard = append(unheard, m.Name)
		}
	}
	switch {
	case len(older) > 0:
		return refused("%s: of an older build, which could not read this and would end; update all members first", strings.Join(older, ", "))
	case len(unheard) > 0:
		return refused("%s: not heard of now; every member must say that its build can read this", strings.Join(unheard, ", "))
	}
	return nil
}

// amendHere puts changed policies in force on this member. Call with following held.
func (f *Fleet) amendHere(c *cluster, said *record.Cluster) {
	m := said.Policies()
	if m.Version == c.amended || c.Servers.Amend == nil {
		return
	}
	c.Servers.Amend(m.Values)
	c.amended = m.Version
	f.log.Info("policies changed by the log are in force", zap.String("cluster", c.Name), zap.Uint64("version", m.Version), zap.Any("values", m.Values))
}
