package pglocal

import (
	"fmt"
	"io"
	"os/exec"
	"syscall"
	"time"
)

// watchdog is a shell that outlives us by a moment. Its standard input is a pipe whose other end
// only our process holds: when we end, in whatever way (panic, SIGKILL, the test runner's timeout),
// it reads end-of-file, ends the servers and removes the folders. A death signal set on the servers
// would be tied to the thread that forked them, not to the process, and would leave the folders.
type watchdog struct {
	stdin io.WriteCloser
	cmd   *exec.Cmd
	done  bool
}

// The pid files are believed only if the process that they name was started on our folder. A server that was
// killed leaves a segment of shared memory, of which the system has 4096; the one that its pid file names is
// removed, if nobody is attached to it.
const watchdogScript = `trap '' INT TERM HUP
read -r answer
pids() {
	for f in "$1"/node*/data/postmaster.pid; do
		[ -f "$f" ] || continue
		read -r pid <"$f"
		grep -aqF -- "$1/" "/proc/$pid/cmdline" 2>/dev/null && echo "$pid"
	done
}
for pid in $(pids "$1"); do kill -CONT "$pid"; kill -QUIT "$pid"; done
tries=0
while [ -n "$(pids "$1")" ] && [ $tries -lt 50 ]; do sleep 0.1; tries=$((tries + 1)); done
for pid in $(pids "$1"); do kill -KILL "$pid"; done
for f in "$1"/node*/data/postmaster.pid; do
	[ -f "$f" ] || continue
	segment=$(awk 'NR == 7 { print $2 }' "$f")
	awk -v id="${segment:-none}" '$2 == id && $7 == 0 { print id }' /proc/sysvipc/shm | while read -r id; do ipcrm -m "$id"; done
done
if [ "$2" = remove ]; then rm -rf "$1" || { sleep 1; rm -rf "$1"; }; fi
`

// startWatchdog guards the servers under dir; after is the script's word for what becomes of the
// folder: "remove" or "keep".
func startWatchdog(dir, after string) (*watchdog, error) {
	cmd := exec.Command("/bin/sh", "-c", watchdogScript, "pglocal-watchdog", dir, after)
	cmd.Dir, cmd.Env = "/", cleanEnv()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the watchdog: %w", err)
	}
	return &watchdog{stdin: stdin, cmd: cmd}, nil
}

// stop has it do its work now and waits for the end of that.
func (w *watchdog) stop() error {
	if w.done {
		return nil
	}
	w.done = true
	if err := w.stdin.Close(); err != nil {
		return fmt.Errorf("tell the watchdog: %w", err)
	}
	timer := time.AfterFunc(patience, func() { _ = w.cmd.Process.Kill() })
	defer timer.Stop()
	if err := w.cmd.Wait(); err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	return nil
}
