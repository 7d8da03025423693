package ha

import (
	"context"
	"fmt"
	"sync"

	"github.com/cstproxy/cstproxy/ha/pgnode"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// asked is a node that an operator's question goes to.
type asked struct {
	node   topology.Node
	server *pgnode.Server
}

func (c *cluster) asked() (list []asked, primary topology.NodeID, why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.entries {
		list = append(list, asked{e.conf.node(), e.server})
	}
	return list, c.verdict.primary, c.verdict.why
}

// ReplicationDelay asks the primary how far each node is behind, on a connection of its own. One
// Delay per node, by rising id. ErrRefused while there is no primary.
func (a *Agent) ReplicationDelay(ctx context.Context, cluster string) ([]Delay, error) {
	c, err := a.cluster(cluster)
	if err != nil {
		return nil, err
	}
	nodes, primary, why := c.asked()
	if primary == 0 {
		return nil, fmt.Errorf("%w: cluster %q has no primary: %s", ErrRefused, cluster, why)
	}
	for _, n := range nodes {
		if n.node.ID == primary {
			return delays(ctx, n, nodes)
		}
	}
	return nil, fmt.Errorf("%w: cluster %q has no node %d", ErrUnknown, cluster, primary)
}

func delays(ctx context.Context, primary asked, nodes []asked) ([]Delay, error) {
	conn, err := primary.server.Connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask primary %s: %w", primary.node.Address(), err)
	}
	defer conn.Close(ctx)
	o, err := conn.Probe(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask primary %s: %w", primary.node.Address(), err)
	}
	senders, err := conn.Replication(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask primary %s for its standbys: %w", primary.node.Address(), err)
	}
	list := make([]Delay, len(nodes))
	for i, n := range nodes {
		list[i] = Delay{Node: n.node, Primary: n.node.ID == primary.node.ID, CurrentLSN: o.Write}
	}
	pair(list, senders)
	return list, nil
}

// pair finds each standby's WAL sender: by the application_name that the configuration gives it, or
// else by its host, as far as that is the address of just one node and one sender.
func pair(list []Delay, senders []pgnode.Sender) {
	taken := make([]bool, len(senders))
	give := func(match func(topology.Node, pgnode.Sender) bool) {
		for i := range list {
			d := &list[i]
			found, several := -1, false
			for j, s := range senders {
				if !d.Primary && !d.Streaming && !taken[j] && match(d.Node, s) {
					several = found >= 0
					found = j
				}
			}
			if found >= 0 && !several {
				d.Streaming, d.Sender, taken[found] = true, senders[found], true
			}
		}
	}
	give(func(n topology.Node, s pgnode.Sender) bool { return n.AppName != "" && n.AppName == s.AppName })
	hosts := map[string]int{}
	for _, d := range list {
		if !d.Primary && !d.Streaming {
			hosts[d.Node.Host]++
		}
	}
	give(func(n topology.Node, s pgnode.Sender) bool { return n.Host == s.ClientAddr && hosts[n.Host] == 1 })
}

// LastLSN asks every node where it is now, all at once. One NodeLSN per node, by rising id; a node
// that does not answer has its Err set.
func (a *Agent) LastLSN(ctx context.Context, cluster string) ([]NodeLSN, error) {
	c, err := a.cluster(cluster)
	if err != nil {
		return nil, err
	}
	nodes, _, _ := c.asked()
	list := make([]NodeLSN, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Add(1)
		go func() { defer wg.Done(); list[i] = where(ctx, n) }()
	}
	wg.Wait()
	return list, nil
}

func where(ctx context.Context, n asked) NodeLSN {
	l := NodeLSN{Node: n.node}
	o, err := observeOnce(ctx, n.server)
	if err != nil {
		l.Err = err
		return l
	}
	l.Role, l.Timeline, l.LSN = o.Role, o.Timeline, o.Write
	if o.Role == topology.RoleStandby {
		l.LSN, l.Replay = max(o.Receive, o.Replay), o.Replay
	}
	return l
}
