package main

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cstproxy/cstproxy/admin"
)

func newShowCommand(o *ctlOptions) *cobra.Command {
	return &cobra.Command{
		Use:     "show",
		Aliases: []string{"list"},
		Short:   "Show the clusters and their nodes",
		Args:    takes(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.show(cmd, func(ctx context.Context, c *admin.Client) (report, error) {
				clusters, err := c.Clusters(ctx, o.cluster)
				if err != nil {
					return report{}, err
				}
				if clusters, err = o.only(clusters); err != nil {
					return report{}, err
				}
				return showReport(clusters, c.Address()), nil
			})
		},
	}
}

// only keeps the node that -i names.
func (o *ctlOptions) only(clusters []admin.Cluster) ([]admin.Cluster, error) {
	if o.node == 0 {
		return clusters, nil
	}
	found := false
	for i := range clusters {
		var kept []admin.Node
		for _, n := range clusters[i].Nodes {
			if n.ID == o.node {
				kept = append(kept, n)
			}
		}
		clusters[i].Nodes = kept
		found = found || len(kept) > 0
	}
	if !found {
		return nil, o.noNode()
	}
	return clusters, nil
}

func (o *ctlOptions) noNode() error {
	return usagef("there is no node %d; ctl show lists the nodes", o.node)
}

// showReport has CLup's two lists with CLup's columns first, in its order, and ours behind them.
// The column state is CLup's: Normal, or what is wrong or under way.
func showReport(clusters []admin.Cluster, adminAddress string) report {
	list := printable{title: "cluster list", columns: []column{
		{name: "cluster_name"}, {name: "state"}, {name: "write_vip"}, {name: "read_vip"}, {name: "read_vip_host"},
		{name: "cstlb_list"}, {name: "write_vip_host"}, {name: "epoch", right: true}, {name: "why"},
	}}
	nodes := printable{title: "db list", columns: []column{
		{name: "cluster_name"}, {name: "id", right: true}, {name: "state"}, {name: "primary", right: true},
		{name: "host"}, {name: "port", right: true}, {name: "switch_to"}, {name: "os_user"}, {name: "pgdata"},
		{name: "Role"}, {name: "State"}, {name: "TL", right: true}, {name: "Lag", right: true}, {name: "Reads"}, {name: "why"},
	}}
	warnings := printable{title: "warnings", columns: []column{{name: "cluster_name"}, {name: "id", right: true}, {name: "what will make a repair fail or long"}}}
	for _, c := range clusters {
		list.rows = append(list.rows, []string{
			c.Name, clusterState(c), textOr(c.WriteVIP, "-"), textOr(c.ReadVIP, "-"), heldBy(c.ReadVIPAt), "['" + adminAddress + "']",
			heldBy(c.WriteVIPAt), strconv.FormatUint(c.Epoch, 10), strings.TrimPrefix(c.Why+planText(c.Planned), "; "),
		})
		for _, n := range c.Nodes {
			nodes.rows = append(nodes.rows, nodeCells(c, n))
			for _, w := range n.Warnings {
				warnings.rows = append(warnings.rows, []string{c.Name, strconv.Itoa(n.ID), w})
			}
		}
	}
	tables := []printable{list, nodes}
	if len(warnings.rows) > 0 {
		tables = append(tables, warnings)
	}
	return report{data: clusters, tables: tables}
}

func nodeCells(c admin.Cluster, n admin.Node) []string {
	primary, state, reads, switchTo := "0", "Normal", "no", n.Host
	if n.ID == c.Primary {
		primary = "1"
	}
	if n.Health != "healthy" || n.Mark != "" {
		state = "Fault"
	}
	if to := find(c, n.SwitchTo); to != nil {
		switchTo = to.Host
	}
	if n.InRotation {
		reads = "yes"
	}
	why := n.Why
	if n.Mark != "" {
		why = strings.TrimPrefix(why+"; "+n.Mark, "; ")
	}
	timeline := ""
	if n.Timeline != 0 {
		timeline = strconv.FormatUint(uint64(n.Timeline), 10)
	}
	return []string{
		c.Name, strconv.Itoa(n.ID), state, primary, n.Host, strconv.Itoa(n.Port), switchTo,
		textOr(n.OSUser, "-"), textOr(n.PGData, "-"), n.Role, n.Health, timeline, lag(n), reads, why,
	}
}

// planText is the switch that is planned.
func planText(t *admin.Task) string {
	if t == nil {
		return ""
	}
	to := ""
	if t.Node != 0 {
		to = fmt.Sprintf(" to node %d", t.Node)
	}
	return fmt.Sprintf("; switch%s planned %sby %s", to, strings.Replace(when(*t), ";", "", 1), t.By)
}

// seenLately is how old the sight of a virtual address may be without its age being said.
const seenLately = 10 * time.Second

// heldBy is the host that a virtual address is on. More than one, or none, is worth an operator's look.
func heldBy(h *admin.Holding) string {
	if h == nil {
		return "-"
	}
	text := textOr(strings.Join(h.Hosts, ", "), "nobody")
	if h.AgoSeconds > seenLately.Seconds() {
		text += " (" + ago(math.Round(h.AgoSeconds)) + ")"
	}
	return text
}

// clusterState is how CLup writes a cluster's state: Normal, or what is wrong or under way.
func clusterState(c admin.Cluster) string {
	state := c.State
	if c.Task != nil {
		state = map[string]string{"switch": "switching", "failover": "failover"}[c.Task.Kind]
	}
	if state == "" {
		return ""
	}
	return strings.ToUpper(state[:1]) + state[1:]
}

// lag is the bytes that a node has not replayed, and the time when it is worth mentioning.
func lag(n admin.Node) string {
	if n.LagBytes == nil {
		return ""
	}
	s := strconv.FormatInt(*n.LagBytes, 10)
	if n.LagSeconds != nil && *n.LagSeconds >= 0.1 {
		s += fmt.Sprintf(" (%.1fs)", *n.LagSeconds)
	}
	return s
}
