package ha

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ErrPolicy is what every error is that says why policies cannot be obeyed.
var ErrPolicy = errors.New("policy")

// Policy is one of the values by which a fleet decides, and which its log may change for all members:
// keys of [cluster.operation], and as node.ID.KEY tags of nodes. Value is as a file would have it.
type Policy struct{ Key, Value string }

// policy is a Policy in its place; value points at a string, int, bool, duration, or size (int64).
type policy struct {
	key   string
	value any
}

func (c *ClusterConfig) policies() []policy {
	o := &c.Operation
	list := []policy{
		{"on_crash", &o.OnCrash}, {"restart_budget", &o.RestartBudget}, {"gray_after", &o.GrayAfter},
		{"failover_when_unreachable", &o.FailoverWhenUnreachable}, {"unreachable_after", &o.UnreachableAfter}, {"anti_flap", &o.AntiFlap},
		{"max_lag_on_failover", &o.MaxLagOnFailover}, {"switch_drain", &o.SwitchDrain}, {"switch_open", &o.SwitchOpen},
		{"switch_budget", &o.SwitchBudget}, {"max_repairs", &o.MaxRepairs}, {"slot_limit", &o.SlotLimit},
	}
	order := make([]int, len(c.Nodes))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return c.Nodes[a].ID - c.Nodes[b].ID })
	for _, i := range order {
		t, node := &c.Nodes[i].Tags, fmt.Sprintf("node.%d.", c.Nodes[i].ID)
		list = append(list, policy{node + "priority", &t.Priority}, policy{node + "nofailover", &t.NoFailover}, policy{node + "nosync", &t.NoSync})
	}
	return list
}

// Policies are all of the cluster, those of nodes last, by rising id.
func (c *ClusterConfig) Policies() []Policy {
	known := c.policies()
	list := make([]Policy, len(known))
	for i, p := range known {
		list[i] = Policy{p.key, p.literal()}
	}
	return list
}

// Amended is the cluster with other values of some policies, by key. A text need not be in quotes. The
// error is ErrPolicy, and about a value that cannot be read or all that do not fit.
func (c ClusterConfig) Amended(values map[string]string) (ClusterConfig, error) {
	c.Nodes = slices.Clone(c.Nodes)
	known := map[string]policy{}
	for _, p := range c.policies() {
		known[p.key] = p
	}
	for key, text := range values {
		p, there := known[key]
		if !there {
			return c, policyError(c.misplaced(key))
		}
		if err := p.set(text); err != nil {
			return c, policyError(key + ": " + err.Error())
		}
	}
	var problems []string
	c.Operation.validate(func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) })
	if len(problems) > 0 {
		return c, policyError(strings.Join(problems, "; "))
	}
	return c, nil
}

// policyError is a sentence about policies.
type policyError string

func (e policyError) Error() string { return string(e) }

// Is makes it ErrPolicy.
func (e policyError) Is(target error) bool { return target == ErrPolicy }

// misplaced says why a key is none of a policy.
func (c *ClusterConfig) misplaced(key string) string {
	name, ofNode := key, false
	if rest, found := strings.CutPrefix(key, "node."); found {
		id, tag, _ := strings.Cut(rest, ".")
		name, ofNode = tag, true
		number, err := strconv.Atoi(id)
		if err != nil || !slices.ContainsFunc(c.Nodes, func(n NodeConfig) bool { return n.ID == number }) {
			return fmt.Sprintf("%s: cluster %s has no node %q", key, c.Name, id)
		}
	}
	tables := []reflect.Type{reflect.TypeFor[OperationConfig](), reflect.TypeFor[ClusterConfig]()}
	if ofNode {
		tables = []reflect.Type{reflect.TypeFor[Tags](), reflect.TypeFor[NodeConfig]()}
	}
	for _, t := range tables {
		for i := range t.NumField() {
			if t.Field(i).Tag.Get("toml") == name {
				return key + " stays in the file: change it there on every member, then run: cstproxy check && systemctl reload cstproxy"
			}
		}
	}
	var keys []string
	for _, p := range c.policies() {
		if !strings.HasPrefix(p.key, "node.") {
			keys = append(keys, p.key)
		}
	}
	return fmt.Sprintf("there is no policy %q; there are %s, and node.ID.priority, node.ID.nofailover, node.ID.nosync", key, strings.Join(keys, ", "))
}

// literal is the value as a file would have it.
func (p policy) literal() string {
	switch v := p.value.(type) {
	case *string:
		return strconv.Quote(*v)
	case *time.Duration:
		text := v.String()
		if strings.HasSuffix(text, "m0s") {
			text = text[:len(text)-2]
		}
		if strings.HasSuffix(text, "h0m") {
			text = text[:len(text)-2]
		}
		return strconv.Quote(text)
	case *int64:
		for _, u := range sizeUnits() {
			if *v != 0 && *v%u.bytes == 0 {
				return strconv.Quote(strconv.FormatInt(*v/u.bytes, 10) + u.name)
			}
		}
		return strconv.FormatInt(*v, 10)
	}
	return fmt.Sprint(reflect.ValueOf(p.value).Elem().Interface())
}

// set reads a value as a file would have it; quotes may be left out.
func (p policy) set(text string) (err error) {
	if strings.HasPrefix(text, `"`) {
		if text, err = strconv.Unquote(text); err != nil {
			return errors.New("the text in quotes does not end, or has more behind it")
		}
	}
	switch v := p.value.(type) {
	case *string:
		*v = text
	case *bool:
		if text != "true" && text != "false" {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		*v = text == "true"
	case *int:
		if *v, err = strconv.Atoi(text); err != nil {
			return fmt.Errorf("%q is not a whole number", text)
		}
	case *int64:
		*v, err = parseSize(text)
	case *time.Duration:
		if _, bare := strconv.Atoi(text); bare == nil && text != "0" {
			return fmt.Errorf(`%s has no unit; write a duration like "%[1]sms" or "%[1]ss"`, text)
		}
		if *v, err = time.ParseDuration(text); err != nil {
			return fmt.Errorf(`%q is not a duration; write it like "500ms", "10s" or "1h30m"`, text)
		}
	}
	return err
}

type sizeUnit struct {
	name  string
	bytes int64
}

func sizeUnits() []sizeUnit {
	return []sizeUnit{{"TB", 1 << 40}, {"GB", 1 << 30}, {"MB", 1 << 20}, {"kB", 1 << 10}}
}

// parseSize reads bytes, or a size with a unit as in postgresql.conf.
func parseSize(text string) (int64, error) {
	factor, digits := int64(1), text
	for _, u := range append(sizeUnits(), sizeUnit{"B", 1}) {
		if len(text) > len(u.name) && strings.EqualFold(text[len(text)-len(u.name):], u.name) {
			factor, digits = u.bytes, text[:len(text)-len(u.name)]
			break
		}
	}
	n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
	if err != nil {
		return 0, fmt.Errorf(`%q is not a size; write it like "64MB"`, text)
	}
	if n > math.MaxInt64/factor || n < math.MinInt64/factor {
		return 0, fmt.Errorf("the size %q is too large", text)
	}
	return n * factor, nil
}
