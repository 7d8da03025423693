package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cstproxy/cstproxy/admin"
)

func newMembersCommand(o *ctlOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "members",
		Short: "Show the members of the fleet, who leads, and when the leader heard of each",
		Args:  takes(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.show(cmd, func(ctx context.Context, c *admin.Client) (report, error) {
				list, why, err := c.Members(ctx)
				if err != nil {
					return report{}, err
				}
				return memberReport(list, why), nil
			})
		},
	}
}

func memberReport(list []admin.Member, why string) report {
	t := printable{columns: []column{{name: "member"}, {name: "address"}, {name: "role"}, {name: "leads"}, {name: "heard", right: true}}}
	for _, m := range list {
		role, heard, leads := m.Role, "", ""
		if m.Witness {
			role += ", witness"
		}
		if m.Leads {
			leads = "leads"
		}
		if m.HeardSeconds != nil {
			heard = ago(*m.HeardSeconds)
		}
		t.rows = append(t.rows, []string{m.Name, textOr(m.Address, "-"), role, leads, textOr(heard, "-")})
	}
	r := report{data: map[string]any{"members": list, "why": why}, tables: []printable{t}}
	if why != "" {
		r.tables = append(r.tables, printable{columns: []column{{name: "why"}}, rows: [][]string{{why}}})
	}
	return r
}

func ago(seconds float64) string {
	return time.Duration(math.Round(seconds*10)/10*float64(time.Second)).String() + " ago"
}

func newVoterCommand(o *ctlOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "voter",
		Short: "Change who votes in the fleet, one member at a time",
		Args:  cobra.ArbitraryArgs,
		RunE:  groupHelp,
	}
	role := ""
	add := &cobra.Command{
		Use:   "add name host:port",
		Short: "Let a member vote; it must be running, with an empty state folder",
		Args:  takes(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.changeVoter(cmd, admin.VoterChange{Verb: "add", Name: args[0], Address: args[1], Role: role})
		},
	}
	add.Flags().StringVar(&role, "role", "voter", "voter, or follower: it receives the log and has no vote")
	remove := &cobra.Command{
		Use:   "remove name",
		Short: "Take a member out of the fleet",
		Args:  takes(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.changeVoter(cmd, admin.VoterChange{Verb: "remove", Name: args[0]})
		},
	}
	readmit := &cobra.Command{
		Use:   "readmit name host:port",
		Short: "Give a member that has lost its state folder its part back; the old folder must never return",
		Args:  takes(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.changeVoter(cmd, admin.VoterChange{Verb: "readmit", Name: args[0], Address: args[1]})
		},
	}
	cmd.AddCommand(add, remove, readmit)
	return cmd
}

func (o *ctlOptions) changeVoter(cmd *cobra.Command, change admin.VoterChange) error {
	c, err := o.client()
	if err != nil {
		return err
	}
	if !o.yes {
		list, _, err := c.Members(cmd.Context())
		if err != nil {
			return err
		}
		if err := o.ask(cmd, voterMeans(list, change), "Go on?"); err != nil {
			return err
		}
	}
	if err := c.Voter(cmd.Context(), change); err != nil {
		return err
	}
	t := printable{columns: []column{{name: "member"}, {name: "done"}}, rows: [][]string{{change.Name, change.Verb}}}
	return report{data: change, tables: []printable{t}}.print(cmd.OutOrStdout(), o.format)
}

// voterMeans says how many voters there are afterwards, and how many of them may fail.
func voterMeans(list []admin.Member, change admin.VoterChange) string {
	before, after := 0, 0
	for _, m := range list {
		if m.Role != "voter" {
			continue
		}
		before++
		if m.Name != change.Name {
			after++
		}
	}
	if change.Verb == "readmit" || change.Verb == "add" && change.Role != "follower" {
		after++
	}
	return fmt.Sprintf("%s %s: of %d voters there will be %d; %d of them may fail, and below %d nothing is decided any more",
		change.Verb, change.Name, before, after, max((after-1)/2, 0), after/2+1)
}

func newEvidenceCommand(o *ctlOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "evidence",
		Short: "Show what the leader has decided lately, why, and what each member sees",
		Args:  takes(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.show(cmd, func(ctx context.Context, c *admin.Client) (report, error) {
				cluster, err := o.named(ctx, c)
				if err != nil {
					return report{}, err
				}
				e, err := c.Evidence(ctx, cluster.Name)
				if err != nil {
					return report{}, err
				}
				return evidenceReport(e), nil
			})
		},
	}
}

func evidenceReport(e admin.Evidence) report {
	leader := printable{title: "leader", columns: []column{{name: "cluster"}, {name: "leader"}, {name: "since"}, {name: "alarm"}}}
	leader.rows = [][]string{{e.Cluster, e.Leader, e.Since.Local().Format(time.DateTime), textOr(e.Alarm, "-")}}
	decided := printable{title: "decisions", columns: []column{{name: "at"}, {name: "why"}, {name: "actions"}}}
	for _, d := range e.Decisions {
		decided.rows = append(decided.rows, []string{d.At.Local().Format("15:04:05.000"), d.Why, strings.Join(d.Actions, ", ")})
	}
	sights := printable{title: "what members see", columns: []column{{name: "member"}, {name: "node", right: true}, {name: "sees"}, {name: "for", right: true},
		{name: "host"}, {name: "reported", right: true}, {name: "why"}}}
	for _, s := range e.Sights {
		sights.rows = append(sights.rows, []string{s.Member, strconv.Itoa(s.Node), textOr(s.Class, "nothing yet"),
			strings.TrimSuffix(ago(s.SinceSeconds), " ago"), textOr(s.Host, "-"), ago(s.AgoSeconds), s.Why})
	}
	facts := printable{title: "what nodes said", columns: []column{{name: "node", right: true}, {name: "role"}, {name: "said", right: true}, {name: "TL", right: true},
		{name: "lsn", right: true}, {name: "replayed", right: true}, {name: "streams"}, {name: "mark"}}}
	for _, n := range e.Facts {
		said := "never"
		if n.AgoSeconds != nil {
			said = ago(*n.AgoSeconds)
		}
		facts.rows = append(facts.rows, []string{strconv.Itoa(n.Node), n.Role, said, strconv.FormatUint(uint64(n.Timeline), 10),
			textOr(n.LSN, "-"), textOr(n.ReplayLSN, "-"), map[bool]string{true: "yes", false: "no"}[n.Streaming], n.Mark})
	}
	return report{data: e, tables: []printable{leader, decided, sights, facts}}
}

func newInitCommand(o *ctlOptions) *cobra.Command {
	var clup clupFiles
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Prepare the cluster's hosts and servers for operations, and check them",
		Long: "Init puts cstproxy's command wrapper on each host over SSH, makes the database and the table of the\n" +
			"write heartbeat, and says what will stand in an operation's way: settings, missing programs, disks, a\n" +
			"slow start of the login shell. It may be repeated at any time.\n\n" +
			"With --from it talks to nobody: it makes the sections [[cluster]] of CLup's init.json, for a\n" +
			"configuration file of yours, and says what it leaves out.",
		Args: takes(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if clup.clusters != "" {
				return importCLup(cmd, clup)
			}
			if clup.settings != "" || clup.write != "" {
				return usagef("--clup-conf and --write go with --from")
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
			lines := []string{}
			err = c.Init(ctx, cluster.Name, func(line string) {
				lines = append(lines, line)
				if o.format == formatTable {
					fmt.Fprintln(cmd.OutOrStdout(), line)
				}
			})
			if o.format == formatTable || err != nil {
				return err
			}
			t := printable{columns: []column{{name: "line"}}}
			for _, l := range lines {
				t.rows = append(t.rows, []string{l})
			}
			return report{data: lines, tables: []printable{t}}.print(cmd.OutOrStdout(), o.format)
		},
	}
	cmd.Flags().StringVar(&clup.clusters, "from", "", "make the sections of CLup's init.json instead")
	cmd.Flags().StringVar(&clup.settings, "clup-conf", "", "with --from: take over what there is in CLup's clup.conf; passwords and tokens are left out")
	cmd.Flags().StringVar(&clup.write, "write", "", "with --from: into this new file (default: standard output)")
	return cmd
}

func newAdoptCommand(o *ctlOptions) *cobra.Command {
	epoch := uint64(0)
	cmd := &cobra.Command{
		Use:   "adopt",
		Short: "Begin a new fleet over servers that another one has operated, which is no more",
		Long: "Adopt is for a fleet that lost all its members: a new one reads what the hosts remember of the old one,\n" +
			"and begins above the highest epoch that any of them has seen. Never adopt while members of the old\n" +
			"fleet run anywhere: two fleets would operate the same servers.",
		Args: takes(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.client()
			if err != nil {
				return err
			}
			cluster, err := o.named(cmd.Context(), c)
			if err != nil {
				return err
			}
			if !o.yes {
				why := "this fleet takes over " + cluster.Name + " and all its other clusters; if a member of the fleet that had them runs anywhere, two fleets will operate the same servers"
				if err := o.ask(cmd, why, "Is the other fleet gone for good?"); err != nil {
					return err
				}
			}
			got, err := c.Adopt(cmd.Context(), admin.Adoption{Cluster: cluster.Name, Epoch: epoch, By: operator()})
			if err != nil {
				return err
			}
			t := printable{columns: []column{{name: "fleet"}, {name: "cluster"}, {name: "first epoch", right: true}, {name: "former fleets"}}}
			t.rows = [][]string{{got.Fleet, cluster.Name, strconv.FormatUint(got.Floors[cluster.Name]+1, 10), textOr(strings.Join(got.Former, ", "), "-")}}
			for _, text := range got.Missing {
				fmt.Fprintln(cmd.ErrOrStderr(), "not read:", text)
			}
			return report{data: got, tables: []printable{t}}.print(cmd.OutOrStdout(), o.format)
		},
	}
	cmd.Flags().Uint64Var(&epoch, "epoch", 0, "let the cluster begin with this epoch at least, when a host that cannot be read may have seen a higher one")
	return cmd
}
