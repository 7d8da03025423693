package e2e

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// runScript runs a program of testdata and returns what it printed. Its arguments are the connection
// string to use and one of the primary, for seeing there that a statement sleeps.
func runScript(t *testing.T, env []string, args ...string) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	var complaints bytes.Buffer // of drivers that tell what they ignore, as chance has it
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("%s: %v\n%s%s", strings.Join(args[:2], " "), err, out, complaints.Bytes())
	}
	return strings.Split(strings.TrimRight(string(out), "\n"), "\n")
}

func TestPsycopgSeesNoDifference(t *testing.T) {
	w := sharedWorld(t)
	for _, script := range []string{"with_psycopg3.py", "with_psycopg2.py"} {
		t.Run(script, func(t *testing.T) {
			const python = "/usr/bin/python3" // Debian's, which has Debian's drivers
			env := []string{"PGSSLMODE=disable", "PYTHONDONTWRITEBYTECODE=1"}
			primary, script := w.direct(w.cluster.Primary()), filepath.Join("testdata", script)
			direct := runScript(t, env, python, script, primary, primary)
			compare(t, direct, runScript(t, env, python, script, w.through(), primary))
		})
	}
}

func TestNodePostgresSeesNoDifference(t *testing.T) {
	w := sharedWorld(t)
	env := []string{"NODE_PATH=" + nodePostgres(t)}
	script := filepath.Join("testdata", "node-postgres.js")
	primary := w.direct(w.cluster.Primary())
	direct := runScript(t, env, "node", script, primary, primary)
	compare(t, direct, runScript(t, env, "node", script, w.through(), primary))
}

// nodePostgresVersion is what npm installs where Debian's package is not.
const nodePostgresVersion = "8.16.3"

// nodePostgres is a folder of modules that has pg.
func nodePostgres(t *testing.T) string {
	t.Helper()
	if _, err := os.Stat("/usr/share/nodejs/pg"); err == nil {
		return "/usr/share/nodejs"
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	dir := filepath.Join(cache, "cstproxy-e2e", "pg-"+nodePostgresVersion)
	modules := filepath.Join(dir, "node_modules")
	if _, err := os.Stat(filepath.Join(modules, "pg", "package.json")); err == nil {
		return modules
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("npm", "install", "--no-audit", "--no-fund", "--prefix", dir, "pg@"+nodePostgresVersion)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("install node-postgres: %v\n%s", err, out)
	}
	return modules
}
