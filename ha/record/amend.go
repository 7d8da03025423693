package record

import (
	"maps"
	"slices"
)

// Level is what a build knows of the log: 1 is every kind of entry before Amend, 2 has Amend, 3 Appoint. A member
// that does not know an entry cannot go on, so a leader proposes none of a level that a member of the
// log has not reached. It rises with every new kind of entry, and every new field of one.
const Level = 3

// Meta are the policies that operators have changed for the whole fleet: they win over each member's
// file.
type Meta struct {
	// Version counts the changes; 0: there was none.
	Version uint64 `json:"version"`
	// Values are as a file would have them, by key.
	Values map[string]string `json:"values,omitempty"`
	// Changes are the last ones, oldest first.
	Changes []Change `json:"changes,omitempty"`
}

// Change is one change of the policies.
type Change struct {
	// Version is the one that it made.
	Version uint64 `json:"version"`
	By      string `json:"by"`
	Why     string `json:"why,omitempty"`
	// At is when it was ordered, in milliseconds since 1970 by the clock of the member that took the
	// order: for people; nothing is decided by it.
	At    int64             `json:"at,omitempty"`
	Set   map[string]string `json:"set,omitempty"`
	Unset []string          `json:"unset,omitempty"`
	// Former are the values that the log had for these keys before.
	Former map[string]string `json:"former,omitempty"`
}

// Amend changes policies. It counts while Version is the newest one: nobody overwrites what another has
// changed meanwhile. What the values mean is not known here; whoever proposes it has checked them.
type Amend struct {
	Version uint64            `json:"version"`
	Set     map[string]string `json:"set,omitempty"`
	// Unset are keys whose value is each member's file's again.
	Unset []string `json:"unset,omitempty"`
	By    string   `json:"by"`
	Why   string   `json:"why,omitempty"`
	At    int64    `json:"at,omitempty"` // see Change
}

const (
	// maxChanges is how many changes a cluster remembers.
	maxChanges = 20
	// maxPolicies bounds the keys of a Meta, maxPolicy a key or a value in bytes, MaxWords By and Why.
	maxPolicies = 500
	maxPolicy   = 200
	MaxWords    = 1000
)

func (c *Cluster) amend(a *Amend) error {
	if err := a.check(); err != nil {
		return err
	}
	now := c.Policies()
	if a.Version != now.Version {
		return stale("version %d of the policies is not the newest, which is %d", a.Version, now.Version)
	}
	change := Change{Version: now.Version + 1, By: a.By, Why: a.Why, At: a.At, Set: maps.Clone(a.Set), Unset: slices.Clone(a.Unset)}
	values := map[string]string{}
	maps.Copy(values, now.Values)
	for _, key := range append(slices.Collect(maps.Keys(a.Set)), a.Unset...) {
		if old, there := values[key]; there {
			if change.Former == nil {
				change.Former = map[string]string{}
			}
			change.Former[key] = old
		}
		delete(values, key)
	}
	maps.Copy(values, a.Set)
	if len(values) > maxPolicies {
		return malformed("%d policies are more than %d", len(values), maxPolicies)
	}
	changes := append(slices.Clone(now.Changes), change)
	c.Meta = &Meta{Version: change.Version, Values: values, Changes: changes[max(0, len(changes)-maxChanges):]}
	return nil
}

func (a *Amend) check() error {
	switch {
	case len(a.Set)+len(a.Unset) == 0 || len(a.Set)+len(a.Unset) > maxPolicies:
		return malformed("%d policies are changed by it", len(a.Set)+len(a.Unset))
	case a.By == "" || len(a.By) > MaxWords || len(a.Why) > MaxWords:
		return malformed("it does not say who changes policies, or too much about it")
	}
	for key, value := range a.Set {
		if key == "" || len(key) > maxPolicy || len(value) > maxPolicy {
			return malformed("a policy has no name, or more than %d bytes", maxPolicy)
		}
	}
	for _, key := range a.Unset {
		if _, both := a.Set[key]; both || key == "" || len(key) > maxPolicy {
			return malformed("policy %.20q is set and unset, or none", key)
		}
	}
	return nil
}

// Policies are what operators have changed; the zero Meta when nothing was. It is shared and must not be
// changed.
func (c *Cluster) Policies() Meta {
	if c.Meta == nil {
		return Meta{}
	}
	return *c.Meta
}

// Amended says whether any cluster's policies were ever changed: every member has known how to read that
// since.
func (s *State) Amended() bool {
	for _, c := range s.Clusters {
		if c.Meta != nil {
			return true
		}
	}
	return false
}
