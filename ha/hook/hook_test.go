package hook

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

func program(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hook")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

var event = Event{Cluster: "c1", Kind: "failover", Operation: 12, Epoch: 8, OldID: 1, OldAddress: "h1:5432", NewID: 2, NewAddress: "h2:5432", Timeline: 3}

func TestAHookIsToldWhatHappened(t *testing.T) {
	t.Setenv("CSTPROXY_ADMIN_TOKEN", "secret")
	t.Setenv("PGPASSWORD", "secret")
	c := Config{PostPromote: program(t, `echo "$@"
echo "$CSTPROXY_HOOK $CSTPROXY_CLUSTER $CSTPROXY_OPERATION $CSTPROXY_OPERATION_ID $CSTPROXY_EPOCH $CSTPROXY_OLD_ID $CSTPROXY_OLD_ADDRESS $CSTPROXY_NEW_ID $CSTPROXY_NEW_ADDRESS $CSTPROXY_TIMELINE" >&2
env | grep secret
pwd
printf end
`)}
	var said []string
	if err := c.Run(t.Context(), PostPromote, event, func(l string) { said = append(said, l) }); err != nil {
		t.Fatal(err)
	}
	const args = "c1 failover 12 8 1 h1:5432 2 h2:5432 3"
	if want := []string{args, "post_promote " + args, "/", "end"}; !slices.Equal(said, want) {
		t.Errorf("said %q, want %q", said, want)
	}
	said = nil
	c = Config{PreFence: program(t, `echo "$*"`)}
	if err := c.Run(t.Context(), PreFence, Event{Cluster: "c1", Kind: "failover", Epoch: 8, OldID: 1, OldAddress: "h1:5432"}, func(l string) { said = append(said, l) }); err != nil {
		t.Fatal(err)
	}
	if want := "c1 failover 0 8 1 h1:5432 0 - 0"; len(said) != 1 || said[0] != want {
		t.Errorf("what is not known: %q, want %q", said, want)
	}
}

func TestAHookThatFailsIsReported(t *testing.T) {
	c := Config{PostPromote: program(t, "echo no >&2; exit 7"), OnRoleChange: "/nowhere/to/be/found"}
	if err := c.Run(t.Context(), PostPromote, event, nil); err == nil || !strings.Contains(err.Error(), "exit status 7") {
		t.Error(err)
	}
	if err := c.Run(t.Context(), OnRoleChange, event, nil); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Error(err)
	}
	if err := c.Run(t.Context(), PreFence, event, nil); err == nil {
		t.Error("a hook that is not configured was run")
	}
}

// What a hook has started is killed with it, and what holds its output open does not keep us.
func TestAHookThatDoesNotEndIsKilledWithItsChildren(t *testing.T) {
	said := make(chan string, 10)
	c := Config{PreFence: program(t, "sleep 600 &\necho $!\nwait\n")}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx, PreFence, event, func(l string) { said <- l }) }() // received below
	child, err := strconv.Atoi(<-said)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "killed") {
		t.Error(err)
	}
	for end := time.Now().Add(patience); alive(child); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("its child lives")
		}
	}
	c = Config{PreFence: program(t, "sleep 600 &\necho $!\n")}
	if err := c.Run(t.Context(), PreFence, event, func(l string) { said <- l }); err != nil {
		t.Errorf("one that leaves a daemon behind: %v", err)
	}
	if child, err := strconv.Atoi(<-said); err == nil {
		syscall.Kill(child, syscall.SIGKILL)
	}
}

// alive: a process that has ended and was not waited for yet is none.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func TestAHookCannotFillTheLog(t *testing.T) {
	said, longest := 0, 0
	c := Config{PreFence: program(t, "head -c 100000 /dev/zero; echo; seq 5000")}
	if err := c.Run(t.Context(), PreFence, event, func(l string) { said, longest = said+1, max(longest, len(l)) }); err != nil {
		t.Fatal(err)
	}
	if said != mostLines || longest != longestLine {
		t.Errorf("%d lines, the longest of %d bytes", said, longest)
	}
}

func TestAConfigurationIsChecked(t *testing.T) {
	good := Config{PreFence: "/a", PostPromote: "/b", OnRoleChange: "/c", TriggerFunc: "switched"}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	if got := good.After(); !slices.Equal(got, []string{PostPromote, OnRoleChange, TriggerFunc}) || good.Function() != "public.switched" || !slices.Equal(good.Before(), []string{PreFence}) {
		t.Errorf("%q, %q, %q", got, good.Before(), good.Function())
	}
	if got := (Config{}).After(); len(got) != 0 {
		t.Errorf("of nothing: %q", got)
	}
	for _, bad := range []Config{{PreFence: "a"}, {PostPromote: "./b"}, {TriggerFunc: "f()"}, {TriggerFunc: "a.b.c"}, {TriggerFunc: "f; DROP TABLE t"}} {
		if err := bad.Validate(); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}
