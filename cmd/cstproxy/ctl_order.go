package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"os/user"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/cstproxy/cstproxy/admin"
)

// orderOptions are the flags of the verbs that begin a task.
type orderOptions struct {
	*ctlOptions
	order   admin.Order
	at      string
	noWait  bool
	timeout time.Duration
}

// orderFlags adds what all of them have.
func (o *orderOptions) orderFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.order.Why, "why", "", "a word for the history")
	cmd.Flags().BoolVar(&o.noWait, "no-wait", false, "print the task and return; it goes on (ctl task_log -F follows it)")
	cmd.Flags().DurationVar(&o.timeout, "timeout", 0, "follow the task for this long at most; it goes on after that (default: until its end)")
}

func newSwitchCommand(c *ctlOptions) *cobra.Command {
	o, cancel := &orderOptions{ctlOptions: c, order: admin.Order{Verb: "switch"}}, false
	cmd := &cobra.Command{
		Use:   "switch [-i node]",
		Short: "Make another node the primary, in order; without -i the best standby",
		Long: "Switch shuts the primary down in order, promotes the standby once it has everything, and makes a\n" +
			"standby of the former primary. Until the promotion it can be given up, and is when it takes too long.\n" +
			"It asks first, and says what will happen; --yes does not ask. The task goes on when ctl ends.",
		Args: takes(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cancel {
				if len(args) > 0 || o.node != 0 || o.at != "" {
					return usagef("--cancel calls off the switch that is planned; it takes no node and no time")
				}
				o.order.Verb = "cancel"
			}
			return o.run(cmd, args)
		},
	}
	o.orderFlags(cmd)
	cmd.Flags().StringVar(&o.at, "at", "", `begin at this time: "15:04", "2006-01-02 15:04:05", RFC 3339, or "+10m"; the fleet remembers it, until the epoch changes`)
	cmd.Flags().BoolVar(&cancel, "cancel", false, "call off the switch that is planned")
	return cmd
}

func newFailoverCommand(c *ctlOptions) *cobra.Command {
	o := &orderOptions{ctlOptions: c, order: admin.Order{Verb: "failover"}}
	cmd := &cobra.Command{
		Use:   "failover [-i node]",
		Short: "Promote a standby although the primary cannot be shut down in order; without -i the best one",
		Long: "Failover is for when the primary is gone and the operator decides: it cuts the standbys off, promotes\n" +
			"the one with the most log, and quarantines the former primary. What no standby has received is lost.",
		Args: takes(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd, args) },
	}
	o.orderFlags(cmd)
	cmd.Flags().BoolVar(&o.order.AcceptDataLoss, "accept-data-loss", false, "go on although commits would be lost, or the primary works")
	return cmd
}

func newRepairCommand(c *ctlOptions) *cobra.Command {
	o := &orderOptions{ctlOptions: c, order: admin.Order{Verb: "repair"}}
	cmd := &cobra.Command{
		Use:     "repair -i node",
		Aliases: []string{"reinit"},
		Short:   "Make a standby of a node again: re-attach, else pg_rewind, else a new copy",
		Args:    takes(cobra.MaximumNArgs(1)),
		RunE:    func(cmd *cobra.Command, args []string) error { return o.run(cmd, args) },
	}
	o.orderFlags(cmd)
	cmd.Flags().StringVar(&o.order.Mode, "mode", "", "take this way alone: reattach, rewind or rebuild")
	cmd.Flags().BoolVar(&o.order.DryRun, "dry-run", false, "say what would begin, and begin nothing")
	return cmd
}

func newCloneCommand(c *ctlOptions) *cobra.Command {
	o := &orderOptions{ctlOptions: c, order: admin.Order{Verb: "clone"}}
	cmd := &cobra.Command{
		Use:   "clone -i node",
		Short: "Build a new standby on a configured node that has none yet",
		Args:  takes(cobra.MaximumNArgs(1)),
		RunE:  func(cmd *cobra.Command, args []string) error { return o.run(cmd, args) },
	}
	o.orderFlags(cmd)
	cmd.Flags().BoolVar(&o.order.DryRun, "dry-run", false, "say what would begin, and begin nothing")
	return cmd
}

func newRestartCommand(c *ctlOptions) *cobra.Command {
	o := &orderOptions{ctlOptions: c, order: admin.Order{Verb: "restart"}}
	cmd := &cobra.Command{
		Use:   "restart -i node",
		Short: "Start the node's server when it is down, in the role that it had",
		Args:  takes(cobra.MaximumNArgs(1)),
		RunE:  func(cmd *cobra.Command, args []string) error { return o.run(cmd, args) },
	}
	o.orderFlags(cmd)
	return cmd
}

func newFrozeCommand(c *ctlOptions) *cobra.Command {
	o := &orderOptions{ctlOptions: c, order: admin.Order{Verb: "froze"}}
	cmd := &cobra.Command{
		Use:     "froze",
		Aliases: []string{"pause"},
		Short:   "Do nothing automatic about the cluster, no failover and no repair, until unfroze",
		Args:    takes(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return o.run(cmd, nil) },
	}
	cmd.Flags().StringVar(&o.order.Why, "why", "", "a word for those who find it frozen")
	return cmd
}

func newUnfrozeCommand(c *ctlOptions) *cobra.Command {
	o := &orderOptions{ctlOptions: c, order: admin.Order{Verb: "unfroze"}}
	return &cobra.Command{
		Use:     "unfroze",
		Aliases: []string{"resume"},
		Short:   "Act automatically again",
		Args:    takes(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return o.run(cmd, nil) },
	}
}

// operator is who is named in the history.
func operator() string {
	name := "uid " + strconv.Itoa(os.Getuid())
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	return name
}

// oneNode is the node that -i or the only argument names; 0 when neither does.
func (o *ctlOptions) oneNode(args []string) (int, error) {
	node := o.node
	if len(args) == 1 {
		n, err := strconv.Atoi(args[0])
		if err != nil || n <= 0 || node != 0 && node != n {
			return 0, usagef("node %q: give the id of one node, as ctl show prints it", args[0])
		}
		node = n
	}
	if node < 0 {
		return 0, usagef("node %d: ids begin at 1", node)
	}
	return node, nil
}

// named is the cluster of -c, or the first one's picture.
func (o *ctlOptions) named(ctx context.Context, c *admin.Client) (admin.Cluster, error) {
	list, err := c.Clusters(ctx, o.cluster)
	if err != nil {
		return admin.Cluster{}, err
	}
	if len(list) == 0 {
		return admin.Cluster{}, usagef("no cluster is configured")
	}
	return list[0], nil
}

func (o *orderOptions) run(cmd *cobra.Command, args []string) error {
	node, err := o.oneNode(args)
	if err != nil {
		return err
	}
	verb := o.order.Verb
	if node == 0 && (verb == "repair" || verb == "clone" || verb == "restart") {
		return usagef("which node? give its id with -i; ctl show lists them")
	}
	begin := time.Time{}
	if o.at != "" {
		if begin, err = moment(o.at, time.Now()); err != nil {
			return err
		}
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
	defer stop()
	c, err := o.client()
	if err != nil {
		return err
	}
	cluster, err := o.named(ctx, c)
	if err != nil {
		return err
	}
	order := o.order
	order.Cluster, order.Node, order.By = cluster.Name, node, operator()
	if verb != "froze" && verb != "unfroze" && verb != "restart" && verb != "cancel" {
		if err := o.foresee(cmd, c, cluster, order); err != nil || order.DryRun {
			return err
		}
	}
	order.At = begin
	task, err := c.Order(ctx, order)
	if err != nil {
		return err
	}
	if task.ID == 0 {
		done := admin.Outcome{Cluster: cluster.Name, Done: verb}
		t := printable{columns: []column{{name: "cluster"}, {name: "done"}}, rows: [][]string{{done.Cluster, done.Done}}}
		return report{data: done, tables: []printable{t}}.print(cmd.OutOrStdout(), o.format)
	}
	if o.noWait || task.Step == planned {
		return taskReport([]admin.Task{task}).print(cmd.OutOrStdout(), o.format)
	}
	return o.follow(ctx, cmd, c, task)
}

// planned is the step of a switch for later.
const planned = "planned"

// foresee has the leader check the order, says what it would mean, and asks unless --yes.
func (o *orderOptions) foresee(cmd *cobra.Command, c *admin.Client, cluster admin.Cluster, order admin.Order) error {
	trial := order
	trial.DryRun = true
	task, err := c.Order(cmd.Context(), trial)
	if err != nil {
		return err
	}
	why := foreseen(cluster, order, task)
	if order.DryRun {
		if o.format != formatTable {
			return taskReport([]admin.Task{task}).print(cmd.OutOrStdout(), o.format)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "would begin: %s.\n", why)
		return nil
	}
	if o.yes {
		return nil
	}
	return o.ask(cmd, why, "Go on?")
}

// moment reads a time of day, a date or a distance. A time of day that has passed is tomorrow's.
func moment(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil && text[0] == '+' && d > 0 {
		return now.Add(d), nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return future(t, text, now)
	}
	for _, layout := range []string{"2006-01-02 15:04:05", "2006-01-02 15:04"} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return future(t, text, now)
		}
	}
	for _, layout := range []string{"15:04:05", "15:04"} {
		if t, err := time.Parse(layout, text); err == nil {
			at := time.Date(now.Year(), now.Month(), now.Day(), t.Hour(), t.Minute(), t.Second(), 0, now.Location())
			if !at.After(now) {
				at = at.AddDate(0, 0, 1)
			}
			return at, nil
		}
	}
	return time.Time{}, usagef(`--at %q: want "15:04", "2006-01-02 15:04:05", RFC 3339 or "+10m"`, text)
}

func future(t time.Time, text string, now time.Time) (time.Time, error) {
	if !t.After(now) {
		return t, usagef("--at %q has passed", text)
	}
	return t, nil
}
