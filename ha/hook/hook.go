// Package hook tells others of what happened to a cluster: it runs the user's programs around a failover
// or switchover, and keeps the load balancers of an existing installation (cstlb) informed of who takes
// reads. Nothing here can stop an operation: what fails is reported. A leader that dies may have run a
// program, and its successor runs it again: programs must bear that.
package hook

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// The names of the hooks, as in the configuration.
const (
	PreFence     = "pre_fence"
	PostPromote  = "post_promote"
	OnRoleChange = "on_role_change"
	TriggerFunc  = "trigger_func"
)

// Config says what is run. Programs are run on the leader's host, whichever member that is: they must be
// there on all of them. Arguments and environment: see Event.
type Config struct {
	// PreFence is run when a failover's promotion has been committed, at the same time as the promotion, to
	// fence the old primary by other means (power, storage). Nobody waits for it; it is killed when the
	// failover ends without a new epoch. A switchover, which shuts the old primary down in order, has none.
	PreFence string `toml:"pre_fence"`
	// PostPromote and OnRoleChange are run once the new primary is published, both at once.
	PostPromote  string `toml:"post_promote"`
	OnRoleChange string `toml:"on_role_change"`
	// TriggerFunc is a function on the new primary, "name" (in the schema public) or "schema.name", which
	// is called after a promotion: SELECT name(cluster text, event text, old host text, new host text).
	// The event is "failover" or "switch". It returns anything. It may, for example, tell the coordinators
	// of a sharded installation where their data node is now (ALTER NODE).
	TriggerFunc string `toml:"trigger_func"`
}

var functionName = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_$]{0,62}\.)?[A-Za-z_][A-Za-z0-9_$]{0,62}$`)

// Validate says what is wrong with the values.
func (c Config) Validate() error {
	for _, name := range []string{PreFence, PostPromote, OnRoleChange} {
		if path := c.program(name); path != "" && !filepath.IsAbs(path) {
			return fmt.Errorf("%s: %q is not an absolute path", name, path)
		}
	}
	if c.TriggerFunc != "" && !functionName.MatchString(c.TriggerFunc) {
		return fmt.Errorf("%s: %q is not the name of a function, alone or with its schema, without arguments", TriggerFunc, c.TriggerFunc)
	}
	return nil
}

func (c Config) program(name string) string {
	switch name {
	case PreFence:
		return c.PreFence
	case PostPromote:
		return c.PostPromote
	case OnRoleChange:
		return c.OnRoleChange
	}
	return ""
}

// Before are the names of the configured hooks that fence the old primary.
func (c Config) Before() []string {
	if c.PreFence == "" {
		return nil
	}
	return []string{PreFence}
}

// After are the names of the configured hooks that run once there is a new primary.
func (c Config) After() (names []string) {
	for _, name := range []string{PostPromote, OnRoleChange} {
		if c.program(name) != "" {
			names = append(names, name)
		}
	}
	if c.TriggerFunc != "" {
		names = append(names, TriggerFunc)
	}
	return names
}

// Function is TriggerFunc with its schema.
func (c Config) Function() string {
	if c.TriggerFunc == "" || strings.Contains(c.TriggerFunc, ".") {
		return c.TriggerFunc
	}
	return "public." + c.TriggerFunc
}

// Event is what a hook is told. The order of the fields is that of a program's arguments, each of which is
// in its environment, too: CSTPROXY_CLUSTER, CSTPROXY_OPERATION ("failover" or "switch"),
// CSTPROXY_OPERATION_ID, CSTPROXY_EPOCH (the one that the operation makes), CSTPROXY_OLD_ID,
// CSTPROXY_OLD_ADDRESS ("host:port"), CSTPROXY_NEW_ID, CSTPROXY_NEW_ADDRESS, CSTPROXY_TIMELINE (the new
// primary's); CSTPROXY_HOOK is the hook's name. What is not known yet is 0 or "-".
type Event struct {
	Cluster    string
	Kind       string
	Operation  uint64
	Epoch      uint64
	OldID      int
	OldAddress string
	NewID      int
	NewAddress string
	Timeline   uint32
}

func (e Event) values() [][2]string {
	known := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	return [][2]string{
		{"CLUSTER", known(e.Cluster)}, {"OPERATION", known(e.Kind)}, {"OPERATION_ID", strconv.FormatUint(e.Operation, 10)},
		{"EPOCH", strconv.FormatUint(e.Epoch, 10)}, {"OLD_ID", strconv.Itoa(e.OldID)}, {"OLD_ADDRESS", known(e.OldAddress)},
		{"NEW_ID", strconv.Itoa(e.NewID)}, {"NEW_ADDRESS", known(e.NewAddress)}, {"TIMELINE", strconv.FormatUint(uint64(e.Timeline), 10)},
	}
}

// ours begins the names of the variables that this program reads itself: there may be secrets among them,
// and a hook gets none of them.
const ours = "CSTPROXY_"

func (e Event) environment(name string, inherited []string) []string {
	var env []string
	for _, v := range inherited {
		if !strings.HasPrefix(v, ours) && !strings.HasPrefix(v, "PGPASSWORD=") {
			env = append(env, v)
		}
	}
	env = append(env, ours+"HOOK="+name)
	for _, v := range e.values() {
		env = append(env, ours+v[0]+"="+v[1])
	}
	return env
}

const (
	// Timeout bounds a hook's program; then it is killed, with all of its process group.
	Timeout = 30 * time.Second
	// lingering is how long the output of a program that has ended is read yet: what it left in the
	// background may hold it open.
	lingering = time.Second
)

// Run runs the program of the hook named name, and returns when it has ended, with an error unless its exit
// status was 0. say gets each line that it writes, of both streams; never after Run has returned. The end of
// ctx kills it like Timeout does.
func (c Config) Run(ctx context.Context, name string, e Event, say func(line string)) error {
	path := c.program(name)
	if path == "" {
		return fmt.Errorf("hook %q is not configured", name)
	}
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	var args []string
	for _, v := range e.values() {
		args = append(args, v[1])
	}
	out := &lines{say: say}
	defer out.end()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = "/", e.environment(name, os.Environ()), out, out, lingering
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	err := cmd.Run()
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay) && ctx.Err() == nil:
		return nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("hook %s: %s did not end in time and was killed", name, path)
	case ctx.Err() != nil:
		return fmt.Errorf("hook %s: %s was killed: %w", name, path, context.Cause(ctx))
	}
	return fmt.Errorf("hook %s: %s: %w", name, path, err)
}

const (
	longestLine = 4 << 10
	mostLines   = 1000
)

// lines cuts what a program writes into lines, and lets no program fill a log.
type lines struct {
	say func(string)

	mu      sync.Mutex
	said    int
	partial []byte
}

// Write never fails: a program that says too much must not die of it.
func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range b {
		switch {
		case c == '\n':
			l.flush()
		case len(l.partial) < longestLine:
			l.partial = append(l.partial, c)
		}
	}
	return len(b), nil
}

func (l *lines) flush() {
	text := strings.ToValidUTF8(string(l.partial), "?")
	l.partial = l.partial[:0]
	l.said++
	switch {
	case l.say == nil || l.said > mostLines:
	case l.said == mostLines:
		l.say("… what follows is left out")
	default:
		l.say(text)
	}
}

// end says what has no line end, and nothing any more after that.
func (l *lines) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.partial) > 0 {
		l.flush()
	}
	l.say = nil
}
