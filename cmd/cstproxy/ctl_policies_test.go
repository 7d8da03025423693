package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/cstproxy/cstproxy/admin"
	"github.com/cstproxy/cstproxy/ha"
	"github.com/cstproxy/cstproxy/ha/member"
)

func (s *scripted) Policies(string) (admin.Policies, error) {
	raw := func(text string) json.RawMessage { return json.RawMessage(text) }
	return admin.Policies{Version: 4, Policies: []admin.Policy{
		{Key: "on_crash", Value: raw(`"failover"`), File: raw(`"restart"`), Changed: true}, {Key: "gray_after", Value: raw(`"5s"`), File: raw(`"5s"`)},
		{Key: "max_repairs", Value: raw("3"), File: raw("3")}, {Key: "node.2.nofailover", Value: raw("false"), File: raw("false")},
	}, Changes: []admin.PolicyChange{
		{Version: 3, At: at(0), By: "dba@ops1", Set: map[string]json.RawMessage{"on_crash": raw(`"restart"`), "max_repairs": raw("5")}},
		{Version: 4, At: at(60), By: "dba@ops2", Why: "drill", Set: map[string]json.RawMessage{"on_crash": raw(`"failover"`)}, Unset: []string{"max_repairs"},
			Former: map[string]json.RawMessage{"on_crash": raw(`"restart"`), "max_repairs": raw("5")}},
	}}, nil
}

func (s *scripted) ChangePolicies(_ context.Context, o admin.PolicyOrder) (admin.Policies, error) {
	set, _ := json.Marshal(o.Set)
	err := s.asked("policies %d %s unset=%v %q dry=%v", o.Version, set, o.Unset, o.Why, o.DryRun)
	then, _ := s.Policies(o.Cluster)
	for i := range then.Policies {
		p := &then.Policies[i]
		if v, there := o.Set[p.Key]; there {
			p.Value, p.Changed = v, true
		}
		for _, key := range o.Unset {
			if p.Key == key {
				p.Value, p.Changed = p.File, false
			}
		}
	}
	then.Version++
	return then, err
}

func TestCtlPrintsPolicies(t *testing.T) {
	for name, args := range map[string]string{
		"policies_change":      "change_meta gray_after=3s max_repairs=5 --unset on_crash --yes",
		"policies_change.json": "change_meta gray_after=3s --yes -o json",
		"policies_dry":         "edit-config max_repairs=7 --dry-run",
		"policies_history":     "change_meta --history",
	} {
		file, _ := fleetPort(t, &scripted{})
		code, out, errOut := cstproxy(append([]string{"ctl", "-f", file}, strings.Fields(args)...)...)
		if code != 0 {
			t.Fatalf("%s: exit code %d: %s", args, code, errOut)
		}
		golden(t, name, out)
	}
}

func TestCtlOrdersWhatItWasAskedToChange(t *testing.T) {
	t.Setenv("CSTPROXY_CONFIG", "")
	t.Chdir(t.TempDir())
	both := func(order string) string { return order + "true\n" + order + "false" }
	for _, c := range []struct {
		args, want string
		code       int
		says       string
	}{
		{"change_meta gray_after=3s --yes", both(`policies 4 {"gray_after":"3s"} unset=[] "" dry=`), 0, ""},
		{`change_meta on_crash="restart" max_repairs=5 node.2.nofailover=true --why x --yes`,
			both(`policies 4 {"max_repairs":5,"node.2.nofailover":true,"on_crash":"restart"} unset=[] "x" dry=`), 0, ""},
		{"change_meta --unset on_crash --version 3 --yes", both(`policies 3 null unset=[on_crash] "" dry=`), 0, ""},
		{"change_meta gray_after=3s --dry-run", `policies 4 {"gray_after":"3s"} unset=[] "" dry=true`, 0, ""},
		{"change_meta gray_after=5s on_crash=failover", `policies 4 {"gray_after":"5s","on_crash":"failover"} unset=[] "" dry=true`, 4, `gray_after stays "5s", whatever the files say`},
		{"change_meta on_crash=failover", `policies 4 {"on_crash":"failover"} unset=[] "" dry=true`, 0, ""},
		{"change_meta --unset on_crash", `policies 4 null unset=[on_crash] "" dry=true`, 4, `on_crash from "failover" to "restart" (what this member's file says); give --yes`},
		{"change_meta gray_after", "", 2, "give key=value"},
		{"change_meta a=1 a=2", "", 2, "each key once"},
		{"change_meta a=1 --version x", "", 2, `--version "x"`},
	} {
		s := &scripted{}
		file, _ := fleetPort(t, s)
		code, out, errOut := cstproxy(append([]string{"ctl", "-f", file}, strings.Fields(c.args)...)...)
		if code != c.code || s.said() != c.want || !strings.Contains(errOut, c.says) {
			t.Errorf("%s: exit code %d, want %d; asked\n%s\nwant\n%s\n%s%s", c.args, code, c.code, s.said(), c.want, out, errOut)
		}
	}
	for kind, want := range map[error]int{admin.ErrInvalid: 2, admin.ErrRefused: 4, admin.ErrNoLeader: 1, admin.ErrOutcome: 1} {
		file, _ := fleetPort(t, &scripted{fail: fmt.Errorf("the reason: %w", kind)})
		if code, _, errOut := cstproxy("ctl", "-f", file, "change_meta", "gray_after=3s", "--yes"); code != want || !strings.Contains(errOut, "the reason") {
			t.Errorf("%v: exit code %d, want %d: %s", kind, code, want, errOut)
		}
	}
	if code, _, _ := cstproxy("ctl", "--url", "127.0.0.1:1", "change_meta", "gray_after=3s", "--yes"); code != 3 {
		t.Errorf("of nobody: exit code %d", code)
	}
}

// editing runs an editor that does what the script says to its file $1.
func editing(t *testing.T, script string) (policyChange, error) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "editor")
	if err := os.WriteFile(program, []byte("#!/bin/sh\nset -e\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("VISUAL", "")
	t.Setenv("EDITOR", program+" --wait")
	t.Setenv("TMPDIR", t.TempDir())
	cmd, now, got := &cobra.Command{}, admin.Policies{}, policyChange{}
	cmd.SetContext(t.Context())
	cmd.SetErr(&strings.Builder{})
	now, _ = new(scripted).Policies("")
	err := editPolicies(cmd, policyChange{admin.PolicyOrder{Cluster: "cluster01", Version: 4}, now}, func(p policyChange) error { got = p; return nil })
	left, globErr := filepath.Glob(filepath.Join(os.TempDir(), "cstproxy-cluster01-*.toml"))
	if globErr != nil || (len(left) == 0) != (err == nil) {
		t.Errorf("%v, and %v is left of it", err, left)
	}
	return got, err
}

func TestEditedPoliciesAreOrderedByTheirDifference(t *testing.T) {
	p, err := editing(t, `test "$1" = --wait; shift
grep -q '^on_crash = "failover" # changed in the log; the file says "restart"$' "$1"
sed -i -e '/on_crash/d' -e 's/^gray_after = .*/gray_after = "3s"/' -e 's/^node.2.nofailover.*/node.2.nofailover = true/' "$1"`)
	set, _ := json.Marshal(p.order.Set)
	if err != nil || string(set) != `{"gray_after":"3s","node.2.nofailover":true}` || fmt.Sprint(p.order.Unset) != "[on_crash]" {
		t.Errorf("set %s, unset %v, %v", set, p.order.Unset, err)
	}
	if p, err = editing(t, `shift; printf 'on_crash = failover\n\n#x\nmax_repairs = 4 # "four"' > "$1"`); err != nil || string(p.order.Set["max_repairs"]) != "4" || len(p.order.Set)+len(p.order.Unset) != 1 {
		t.Errorf("without quotes, and with lines taken out that nobody had changed: %+v, %v", p.order, err)
	}
	if p, err = editing(t, "true"); err != nil || p.order.Cluster != "" {
		t.Errorf("nothing was changed, and ordered was %+v, %v", p.order, err)
	}
	for script, want := range map[string]string{
		`shift; echo 'gray_after = ' > "$1"`:          `"gray_after=": give key=value`,
		`shift; echo 'gray_after = "3s" "4s"' > "$1"`: "line 1 of what was edited: gray_after: there is more",
		`shift; echo 'gray_after' > "$1"`:             "give key=value",
		`shift; echo 'max_repairs = 1 # x' >> "$1"`:   "each key once",
		`exit 1`: "the editor",
	} {
		if _, err := editing(t, script); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", script, err)
		}
	}
}

// file is the configuration of a lone's cluster.
func (l *lone) file() ha.ClusterConfig {
	c := ha.DefaultCluster()
	c.Name = "cluster01"
	return c
}

func (l *lone) check(kept, set map[string]string) (map[string]string, error) {
	all := map[string]string{}
	maps.Copy(all, kept)
	maps.Copy(all, set)
	c, err := l.file().Amended(all)
	literal := map[string]string{}
	for _, p := range c.Policies() {
		if _, there := set[p.Key]; there {
			literal[p.Key] = p.Value
		}
	}
	return literal, err
}

func (l *lone) policies(_ string, values map[string]string) (member.Policies, error) {
	file := l.file()
	c, err := file.Amended(values)
	return member.Policies{InForce: c.Policies(), File: file.Policies()}, err
}
