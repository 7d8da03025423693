package member

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/ha"
	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/fleet"
	"github.com/cstproxy/cstproxy/ha/operation"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// cluster is this member's side of one cluster.
type cluster struct {
	name    string
	member  *Member
	log     *zap.Logger
	senses  senses
	current atomic.Pointer[setup]

	setting sync.Mutex        // held while another setup is made to be in force
	values  map[string]string // of policies that the log has changed
	trouble string            // why some of them are not in force

	mu       sync.Mutex
	executor *operation.Executor // made of fleets and made
	fleets   string              // the fleet's name, which it has from its birth on
	made     *setup
	holdings []fleet.Holding // see keepHoldings
}

func (m *Member) newCluster(conf *ha.ClusterConfig, notice time.Duration) (*cluster, error) {
	c := &cluster{name: conf.Name, member: m, log: m.log.With(zap.String("cluster", conf.Name))}
	s, err := m.newSetup(conf, notice)
	if err != nil {
		return nil, err
	}
	c.current.Store(s)
	// Until the log has been read nobody is primary: the agent's own judgement is for clusters that no
	// fleet rules.
	if err := m.parts.Agent.Rule(c.name, ha.Ruling{}); err != nil {
		return nil, err
	}
	return c, c.sense()
}

// setup is the one in force.
func (c *cluster) setup() *setup { return c.current.Load() }

// fleet is the cluster as package fleet knows it.
func (c *cluster) fleet() fleet.Cluster {
	f := fleet.Cluster{Name: c.name, Policy: c.setup().policy(), Nodes: c.setup().decided()}
	f.Servers = fleet.Servers{Look: c.look, Rule: c.rule, Prove: c.prove, Do: c.do, Stamps: c.stamps, Reign: c.reign, Amend: c.amend, Check: c.check, Addresses: c.addresses}
	if c.member.parts.Open != nil {
		f.Servers.Open = func() int { return c.member.parts.Open(c.name) }
	}
	return f
}

func (c *cluster) rule(r ha.Ruling) {
	if err := c.member.parts.Agent.Rule(c.name, r); err != nil {
		c.log.Error("the agent does not take the ruling", zap.Error(err))
	}
}

// do carries out an action.
func (c *cluster) do(ctx context.Context, fleetName string, a decide.Action) (decide.Result, operation.Report) {
	e, err := c.executorFor(fleetName)
	if err != nil {
		return decide.Result{Action: a, At: fleet.Now(), Err: err.Error()}, operation.Report{}
	}
	return e.Do(ctx, a)
}

func (c *cluster) executorFor(fleetName string) (*operation.Executor, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.setup()
	if c.executor != nil && c.fleets == fleetName && c.made == s {
		return c.executor, nil
	}
	e, err := operation.New(operation.Config{
		Fleet: fleetName, Cluster: c.name, Nodes: s.nodes, Replication: s.replication, Superuser: s.superuser, Now: fleet.Now,
		SlotLimit: uint64(s.conf.Operation.SlotLimit), Addresses: s.addresses, Hooks: s.hooks(), Record: c.record,
		Changed: c.member.fleet.Changed, Confirm: c.member.fleet.Confirm,
		Progress: func(a decide.Action, line string) { c.member.fleet.Progress(c.name, a, line) },
	}, c.member.log)
	if err == nil {
		c.executor, c.fleets, c.made = e, fleetName, s
	}
	return e, err
}

// record is what the fleet has agreed on about the cluster.
func (c *cluster) record() *record.Cluster {
	r, err := c.member.fleet.Record(c.name)
	if err != nil {
		return &record.Cluster{} // the fleet was made with this cluster
	}
	return r
}

// stamps are what the hosts' ratchets remember.
func (c *cluster) stamps(ctx context.Context) (list []fleet.Stamp, missing []string) {
	nodes := c.setup().nodes
	for i := range nodes {
		n := &nodes[i]
		if n.Host == nil {
			continue
		}
		seen, err := n.Host.Seen(ctx)
		if err != nil {
			missing = append(missing, fmt.Sprintf("node %d: %v", n.ID, err))
		}
		for _, t := range seen {
			list = append(list, fleet.Stamp{Fleet: t.Fleet, Cluster: t.Cluster, Epoch: topology.Epoch(t.Epoch)})
		}
	}
	return list, missing
}
