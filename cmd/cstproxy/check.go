package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/cstproxy/cstproxy/conf"
)

func newCheckCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check a configuration file and print every problem in it",
		Long: "Check reads the file and the environment as run would, and prints every problem as\n" +
			"file:line: text. It contacts no server. The exit code is 2 when there is a problem.",
		Args: takes(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := configFile(file)
			if err != nil {
				return err
			}
			cfg, err := conf.Load(path, os.Environ())
			if err != nil {
				return err
			}
			if err := checkContents(cfg); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: no problems\n", path)
			return err
		},
	}
	fileFlag(cmd, &file)
	return cmd
}

// checkContents reads the files that the configuration names, as a start would.
func checkContents(cfg *conf.Config) error {
	var problems conf.Problems
	bad := func(err error) { problems = append(problems, conf.Problem{File: cfg.Path(), Text: err.Error()}) }
	if _, err := settingsOf(cfg); err != nil {
		bad(err)
	}
	if cfg.Proxy.TLS != "disable" {
		if _, err := tls.LoadX509KeyPair(cfg.Proxy.TLSCertFile, cfg.Proxy.TLSKeyFile); err != nil {
			bad(fmt.Errorf("tls_cert_file and tls_key_file: %w", err))
		}
	}
	if len(problems) > 0 {
		return problems
	}
	return nil
}

func newConfigCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Look at the configuration",
		Args:  cobra.ArbitraryArgs,
		RunE:  groupHelp,
	}
	cmd.AddCommand(newConfigShowCommand(), newConfigSampleCommand())
	return cmd
}

func newConfigShowCommand() *cobra.Command {
	var file string
	var origin bool
	format := formatTable
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Print every setting as run would see it, secrets masked",
		Args:  takes(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := configFile(file)
			if err != nil {
				return err
			}
			cfg, err := conf.Load(path, os.Environ())
			if err != nil {
				return err
			}
			columns := []string{"key", "value"}
			if origin {
				columns = append(columns, "origin", "reload")
			}
			return settingsReport(cfg, columns).print(cmd.OutOrStdout(), format)
		},
	}
	fileFlag(cmd, &file)
	formatFlag(cmd, &format)
	cmd.Flags().BoolVar(&origin, "origin", false, "also print where each value comes from and whether a reload changes it")
	return cmd
}

// settingRow is a setting in json and yaml.
type settingRow struct {
	Key    string          `json:"key"`
	Value  json.RawMessage `json:"value"`
	Origin string          `json:"origin"`
	Reload string          `json:"reload"`
}

func settingsReport(cfg *conf.Config, columns []string) report {
	var t printable
	for _, name := range columns {
		t.columns = append(t.columns, column{name: name})
	}
	rows := []settingRow{}
	for _, s := range cfg.Settings() {
		row := settingRow{Key: s.Key, Value: asJSON(s.Value), Origin: s.Origin.Kind.String(), Reload: "yes"}
		if s.Origin.Where != "" {
			row.Origin += " " + s.Origin.Where
		}
		if s.Restart {
			row.Reload = "restart"
		}
		rows = append(rows, row)
		t.rows = append(t.rows, []string{row.Key, s.Value, row.Origin, row.Reload}[:len(columns)])
	}
	return report{data: rows, tables: []printable{t}}
}

// asJSON takes a value of TOML over, whose texts, numbers and lists are nearly always JSON too.
func asJSON(value string) json.RawMessage {
	if json.Valid([]byte(value)) {
		return json.RawMessage(value)
	}
	text, _ := json.Marshal(value) // a string always marshals
	return text
}

func newConfigSampleCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "sample",
		Short: "Print a commented file with every setting at its default",
		Args:  takes(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprint(cmd.OutOrStdout(), conf.Sample())
			return err
		},
	}
}
