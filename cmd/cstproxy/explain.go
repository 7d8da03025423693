package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/conf"
	"github.com/cstproxy/cstproxy/ha"
	"github.com/cstproxy/cstproxy/ha/topology"
	"github.com/cstproxy/cstproxy/proxy/catalog"
	"github.com/cstproxy/cstproxy/router"
)

// explainOptions are the flags of explain.
type explainOptions struct {
	file, cluster         string
	database, user, appID string
	format                format
}

func newExplainCommand() *cobra.Command {
	o := explainOptions{format: formatTable}
	cmd := &cobra.Command{
		Use:   `explain "SQL"`,
		Short: "Say where statements would go, and why",
		Long: "Explain judges the SQL as the proxy does, statement by statement and as one turn; - reads it\n" +
			"from standard input. With -f the functions, tables and operators of the real database count,\n" +
			"read from a server of the cluster, and the file's routing rules. Without it, or when no server\n" +
			"answers, tables are taken for ordinary ones and functions for those of PostgreSQL 15.",
		Args: takes(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			sql := args[0]
			if sql == "-" {
				text, err := io.ReadAll(cmd.InOrStdin())
				if err != nil {
					return fmt.Errorf("read the SQL: %w", err)
				}
				sql = string(text)
			}
			env, rule, err := o.env(cmd.Context(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return explainReport(sql, env, rule).print(cmd.OutOrStdout(), o.format)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&o.file, "file", "f", "", "configuration file; with it the database's catalogue and the routing rules count")
	flags.StringVarP(&o.cluster, "cluster", "c", "", "cluster (default: the first)")
	flags.StringVarP(&o.database, "database", "d", "postgres", "database whose catalogue counts, and for routing rules")
	flags.StringVarP(&o.user, "user", "U", "", "user, for routing rules")
	flags.StringVar(&o.appID, "application-name", "", "application_name, for routing rules")
	formatFlag(cmd, &o.format)
	return cmd
}

// env is what the statements are judged by. What is missing of it is said on errOut.
func (o *explainOptions) env(ctx context.Context, errOut io.Writer) (router.Env, router.RouteChoice, error) {
	if o.file == "" {
		return router.Env{}, router.ChooseAuto, nil
	}
	cfg, err := conf.Load(o.file, os.Environ())
	if err != nil {
		return router.Env{}, router.ChooseAuto, err
	}
	rules, err := router.CompileRules(cfg.Routing.Rules)
	if err != nil {
		return router.Env{}, router.ChooseAuto, err
	}
	match := rules.Match(o.user, o.database, o.appID)
	env := router.Env{Rules: match.Tables}
	if env.Knowledge, err = o.knowledge(ctx, cfg); err != nil {
		if errorIsUsage(err) {
			return router.Env{}, router.ChooseAuto, err
		}
		fmt.Fprintf(errOut, "cstproxy: judged without the database's catalogue: %v\n", err)
	}
	return env, match.Choice, nil
}

func errorIsUsage(err error) bool { return exitCode(err) == exitUsage }

// knowledgeTimeout bounds the search for a server and the reading of its catalogue.
const knowledgeTimeout = 10 * time.Second

// knowledge reads the catalogue with the parts that the proxy reads it with: an agent finds a
// server that is alive, a store asks it. Both end before it returns.
func (o *explainOptions) knowledge(ctx context.Context, cfg *conf.Config) (*router.Knowledge, error) {
	var c *ha.ClusterConfig
	for i := range cfg.HA.Clusters {
		if o.cluster == "" || cfg.HA.Clusters[i].Name == o.cluster {
			c = &cfg.HA.Clusters[i]
			break
		}
	}
	if c == nil {
		return nil, usagef("there is no cluster %q", o.cluster)
	}
	settings, err := settingsOf(cfg)
	if err != nil {
		return nil, err
	}
	watch := cfg.HA
	watch.Clusters, watch.StateDir = []ha.ClusterConfig{*c}, "" // the state belongs to the process that runs
	board := topology.NewBoard(c.Name)
	agent, err := ha.New(watch, map[string]*topology.Board{c.Name: board}, nil, zap.NewNop())
	if err != nil {
		return nil, err
	}
	store := catalog.New(settings.asking[c.Name].catalog, board, settings.Dialer, zap.NewNop())

	ctx, cancel := context.WithTimeout(ctx, knowledgeTimeout)
	watching, storing := make(chan error, 1), make(chan error, 1)
	go func() { watching <- agent.Run(ctx) }()
	go func() { storing <- store.Run(ctx) }()
	defer func() { cancel(); <-watching; <-storing }()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if k := store.Knowledge(o.database); k != nil {
			return k, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("no server of %s let database %q be read within %s%s", c.Name, o.database, knowledgeTimeout, whyNot(board.View()))
		case <-tick.C:
		}
	}
}

// whyNot is what the nodes answered instead.
func whyNot(v *topology.View) string {
	var b strings.Builder
	for i := range v.Nodes {
		if n := &v.Nodes[i]; n.Why != "" {
			fmt.Fprintf(&b, "; node %d is %s: %s", n.ID, n.Health, n.Why)
		}
	}
	return b.String()
}

// explained is one statement in json and yaml.
type explained struct {
	Statement string   `json:"statement"`
	Target    string   `json:"target"`
	Why       string   `json:"why"`
	Looked    []string `json:"looked_at"`
	Effects   []string `json:"effects,omitempty"`
}

// explainReport has a line for each statement and, when there are several, one for the turn.
func explainReport(sql string, env router.Env, rule router.RouteChoice) report {
	t := printable{columns: []column{
		{name: "#", right: true}, {name: "target"}, {name: "why"}, {name: "looked at"}, {name: "effects"}, {name: "statement"},
	}}
	list := []explained{}
	add := func(name string, e explained) {
		list = append(list, e)
		t.rows = append(t.rows, []string{name, e.Target, e.Why, strings.Join(e.Looked, ", "), strings.Join(e.Effects, ", "), shorten(e.Statement)})
	}
	statements := router.Explain(sql, env)
	for i, s := range statements {
		e := explained{Statement: s.Text, Target: s.Route.Target.String(), Why: s.Route.Why, Looked: s.Looked}
		if e.Looked == nil {
			e.Looked = []string{}
		}
		for _, effect := range s.Effects {
			if text := effectText(effect); text != "" {
				e.Effects = append(e.Effects, text)
			}
		}
		add(strconv.Itoa(i+1), e)
	}
	// The verdict on the whole, as a session that has just logged in would send it.
	verdict := router.New(router.Config{}).Classify([]byte(sql), env)
	route := router.NewSession(router.SessionConfig{Rule: rule}).Route([]*router.Verdict{verdict})
	if len(statements) != 1 || statements[0].Route != route {
		add("all", explained{Statement: sql, Target: route.Target.String(), Why: route.Why, Looked: []string{}})
	}
	return report{data: list, tables: []printable{t}}
}

func effectText(e router.Effect) string {
	switch e.Kind {
	case router.EffectPin:
		return strings.TrimSpace("pins: " + e.Name + " " + e.Value)
	case router.EffectUnpin:
		return strings.TrimSpace("ends pin: " + e.Name + " " + e.Value)
	case router.EffectSet:
		return "sets " + e.Name
	case router.EffectReset:
		return "resets " + e.Name
	case router.EffectDDL:
		return "changes the catalogue"
	case router.EffectBegin:
		return "begins a transaction"
	case router.EffectCommit, router.EffectRollback, router.EffectPrepareTransaction:
		return "ends the transaction"
	}
	return ""
}

// shorten fits a statement into a line of a table.
func shorten(s string) string {
	const width = 60
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > width {
		return string(r[:width-1]) + "…"
	}
	return s
}
