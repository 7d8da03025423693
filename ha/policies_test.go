package ha

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func operated() ClusterConfig {
	c := DefaultCluster()
	c.Name = "c1"
	for _, id := range []int{12, 2} {
		n := DefaultNode()
		n.ID, n.Host = id, fmt.Sprintf("192.168.56.%d", id)
		c.Nodes = append(c.Nodes, n)
	}
	return c
}

func TestPoliciesAreWrittenAsAFileHasThem(t *testing.T) {
	c := operated()
	var lines []string
	for _, p := range c.Policies() {
		lines = append(lines, p.Key+" = "+p.Value)
	}
	want := `on_crash = "restart"
restart_budget = "5s"
gray_after = "5s"
failover_when_unreachable = true
unreachable_after = "10s"
anti_flap = "5m"
max_lag_on_failover = "16MB"
switch_drain = "200ms"
switch_open = "undo"
switch_budget = "5s"
max_repairs = 3
slot_limit = "16GB"
node.2.priority = 0
node.2.nofailover = false
node.2.nosync = false
node.12.priority = 0
node.12.nofailover = false
node.12.nosync = false`
	if got := strings.Join(lines, "\n"); got != want {
		t.Errorf("got\n%s", got)
	}
	values := map[string]string{}
	for _, p := range c.Policies() {
		values[p.Key] = p.Value
	}
	if back, err := c.Amended(values); err != nil || fmt.Sprint(back.Policies()) != fmt.Sprint(c.Policies()) {
		t.Errorf("what is written is read as %v, %v", back.Policies(), err)
	}
}

func TestAmendedPoliciesLeaveTheRestAsItIs(t *testing.T) {
	c := operated()
	a, err := c.Amended(map[string]string{"on_crash": "failover", "gray_after": `"3s"`, "slot_limit": "64 mb", "max_lag_on_failover": "0",
		"failover_when_unreachable": "false", "node.2.priority": "7", "anti_flap": "0", "max_repairs": "1"})
	if err != nil {
		t.Fatal(err)
	}
	o := a.Operation
	if o.OnCrash != "failover" || o.GrayAfter != 3*time.Second || o.SlotLimit != 64<<20 || o.MaxLagOnFailover != 0 || o.FailoverWhenUnreachable || o.AntiFlap != 0 || o.MaxRepairs != 1 {
		t.Errorf("amended: %+v", o)
	}
	if o.SwitchBudget != 5*time.Second || a.Nodes[1].Tags.Priority != 7 || c.Nodes[1].Tags.Priority != 0 || c.Operation.OnCrash != "restart" {
		t.Errorf("what nobody changed has changed: %+v of %+v", a, c)
	}
}

func TestPoliciesThatCannotBeObeyedAreSaidToBe(t *testing.T) {
	c := operated()
	for change, want := range map[string]string{
		"on_crash=panic":             `on_crash "panic": must be "restart" or "failover"`,
		"switch_drain=6s":            "switch_budget is 5s, must be at least 6.5s",
		"gray_after=3":               `gray_after: 3 has no unit; write a duration like "3ms" or "3s"`,
		"gray_after=soon":            `gray_after: "soon" is not a duration`,
		`on_crash="failover`:         "on_crash: the text in quotes does not end",
		"max_repairs=many":           `max_repairs: "many" is not a whole number`,
		"failover_when_unreachable=": `"" is neither true nor false`,
		"slot_limit=9999999TB":       "too large",
		"slot_limit=-9999999TB":      "too large",
		"slot_limit=MB":              "is not a size",
		"slot_limit=-1":              "slot_limit is negative",
		"ssh_user=root":              "ssh_user stays in the file: change it there on every member",
		"superuser_password=x":       "stays in the file",
		"write_vip=1.2.3.4/24":       "write_vip stays in the file",
		"node.2.host=x":              "node.2.host stays in the file",
		"node.2.noloadbalance=true":  "stays in the file",
		"node.7.priority=1":          `cluster c1 has no node "7"`,
		"warp=9":                     `there is no policy "warp"; there are on_crash, restart_budget`,
		"node.2.warp=9":              `there is no policy "node.2.warp"`,
	} {
		key, value, _ := strings.Cut(change, "=")
		if _, err := c.Amended(map[string]string{key: value}); !errors.Is(err, ErrPolicy) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", change, err, want)
		}
	}
}
