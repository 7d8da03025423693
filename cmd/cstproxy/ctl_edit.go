package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/cstproxy/cstproxy/admin"
)

// interactive says whether an editor could be shown.
func interactive(cmd *cobra.Command) bool {
	for _, end := range []any{cmd.InOrStdin(), cmd.OutOrStdout()} {
		f, ok := end.(*os.File)
		if !ok || !term.IsTerminal(int(f.Fd())) {
			return false
		}
	}
	return true
}

// editPolicies opens $VISUAL or $EDITOR on the policies and hands what was changed in them to then. The
// file is kept when then could not do it: nobody types it twice.
func editPolicies(cmd *cobra.Command, p policyChange, then func(policyChange) error) error {
	f, err := os.CreateTemp("", "cstproxy-"+p.order.Cluster+"-*.toml")
	if err != nil {
		return fmt.Errorf("edit the policies: %w", err)
	}
	_, err = f.WriteString(policyFile(p))
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("edit the policies: %w", err)
	}
	if err := runEditor(cmd, f.Name()); err != nil {
		return err
	}
	p.order.Set, p.order.Unset, err = readEdited(f.Name(), p.now)
	switch {
	case err == nil && len(p.order.Set)+len(p.order.Unset) == 0:
		fmt.Fprintln(cmd.ErrOrStderr(), "nothing was changed")
	case err == nil:
		err = then(p)
	}
	if err != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "what was edited is in %s\n", f.Name())
		return err
	}
	if err := os.Remove(f.Name()); err != nil {
		return fmt.Errorf("edit the policies: %w", err)
	}
	return nil
}

func runEditor(cmd *cobra.Command, file string) error {
	editor := "vi"
	for _, name := range []string{"EDITOR", "VISUAL"} {
		if e := os.Getenv(name); e != "" {
			editor = e
		}
	}
	// The variable may hold arguments: the shell splits it, as for every program that obeys it.
	run := exec.CommandContext(cmd.Context(), "sh", "-c", editor+` "$1"`, "sh", file)
	run.Stdin, run.Stdout, run.Stderr = cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()
	if err := run.Run(); err != nil {
		return fmt.Errorf("the editor (%s) failed, nothing is changed: %w: %w", editor, err, admin.ErrRefused)
	}
	return nil
}

// policyFile is what is edited.
func policyFile(p policyChange) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# The policies of %s, version %d. Change values, then leave the editor; you are asked before anything is done.\n"+
		"# A line that is taken out lets each member's file say the value again.\n\n", p.order.Cluster, p.now.Version)
	for _, v := range p.now.Policies {
		fmt.Fprintf(&b, "%s = %s", v.Key, v.Value)
		if v.Changed {
			fmt.Fprintf(&b, " # changed in the log; the file says %s", v.File)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// readEdited is the difference between the edited file and what it was.
func readEdited(file string, was admin.Policies) (map[string]json.RawMessage, []string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, fmt.Errorf("read what was edited: %w", err)
	}
	var lines []string
	for i, line := range strings.Split(string(text), "\n") {
		line, err := withoutComment(line)
		if err != nil {
			return nil, nil, usagef("line %d of what was edited: %v", i+1, err)
		}
		if line != "" {
			lines = append(lines, line)
		}
	}
	set, err := assignments(lines)
	if err != nil {
		return nil, nil, err
	}
	var unset []string
	for _, p := range was.Policies {
		value, there := set[p.Key]
		switch {
		case !there && p.Changed:
			unset = append(unset, p.Key)
		case string(value) == string(p.Value):
			delete(set, p.Key)
		}
	}
	return set, unset, nil
}

// withoutComment is a line of the file as key=value; empty when it holds none.
func withoutComment(line string) (string, error) {
	key, value, _ := strings.Cut(line, "=")
	if key = strings.TrimSpace(key); key == "" || strings.HasPrefix(key, "#") {
		return "", nil
	}
	value = strings.TrimSpace(value)
	quoted, err := strconv.QuotedPrefix(value)
	if err != nil {
		value, _, _ = strings.Cut(value, "#")
		return key + "=" + strings.TrimSpace(value), nil
	}
	if rest := strings.TrimSpace(value[len(quoted):]); rest != "" && !strings.HasPrefix(rest, "#") {
		return "", fmt.Errorf("%s: there is more behind the text in quotes", key)
	}
	return key + "=" + quoted, nil
}
