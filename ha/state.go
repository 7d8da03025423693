package ha

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cstproxy/cstproxy/ha/topology"
)

// savedState is agent.json: what operators said, and who was primary, so that a restart neither
// undoes the former nor lets a returning old primary take the writes.
type savedState struct {
	Format   int                     `json:"format"`
	Clusters map[string]savedCluster `json:"clusters"`
}

// stateFormat is raised when an older program could misread a file.
const stateFormat = 1

type savedCluster struct {
	Epoch    topology.Epoch    `json:"epoch"`
	Primary  topology.NodeID   `json:"primary,omitempty"`
	Address  string            `json:"primary_address,omitempty"`
	SystemID uint64            `json:"system_id,omitempty,string"`
	Timeline topology.Timeline `json:"timeline,omitempty"`
	Forks    []savedFork       `json:"forks,omitempty"`
	Added    []savedNode       `json:"added,omitempty"`
	// Rivals are nodes that were promoted while Primary was alive, with their timeline.
	Rivals map[topology.NodeID]topology.Timeline `json:"rivals,omitempty"`
	// Orders are by address: a node that moves is another server.
	Orders map[string]string `json:"orders,omitempty"`
	LastID topology.NodeID   `json:"last_id"`
}

type savedFork struct {
	Timeline topology.Timeline `json:"timeline"`
	End      string            `json:"end"`
}

type savedNode struct {
	ID     int    `json:"id"`
	Host   string `json:"host"`
	Port   int    `json:"port"`
	Weight int    `json:"weight"`
}

func (a *Agent) stateFile() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.config.StateDir == "" {
		return ""
	}
	return filepath.Join(a.config.StateDir, "agent.json")
}

// load reads the state file and puts it into the clusters. No file is an empty one; one that
// cannot be understood is an error, because going on would forget what operators said.
func (a *Agent) load() error {
	file := a.stateFile()
	if file == "" {
		return nil
	}
	content, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the agent's state: %w", err)
	}
	var s savedState
	if err := json.Unmarshal(content, &s); err != nil {
		return fmt.Errorf("read the agent's state %s: %w", file, err)
	}
	if s.Format != stateFormat {
		return fmt.Errorf("read the agent's state %s: its format is %d, this program knows %d", file, s.Format, stateFormat)
	}
	for name, saved := range s.Clusters {
		if c := a.clusters[name]; c != nil {
			if err := c.restore(saved); err != nil {
				return fmt.Errorf("read the agent's state %s: cluster %q: %w", file, name, err)
			}
		}
	}
	return nil
}

// restore puts saved state on top of the configuration, which wins where both speak.
func (c *cluster) restore(s savedCluster) error {
	k := standing{epoch: s.Epoch, primary: s.Primary, system: s.SystemID, history: topology.History{Timeline: s.Timeline}}
	for _, f := range s.Forks {
		end, err := topology.ParseLSN(f.End)
		if err != nil {
			return err
		}
		k.history.Forks = append(k.history.Forks, topology.Fork{Timeline: f.Timeline, End: end})
	}
	k.rivals = map[topology.NodeID]rival{}
	for id, t := range s.Rivals {
		k.rivals[id] = rival{timeline: t, outlived: true}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastID = max(c.lastID, s.LastID)
	known := map[string]bool{}
	for _, e := range c.entries {
		known[e.conf.node().Address()] = true
	}
	for _, n := range s.Added {
		conf := DefaultNode()
		conf.ID, conf.Host, conf.Port, conf.Weight = n.ID, n.Host, n.Port, n.Weight
		if known[conf.node().Address()] {
			continue
		}
		if c.entry(topology.NodeID(n.ID)) != nil {
			c.lastID++
			conf.ID = int(c.lastID)
		}
		e, err := c.insert(conf, c.access)
		if err != nil {
			return err
		}
		e.added = true
	}
	for _, e := range c.entries {
		switch s.Orders[e.conf.node().Address()] {
		case orderDetached.String():
			e.order = orderDetached
		case orderDraining.String():
			e.order = orderDraining
		}
	}
	if e := c.entry(k.primary); e == nil || e.conf.node().Address() != s.Address {
		k.primary = 0
	}
	c.verdict.known = k
	c.changed()
	return nil
}

// saved is what the file shall say of the cluster.
func (c *cluster) saved() savedCluster {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := &c.verdict.known
	s := savedCluster{
		Epoch: k.epoch, Primary: k.primary, SystemID: k.system, Timeline: k.history.Timeline,
		Rivals: k.outlived(), Orders: map[string]string{}, LastID: c.lastID,
	}
	for _, f := range k.history.Forks {
		s.Forks = append(s.Forks, savedFork{Timeline: f.Timeline, End: f.End.String()})
	}
	for _, e := range c.entries {
		addr := e.conf.node().Address()
		if e.id == k.primary {
			s.Address = addr
		}
		if e.added {
			s.Added = append(s.Added, savedNode{ID: e.conf.ID, Host: e.conf.Host, Port: e.conf.Port, Weight: e.conf.Weight})
		}
		if e.order != orderNone {
			s.Orders[addr] = e.order.String()
		}
	}
	return s
}

// persist writes the state file: a reader, also one after a crash, finds the old or the new one.
func (a *Agent) persist() error {
	file := a.stateFile()
	if file == "" {
		return nil
	}
	a.saving.Lock()
	defer a.saving.Unlock()
	s := savedState{Format: stateFormat, Clusters: map[string]savedCluster{}}
	for name, c := range a.clusters {
		s.Clusters[name] = c.saved()
	}
	content, err := json.MarshalIndent(s, "", "  ")
	if err == nil {
		err = ReplaceFile(file, append(content, '\n'))
	}
	if err != nil {
		return fmt.Errorf("save the agent's state: %w", err)
	}
	return nil
}

// ReplaceFile writes a file, and its folder when that is missing, so that a reader, also one after a
// power cut, finds the old content or the new one.
func ReplaceFile(file string, content []byte) (err error) {
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, filepath.Base(file)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // the error that counts is the one before
		}
	}()
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), file); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes the rename itself durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
