package operation

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/pgnode"
	"github.com/cstproxy/cstproxy/ha/remote"
	"github.com/cstproxy/cstproxy/ha/topology"
)

//go:embed scripts/prelude.sh
var prelude string

//go:embed scripts/facts.sh
var factsScript string

//go:embed scripts/stop.sh
var stopScript string

//go:embed scripts/start.sh
var startScript string

//go:embed scripts/promote.sh
var promoteScript string

//go:embed scripts/follow.sh
var followScript string

//go:embed scripts/unplug.sh
var unplugScript string

//go:embed scripts/rewind.sh
var rewindScript string

//go:embed scripts/rebuild.sh
var rebuildScript string

// ErrNoHost is an action that needs the host's shell, on a node without a way to it.
var ErrNoHost = errors.New("this takes a login on the node's host, which is not configured")

// The exit codes of the scripts that somebody distinguishes; the others only differ in their text.
const (
	exitInterrupted = 43 // a rewind was interrupted: the directory is no database
	exitImpossible  = 47 // pg_rewind cannot; nothing was changed
	exitLate        = 50 // the marker tells of something later; nothing was changed
)

// Interrupted says that err is of a directory in which a rewind was interrupted: only a rebuild helps.
func Interrupted(err error) bool { return exitCode(err) == exitInterrupted }

// Impossible says that err is of a rewind that cannot be done, and has changed nothing.
func Impossible(err error) bool { return exitCode(err) == exitImpossible }

func exitCode(err error) int {
	var exit *remote.ExitError
	if errors.As(err, &exit) {
		return exit.Code
	}
	return 0
}

// script is one of the scripts with what it is given.
type script struct {
	text string
	// words are name=value. Nothing secret may be among them: every user of the host sees them.
	words []string
	// secrets is its standard input; see secrets.
	secrets []byte
}

// argv is the command line that runs a script as the account that owns the data directory.
func (n Node) argv(s script) []string {
	argv := []string{"sh", "-c", prelude + s.text, "cstproxy", "directory=" + n.PGData, "bindir=" + n.BinDir}
	if n.Login != n.OSUser {
		argv = append([]string{"runuser", "-u", n.OSUser, "--"}, argv...)
	}
	return append(argv, s.words...)
}

// act runs a script under the host's ratchet.
func (e *Executor) act(ctx context.Context, a decide.Action, s script) error {
	_, err := e.output(ctx, a, s)
	return err
}

// factMark begins the lines of facts in the output of a script that does more than to read them.
const factMark = "fact:"

// actAndLook runs a script, and then reads the facts of the directory in the same command; they are nil
// when the script ended before that.
func (e *Executor) actAndLook(ctx context.Context, a decide.Action, s script) (*HostFacts, error) {
	s.text += "\n(\n" + factsScript + "\n) | sed 's/^/" + factMark + "/'\n"
	out, err := e.output(ctx, a, s)
	if err != nil {
		return nil, err
	}
	var text strings.Builder
	for line := range strings.Lines(string(out)) {
		if fact, ok := strings.CutPrefix(line, factMark); ok {
			text.WriteString(fact)
		}
	}
	found, err := parseHostFacts(text.String())
	if err != nil || text.Len() == 0 {
		return nil, nil // the script did its work; whoever wants the facts looks again
	}
	return found, nil
}

func (e *Executor) output(ctx context.Context, a decide.Action, s script) ([]byte, error) {
	n := e.nodes[a.Node]
	if n.Host == nil {
		return nil, ErrNoHost
	}
	c := remote.Command{Argv: n.argv(s), Stdin: s.secrets}
	if e.cfg.Progress != nil {
		c.Progress = func(line string) {
			if !strings.HasPrefix(line, factMark) {
				e.cfg.Progress(a, line)
			}
		}
	}
	out, err := n.Host.Do(ctx, e.token(a, n), c)
	if err != nil {
		return nil, fmt.Errorf("%s on %s: %w", a.Verb, n.Node.Host, err)
	}
	return out.Stdout, nil
}

func (e *Executor) token(a decide.Action, n Node) remote.Token {
	return remote.Token{Fleet: e.cfg.Fleet, Cluster: e.cfg.Cluster, PGData: n.PGData, Epoch: uint64(a.Epoch), Step: int(a.Step)}
}

// raise lifts the host's ratchet to the action's (epoch, step). Only its refusal counts: a host that
// cannot be reached cannot be asked by an older leader either, as long as that lasts.
func (e *Executor) raise(ctx context.Context, a decide.Action, n Node) error {
	if n.Host == nil {
		return nil
	}
	_, err := n.Host.Do(ctx, e.token(a, n), remote.Command{Argv: []string{"true"}})
	var refused *remote.Refused
	if errors.As(err, &refused) {
		return err
	}
	return nil
}

// patience is the word that tells a script how many seconds it may wait, of what ctx leaves: it needs
// some for what comes before and after, and its own word is better than ctx's.
func patience(ctx context.Context) string {
	left := 30 * time.Second
	if end, ok := ctx.Deadline(); ok {
		left = time.Until(end)
	}
	return fmt.Sprintf("patience=%d", max(int((left-3*time.Second)/time.Second), 1))
}

// secrets is what a script reads on standard input.
func secrets(password string, settings ...string) []byte {
	// A line break would end the line that read_secrets takes.
	return []byte(strings.NewReplacer("\n", "", "\x00", "").Replace(password) + "\n" + strings.Join(settings, "\n") + "\n")
}

// settingLine is one line of postgresql.auto.conf.
func settingLine(name, value string) string {
	return name + " = '" + strings.NewReplacer(`\`, `\\`, `'`, `''`, "\n", `\n`, "\r", `\r`).Replace(value) + "'"
}

// followSettings are the lines that have a standby follow: as what pgnode.Follow writes.
func followSettings(epoch topology.Epoch, up pgnode.Upstream, was pgnode.Conninfo) ([]string, error) {
	conninfo, err := up.Conninfo(was)
	if err != nil {
		return nil, err
	}
	return []string{
		settingLine(pgnode.MarkerSetting, pgnode.Marker{Epoch: epoch, Released: true}.String()),
		settingLine("primary_slot_name", up.Slot),
		settingLine("primary_conninfo", conninfo.String()),
	}, nil
}

// HostFacts are what a data directory says without its server.
type HostFacts struct {
	Exists bool
	// Unfinished is the phase in which a rewind was left: "recovering" or "rewound" can go on,
	// "rewinding" needs a rebuild; or the one in which a rebuild was left that had
	// nothing else on the way: "copying" begins anew, "copied" has its copy and goes on.
	Unfinished string
	// FreeKB is the space for log.
	FreeKB int64
	Major  int
	// Processes counts the server's, the postmaster included.
	Processes int
	// Standby: whoever starts it gets a standby.
	Standby bool
	// Copying: it is a backup that has not been started yet.
	Copying  bool
	Marker   pgnode.Marker
	State    string // pg_controldata's "Database cluster state"
	SystemID uint64
	// History is of the control file's timeline; not Known when its file is not there.
	History    topology.History
	Checkpoint topology.LSN
	// Needs is the position that must be replayed before it is consistent.
	Needs topology.LSN
	// Problem is what will keep a repair from working, such as a missing program.
	Problem string
}

// hostFacts asks the node's host. Nothing is changed, and no ratchet asked.
func (n Node) hostFacts(ctx context.Context) (*HostFacts, error) {
	if n.Host == nil {
		return nil, ErrNoHost
	}
	out, err := n.Host.Ask(ctx, n.argv(script{text: factsScript}))
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", n.Node.Host, err)
	}
	return parseHostFacts(string(out.Stdout))
}

// full says that there is no space for two more WAL segments of the usual size.
func (h HostFacts) full() bool { return h.Exists && h.FreeKB < 32<<10 }

func parseHostFacts(text string) (*HostFacts, error) {
	h := &HostFacts{}
	var history strings.Builder
	known := map[string]func(string) error{
		"exists":       func(v string) error { h.Exists = v == "yes"; return nil },
		"unfinished":   func(v string) error { h.Unfinished = v; return nil },
		"standby":      func(v string) error { h.Standby = v == "yes"; return nil },
		"backup_label": func(v string) error { h.Copying = v == "yes"; return nil },
		"state":        func(v string) error { h.State = v; return nil },
		"problem":      func(v string) error { h.Problem = v; return nil },
		"free_kb":      func(v string) (err error) { h.FreeKB, err = strconv.ParseInt(v, 10, 64); return err },
		"major":        func(v string) (err error) { h.Major, err = strconv.Atoi(v); return err },
		"processes":    func(v string) (err error) { h.Processes, err = strconv.Atoi(v); return err },
		"system":       func(v string) (err error) { h.SystemID, err = strconv.ParseUint(v, 10, 64); return err },
		"checkpoint":   func(v string) (err error) { h.Checkpoint, err = topology.ParseLSN(v); return err },
		"needs":        func(v string) (err error) { h.Needs, err = topology.ParseLSN(v); return err },
		"marker":       func(v string) (err error) { h.Marker, err = pgnode.ParseMarker(v); return err },
		"timeline": func(v string) error {
			n, err := strconv.ParseUint(v, 10, 32)
			h.History.Timeline = topology.Timeline(n)
			return err
		},
		"history": func(v string) error { history.WriteString(v + "\n"); return nil },
	}
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		read := known[name]
		if !ok || read == nil {
			continue // a line of an older or newer script, or of a login shell
		}
		if err := read(value); err != nil {
			return nil, fmt.Errorf("read a host's facts: %s: %w", name, err)
		}
	}
	if parsed, err := topology.ParseHistory(h.History.Timeline, []byte(history.String())); err == nil && parsed.Known() {
		h.History = parsed
	}
	return h, nil
}
