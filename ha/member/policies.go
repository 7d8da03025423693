package member

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/ha"
)

// Policies are what this member decides by in one cluster.
type Policies struct {
	// InForce and File are the same keys, with the values that count and those of this member's file.
	InForce, File []ha.Policy
	// Trouble says why some changed values are not in force here; empty when all are.
	Trouble string
}

// Policies are those that would be in force with these values of the log. The error is ha.ErrUnknown.
func (m *Member) Policies(clusterName string, values map[string]string) (Policies, error) {
	c := m.clusters[clusterName]
	if c == nil {
		return Policies{}, fmt.Errorf("cluster %q: %w", clusterName, ha.ErrUnknown)
	}
	s := c.setup()
	conf, trouble := s.under(values, &s.conf)
	return Policies{InForce: conf.Policies(), File: s.file.Policies(), Trouble: trouble}, nil
}

// under is what the file says, with the values that the log has changed. Values of keys that this build
// does not know, or of nodes that the file does not have, are left out; where the rest cannot be in force
// together, the policies stay those of before, and the text says why.
func (s *setup) under(values map[string]string, before *ha.ClusterConfig) (ha.ClusterConfig, string) {
	mine, strange := known(&s.file, values)
	conf, err := s.with(mine)
	if err == nil {
		if len(strange) > 0 {
			return conf, "this build knows no policy " + strings.Join(strange, ", ") + "; update this member"
		}
		return conf, ""
	}
	text := fmt.Sprintf("the policies that the log has changed do not fit this member's file, those of before stay in force: %v", err)
	last := map[string]string{}
	for _, p := range before.Policies() {
		last[p.Key] = p.Value
	}
	last, _ = known(&s.file, last)
	if conf, err = s.with(last); err != nil {
		return s.file, text
	}
	return conf, text
}

// with is what the file says with other values of policies; the error is ha.ErrPolicy.
func (s *setup) with(values map[string]string) (ha.ClusterConfig, error) {
	conf, err := s.file.Amended(values)
	if err != nil {
		return conf, err
	}
	if err := tooGray(&conf, s.notice); err != nil {
		return conf, fmt.Errorf("%w: %w", ha.ErrPolicy, err)
	}
	return conf, nil
}

// known are the values of keys that the cluster has policies for, and the other keys but those of nodes.
func known(c *ha.ClusterConfig, values map[string]string) (map[string]string, []string) {
	mine, strange := map[string]string{}, []string(nil)
	list := c.Policies()
	for _, key := range slices.Sorted(maps.Keys(values)) {
		switch {
		case slices.ContainsFunc(list, func(p ha.Policy) bool { return p.Key == key }):
			mine[key] = values[key]
		case !strings.HasPrefix(key, "node."):
			strange = append(strange, key)
		}
	}
	return mine, strange
}

// notice is how long an agent takes to notice that a server is silent; see ha.Config.DeadAfter.
func notice(watch *ha.Config) time.Duration {
	return time.Duration(watch.DeadAfter) * (watch.ProbeInterval + watch.ProbeTimeout)
}

// tooGray says why a primary would be given up before it can be known whether it is silent.
func tooGray(c *ha.ClusterConfig, notice time.Duration) error {
	if c.Operation.Enabled && c.Operation.GrayAfter < notice {
		return fmt.Errorf("gray_after is %s, must be at least dead_after * (probe_interval + probe_timeout) = %s", c.Operation.GrayAfter, notice)
	}
	return nil
}

// check says the values of set as a file would have them, or why they cannot be in force beside kept.
func (c *cluster) check(kept, set map[string]string) (map[string]string, error) {
	s := c.setup()
	if !s.conf.Operation.Enabled {
		return nil, fmt.Errorf("%w: cluster %s is only watched; set enabled = true in [cluster.operation]", ha.ErrRefused, c.name)
	}
	all, _ := known(&s.file, kept)
	_, before := s.with(all)
	maps.Copy(all, set)
	conf, err := s.with(all)
	switch {
	case err != nil && before != nil:
		return nil, fmt.Errorf("the file of member %s, which leads, does not fit what the log has changed before: %w", c.member.name(), err)
	case err != nil:
		return nil, err
	}
	literal := map[string]string{}
	for _, p := range conf.Policies() {
		if _, there := set[p.Key]; there {
			literal[p.Key] = p.Value
		}
	}
	return literal, nil
}

// amend puts values that the log has changed in force.
func (c *cluster) amend(values map[string]string) {
	c.setting.Lock()
	defer c.setting.Unlock()
	c.values = values
	next := *c.setup()
	next.replaced = make(chan struct{})
	if err := c.replace(&next); err != nil {
		c.log.Error("policies that the log has changed are not in force", zap.Error(err))
	}
}

// configure puts what a file says in force.
func (c *cluster) configure(next *setup) error {
	c.setting.Lock()
	defer c.setting.Unlock()
	return c.replace(next)
}

// replace puts a setup in force under the values that the log has changed. Call with setting held.
func (c *cluster) replace(next *setup) error {
	conf, trouble := next.under(c.values, &c.setup().conf)
	next.conf = conf
	if err := c.member.fleet.Configure(c.name, next.policy(), next.decided()); err != nil {
		return err
	}
	if trouble != "" && trouble != c.trouble {
		c.log.Error("alarm", zap.String("why", trouble))
	}
	c.trouble = trouble
	close(c.current.Swap(next).replaced)
	return nil
}
