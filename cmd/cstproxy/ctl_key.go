package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cstproxy/cstproxy/ha/peer"
)

func newKeyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "key FILE",
		Short: "Make the key of a new fleet",
		Long: "Key writes the key by which the members of a fleet trust each other, readable by its owner only.\n" +
			"Copy the file to every member and name it there as key_file in [fleet]. It never replaces a file.",
		Args: takes(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			k, err := peer.NewKey()
			if err != nil {
				return err
			}
			if err := peer.WriteKey(args[0], k); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: copy it to every member, readable by the account that runs cstproxy only\n", args[0])
			return nil
		},
	}
}
