package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cstproxy/cstproxy/conf"
)

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "cstproxy",
		Short:         "One address for a PostgreSQL primary and its standbys",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.ArbitraryArgs,
		RunE:          groupHelp,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%v; see %s --help", err, cmd.CommandPath())
	})
	root.AddCommand(newRunCommand(), newCheckCommand(), newConfigCommand(), newExplainCommand(),
		newCtlCommand(), newStatusCommand(), newStopCommand(), newDemoCommand(), newVersionCommand())
	return root
}

// groupHelp is what a command does that only holds others.
func groupHelp(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	hint := "see " + cmd.CommandPath() + " --help"
	cmd.SuggestionsMinimumDistance = 2 // edits; cobra sets its default only on a path of its own
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = "did you mean " + strings.Join(near, " or ") + "?"
	}
	return usagef("unknown command %q for %q; %s", args[0], cmd.CommandPath(), hint)
}

// takes wraps an argument check of cobra's, so that its errors end in the exit code for usage.
func takes(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usagef("%v; see %s --help", err, cmd.CommandPath())
		}
		return nil
	}
}

// systemFile is where a package puts the configuration.
const systemFile = "/etc/cstproxy/cstproxy.toml"

// fileFlag adds -f. It may stay empty: then configFile looks in the usual places.
func fileFlag(cmd *cobra.Command, into *string) {
	cmd.Flags().StringVarP(into, "file", "f", "", "configuration file (default: $"+conf.EnvFile+", ./cstproxy.toml, "+systemFile+")")
	_ = cmd.MarkFlagFilename("file", "toml") // fails only for a flag that does not exist
}

// configFile is the file that -f names, or the first of the usual places that has one.
func configFile(flag string) (string, error) {
	if flag != "" {
		return flag, nil
	}
	if path := os.Getenv(conf.EnvFile); path != "" {
		return path, nil
	}
	for _, path := range []string{"cstproxy.toml", systemFile} {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", usagef("no configuration file: give -f, or set %s, or put one at %s", conf.EnvFile, systemFile)
}

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  takes(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "cstproxy %s (%s %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}
