package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/cstproxy/cstproxy/admin"
)

// ask has the operator confirm. Without a terminal there is nobody to ask, and the answer is no.
func (o *ctlOptions) ask(cmd *cobra.Command, why, question string) error {
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return fmt.Errorf("%s; give --yes if that is meant: %w", why, admin.ErrRefused)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s. %s [y/N] ", why, question)
	answer, _ := bufio.NewReader(in).ReadString('\n') // the end of the input is a no
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return fmt.Errorf("not done: %w", admin.ErrRefused)
	}
	return nil
}

// foreseen says in a sentence or two, with numbers, what an order would do; task is what would begin.
func foreseen(c admin.Cluster, order admin.Order, task admin.Task) string {
	primary := nodeName(c, c.Primary)
	if c.Primary == 0 {
		primary = "the primary, which is gone"
	}
	switch order.Verb {
	case "switch":
		return fmt.Sprintf("%s becomes the primary of %s in place of %s; %s; nothing that was committed is lost, and new writes wait until it has taken over",
			nodeName(c, task.Node), c.Name, primary, behind(c, task.Node, "it first catches up"))
	case "failover":
		text := foreseenFailover(c, order, primary)
		if order.AcceptDataLoss && task.Why != "" {
			text += "; the leader says: " + task.Why // what a node lacks that is on an older timeline, too
		}
		return text
	case "repair":
		way := "is attached to the primary again; where that does not help it is rewound (pg_rewind), and where that cannot be done it is copied anew"
		switch order.Mode {
		case "reattach":
			way = "is attached to the primary again"
		case "rewind":
			way = "is rewound to the primary's log (pg_rewind)"
		case "rebuild":
			way = "is copied anew from the primary"
		}
		text := fmt.Sprintf("%s of %s %s; commits that only it holds are not part of the cluster afterwards", nodeName(c, order.Node), c.Name, way)
		if n := find(c, order.Node); n != nil && n.Mark != "" {
			text += " (" + n.Mark + ")"
		}
		return text
	case "clone":
		text := fmt.Sprintf("a copy of the cluster %s is made for %s", c.Name, nodeName(c, order.Node))
		if n := find(c, order.Node); n != nil && n.PGData != "" {
			text += ", in " + n.PGData
		}
		return text
	}
	return order.Verb + " " + nodeName(c, order.Node)
}

func foreseenFailover(c admin.Cluster, order admin.Order, primary string) string {
	text := fmt.Sprintf("the standby with the most log becomes the primary of %s in place of %s", c.Name, primary)
	if order.Node != 0 {
		text = fmt.Sprintf("%s becomes the primary of %s in place of %s", nodeName(c, order.Node), c.Name, primary)
	}
	if n := find(c, c.Primary); n != nil {
		text += ", which is " + n.Health
	}
	var known []string
	for _, n := range c.Nodes {
		if n.ID == c.Primary || order.Node != 0 && n.ID != order.Node || n.Role != "standby" {
			continue
		}
		known = append(known, fmt.Sprintf("node %d: %s", n.ID, behind(c, n.ID, "which would be lost")))
	}
	if len(known) > 0 {
		text += "; as far as was seen: " + strings.Join(known, ", ")
	}
	text += "; what the primary committed after that, and no standby received, is lost, and nobody can say how much that is"
	if !order.AcceptDataLoss {
		text += "; beyond max_lag_on_failover it stops and asks for --accept-data-loss"
	}
	return text
}

// behind says how far a node lacks the primary's log; with then when it does.
func behind(c admin.Cluster, id int, then string) string {
	n := find(c, id)
	switch {
	case n == nil || n.LagBytes == nil:
		return "how far it is behind is not known"
	case *n.LagBytes == 0:
		return "it has all of the log that was seen"
	}
	text := fmt.Sprintf("it is %d bytes", *n.LagBytes)
	if n.LagSeconds != nil && *n.LagSeconds >= 0.1 {
		text += fmt.Sprintf(" (%.1f s)", *n.LagSeconds)
	}
	return text + " behind, " + then
}

func find(c admin.Cluster, id int) *admin.Node {
	for i := range c.Nodes {
		if c.Nodes[i].ID == id {
			return &c.Nodes[i]
		}
	}
	return nil
}

func nodeName(c admin.Cluster, id int) string {
	n := find(c, id)
	switch {
	case id == 0:
		return "the best standby"
	case n == nil:
		return fmt.Sprintf("node %d", id)
	}
	return fmt.Sprintf("node %d (%s)", id, n.Address())
}
