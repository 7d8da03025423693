package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/cstproxy/cstproxy/admin"
)

const (
	// lostFor is how long the admin port may stay away while a task is followed.
	lostFor = 60 * time.Second
	// askPause is the pause after a question that failed.
	askPause = time.Second
)

// screen shows a task while it runs.
type screen interface {
	// lines are new ones; task is as it is now.
	lines(task admin.Task, lines []admin.TaskLine)
	// trouble says why nothing is known at the moment.
	trouble(why string)
}

// follow shows a task until its end, over changes of the leader, and returns how it ended.
func (o *orderOptions) follow(ctx context.Context, cmd *cobra.Command, c *admin.Client, task admin.Task) error {
	if o.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.timeout)
		defer cancel()
	}
	out := cmd.OutOrStdout()
	var s screen = silent{}
	if o.format == formatTable {
		s = newScreen(out)
		fmt.Fprintf(out, "task %d: %s\n", task.ID, task.Kind)
	}
	ended, err := watchTask(ctx, c, admin.TaskPlace{Cluster: task.Cluster, ID: task.ID}, s)
	if err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("task %d goes on; follow it with: cstproxy ctl task_log -F %d", task.ID, task.ID)
		}
		return err
	}
	if o.format != formatTable {
		if err := taskReport([]admin.Task{ended}).print(out, o.format); err != nil {
			return err
		}
	}
	return ending(ended)
}

// ending is the error of a task that did not do what it was for.
func ending(t admin.Task) error {
	if t.Outcome == "done" {
		return nil
	}
	return fmt.Errorf("%s %d ended %s: %s", t.Kind, t.ID, t.Outcome, textOr(t.Note, "no reason is known"))
}

// watchTask reads a task's log until the task has ended and all was read. A leader that is away and a
// member that restarts are waited for.
func watchTask(ctx context.Context, c *admin.Client, place admin.TaskPlace, s screen) (admin.Task, error) {
	var away time.Time
	for {
		got, err := c.TaskLog(ctx, place)
		switch {
		case err == nil:
			away = time.Time{}
			s.lines(got.Task, got.Lines)
			place.Log, place.From = got.Log, got.Next
			if got.Task.Ended() && len(got.Lines) == 0 {
				return got.Task, nil
			}
			continue
		case ctx.Err() != nil:
			return admin.Task{}, ctx.Err()
		case !errors.Is(err, admin.ErrUnreachable) && !errors.Is(err, admin.ErrNoLeader) && !errors.Is(err, admin.ErrOutcome):
			return admin.Task{}, err
		}
		if away.IsZero() {
			away = time.Now()
			s.trouble(err.Error())
		}
		if time.Since(away) > lostFor {
			return admin.Task{}, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(askPause):
		}
	}
}

// silent shows nothing: the result is for a program.
type silent struct{}

func (silent) lines(admin.Task, []admin.TaskLine) {}
func (silent) trouble(string)                     {}

// newScreen is a live table on a terminal, and lines elsewhere.
func newScreen(out io.Writer) screen {
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return &board{out: out, width: func() int {
			width, _, err := term.GetSize(int(f.Fd()))
			if err != nil || width < 40 {
				return 80
			}
			return width
		}}
	}
	return &scroll{out: out}
}

// scroll prints each line once.
type scroll struct{ out io.Writer }

func (s *scroll) lines(_ admin.Task, lines []admin.TaskLine) {
	for _, l := range lines {
		fmt.Fprintln(s.out, lineText(l))
	}
}

func (s *scroll) trouble(why string) { fmt.Fprintln(s.out, "waiting:", why) }

// lineText is a line of a task's log for people.
func lineText(l admin.TaskLine) string {
	text := fmt.Sprintf("%s %-8s %-8s %s", l.At.Local().Format("15:04:05.000"), l.Step, l.Kind, l.Text)
	if l.Kind == "end" {
		text += fmt.Sprintf(" (%.2fs)", l.Seconds)
	}
	return text
}

// board is a table of the steps that is drawn over itself.
type board struct {
	out   io.Writer
	width func() int
	rows  []row
	drawn int // lines of the last drawing
	now   string
}

// row is one step: when it began, and what was last said in it.
type row struct {
	step, text string
	began, end time.Time
	failed     bool
}

func (b *board) lines(task admin.Task, lines []admin.TaskLine) {
	for _, l := range lines {
		b.take(l)
	}
	b.draw(task)
}

func (b *board) take(l admin.TaskLine) {
	last := len(b.rows) - 1
	switch l.Kind {
	case "step", "leader", "outcome":
		if last >= 0 && b.rows[last].end.IsZero() {
			b.rows[last].end = l.At
		}
		if last >= 0 && b.rows[last].step == l.Step {
			b.rows[last].text, b.rows[last].end = l.Text, time.Time{}
			return
		}
		b.rows = append(b.rows, row{step: l.Step, text: l.Text, began: l.At, failed: l.Failed})
		b.now = ""
	default:
		b.now = l.Text
		if l.Failed && last >= 0 {
			b.rows[last].text = l.Text
		}
	}
}

func (b *board) trouble(why string) {
	b.now = "waiting: " + why
	b.draw(admin.Task{})
}

// draw writes the table over its last drawing. What is below the steps is what goes on now.
func (b *board) draw(task admin.Task) {
	var t strings.Builder
	if b.drawn > 0 {
		fmt.Fprintf(&t, "\x1b[%dA\x1b[J", b.drawn)
	}
	width := b.width()
	for i, r := range b.rows {
		mark, took := "…", ""
		switch {
		case r.failed:
			mark = "✗"
		case i < len(b.rows)-1 || task.Ended():
			mark = "✓"
		}
		if !r.end.IsZero() {
			took = fmt.Sprintf("%.2fs", r.end.Sub(r.began).Seconds())
		}
		t.WriteString(cut(fmt.Sprintf(" %s %-8s %8s  %s", mark, r.step, took, r.text), width) + "\n")
	}
	b.drawn = len(b.rows)
	if b.now != "" && !task.Ended() {
		t.WriteString(cut("   "+b.now, width) + "\n")
		b.drawn++
	}
	_, _ = io.WriteString(b.out, t.String()) // a terminal that is gone needs no table
}

// cut keeps a line in one row of the terminal, and control characters off it.
func cut(line string, width int) string {
	runes := []rune(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, line))
	return string(runes[:min(len(runes), width-1)])
}

func taskReport(tasks []admin.Task) report {
	t := printable{title: "task list", columns: []column{
		{name: "id", right: true}, {name: "kind"}, {name: "node", right: true}, {name: "from", right: true}, {name: "to", right: true},
		{name: "step"}, {name: "outcome"}, {name: "by"}, {name: "why"}, {name: "note"},
	}}
	for _, k := range tasks {
		node := k.Candidate
		if node == 0 {
			node = k.Node
		}
		t.rows = append(t.rows, []string{strconv.FormatUint(k.ID, 10), k.Kind, orDash(node), epochs(k.From), epochs(k.To),
			k.Step, textOr(k.Outcome, "-"), k.By, k.Why, strings.TrimSuffix(when(k)+k.Note, "; ")})
	}
	r := report{data: tasks, tables: []printable{t}}
	if len(tasks) == 1 {
		r.data = tasks[0]
	}
	return r
}

// when says the time of a planned task.
func when(t admin.Task) string {
	if t.At == nil {
		return ""
	}
	return "at " + t.At.Local().Format(time.DateTime) + "; "
}

func orDash(n int) string {
	if n == 0 {
		return "-"
	}
	return strconv.Itoa(n)
}

func epochs(n uint64) string {
	if n == 0 {
		return "-"
	}
	return strconv.FormatUint(n, 10)
}
