package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cstproxy/cstproxy/admin"
)

func newNodeCommand(o *ctlOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Take a node out of the traffic or back in",
		Args:  cobra.ArbitraryArgs,
		RunE:  groupHelp,
	}
	cmd.AddCommand(
		newNodeVerb(o, "attach", "Give the node queries again"),
		newNodeVerb(o, "detach", "Take the node out of the traffic now; it stays out until attach"),
		newNodeVerb(o, "drain", "Let running sessions finish on the node and send it nothing new"),
		newRestartCommand(o),
	)
	return cmd
}

func newNodeVerb(o *ctlOptions, verb, short string) *cobra.Command {
	return &cobra.Command{
		Use:   verb + " -i node",
		Short: short,
		Args:  takes(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			node, err := o.oneNode(args)
			if err != nil {
				return err
			}
			if node <= 0 {
				return usagef("which node? give its id with -i; ctl show lists them")
			}
			c, err := o.client()
			if err != nil {
				return err
			}
			if verb != "attach" && !o.yes {
				if err := o.confirm(cmd, c, node, verb); err != nil {
					return err
				}
			}
			done, err := c.Change(cmd.Context(), o.cluster, node, verb)
			if err != nil {
				return err
			}
			t := printable{columns: []column{{name: "cluster"}, {name: "node", right: true}, {name: "done"}}}
			t.rows = [][]string{{done.Cluster, strconv.Itoa(done.Node), done.Done}}
			return report{data: done, tables: []printable{t}}.print(cmd.OutOrStdout(), o.format)
		},
	}
}

// confirm asks when the change would hurt: the node takes the writes, or is the last one that takes
// reads. Without a terminal there is nobody to ask, and the change is refused.
func (o *ctlOptions) confirm(cmd *cobra.Command, c *admin.Client, node int, verb string) error {
	clusters, err := c.Clusters(cmd.Context(), o.cluster)
	if err != nil {
		return err
	}
	why := consequence(clusters, node)
	if why == "" {
		return nil
	}
	return o.ask(cmd, why, strings.ToUpper(verb[:1])+verb[1:]+" it?")
}

// consequence says in a sentence what taking the node out would cost; "" when it costs little.
func consequence(clusters []admin.Cluster, node int) string {
	if len(clusters) == 0 {
		return ""
	}
	c := clusters[0]
	if c.Primary == node {
		return fmt.Sprintf("node %d is the primary of %s: writes would wait", node, c.Name)
	}
	reading, others := false, 0
	for _, n := range c.Nodes {
		switch {
		case !n.InRotation:
		case n.ID == node:
			reading = true
		default:
			others++
		}
	}
	if reading && others == 0 {
		return fmt.Sprintf("node %d is the last node of %s that takes reads", node, c.Name)
	}
	return ""
}
