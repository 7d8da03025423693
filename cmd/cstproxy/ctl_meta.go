package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/spf13/cobra"

	"github.com/cstproxy/cstproxy/admin"
)

func newGetMetaCommand(o *ctlOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "get_meta",
		Short: "Print what the fleet has agreed on about the cluster, and its configuration (yaml or json)",
		Args:  takes(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.format == formatTable || o.format == formatTSV {
				o.format = formatYAML // it is nested; a table would not hold it
			}
			return o.show(cmd, func(ctx context.Context, c *admin.Client) (report, error) {
				cluster, err := o.named(ctx, c)
				if err != nil {
					return report{}, err
				}
				m, err := c.Meta(ctx, cluster.Name)
				return report{data: m}, err
			})
		},
	}
}

func newLogCommand(o *ctlOptions) *cobra.Command {
	follow := false
	cmd := &cobra.Command{
		Use:   "log",
		Short: "Print the last lines of this member's log; -F goes on",
		Args:  takes(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
			defer stop()
			c, err := o.client()
			if err != nil {
				return err
			}
			out, from := cmd.OutOrStdout(), uint64(0)
			for {
				got, err := c.Log(ctx, from)
				switch {
				case ctx.Err() != nil:
					return nil
				case err != nil:
					return err
				}
				if got.Missed > 0 && from > 0 {
					fmt.Fprintf(out, "(%d lines were written faster than they could be read here)\n", got.Missed)
				}
				for _, line := range got.Lines {
					fmt.Fprintln(out, line)
				}
				if !follow {
					return nil
				}
				from = got.Next
			}
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "F", false, "go on until Ctrl-C")
	return cmd
}
