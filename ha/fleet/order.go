package fleet

import (
	"context"
	"fmt"

	"github.com/cstproxy/cstproxy/ha"
	"github.com/cstproxy/cstproxy/ha/consensus"
	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/record"
)

// Order commits what an operator wants of a cluster: entry says it as an entry, by what the leader
// knows (decide.NewSwitch and its kin), or why it is refused. A consensus.NotLeaderError says whom to
// ask instead, ha.ErrUnknown that there is no such cluster. nil means agreed on, not done: the record
// and Evidence show what becomes of it.
func (f *Fleet) Order(ctx context.Context, cluster string, entry func(decide.Picture) (record.Entry, error)) error {
	known := false
	for _, c := range f.clusters {
		known = known || c.Name == cluster
	}
	if !known {
		return fmt.Errorf("cluster %q: %w", cluster, ha.ErrUnknown)
	}
	f.mu.Lock()
	r := f.reign
	f.mu.Unlock()
	if r == nil {
		return &consensus.NotLeaderError{Leader: f.parts.Log.Leader()}
	}
	state, _ := f.parts.Log.State()
	e, err := entry(f.picture(r.seats[cluster], clusterOf(state, cluster)))
	if err != nil {
		return err
	}
	return f.parts.Log.Propose(ctx, e)
}
