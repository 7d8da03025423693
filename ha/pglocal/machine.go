package pglocal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
)

// ErrNotInstalled means that this machine has no PostgreSQL server programs.
var ErrNotInstalled = errors.New("PostgreSQL's server programs (initdb, postgres, pg_basebackup) were not found " +
	"in /usr/lib/postgresql/*/bin nor on PATH: on Debian and Ubuntu `make deps` or `apt-get install postgresql` installs them")

// binaries is the folder of one installed version.
type binaries struct {
	dir     string
	version string // as `postgres --version` prints it
}

func (b binaries) path(program string) string { return filepath.Join(b.dir, program) }

// findBinaries takes the newest version under Debian's folder, otherwise what PATH has.
func findBinaries() (binaries, error) {
	dirs, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return binaries{}, err
	}
	sort.Slice(dirs, func(i, j int) bool { return major(dirs[i]) > major(dirs[j]) })
	if onPath, err := exec.LookPath("postgres"); err == nil {
		if real, err := filepath.EvalSymlinks(onPath); err == nil {
			dirs = append(dirs, filepath.Dir(real))
		}
	}
	for _, dir := range dirs {
		if b := (binaries{dir: dir}); b.complete() {
			return b, b.askVersion()
		}
	}
	return binaries{}, ErrNotInstalled
}

// binariesIn are those of a folder; empty: findBinaries.
func binariesIn(dir string) (binaries, error) {
	if dir == "" {
		return findBinaries()
	}
	b := binaries{dir: dir}
	for _, p := range []string{"initdb", "postgres"} {
		if _, err := os.Stat(b.path(p)); err != nil {
			return b, fmt.Errorf("PostgreSQL's server programs: %w", err)
		}
	}
	return b, b.askVersion()
}

func (b *binaries) askVersion() error {
	out, err := exec.Command(b.path("postgres"), "--version").Output()
	if err != nil {
		return fmt.Errorf("ask %s for its version: %w", b.path("postgres"), err)
	}
	b.version = strings.TrimSpace(string(out))
	return nil
}

// major is the major version, from "postgres (PostgreSQL) 15.19 (Debian …)" or "… 19beta1".
func (b binaries) major() int {
	_, after, _ := strings.Cut(b.version, ") ")
	n := 0
	for n < len(after) && after[n] >= '0' && after[n] <= '9' {
		n++
	}
	v, _ := strconv.Atoi(after[:n]) // without a number it is 0, as in major
	return v
}

// Program is the path of one of PostgreSQL's programs (psql, pgbench, …), of the same installation
// as the servers.
func Program(name string) (string, error) {
	b, err := findBinaries()
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(b.path(name)); err == nil {
		return b.path(name), nil
	}
	return exec.LookPath(name)
}

func major(dir string) int {
	v, err := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
	if err != nil {
		return 0 // not a version folder: last
	}
	return v
}

func (b binaries) complete() bool {
	for _, p := range []string{"initdb", "postgres", "pg_basebackup"} {
		if _, err := os.Stat(b.path(p)); err != nil {
			return false
		}
	}
	return true
}

// owner is the account that servers run as. PostgreSQL refuses to run as root.
type owner struct {
	uid, gid uint32
	switched bool // we are root and servers are not
}

func serverOwner() (owner, error) {
	if os.Geteuid() != 0 {
		return owner{uid: uint32(os.Geteuid()), gid: uint32(os.Getegid())}, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return owner{}, fmt.Errorf("run servers as user postgres, since we are root: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return owner{}, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	return owner{uid: uint32(uid), gid: uint32(gid), switched: true}, err
}

func (o owner) credential() *syscall.Credential {
	if !o.switched {
		return nil
	}
	return &syscall.Credential{Uid: o.uid, Gid: o.gid}
}

func (o owner) take(path string) error {
	if !o.switched {
		return nil
	}
	return os.Chown(path, int(o.uid), int(o.gid))
}

func (o owner) mkdir(dir string, mode os.FileMode) error {
	if err := os.Mkdir(dir, mode); err != nil {
		return err
	}
	return o.take(dir)
}

func (o owner) writeFile(name, text string) error {
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		return err
	}
	return o.take(name)
}

// tempDir is a temporary directory that the server's account can reach.
func (o owner) tempDir() string {
	dir := os.TempDir()
	if !o.switched {
		return dir
	}
	for d := dir; d != "/" && d != "."; d = filepath.Dir(d) {
		if info, err := os.Stat(d); err != nil || info.Mode()&0o001 == 0 {
			return "/tmp"
		}
	}
	return dir
}

// makeDir makes the cluster's folder.
func (o owner) makeDir(dir string) (string, error) {
	if dir == "" {
		made, err := os.MkdirTemp(o.tempDir(), "cstproxy-pg-")
		if err != nil {
			return "", err
		}
		return made, errors.Join(o.take(made), os.Chmod(made, 0o755))
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if err := free(dir); err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	return dir, o.take(dir)
}

// run runs one of PostgreSQL's programs as the server's account.
func (c *Cluster) run(ctx context.Context, program string, args ...string) error {
	return runAs(ctx, c.owner, program, args...)
}

func runAs(ctx context.Context, o owner, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = "/", cleanEnv()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: o.credential()}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(program), err, out.String())
	}
	return nil
}

// cleanEnv keeps the caller's PG* variables and locale away from the servers.
func cleanEnv() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8", "TZ=UTC"}
}

// childrenOf lists a process' direct children; a server's processes are all children of the
// postmaster.
func childrenOf(pid int) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var children []int
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue
		}
		// "pid (name, which may hold anything) state ppid …"
		_, rest, ok := bytes.Cut(stat[max(0, bytes.LastIndexByte(stat, ')')):], []byte(" "))
		fields := bytes.Fields(rest)
		if ok && len(fields) > 1 && string(fields[1]) == strconv.Itoa(pid) {
			children = append(children, child)
		}
	}
	return children
}
