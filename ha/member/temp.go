package member

import (
	"context"
	"time"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/fleet"
	"github.com/cstproxy/cstproxy/ha/lease"
	"github.com/cstproxy/cstproxy/ha/pgnode"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

func (c *cluster) look() []fleet.Seen {
	s, err := c.member.parts.Agent.Snapshot(c.name)
	if err != nil {
		return nil
	}
	var list []fleet.Seen
	for i := range s.Nodes {
		n := &s.Nodes[i]
		seen := fleet.Seen{Node: n.ID, Sight: decide.Sight{Class: n.Class, Since: s.Taken.Sub(n.Since), Why: n.Failure}}
		o := &n.Observation
		if !o.At.IsZero() {
			sync, _ := pgnode.ParseSyncNames(o.Settings.SyncNames)
			seen.Fact = &decide.Fact{Role: o.Role, SystemID: o.SystemID, History: o.History, Write: o.Write, Receive: o.Receive, Replay: o.Replay,
				Streaming: o.Receiver == "streaming", Running: true, Complete: true, Sync: sync,
				Settings: record.Settings{MaxConnections: o.Settings.MaxConnections, MaxWorkers: o.Settings.MaxWorkers, MaxSenders: o.Settings.MaxSenders, MaxPrepared: o.Settings.MaxPrepared, MaxLocks: o.Settings.MaxLocks}}
			if o.Role == topology.RoleStandby {
				seen.Fact.Upstream = s.Primary
			}
			seen.Age = time.Since(o.At)
		}
		list = append(list, seen)
	}
	return list
}

func (c *cluster) prove(ctx context.Context, e record.Epoch, p lease.Proof) lease.Proof { return p }
