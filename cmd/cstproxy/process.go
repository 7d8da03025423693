package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/cstproxy/cstproxy/admin"
)

func newStatusCommand() *cobra.Command {
	o := &ctlOptions{format: formatTable}
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say whether cstproxy runs, and what part it has in its fleet",
		Long:  "Status asks the admin port that the configuration names. Exit code 0: it runs; 3: nobody answers there.",
		Args:  takes(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.show(cmd, func(ctx context.Context, c *admin.Client) (report, error) {
				p, err := c.Process(ctx)
				return processReport(p), err
			})
		},
	}
	fileFlag(cmd, &o.file)
	formatFlag(cmd, &o.format)
	cmd.Flags().StringVar(&o.url, "url", "", "admin port, as host:port or URL (default: from the configuration file)")
	return cmd
}

func processReport(p admin.Process) report {
	t := printable{columns: []column{{name: "what"}, {name: "is"}}}
	add := func(what, is string) {
		if is != "" {
			t.rows = append(t.rows, []string{what, is})
		}
	}
	add("version", p.Version)
	add("pid", strconv.Itoa(p.PID))
	add("host", p.Host)
	add("running since", p.Started.Local().Format(time.DateTime))
	add("takes no clients", p.Draining)
	if f := p.Fleet; f != nil {
		if f.Alone {
			add("member", "alone")
		} else {
			add("member", f.Member)
			add("leader", textOr(f.Leader, "nobody"))
		}
		add("fleet", f.Fleet)
		add("waits", f.Waiting)
		add("trouble", f.Trouble)
		for _, c := range f.Clusters {
			add(c.Cluster, shareText(c))
		}
	}
	return report{data: p, tables: []printable{t}}
}

func shareText(c admin.MemberShare) string {
	text := fmt.Sprintf("epoch %d, primary node %d", c.Epoch, c.Primary)
	if c.Epoch == 0 {
		text = "no primary was agreed on yet"
	}
	switch {
	case c.Held != "":
		text += "; writes are held: " + c.Held
	case c.LeaseSeconds == nil:
	case *c.LeaseSeconds <= 0:
		text += "; no lease: writes wait"
	default:
		text += fmt.Sprintf("; lease for %.1fs more", *c.LeaseSeconds)
	}
	if c.Froze != nil {
		text += "; frozen by " + c.Froze.By
	}
	return text
}

func newStopCommand() *cobra.Command {
	o := &ctlOptions{format: formatTable}
	now, within := false, time.Duration(0)
	cmd := &cobra.Command{
		Use:   "stop",
		Short: "End the cstproxy of this machine that the configuration names",
		Long: "Stop asks the admin port for the process, checks that it is a cstproxy of this machine, sends it SIGTERM\n" +
			"(no new clients; transactions finish, at most proxy.drain_timeout) and waits until it has ended.",
		Args: takes(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.client()
			if err != nil {
				return err
			}
			p, err := c.Process(cmd.Context())
			if err != nil {
				return err
			}
			if err := stopProcess(cmd.Context(), p, stopOrder{now, within}); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "cstproxy (pid %d) has ended\n", p.PID)
			return nil
		},
	}
	fileFlag(cmd, &o.file)
	cmd.Flags().BoolVar(&now, "now", false, "end at once; open transactions are cut")
	cmd.Flags().DurationVar(&within, "timeout", 2*time.Minute, "how long to wait for the end")
	return cmd
}

// stopOrder is how a process is to end: at once, or when it has drained; and how long that is waited for.
type stopOrder struct {
	now    bool
	within time.Duration
}

// stopProcess signals the process that an admin port spoke of, once it is sure that it is that one.
func stopProcess(ctx context.Context, p admin.Process, o stopOrder) error {
	if err := isOurs(p); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, o.within)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for first := true; isOurs(p) == nil; first = false {
		if first || o.now { // the second signal is what cuts; two at once would arrive as one
			if err := syscall.Kill(p.PID, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("signal process %d: %w", p.PID, err)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("process %d has not ended within %v; it still drains, or repeat with --now", p.PID, o.within)
		case <-tick.C:
		}
	}
	return nil
}

// isOurs says whether the process is on this machine and is the executable that it said, so that a
// number that was given to somebody else meanwhile is never signalled.
func isOurs(p admin.Process) error {
	host, err := os.Hostname()
	if err != nil || host != p.Host || p.PID <= 1 {
		return fmt.Errorf("it runs on %s, and this is %s: stop it there: %w", textOr(p.Host, "another machine"), host, admin.ErrRefused)
	}
	dir := filepath.Join("/proc", strconv.Itoa(p.PID))
	exe, err := os.Readlink(filepath.Join(dir, "exe"))
	if err != nil {
		return fmt.Errorf("process %d cannot be looked at; stop it as its own user: %w: %w", p.PID, err, admin.ErrRefused)
	}
	// A binary that was replaced under a running process has " (deleted)" behind its name.
	if p.Executable == "" || strings.TrimSuffix(exe, " (deleted)") != strings.TrimSuffix(p.Executable, " (deleted)") {
		return fmt.Errorf("process %d is %s and not the %s that answered: %w", p.PID, exe, textOr(p.Executable, "cstproxy"), admin.ErrRefused)
	}
	// A zombie has ended, and waits for its parent.
	state, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil || strings.Contains(string(state), ") Z ") {
		return fmt.Errorf("process %d has ended: %w", p.PID, admin.ErrRefused)
	}
	return nil
}
