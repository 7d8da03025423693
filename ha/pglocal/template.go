package pglocal

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// template is a data directory that initdb made once (1.7 s) and that clusters copy (0.1 s).
// Copies of one template share their system identifier, which is what makes a copy a standby.
type template struct {
	bins   binaries
	owner  owner
	system string // "ours" or "foreign": names a system identifier
}

// make returns the folder of the template, after making it if it is not there.
func (t template) make() (string, error) {
	base, err := cacheDir(t.owner)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(t.bins.dir + t.bins.version + t.system + fmt.Sprint(t.owner.uid) + "1"))
	dir := filepath.Join(base, t.system+"-"+hex.EncodeToString(sum[:6]))
	unlock, err := lock(dir + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	fresh := dir + ".new"
	if err := os.RemoveAll(fresh); err != nil { // of one who was interrupted
		return "", err
	}
	if err := t.owner.mkdir(fresh, 0o700); err != nil {
		return "", err
	}
	if err := t.fill(fresh); err != nil {
		return "", errors.Join(err, os.RemoveAll(fresh))
	}
	return dir, os.Rename(fresh, dir)
}

func (t template) fill(dir string) error {
	pw := dir + ".pw"
	if err := t.owner.writeFile(pw, DefaultPassword+"\n"); err != nil {
		return err
	}
	defer os.Remove(pw)
	err := runAs(context.Background(), t.owner, t.bins.path("initdb"), "-D", dir, "-U", Superuser, "--pwfile="+pw,
		"-A", "scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
	if err != nil {
		return fmt.Errorf("make a data directory: %w", err)
	}
	conf, err := os.OpenFile(filepath.Join(dir, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = conf.WriteString("\ninclude_if_exists = 'pglocal.conf'\n")
	return errors.Join(err, conf.Close())
}

// cacheDir is a folder of ours alone under the temporary directory (a user's cache folder may be
// out of the server account's reach). The name is known to all, so who owns it is checked.
func cacheDir(o owner) (string, error) {
	dir := filepath.Join(o.tempDir(), fmt.Sprintf("cstproxy-pglocal-%d", os.Geteuid()))
	if err := os.Mkdir(dir, 0o711); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return "", err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || !info.IsDir() || int(st.Uid) != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return "", fmt.Errorf("%s is not a folder of ours alone: remove it", dir)
	}
	return dir, os.Chmod(dir, 0o711) // whatever the umask
}

// lock takes a file lock that the kernel gives back when the process ends.
func lock(file string) (unlock func(), err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", file, err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

func copyTree(from, to string) error {
	if out, err := exec.Command("cp", "-a", "--reflink=auto", from, to).CombinedOutput(); err != nil {
		return fmt.Errorf("copy %s: %w\n%s", from, err, out)
	}
	return nil
}
