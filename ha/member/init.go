package member

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cstproxy/cstproxy/ha"
	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/operation"
	"github.com/cstproxy/cstproxy/ha/pgnode"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// slowLogin is a round trip to a host above which its shell's start-up files are worth a look: each
// command of an operation pays for them.
const slowLogin = 300 * time.Millisecond

// initTime bounds what is done to one node.
const initTime = 30 * time.Second

// Init prepares a cluster's hosts and servers for operations: the ratchet's wrapper on each host, the
// database and table of the write heartbeat on the primary; and says, line by line, what it did and
// what will stand in an operation's way. It may be repeated at any time. The error says which nodes are
// not prepared; the others are.
func (m *Member) Init(ctx context.Context, clusterName string, line func(string)) error {
	c := m.clusters[clusterName]
	if c == nil {
		return fmt.Errorf("cluster %q: %w", clusterName, ha.ErrUnknown)
	}
	if !c.setup().conf.Operation.Enabled {
		return fmt.Errorf("%w: cluster %s is only watched; set enabled = true in [cluster.operation]", ha.ErrRefused, c.name)
	}
	var errs []error
	nodes := c.setup().nodes
	for i := range nodes {
		if err := c.initNode(ctx, &nodes[i], line); err != nil {
			err = fmt.Errorf("node %d (%s): %w", nodes[i].ID, nodes[i].Address(), err)
			line(err.Error())
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (c *cluster) initNode(ctx context.Context, n *operation.Node, line func(string)) error {
	ctx, cancel := context.WithTimeout(ctx, initTime)
	defer cancel()
	say := func(format string, args ...any) {
		line(fmt.Sprintf("node %d (%s): ", n.ID, n.Address()) + fmt.Sprintf(format, args...))
	}
	var host error
	if n.Host == nil {
		say("no way to its host (ssh_key_file is empty): it cannot be restarted, fenced or repaired")
	} else if host = n.Host.Install(ctx); host == nil {
		began := time.Now()
		if _, err := n.Host.Ask(ctx, []string{"true"}); err != nil {
			return err
		}
		say("its host is prepared")
		if lasted := time.Since(began); lasted > slowLogin {
			say("warning: a command on its host takes %s; look at what ~/.bashrc of %s does", lasted.Round(time.Millisecond), n.Login)
		}
	}
	return errors.Join(host, c.initServer(ctx, n, say))
}

// initServer makes the heartbeat's table where it is missing, and repeats what an operation would
// complain of.
func (c *cluster) initServer(ctx context.Context, n *operation.Node, say func(string, ...any)) error {
	_, report := c.do(ctx, c.member.fleetName(), decide.Action{Verb: decide.Look, Node: n.ID})
	if report.Fact.Role == topology.RoleUnknown {
		say("warning: its server does not answer")
	}
	for _, w := range report.Warnings {
		say("warning: %s", w)
	}
	if report.Host != nil && report.Host.Problem != "" {
		say("warning: %s", report.Host.Problem)
	}
	if report.Fact.Role != topology.RolePrimary {
		return nil
	}
	if err := c.member.parts.Agent.PrepareHeartbeat(ctx, c.name); err != nil {
		return fmt.Errorf("make the heartbeat's table: %w", err)
	}
	say("it is the primary; database %s with table %s is there", pgnode.HeartbeatDatabase, pgnode.HeartbeatTable)
	return nil
}
