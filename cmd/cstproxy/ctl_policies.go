package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cstproxy/cstproxy/admin"
	"github.com/cstproxy/cstproxy/ha"
)

// metaOptions are the flags of change_meta.
type metaOptions struct {
	*ctlOptions
	unset   []string
	why     string
	version string // a number; empty: the one that is shown
	history bool
	dryRun  bool
}

func newChangeMetaCommand(c *ctlOptions) *cobra.Command {
	o := &metaOptions{ctlOptions: c}
	cmd := &cobra.Command{
		Use:     "change_meta [key=value …]",
		Aliases: []string{"edit-config"},
		Short:   "Change the cluster's policies for all members at once",
		Long: "Change_meta changes policies of [cluster.operation] and tags of nodes in the fleet's log: they hold on\n" +
			"every member at once, over restarts, and win over the members' files. Without arguments it opens $EDITOR\n" +
			"on all of them. It says what will change and asks; --yes does not ask. Addresses, VIPs, SSH, secrets and\n" +
			"paths stay in the files. The keys are " + policyKeys() + ".",
		Args: takes(cobra.ArbitraryArgs),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd, args) },
	}
	cmd.Flags().StringSliceVar(&o.unset, "unset", nil, "let each member's file say this again")
	cmd.Flags().StringVar(&o.why, "why", "", "a word for the history")
	cmd.Flags().StringVar(&o.version, "version", "", "change these policies only while they are at this version, as get_meta shows it")
	cmd.Flags().BoolVar(&o.history, "history", false, "print the last changes")
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "say what would change, and change nothing")
	return cmd
}

// policyKeys lists them for people.
func policyKeys() string {
	c := ha.DefaultCluster()
	var keys []string
	for _, p := range c.Policies() {
		keys = append(keys, p.Key)
	}
	return strings.Join(keys, ", ") + ", and of a node node.ID.priority, node.ID.nofailover, node.ID.nosync"
}

func (o *metaOptions) run(cmd *cobra.Command, args []string) error {
	if o.history {
		return o.show(cmd, func(ctx context.Context, c *admin.Client) (report, error) {
			cluster, err := o.named(ctx, c)
			if err != nil {
				return report{}, err
			}
			p, err := c.Policies(ctx, cluster.Name)
			return policyHistory(p), err
		})
	}
	order := admin.PolicyOrder{Unset: o.unset, Why: o.why, By: operator()}
	var err error
	if order.Set, err = assignments(args); err != nil {
		return err
	}
	editing := len(order.Set)+len(order.Unset) == 0
	if editing && !interactive(cmd) {
		return usagef("what is to change? give key=value, or --unset key; without them there must be a terminal for $EDITOR. The keys are %s", policyKeys())
	}
	c, err := o.client()
	if err != nil {
		return err
	}
	cluster, err := o.named(cmd.Context(), c)
	if err != nil {
		return err
	}
	now, err := c.Policies(cmd.Context(), cluster.Name)
	if err != nil {
		return err
	}
	order.Cluster, order.Version = cluster.Name, now.Version
	if o.version != "" {
		if order.Version, err = strconv.ParseUint(o.version, 10, 64); err != nil {
			return usagef("--version %q: give the number that ctl get_meta shows", o.version)
		}
	}
	if !editing {
		return o.change(cmd, c, policyChange{order, now})
	}
	return editPolicies(cmd, policyChange{order, now}, func(edited policyChange) error { return o.change(cmd, c, edited) })
}

// policyChange is an order, and the policies that whoever gives it has seen.
type policyChange struct {
	order admin.PolicyOrder
	now   admin.Policies
}

// change has the leader check the order, says what it would change, asks unless --yes, and gives it.
func (o *metaOptions) change(cmd *cobra.Command, c *admin.Client, p policyChange) error {
	trial := p.order
	trial.DryRun = true
	then, err := c.ChangePolicies(cmd.Context(), trial)
	if err != nil {
		return err
	}
	changes := differences(p.now, then)
	if len(changes) > 0 && !o.dryRun {
		if !o.yes {
			if err := o.ask(cmd, meant(p.order.Cluster, changes), "Go on?"); err != nil {
				return err
			}
		}
		if then, err = c.ChangePolicies(cmd.Context(), p.order); err != nil {
			return err
		}
	}
	done := changedPolicies{Cluster: p.order.Cluster, Version: then.Version, DryRun: o.dryRun, Changes: changes}
	if then.Trouble != "" {
		fmt.Fprintln(cmd.ErrOrStderr(), "on the member that answers:", then.Trouble)
	}
	return done.report().print(cmd.OutOrStdout(), o.format)
}

// assignments reads key=value. A text needs no quotes.
func assignments(args []string) (map[string]json.RawMessage, error) {
	set := map[string]json.RawMessage{}
	for _, arg := range args {
		key, value, found := strings.Cut(arg, "=")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		if _, twice := set[key]; !found || key == "" || value == "" || twice {
			return nil, usagef("%q: give key=value, each key once; --unset key lets the files say it again", arg)
		}
		if raw := json.RawMessage(value); json.Valid(raw) && !strings.ContainsAny(value[:1], "{[") {
			set[key] = raw
			continue
		}
		set[key] = jsonText(value)
	}
	return set, nil
}

func jsonText(text string) json.RawMessage {
	raw, _ := json.Marshal(text) // a string can be marshalled
	return raw
}

// changedPolicies is what change_meta prints.
type changedPolicies struct {
	Cluster string           `json:"cluster"`
	Version uint64           `json:"version"`
	DryRun  bool             `json:"dry_run,omitempty"`
	Changes []policyDistance `json:"changes"`
}

// policyDistance is one policy before and after; Says is "log" or "file".
type policyDistance struct {
	Key  string          `json:"key"`
	From json.RawMessage `json:"from"`
	To   json.RawMessage `json:"to"`
	Says string          `json:"says"`
}

func differences(now, then admin.Policies) []policyDistance {
	before, list := map[string]admin.Policy{}, []policyDistance{}
	for _, p := range now.Policies {
		before[p.Key] = p
	}
	for _, p := range then.Policies {
		if was := before[p.Key]; string(was.Value) != string(p.Value) || was.Changed != p.Changed {
			list = append(list, policyDistance{p.Key, was.Value, p.Value, map[bool]string{true: "log", false: "file"}[p.Changed]})
		}
	}
	return list
}

// meant says in a sentence what will change.
func meant(cluster string, changes []policyDistance) string {
	parts := make([]string, len(changes))
	for i, d := range changes {
		parts[i] = fmt.Sprintf("%s from %s to %s", d.Key, d.From, d.To)
		switch {
		case d.Says == "file":
			parts[i] += " (what this member's file says)"
		case string(d.From) == string(d.To):
			parts[i] = fmt.Sprintf("%s stays %s, whatever the files say", d.Key, d.To)
		}
	}
	return fmt.Sprintf("%s, on all members at once: %s", cluster, strings.Join(parts, "; "))
}

func (d changedPolicies) report() report {
	summary := printable{columns: []column{{name: "cluster"}, {name: "version", right: true}, {name: "changed", right: true}}}
	count := strconv.Itoa(len(d.Changes))
	if d.DryRun {
		count += " (dry run)"
	}
	summary.rows = [][]string{{d.Cluster, strconv.FormatUint(d.Version, 10), count}}
	r := report{data: d, tables: []printable{summary}}
	if len(d.Changes) > 0 {
		t := printable{columns: []column{{name: "policy"}, {name: "was"}, {name: "is"}, {name: "said by"}}}
		for _, c := range d.Changes {
			t.rows = append(t.rows, []string{c.Key, string(c.From), string(c.To), c.Says})
		}
		r.tables = append(r.tables, t)
	}
	return r
}

func policyHistory(p admin.Policies) report {
	t := printable{columns: []column{{name: "version", right: true}, {name: "at"}, {name: "by"}, {name: "changed"}, {name: "why"}}}
	if p.Changes == nil {
		p.Changes = []admin.PolicyChange{}
	}
	for _, c := range p.Changes {
		var parts []string
		was := func(key string) string {
			if old, there := c.Former[key]; there {
				return " (was " + string(old) + ")"
			}
			return ""
		}
		for _, key := range slices.Sorted(maps.Keys(c.Set)) {
			parts = append(parts, key+" = "+string(c.Set[key])+was(key))
		}
		for _, key := range c.Unset {
			parts = append(parts, key+" unset"+was(key))
		}
		t.rows = append(t.rows, []string{strconv.FormatUint(c.Version, 10), c.At.Local().Format(time.DateTime), c.By, strings.Join(parts, ", "), c.Why})
	}
	return report{data: p.Changes, tables: []printable{t}}
}
