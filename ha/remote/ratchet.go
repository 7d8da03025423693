package remote

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
)

//go:embed ratchet.sh
var ratchetSource string

// maxStdin bounds what a command can be given, in bytes: the wrapper holds it in memory.
const maxStdin = 256 << 10

// wrapperVersion is taken from the text, so another text is another version.
func wrapperVersion() string {
	sum := sha256.Sum256([]byte(ratchetSource))
	return hex.EncodeToString(sum[:6])
}

// wrapperText is the script as it lies on the hosts.
func wrapperText() string { return strings.ReplaceAll(ratchetSource, "@VERSION@", wrapperVersion()) }

// wrapperPath has the version in its name: during an upgrade each member finds its own. What they
// share is the state, whose format has a number of its own.
func (h *Host) wrapperPath() string { return path.Join(h.cfg.Dir, "ratchet-"+wrapperVersion()) }

// Command is what Do runs.
type Command struct {
	// Argv is the program and its arguments. The program is looked up in the PATH of a
	// non-interactive login, which is short. Every user of the host can read them.
	Argv []string
	// Stdin is its standard input, at most 256 KB; secrets belong here.
	Stdin []byte
	// Progress, unless nil, gets each line that it writes, of both streams, one at a time, and never
	// after Do has returned.
	Progress func(line string)
}

// Do runs a command under the ratchet, in the root directory and in a process group of its own.
// Commands of one data directory run one after the other.
//
// The command ends when ctx's deadline passes, on the host too; what it left in its process group
// ends with it, so a server is started in a group of its own (setsid; pg_ctl does from PostgreSQL 12
// on). When ctx is cancelled, or the connection or this process dies, the command goes on, and the
// next one of the same token waits for it: a deadline is what bounds it then.
//
// Errors: *Refused, *Busy, *Broken and ErrNoWrapper, for which it did not run (Refused also ends a
// running one); *ExitError, for which it did; *Unreachable, with Sent if it may have; *HostKey,
// *Auth; the context's, if it may have.
func (h *Host) Do(ctx context.Context, t Token, c Command) (Output, error) {
	if err := t.validate(); err != nil {
		return Output{}, err
	}
	if len(c.Stdin) > maxStdin {
		return Output{}, fmt.Errorf("the input has %d bytes, at most %d are taken", len(c.Stdin), maxStdin)
	}
	out, account, err := h.underRatchet(ctx, t, c)
	if account == "upgrade" {
		// An older version of us was installed here, so an operator has agreed.
		if err := h.Install(ctx); err != nil {
			return Output{}, err
		}
		out, account, err = h.underRatchet(ctx, t, c)
	}
	return out, h.accountFor(t, account, err)
}

// underRatchet has the wrapper run c, and returns the wrapper's account apart.
func (h *Host) underRatchet(ctx context.Context, t Token, c Command) (Output, string, error) {
	words, err := quote(c.Argv)
	if err != nil {
		return Output{}, "", err
	}
	mark, body := rand.Text(), base64.StdEncoding.EncodeToString(c.Stdin)
	wait := seconds(ctx)
	if wait == 0 {
		wait = int(h.cfg.LockWait.Seconds())
	}
	var limit int
	if s := seconds(ctx); s > 0 {
		limit = s + 1 // the caller is told by its context, not by an exit status
	}
	names, err := quote([]string{t.Fleet, t.Cluster, path.Clean(t.PGData)})
	if err != nil {
		return Output{}, "", err
	}
	file, err := quote([]string{h.wrapperPath()})
	if err != nil {
		return Output{}, "", err
	}
	line := fmt.Sprintf(`echo %[1]s; cd || exit; w=%[2]s; if [ -f "$w" ]; then exec sh "$w" %[3]s do %[1]s %[4]s %[5]d %[6]d %[7]d %[8]d %[9]d %[10]s %[11]s; fi; `+
		`set -- "${w%%/*}"/ratchet-*; if [ -f "$1" ]; then w=upgrade; else w=none; fi; printf '\n%[1]s %%s\n' $w >&2; exit 1`,
		mark, file, wrapperVersion(), t.key(), t.Epoch, t.Step, wait, limit, len(body), names, words)
	return h.exec(ctx, h.dos, call{line: line, mark: mark, stdin: body, progress: c.Progress})
}

// accountFor turns the wrapper's own words into an error. Only its word "ran" makes a success: a
// login shell or a forced command that ends with 0 has promoted nobody.
func (h *Host) accountFor(t Token, account string, err error) error {
	var exit *ExitError
	if err != nil && !errors.As(err, &exit) {
		return err
	}
	word, rest, _ := strings.Cut(account, " ")
	switch word {
	case "ran":
		return err
	case "refused":
		seen := t
		epoch, step, _ := strings.Cut(rest, " ")
		seen.Epoch, _ = strconv.ParseUint(epoch, 10, 64)
		seen.Step, _ = strconv.Atoi(step)
		return &Refused{Host: h.name, Asked: t, Seen: seen}
	case "busy":
		return &Busy{Host: h.name, Why: rest}
	case "broken":
		return &Broken{Host: h.name, Why: rest}
	case "none":
		return ErrNoWrapper
	case "cut":
		return &Unreachable{Host: h.name, Err: errors.New("the connection was cut before the command had its input")}
	}
	if exit == nil {
		return &Broken{Host: h.name, Why: "the wrapper did not say that the command ran"}
	}
	return &Broken{Host: h.name, Why: fmt.Sprintf("the wrapper ended without an account: %v", exit)}
}

// installScript gets the directory, the file's name and its size; the file on standard input. It
// says on standard output on what kind of file system the state will be.
const installScript = `set -eu
umask 077
for tool in flock setsid sync timeout tee base64 mkfifo stat; do
	command -v "$tool" >/dev/null || { echo "the host has no program $tool (coreutils, util-linux)" >&2; exit 1; }
done
[ -r /proc/self/stat ] || { echo "the host has no /proc" >&2; exit 1; }
mkdir -p "$1/state"
kind=$(stat -f -c %T "$1/state")
case $kind in
nfs* | cifs | smb* | fuse* | gfs* | ocfs*) echo "$1 is on a file system ($kind) that several hosts may share; choose a directory of this host alone" >&2; exit 1 ;;
esac
echo "$kind"
new=$1/$2.new.$$
trap 'rm -f "$new"' EXIT
cat >"$new"
[ "$(wc -c <"$new")" -eq "$3" ] || { echo "the file did not arrive whole" >&2; exit 1; }
chmod 755 "$new"
sync "$new"
mv -f "$new" "$1/$2"
sync "$1/state" "$1" "$1/.."
`

// Install puts the wrapper on the host, durably and at once, beside those of other versions. It may
// be repeated, also while commands run. Errors as of Ask.
func (h *Host) Install(ctx context.Context) error {
	ctx, cancel := h.bounded(ctx)
	defer cancel()
	text := wrapperText()
	words, err := quote([]string{"sh", "-c", installScript, "install",
		h.cfg.Dir, path.Base(h.wrapperPath()), strconv.Itoa(len(text))})
	if err != nil {
		return err
	}
	mark := rand.Text()
	out, _, err := h.exec(ctx, h.asks, call{line: "echo " + mark + "; cd || exit; exec " + words, mark: mark, stdin: text})
	if err != nil {
		return fmt.Errorf("install the wrapper on %s: %w", h.name, err)
	}
	if kind := strings.TrimSpace(string(out.Stdout)); kind == "tmpfs" || kind == "ramfs" {
		h.log.Warn("the ratchet's directory is in memory: a restart of the host forgets who was refused; set another one")
	}
	return nil
}

// Seen lists what the ratchets of this host have seen, for all fleets and data directories that
// acted here. Where Install has never been there are none.
func (h *Host) Seen(ctx context.Context) ([]Token, error) {
	script := `cd || exit; cat "$1"/state/*/seen 2>/dev/null; true`
	out, err := h.Ask(ctx, []string{"sh", "-c", script, "seen", h.cfg.Dir})
	if err != nil {
		return nil, err
	}
	if out.Dropped > 0 {
		return nil, fmt.Errorf("the ratchets of %s say more than %d bytes", h.name, kept)
	}
	return parseSeen(string(out.Stdout))
}

func parseSeen(text string) ([]Token, error) {
	var tokens []Token
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for ; len(lines) >= 4; lines = lines[4:] {
		t := Token{Fleet: lines[1], Cluster: lines[2], PGData: lines[3]}
		var format int
		if _, err := fmt.Sscanf(lines[0], "ratchet %d %d %d", &format, &t.Epoch, &t.Step); err != nil || format != 1 {
			return nil, fmt.Errorf("%q is not what a ratchet writes", lines[0])
		}
		if err := t.validate(); err != nil {
			return nil, err
		}
		tokens = append(tokens, t)
	}
	if strings.Join(lines, "") != "" {
		return nil, errors.New("a ratchet's file is incomplete")
	}
	return tokens, nil
}
