package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/cstproxy/cstproxy/admin"
	"github.com/cstproxy/cstproxy/conf"
)

// ctlOptions are the flags that all verbs of ctl share.
type ctlOptions struct {
	file    string
	url     string
	cluster string
	node    int
	format  format
	watch   time.Duration
	yes     bool
}

func newCtlCommand() *cobra.Command {
	o := &ctlOptions{format: formatTable}
	cmd := &cobra.Command{
		Use:   "ctl",
		Short: "Ask and steer a running cstproxy",
		Long: "Ctl talks to the admin port of a running cstproxy. The address and the token come from the\n" +
			"configuration file; --url and the variables CSTPROXY_ADMIN_TOKEN or CSTLB_TOKEN replace them.\n\n" +
			"Exit codes: 0 done, 1 failed, 2 usage, 3 unreachable, 4 refused.",
		Args: cobra.ArbitraryArgs,
		RunE: groupHelp,
	}
	flags := cmd.PersistentFlags()
	flags.StringVarP(&o.file, "file", "f", "", "configuration file (default: $"+conf.EnvFile+", ./cstproxy.toml, "+systemFile+")")
	flags.StringVar(&o.url, "url", "", "admin port, as host:port or URL (default: from the configuration file)")
	flags.StringVarP(&o.cluster, "cluster", "c", "", "cluster (default: the first)")
	flags.IntVarP(&o.node, "node", "i", 0, "id of the node")
	flags.VarP(&o.format, "output", "o", "output format: table, json, yaml or tsv")
	flags.DurationVar(&o.watch, "watch", 0, "print again after this time until Ctrl-C; --watch alone: every 2s")
	flags.Lookup("watch").NoOptDefVal = "2s"
	flags.BoolVar(&o.yes, "yes", false, "do not ask")
	names := []string{string(formatTable), string(formatJSON), string(formatYAML), string(formatTSV)}
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp))
	cmd.AddCommand(newShowCommand(o), newLastLSNCommand(o), newDelayCommand(o), newNodeCommand(o), newStatsCommand(o),
		newSwitchCommand(o), newFailoverCommand(o), newRepairCommand(o), newCloneCommand(o), newFrozeCommand(o), newUnfrozeCommand(o),
		newShowTaskCommand(o), newTaskLogCommand(o), newMembersCommand(o), newVoterCommand(o), newEvidenceCommand(o),
		newGetMetaCommand(o), newChangeMetaCommand(o), newLogCommand(o), newInitCommand(o), newAdoptCommand(o), newKeyCommand())
	return cmd
}

// client reaches the admin port that the flags or the configuration name.
func (o *ctlOptions) client() (*admin.Client, error) {
	cfg := admin.Config{Listen: o.url}
	path, err := configFile(o.file)
	switch {
	case err == nil:
		read, err := conf.LoadAdmin(path, os.Environ())
		if err != nil && (o.url == "" || o.file != "") {
			return nil, err
		}
		cfg.Token = read.Token
		if o.url == "" {
			cfg.Listen = read.Listen
		}
	case o.url == "":
		return nil, err
	}
	for _, name := range []string{"CSTLB_TOKEN", "CSTPROXY_ADMIN_TOKEN"} {
		if token := os.Getenv(name); token != "" {
			cfg.Token = token
		}
	}
	if cfg.Listen == "" {
		return nil, usagef("%s switches the admin port off ([admin] listen is empty); nothing to talk to", path)
	}
	c, err := admin.NewClient(cfg.Listen, cfg.Token)
	if err != nil {
		return nil, usagef("%v", err)
	}
	return c, nil
}

// show prints what ask returns, once or, with --watch, until Ctrl-C.
func (o *ctlOptions) show(cmd *cobra.Command, ask func(context.Context, *admin.Client) (report, error)) error {
	c, err := o.client()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
	defer stop()
	out := cmd.OutOrStdout()
	for {
		r, err := ask(ctx, c)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && o.watch == 0 {
			return err
		}
		if o.watch > 0 {
			o.beforeAgain(out)
		}
		if err != nil {
			fmt.Fprintln(out, err) // the watch goes on: it is often there to see something come back
		} else if err := r.print(out, o.format); err != nil {
			return err
		}
		if o.watch == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(o.watch):
		}
	}
}

// beforeAgain clears a terminal, and tells the time in front of tables.
func (o *ctlOptions) beforeAgain(out io.Writer) {
	const clear = "\x1b[H\x1b[2J"
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprint(out, clear)
	}
	if o.format == formatTable {
		fmt.Fprintln(out, time.Now().Format(time.DateTime))
	}
}

func newStatsCommand(o *ctlOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "stats",
		Short: "Print the data plane's counters (json or yaml)",
		Args:  takes(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.format == formatTable || o.format == formatTSV {
				o.format = formatYAML // the counters are nested; a table would not hold them
			}
			return o.show(cmd, func(ctx context.Context, c *admin.Client) (report, error) {
				stats, err := c.Stats(ctx)
				return report{data: stats}, err
			})
		},
	}
}

// orNA is CLup's way to write what does not apply.
func orNA(n *int64) string {
	if n == nil {
		return "N/A"
	}
	return strconv.FormatInt(*n, 10)
}

func textOr(s, instead string) string {
	if s == "" {
		return instead
	}
	return s
}
