package main

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/cstproxy/cstproxy/admin"
)

func newLastLSNCommand(o *ctlOptions) *cobra.Command {
	return &cobra.Command{
		Use:     "get_last_lsn",
		Aliases: []string{"lsn"},
		Short:   "Ask every node for its timeline and last WAL position",
		Args:    takes(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.show(cmd, func(ctx context.Context, c *admin.Client) (report, error) {
				list, err := c.LastLSN(ctx, o.cluster)
				if err != nil {
					return report{}, err
				}
				r := lsnReport(list, o.node)
				if o.node != 0 && len(r.tables[0].rows) == 0 {
					return report{}, o.noNode()
				}
				return r, nil
			})
		},
	}
}

func lsnReport(list []admin.NodeLSN, only int) report {
	t := printable{title: "db list", columns: []column{
		{name: "id", right: true}, {name: "host"}, {name: "primary", right: true},
		{name: "timeline", right: true}, {name: "lsn", right: true}, {name: "port", right: true}, {name: "why"},
	}}
	kept := []admin.NodeLSN{}
	for _, n := range list {
		if only != 0 && n.ID != only {
			continue
		}
		kept = append(kept, n)
		timeline := "unknown"
		if n.Timeline != 0 {
			timeline = strconv.FormatUint(uint64(n.Timeline), 10)
		}
		t.rows = append(t.rows, []string{
			strconv.Itoa(n.ID), n.Host, yesNo[n.Primary], timeline, textOr(n.LSN, "unknown"), strconv.Itoa(n.Port), n.Error,
		})
	}
	return report{data: kept, tables: []printable{t}}
}

func newDelayCommand(o *ctlOptions) *cobra.Command {
	return &cobra.Command{
		Use:     "repl_delay",
		Aliases: []string{"lag"},
		Short:   "Show how many bytes of WAL each standby is behind",
		Args:    takes(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.show(cmd, func(ctx context.Context, c *admin.Client) (report, error) {
				list, err := c.ReplicationDelay(ctx, o.cluster)
				if err != nil {
					return report{}, err
				}
				r := delayReport(list, o.node)
				if o.node != 0 && len(r.tables[0].rows) == 0 {
					return report{}, o.noNode()
				}
				return r, nil
			})
		},
	}
}

func delayReport(list []admin.NodeDelay, only int) report {
	t := printable{columns: []column{
		{name: "host"}, {name: "primary"}, {name: "current_lsn", right: true}, {name: "sent_delay", right: true},
		{name: "write_delay", right: true}, {name: "flush_delay", right: true}, {name: "replay_delay", right: true},
		{name: "is_sync", right: true}, {name: "state", right: true}, {name: "id", right: true}, {name: "port", right: true}, {name: "why"},
	}}
	kept := []admin.NodeDelay{}
	for _, n := range list {
		if only != 0 && n.ID != only {
			continue
		}
		kept = append(kept, n)
		t.rows = append(t.rows, []string{
			n.Host, yesNo[n.Primary], textOr(n.CurrentLSN, "N/A"), orNA(n.SentDelay), orNA(n.WriteDelay),
			orNA(n.FlushDelay), orNA(n.ReplayDelay), textOr(n.IsSync, "N/A"), textOr(n.State, "N/A"),
			strconv.Itoa(n.ID), strconv.Itoa(n.Port), n.Error,
		})
	}
	return report{data: kept, tables: []printable{t}}
}

// yesNo is CLup's way to write the column primary.
var yesNo = map[bool]string{false: "0", true: "1"}
