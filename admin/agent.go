package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/cstproxy/cstproxy/ha"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// Source speaks for an agent to a Server: it is an Observer, Backends, Nodes and Replication. The
// agent's errors become those of this package.
type Source struct{ agent *ha.Agent }

// NewSource returns the agent's spokesman.
func NewSource(agent *ha.Agent) *Source { return &Source{agent: agent} }

// Clusters are the names of the clusters.
func (s *Source) Clusters() []string { return s.agent.Clusters() }

// Cluster is the agent's picture of one cluster.
func (s *Source) Cluster(name string) (Cluster, error) {
	snapshot, err := s.agent.Snapshot(name)
	if err != nil {
		return Cluster{}, translate(err)
	}
	return fromSnapshot(&snapshot, s.agent.Backends(name)), nil
}

// AddBackend takes an address into the rotation; see ha.Agent.
func (s *Source) AddBackend(ctx context.Context, cluster, address string) error {
	return translate(s.agent.AddBackend(ctx, cluster, address))
}

// RemoveBackend takes an address out of the rotation; see ha.Agent.
func (s *Source) RemoveBackend(ctx context.Context, cluster, address string) error {
	return translate(s.agent.RemoveBackend(ctx, cluster, address))
}

// Attach gives a node queries again.
func (s *Source) Attach(ctx context.Context, cluster string, node int) error {
	return translate(s.agent.Attach(ctx, cluster, topology.NodeID(node)))
}

// Detach takes a node out of the traffic.
func (s *Source) Detach(ctx context.Context, cluster string, node int) error {
	return translate(s.agent.Detach(ctx, cluster, topology.NodeID(node)))
}

// Drain lets running sessions finish on a node and sends it nothing new.
func (s *Source) Drain(ctx context.Context, cluster string, node int) error {
	return translate(s.agent.Drain(ctx, cluster, topology.NodeID(node)))
}

// LastLSN asks every node where it is.
func (s *Source) LastLSN(ctx context.Context, cluster string) ([]NodeLSN, error) {
	list, err := s.agent.LastLSN(ctx, cluster)
	if err != nil {
		return nil, translate(err)
	}
	lines := make([]NodeLSN, len(list))
	for i, n := range list {
		lines[i] = NodeLSN{ID: int(n.Node.ID), Host: n.Node.Host, Port: n.Node.Port, Primary: n.Role == topology.RolePrimary}
		if n.Err != nil {
			lines[i].Error = n.Err.Error()
			continue
		}
		lines[i].Timeline, lines[i].LSN = uint32(n.Timeline), n.LSN.String()
	}
	return lines, nil
}

// ReplicationDelay asks the primary how far every node is behind.
func (s *Source) ReplicationDelay(ctx context.Context, cluster string) ([]NodeDelay, error) {
	list, err := s.agent.ReplicationDelay(ctx, cluster)
	if err != nil {
		return nil, translate(err)
	}
	lines := make([]NodeDelay, len(list))
	for i := range list {
		lines[i] = fromDelay(&list[i])
	}
	return lines, nil
}

func fromDelay(d *ha.Delay) NodeDelay {
	line := NodeDelay{ID: int(d.Node.ID), Host: d.Node.Host, Port: d.Node.Port, Primary: d.Primary}
	switch {
	case d.Primary:
		return line
	case !d.Streaming:
		line.CurrentLSN, line.State = d.CurrentLSN.String(), "not streaming"
		return line
	}
	line.CurrentLSN = d.CurrentLSN.String()
	line.SentDelay, line.WriteDelay = &d.Sender.SentDelay, &d.Sender.WriteDelay
	line.FlushDelay, line.ReplayDelay = &d.Sender.FlushDelay, &d.Sender.ReplayDelay
	line.IsSync, line.State = d.Sender.SyncState, d.Sender.State
	if line.State == "streaming" {
		line.State = "normal"
	}
	return line
}

func fromSnapshot(s *ha.Snapshot, backends []string) Cluster {
	c := Cluster{
		Name: s.Cluster, State: StateNormal, Epoch: uint64(s.Epoch), Primary: int(s.Primary),
		Backends: append([]string{}, backends...), Nodes: []Node{},
	}
	if s.SystemID != 0 {
		c.SystemID = strconv.FormatUint(s.SystemID, 10)
	}
	var missing []string
	for i := range s.Nodes {
		n := fromNode(&s.Nodes[i])
		n.InRotation = slices.Contains(backends, n.Address())
		if n.Health != topology.Healthy.String() {
			missing = append(missing, fmt.Sprintf("node %d is %s", n.ID, n.Health))
		}
		c.Nodes = append(c.Nodes, n)
	}
	switch {
	case s.Primary == 0:
		c.State, c.Why = StateNoPrimary, s.WhyNoPrimary
	case len(missing) > 0:
		c.State, c.Why = StateDegraded, strings.Join(missing, ", ")
	}
	if s.Alarm != "" {
		c.Why = s.Alarm
	}
	return c
}

func fromNode(s *ha.NodeStatus) Node {
	n := Node{
		ID: int(s.ID), Host: s.Host, Port: s.Port, Role: s.Role.String(), Health: s.Health.String(), Why: s.Why,
		Weight: s.Weight, NoLoadBalance: s.NoLoadBalance, Warnings: s.Warnings,
		Timeline: uint32(s.Observation.Timeline), OSUser: s.OSUser, PGData: s.PGData, AppName: s.AppName,
	}
	if lsn := s.LSN(); lsn != 0 {
		n.LSN = lsn.String()
	}
	if s.LagKnown {
		seconds := s.Lag.Seconds()
		n.LagBytes, n.LagSeconds = &s.LagBytes, &seconds
	}
	if !s.LastSeen.IsZero() {
		seen := s.LastSeen
		n.LastSeen = &seen
	}
	return n
}

// translate gives the agent's errors the kind that chooses the HTTP status; their words stay.
func translate(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ha.ErrUnknown):
		return &kindError{err, ErrUnknown}
	case errors.Is(err, ha.ErrRefused):
		return &kindError{err, ErrRefused}
	case errors.Is(err, ha.ErrAddress):
		return &kindError{err, ErrAddress}
	}
	return err
}

type kindError struct {
	err  error
	kind error
}

func (e *kindError) Error() string   { return e.err.Error() }
func (e *kindError) Unwrap() []error { return []error{e.err, e.kind} }
