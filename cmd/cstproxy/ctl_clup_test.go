package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCLupsClustersBecomeSectionsThatCheckTakes(t *testing.T) {
	t.Setenv("CSTPROXY_CONFIG", "")
	from := []string{"ctl", "init", "--from", "testdata/clup/init.json", "--clup-conf", "testdata/clup/clup.conf"}
	code, out, errOut := cstproxy(from...)
	if code != 0 {
		t.Fatalf("exit code %d\n%s", code, errOut)
	}
	golden(t, "clup/sections", out)
	golden(t, "clup/left_out", errOut)
	if strings.Contains(out+errOut, "-secret") {
		t.Error("a secret was taken over")
	}

	file := filepath.Join(t.TempDir(), "cstproxy.toml")
	if code, _, errOut := cstproxy(append(from, "--write", file)...); code != 0 || !strings.Contains(errOut, "cstproxy check -f "+file) {
		t.Fatalf("exit code %d\n%s", code, errOut)
	}
	written, err := os.ReadFile(file)
	if err != nil || string(written) != out {
		t.Errorf("written: %v\n%s", err, written)
	}
	if code, _, errOut := cstproxy("check", "-f", file); code != 0 {
		t.Errorf("check: exit code %d\n%s", code, errOut)
	}
	code, show, errOut := cstproxy("config", "show", "-f", file, "-o", "tsv")
	for _, want := range []string{"cluster[billing].node[2].pgdata\t\"/data/pg \\\\\"2\\\\\"\"", "cluster[billing].node[2].port\t5433", "cluster[archive].node[1].port\t5432"} {
		if code != 0 || !strings.Contains(show, want) {
			t.Errorf("config show: exit code %d %s, want %s in\n%s", code, errOut, want, show)
		}
	}
	if code, _, errOut := cstproxy(append(from, "--write", file)...); code != 4 || !strings.Contains(errOut, "stays as it is") {
		t.Errorf("writing it again: exit code %d, %s", code, errOut)
	}
}

func TestWhatIsNoDescriptionOfCLupMakesNoFile(t *testing.T) {
	t.Setenv("CSTPROXY_CONFIG", "")
	dir := t.TempDir()
	for _, c := range []struct{ name, text, says string }{
		{"nothing", "", "want a JSON object"},
		{"a list", "[]", "want a JSON object"},
		{"no cluster", "{}", "no cluster"},
		{"half of it", `{"a": {"db_list": [{"id": 1,`, "cluster a"},
		{"no list of servers", `{"a": {"write_vip": "10.0.0.1"}}`, "db_list is missing"},
		{"another type", `{"a": {"db_list": [{"id": "one"}]}}`, "cluster a"},
		{"one id twice", `{"a": {"db_list": [{"id": 1, "host": "h"}, {"id": 1, "host": "i"}]}}`, "two nodes have the id 1"},
		{"no host", `{"a": {"db_list": [{"id": 1}]}}`, "host"},
		{"no address", `{"a": {"write_vip": "nowhere/24", "db_list": [{"id": 1, "host": "h"}]}}`, "nowhere"},
		{"TOML inside", `{"a\"]\n[admin]\nlisten = \"0.0.0.0:1": {"db_list": [{"id": 1, "host": "h"}]}}`, "must fit into a URL"},
		{"too much", strings.Repeat(" ", maxClupFile) + "{}", "larger than"},
	} {
		from, to := filepath.Join(dir, "init.json"), filepath.Join(dir, "made.toml")
		if err := os.WriteFile(from, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		code, out, errOut := cstproxy("ctl", "init", "--from", from, "--write", to)
		if code != 2 || out != "" || !strings.Contains(errOut, c.says) {
			t.Errorf("%s: exit code %d\n%s%s", c.name, code, out, errOut)
		}
		if _, err := os.Stat(to); err == nil {
			t.Fatalf("%s: a file was made", c.name)
		}
	}
	if code, _, _ := cstproxy("ctl", "init", "--from", filepath.Join(dir, "none.json")); code != 2 {
		t.Errorf("a file that is not there: exit code %d", code)
	}
	if code, _, _ := cstproxy("ctl", "init", "--write", filepath.Join(dir, "x")); code != 2 {
		t.Errorf("--write alone: exit code %d", code)
	}
}
