package oracle

import (
	"archive/tar"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// release is the Debian release whose source package has the corpus; any Debian or Ubuntu can
// download it.
const release = "bookworm"

// Suite is PostgreSQL 15's source package, unpacked as far as the tests need it.
type Suite struct {
	// Root is the folder that has src and contrib.
	Root string
	// Headers is the include folder of the server, for regress.so.
	Headers string
}

// cacheFolder is where the suite stays between runs; never inside the repository.
func cacheFolder() (string, error) {
	if dir := os.Getenv("CST_ORACLE_CACHE"); dir != "" {
		return dir, nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a cache folder (set CST_ORACLE_CACHE): %w", err)
	}
	return filepath.Join(dir, "cstproxy-oracle"), nil
}

// Obtain returns the suite, from the cache or from Debian's archive; log says what is done. The
// machine's own package lists and packages are not touched.
func Obtain(ctx context.Context, log func(format string, args ...any)) (Suite, error) {
	dir, err := cacheFolder()
	if err != nil {
		return Suite{}, err
	}
	if s, err := find(dir); err == nil {
		return s, nil
	}
	log("PostgreSQL 15's source package is not in %s: downloading it (25 MB) from Debian's archive", dir)
	if err := download(ctx, dir); err != nil {
		return Suite{}, fmt.Errorf("PostgreSQL 15's regression suite is needed and cannot be downloaded: %w\n"+
			"with a network: `apt-get install apt dpkg-dev debian-archive-keyring`, and see that deb.debian.org can be reached;\n"+
			"without: put postgresql-15_15.*.orig.tar.bz2 and postgresql-server-dev-15_15.*.deb of Debian %s into %s", err, release, dir)
	}
	if err := unpack(ctx, dir); err != nil {
		return Suite{}, fmt.Errorf("unpack PostgreSQL 15's source package in %s (remove that folder to begin anew): %w", dir, err)
	}
	return find(dir)
}

func one(pattern string) (string, error) {
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) == 0 {
		return "", errors.Join(fmt.Errorf("no %s", pattern), err)
	}
	slices.Sort(found)
	return found[len(found)-1], nil
}

// find looks for an unpacked suite.
func find(dir string) (Suite, error) {
	if _, err := os.Stat(filepath.Join(dir, "complete")); err != nil {
		return Suite{}, err
	}
	root, err := one(filepath.Join(dir, "postgresql-15.*", "src"))
	if err != nil {
		return Suite{}, err
	}
	headers := filepath.Join(dir, "dev", "usr", "include", "postgresql", "15", "server")
	_, err = os.Stat(headers)
	return Suite{Root: filepath.Dir(root), Headers: headers}, err
}

// download fetches what is not there yet with apt, by lists of its own.
func download(ctx context.Context, dir string) error {
	_, noSource := one(filepath.Join(dir, "postgresql-15_*.orig.tar.bz2"))
	_, noHeaders := one(filepath.Join(dir, "postgresql-server-dev-15_*.deb"))
	if noSource == nil && noHeaders == nil {
		return nil
	}
	apt := filepath.Join(dir, "apt")
	if err := os.MkdirAll(filepath.Join(apt, "lists", "partial"), 0o755); err != nil {
		return err
	}
	const from = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian " + release + " main\n"
	settings := fmt.Sprintf("Dir::Etc::sourcelist \"%[1]s/sources.list\";\nDir::Etc::sourceparts \"-\";\n"+
		"Dir::State::lists \"%[1]s/lists\";\nDir::Cache \"%[1]s/cache\";\nAPT::Sandbox::User \"\";\n", apt)
	err := errors.Join(
		os.WriteFile(filepath.Join(apt, "sources.list"), []byte("deb "+from+"deb-src "+from), 0o644),
		os.WriteFile(filepath.Join(apt, "apt.conf"), []byte(settings), 0o644))
	if err != nil {
		return err
	}
	for _, args := range [][]string{
		{"update"},
		{"source", "--download-only", "postgresql-15"},
		{"download", "postgresql-server-dev-15/" + release},
	} {
		if err := run(ctx, dir, "apt-get", append([]string{"-q", "-c", filepath.Join(apt, "apt.conf")}, args...)...); err != nil {
			return err
		}
	}
	return nil
}

// run runs a program in a folder; its output is part of the error.
func run(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return nil
}

func unpack(ctx context.Context, dir string) error {
	tarball, err := one(filepath.Join(dir, "postgresql-15_*.orig.tar.bz2"))
	if err != nil {
		return err
	}
	deb, err := one(filepath.Join(dir, "postgresql-server-dev-15_*.deb"))
	if err != nil {
		return err
	}
	if err := run(ctx, dir, "dpkg-deb", "-x", deb, "dev"); err != nil {
		return err
	}
	f, err := os.Open(tarball)
	if err != nil {
		return err
	}
	defer f.Close()
	in := tar.NewReader(bzip2.NewReader(f))
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg || !wanted(h.Name) || !filepath.IsLocal(h.Name) {
			continue
		}
		if err := extract(filepath.Join(dir, h.Name), in); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "complete"), nil, 0o644)
}

// wanted says which files of the source package are used: all SQL scripts, and what loading the
// regression database needs.
func wanted(name string) bool {
	return strings.HasSuffix(name, ".sql") || strings.Contains(name, "/src/test/regress/")
}

func extract(path string, in io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, in)
	return errors.Join(err, f.Close())
}

// Scripts are the paths of all SQL scripts that tests consist of, relative to Root, sorted: the core
// suite, the modules of contrib and the procedural languages. Only the core suite is ever run.
func (s Suite) Scripts() ([]string, error) {
	var out []string
	err := filepath.WalkDir(s.Root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".sql" || filepath.Base(filepath.Dir(path)) != "sql" {
			return err
		}
		rel, err := filepath.Rel(s.Root, path)
		out = append(out, rel)
		return err
	})
	slices.Sort(out)
	return out, err
}

// Schedule is the names of the core regression tests in the order in which they run, one slice for
// each group that may run at the same time.
func (s Suite) Schedule() ([][]string, error) {
	b, err := os.ReadFile(filepath.Join(s.Root, "src/test/regress/parallel_schedule"))
	if err != nil {
		return nil, err
	}
	var out [][]string
	for line := range strings.Lines(string(b)) {
		if names, ok := strings.CutPrefix(line, "test:"); ok {
			out = append(out, strings.Fields(names))
		}
	}
	return out, nil
}
