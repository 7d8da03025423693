package conf

import (
	"fmt"
	"reflect"
	"sort"
	"strconv"
	"strings"
)

// Setting is one value as people read it.
type Setting struct {
	// Key names list elements by what they call themselves: cluster[cluster01].node[2].port.
	Key string
	// Value is written as in the file; secrets are masked.
	Value  string
	Origin Origin
	// Restart says that a change of this key takes a restart.
	Restart bool

	plain string // the unmasked value, for comparing
}

const masked = `"********"`

// Settings lists every value of c by its key, secrets masked.
func (c *Config) Settings() []Setting {
	var list []Setting
	for _, l := range c.leaves() {
		s := Setting{Key: l.key, plain: show(lastKey(l.path), l.value), Origin: c.origins[l.path], Restart: needsRestart(l.path)}
		s.Value = s.plain
		if isSecret(l.path) && s.plain != `""` {
			s.Value = masked
		}
		list = append(list, s)
	}
	return list
}

// leaves are all values of c that are no tables.
func (c *Config) leaves() []leaf {
	var list []leaf
	for _, m := range c.mounts() {
		list = append(list, leavesOf(leaf{path: m.path, key: m.path, value: m.value}, m.hidden)...)
	}
	return list
}

func leavesOf(l leaf, hidden []string) []leaf {
	var list []leaf
	v := l.value
	switch {
	case v.Kind() == reflect.Pointer:
		if !v.IsNil() {
			return leavesOf(leaf{l.path, l.key, v.Elem()}, nil)
		}
	case isTable(v.Type()):
		for _, f := range fields(v) {
			if indexOf(hidden, f.name) < 0 {
				list = append(list, leavesOf(leaf{join(l.path, f.name), join(l.key, f.name), f.value}, nil)...)
			}
		}
	case v.Kind() == reflect.Slice && isTable(v.Type().Elem()):
		for i, label := range labels(v) {
			list = append(list, leavesOf(leaf{element(l.path, i), l.key + "[" + label + "]", v.Index(i)}, nil)...)
		}
	case v.Kind() == reflect.Map:
		keys := v.MapKeys()
		sort.Slice(keys, func(i, j int) bool { return keys[i].String() < keys[j].String() })
		for _, k := range keys {
			list = append(list, leavesOf(leaf{join(l.path, k.String()), join(l.key, k.String()), v.MapIndex(k)}, nil)...)
		}
	default:
		return []leaf{l}
	}
	return list
}

// labels names the elements of an array of tables: by name, id or address when these tell them
// apart, so that a reordered file is no change; else by number from 1.
func labels(v reflect.Value) []string {
	for _, name := range []string{"name", "id", "address"} {
		if list := labelsBy(v, name); list != nil {
			return list
		}
	}
	list := make([]string, v.Len())
	for i := range list {
		list[i] = strconv.Itoa(i + 1)
	}
	return list
}

func labelsBy(v reflect.Value, name string) []string {
	seen := map[string]bool{"": true, "0": true}
	list := make([]string, 0, v.Len())
	for i := range v.Len() {
		for _, f := range fields(v.Index(i)) {
			if f.name != name {
				continue
			}
			label := fmt.Sprint(f.value.Interface())
			if seen[label] {
				return nil
			}
			seen[label] = true
			list = append(list, label)
		}
	}
	if len(list) != v.Len() {
		return nil
	}
	return list
}

// Change is one key whose value differs between two configurations.
type Change struct {
	Key string
	// Old and New are as in the file, secrets masked; empty when the key did not or does not exist.
	Old, New string
	// Restart says that the change takes a restart to become effective.
	Restart bool
}

func (ch Change) String() string {
	s := ch.Key + ": " + ch.Old + " -> " + ch.New
	switch {
	case ch.Old == "":
		s = ch.Key + ": added " + ch.New
	case ch.New == "":
		s = ch.Key + ": removed " + ch.Old
	}
	if ch.Restart {
		s += " (needs a restart)"
	}
	return s
}

// Diff lists what changed from old to c, by key.
func (c *Config) Diff(old *Config) []Change {
	before := map[string]Setting{}
	for _, s := range old.Settings() {
		before[s.Key] = s
	}
	var changes []Change
	for _, s := range c.Settings() {
		was, existed := before[s.Key]
		delete(before, s.Key)
		if !existed || was.plain != s.plain {
			changes = append(changes, Change{Key: s.Key, Old: was.Value, New: s.Value, Restart: s.Restart})
		}
	}
	for _, s := range before {
		changes = append(changes, Change{Key: s.Key, Old: s.Value, Restart: s.Restart})
	}
	sort.Slice(changes, func(i, j int) bool { return changes[i].Key < changes[j].Key })
	return changes
}

// restartKeys are the keys that a running process cannot change: what it listens on and where its
// state lies. A trailing * covers everything below.
func restartKeys() []string {
	return []string{"admin.listen", "proxy.listen", "listen.*", "ha.state_dir", "fleet.*", "cluster.operation.enabled"}
}

// KeepUntilRestart puts back what a running process cannot change, from the configuration that it
// runs with.
func (c *Config) KeepUntilRestart(running *Config) {
	c.Admin.Listen = running.Admin.Listen
	c.Proxy.Listen, c.Proxy.Listeners = running.Proxy.Listen, running.Proxy.Listeners
	c.HA.StateDir = running.HA.StateDir
	c.Fleet = running.Fleet
	for i := range c.HA.Clusters {
		for j := range running.HA.Clusters {
			if c.HA.Clusters[i].Name == running.HA.Clusters[j].Name {
				c.HA.Clusters[i].Operation.Enabled = running.HA.Clusters[j].Operation.Enabled
			}
		}
	}
}

func needsRestart(path string) bool {
	name := sectionName(path)
	for _, key := range restartKeys() {
		if prefix, all := strings.CutSuffix(key, "*"); name == key || all && strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

func sortedCopy(list []string) []string {
	list = append([]string{}, list...)
	sort.Strings(list)
	return list
}
