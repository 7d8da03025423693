package main

import (
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/cstproxy/cstproxy/cmd/cstproxy/demo"
)

// newDemoCommand returns `cstproxy demo`: real servers on this machine with cstproxy in front.
func newDemoCommand() *cobra.Command {
	cfg := demo.DefaultConfig()
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show cstproxy at work: real servers, a load, a standby and then the primary that die and return",
		Long: `demo starts PostgreSQL servers on free local ports, cstproxy in front of them, and a light load.
Again and again it kills a standby, and then the primary: a standby takes over, and what was killed
comes back by itself, over an SSH server of the demo's own. Every answer of the load names the server
that gave it. Ctrl-C removes everything.
With --check it runs the story once and ends with code 0 only if the reads were spread by weight, the
writes went to the primary, killing a standby cost no query, and killing the primary cost no connection
and no acknowledged row.`,
		Args: takes(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cfg.Validate(); err != nil {
				return usagef("%v", err)
			}
			binary, err := os.Executable()
			if err != nil {
				return err
			}
			cfg.Binary, cfg.Out = binary, cmd.OutOrStdout()
			cfg.Terminal = !cfg.Check && cfg.Out == os.Stdout && term.IsTerminal(int(os.Stdout.Fd()))
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
			defer stop()
			return demo.New(cfg).Run(ctx)
		},
	}
	cmd.Flags().IntVar(&cfg.Port, "port", cfg.Port, "cstproxy's port on 127.0.0.1")
	cmd.Flags().IntVar(&cfg.AdminPort, "admin-port", cfg.AdminPort, "the admin port on 127.0.0.1")
	cmd.Flags().IntVar(&cfg.Standbys, "standbys", cfg.Standbys, "how many standbys")
	cmd.Flags().BoolVar(&cfg.Check, "check", false, "judge instead of show")
	cmd.Flags().BoolVar(&cfg.Calm, "calm", false, "kill nobody")
	return cmd
}
