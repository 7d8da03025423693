package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/cstproxy/cstproxy/admin"
)

func newShowTaskCommand(o *ctlOptions) *cobra.Command {
	return &cobra.Command{
		Use:     "show_task [id]",
		Aliases: []string{"history"},
		Short:   "Show the tasks under way and the last that ended",
		Args:    takes(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := taskID(args)
			if err != nil {
				return err
			}
			return o.show(cmd, func(ctx context.Context, c *admin.Client) (report, error) {
				cluster, err := o.named(ctx, c)
				if err != nil {
					return report{}, err
				}
				if id != 0 {
					t, err := c.Task(ctx, cluster.Name, id)
					return taskReport([]admin.Task{t}), err
				}
				list, err := c.Tasks(ctx, cluster.Name)
				r := taskReport(list)
				r.data = list
				return r, err
			})
		},
	}
}

// taskID is the only argument as a number; 0 when there is none.
func taskID(args []string) (uint64, error) {
	if len(args) == 0 {
		return 0, nil
	}
	id, err := strconv.ParseUint(args[0], 10, 64)
	if err != nil || id == 0 {
		return 0, usagef("task %q: give its number, as ctl show_task prints it", args[0])
	}
	return id, nil
}

func newTaskLogCommand(o *ctlOptions) *cobra.Command {
	follow := false
	cmd := &cobra.Command{
		Use:   "task_log id",
		Short: "Print a task's log; -F until the task ends",
		Long: "Task_log prints what the leader has written down about a task. A leader that takes over goes on with\n" +
			"what the fleet's record says; the lines of the one before are gone with it.",
		Args: takes(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := taskID(args)
			if err != nil {
				return err
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
			place := admin.TaskPlace{Cluster: cluster.Name, ID: id}
			if !follow {
				return o.printTaskLog(cmd, c, place)
			}
			task, err := watchTask(ctx, c, place, &scroll{out: cmd.OutOrStdout()})
			if err != nil {
				return err
			}
			return ending(task)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "F", false, "go on until the task ends; its outcome is the exit code")
	return cmd
}

// printTaskLog prints the lines that there are.
func (o *ctlOptions) printTaskLog(cmd *cobra.Command, c *admin.Client, place admin.TaskPlace) error {
	lines := []admin.TaskLine{}
	for {
		got, err := c.TaskLog(cmd.Context(), place)
		if err != nil {
			return err
		}
		fresh := got.Lines
		lines = append(lines, fresh...)
		place.Log, place.From = got.Log, got.Next
		// One answer holds a part only; of a task that goes on the rest is not waited for.
		if len(fresh) < taskLogPart {
			break
		}
	}
	if o.format == formatTable {
		for _, l := range lines {
			fmt.Fprintln(cmd.OutOrStdout(), lineText(l))
		}
		return nil
	}
	t := printable{columns: []column{{name: "number", right: true}, {name: "at"}, {name: "step"}, {name: "kind"}, {name: "node"}, {name: "seconds"}, {name: "text"}}}
	for _, l := range lines {
		t.rows = append(t.rows, []string{strconv.Itoa(l.Number), l.At.Format(time.RFC3339Nano), l.Step, l.Kind, orDash(l.Node), strconv.FormatFloat(l.Seconds, 'f', 3, 64), l.Text})
	}
	return report{data: lines, tables: []printable{t}}.print(cmd.OutOrStdout(), o.format)
}

// taskLogPart is how many lines one answer holds when there are more.
const taskLogPart = 500
