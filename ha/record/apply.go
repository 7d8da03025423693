package record

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cstproxy/cstproxy/ha/topology"
)

// ErrStale says that an entry came too late, or does not fit: what it takes for granted is not so.
// It changed nothing. The text that it is wrapped in says what stands in its way.
var ErrStale = errors.New("the record has moved on")

// ErrMalformed says that no State would take the entry.
var ErrMalformed = errors.New("malformed entry")

// maxPast is how many ended operations a cluster remembers. Half of that room is safe from the other kind: who
// was a primary, and which promotions were given up, is known by failovers and switches, of which there are few,
// however often a broken standby's repair begins and ends.
const maxPast = 100

func stale(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrStale, fmt.Sprintf(format, args...))
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// Apply returns the State after e. The receiver is not changed and shares with the result what e is
// not about, so that any number of goroutines may go on reading it. When e does not count, Apply
// returns the receiver itself and an error that wraps ErrStale or ErrMalformed. It depends on
// nothing but its arguments and does not panic, whatever e holds.
func (s *State) Apply(e Entry) (*State, error) {
	if err := e.check(); err != nil {
		return s, err
	}
	if e.Found != nil {
		return s.found(*e.Found)
	}
	if s.Fleet == "" {
		return s, stale("the fleet has not been founded")
	}
	c := &Cluster{}
	if old := s.Clusters[e.Cluster]; old != nil {
		copied := *old
		c = &copied
	}
	present := c.Epoch.Number
	if err := c.apply(e); err != nil {
		return s, fmt.Errorf("cluster %s: %w", e.Cluster, err)
	}
	if c.Epoch.Number != present {
		c.noteStart(e.At)
		c.newEpoch()
	}
	next := &State{Fleet: s.Fleet, Clusters: maps.Clone(s.Clusters)}
	if next.Clusters == nil {
		next.Clusters = map[string]*Cluster{}
	}
	next.Clusters[e.Cluster] = c
	return next, nil
}

// check refuses what is no entry at all.
func (e *Entry) check() error {
	set := 0
	for _, there := range []bool{e.Found != nil, e.Adopt != nil, e.Begin != nil, e.Advance != nil, e.Froze != nil, e.Mark != nil, e.Standbys != nil, e.Amend != nil, e.Appoint != nil} {
		if there {
			set++
		}
	}
	switch {
	case set != 1:
		return malformed("it proposes %d things, not one", set)
	case (e.Found == nil) == (e.Cluster == ""):
		return malformed("a cluster is named by every entry but the one that founds the fleet")
	case len(e.Cluster) > maxName || strings.ContainsFunc(e.Cluster, func(r rune) bool { return r < ' ' }):
		return malformed("%q is no name for a cluster", e.Cluster)
	}
	return nil
}

// maxName bounds the names of fleets and clusters, in bytes.
const maxName = 200

func (s *State) found(f Found) (*State, error) {
	switch {
	case s.Fleet != "":
		return s, stale("the fleet is %s already", s.Fleet)
	case f.Fleet == "" || len(f.Fleet) > maxName:
		return s, malformed("%q is no name for a fleet", f.Fleet)
	}
	next := &State{Fleet: f.Fleet, Clusters: maps.Clone(s.Clusters)}
	if next.Clusters == nil {
		next.Clusters = map[string]*Cluster{}
	}
	for name, floor := range f.Floors {
		if name == "" || floor > maxEpoch {
			return s, malformed("cluster %q cannot begin above epoch %d", name, floor)
		}
		next.Clusters[name] = &Cluster{LastEpoch: floor}
	}
	return next, nil
}

// maxEpoch leaves room below what arithmetic and the data plane can hold.
const maxEpoch topology.Epoch = 1 << 62

// apply changes c, which is a copy of its own but shares everything that it points at.
func (c *Cluster) apply(e Entry) error {
	switch {
	case e.Adopt != nil:
		return c.adopt(e.Adopt)
	case e.Begin != nil:
		return c.begin(e.Begin.Operation)
	case e.Advance != nil:
		return c.advance(e.Advance)
	case e.Froze != nil:
		c.Froze = nil
		if e.Froze.Froze != nil {
			froze := *e.Froze.Froze
			c.Froze = &froze
		}
		return nil
	case e.Mark != nil:
		return c.mark(e.Mark)
	case e.Amend != nil:
		return c.amend(e.Amend)
	case e.Appoint != nil:
		return c.appoint(e.Appoint)
	}
	return c.publish(e.Standbys)
}

func (c *Cluster) adopt(a *Adopt) error {
	switch {
	case a.Current != c.Epoch.Number:
		return stale("epoch %d was to be followed by an observed one, but epoch %d is current", a.Current, c.Epoch.Number)
	case c.Operation != nil:
		return stale("%s %d is under way", c.Operation.Kind, c.Operation.ID)
	case a.Epoch.Number <= c.LastEpoch:
		return stale("epoch %d is not above %d, the highest number given", a.Epoch.Number, c.LastEpoch)
	case a.Epoch.Number > maxEpoch || a.Epoch.Primary <= 0 || a.Epoch.Operation != 0:
		return malformed("epoch %d with node %d as its primary, made by operation %d", a.Epoch.Number, a.Epoch.Primary, a.Epoch.Operation)
	}
	c.start(a.Epoch)
	return nil
}

// start makes e the present epoch. Whoever learns of e at all learns the sets of standbys that it
// was born with or later ones: nobody holds former ones.
func (c *Cluster) start(e Epoch) {
	e.Version, e.Former = 1, nil
	e.History.Forks = slices.Clone(e.History.Forks)
	e.Standbys = e.Standbys.clone()
	c.Epoch, c.LastEpoch = e, max(c.LastEpoch, e.Number)
	c.LastTimeline = max(c.LastTimeline, e.History.Timeline)
}

func (c *Cluster) begin(o Operation) error {
	switch {
	case !o.Kind.known() || o.Step != Intent || !o.Accept.known() || o.Outcome != "" || o.Candidate != 0 || o.Node < 0:
		return malformed("%s %d cannot begin at step %d with outcome %q", o.Kind, o.ID, o.Step, o.Outcome)
	case o.ID != c.LastOperation+1:
		return stale("operation %d does not follow %d, the last number given", o.ID, c.LastOperation)
	case c.Epoch.Number == 0 || o.From != c.Epoch.Number:
		return stale("it is to begin in epoch %d, but epoch %d is current", o.From, c.Epoch.Number)
	case c.Operation != nil:
		return stale("%s %d is under way", c.Operation.Kind, c.Operation.ID)
	case o.Kind.MakesEpoch() && o.To != c.LastEpoch+1:
		return stale("epoch %d does not follow %d, the highest number given", o.To, c.LastEpoch)
	case o.Kind.MakesEpoch() && o.To > maxEpoch:
		return malformed("there is no epoch %d", o.To)
	case !o.Kind.MakesEpoch() && o.Node == 0:
		return malformed("a %s is about a node", o.Kind)
	case !o.Kind.MakesEpoch() && o.To != c.LastEpoch:
		return stale("epoch %d is not the highest number given, which is %d", o.To, c.LastEpoch)
	case !o.Kind.MakesEpoch() && c.Tasks[o.Node] != nil:
		return stale("%s %d of node %d is under way", c.Tasks[o.Node].Kind, c.Tasks[o.Node].ID, o.Node)
	}
	if err := c.keeps(&o); err != nil {
		return err
	}
	if o.Appointment != 0 {
		c.endAppointment(Completed, fmt.Sprintf("begun as task %d", o.ID))
	}
	o.Recruited, o.Former, o.Left = slices.Clone(o.Recruited), c.Epoch.Primary, c.Epoch.History.Timeline
	c.LastOperation = o.ID
	if !o.Kind.MakesEpoch() {
		c.Tasks = maps.Clone(c.Tasks)
		if c.Tasks == nil {
			c.Tasks = map[topology.NodeID]*Operation{}
		}
		c.Tasks[o.Node] = &o
		return nil
	}
	c.overtake()
	c.Operation, c.LastEpoch = &o, o.To
	return nil
}

// overtake ends all tasks: what they were about belongs to the epoch that is being left.
func (c *Cluster) overtake() {
	for _, id := range slices.Sorted(maps.Keys(c.Tasks)) {
		t := *c.Tasks[id]
		t.Step, t.Outcome, t.Note = Done, Failed, "overtaken"
		c.remember(t)
	}
	c.Tasks = nil
}

func (c *Cluster) remember(o Operation) {
	past := append(slices.Clone(c.Past), o)
	task := func(o Operation) bool { return !o.Kind.MakesEpoch() }
	for len(past) > maxPast {
		tasks := 0
		for i := range past {
			if task(past[i]) {
				tasks++
			}
		}
		i := slices.IndexFunc(past, func(o Operation) bool { return task(o) == (tasks > maxPast/2) })
		past = slices.Delete(past, i, i+1)
	}
	c.Past = past
}

func (c *Cluster) mark(m *Marking) error {
	if m.Node <= 0 {
		return malformed("there is no node %d", m.Node)
	}
	mark := Mark{}
	if m.Mark != nil {
		mark = *m.Mark
	}
	c.setMark(m.Node, mark)
	return nil
}

func (c *Cluster) setMark(id topology.NodeID, mark Mark) {
	c.Nodes = maps.Clone(c.Nodes)
	if mark == (Mark{}) {
		delete(c.Nodes, id)
		return
	}
	if c.Nodes == nil {
		c.Nodes = map[topology.NodeID]*Mark{}
	}
	c.Nodes[id] = &mark
}

// MaxFormer bounds Epoch.Former, the sets that a member which is away may still go by. While the list is full
// the published sets stay as they are, which is safe: only they make a candidate.
const MaxFormer = 32

func (c *Cluster) publish(s *Publish) error {
	switch {
	case s.Epoch != c.Epoch.Number || c.Epoch.Number == 0:
		return stale("the standbys of epoch %d were to be published, but epoch %d is current", s.Epoch, c.Epoch.Number)
	case s.Version != c.Epoch.Version:
		return stale("version %d of the standbys is not the current one, %d", s.Version, c.Epoch.Version)
	case c.Operation != nil:
		return stale("%s %d is under way", c.Operation.Kind, c.Operation.ID)
	case s.Known > s.Version:
		return malformed("version %d of the standbys cannot be known while %d is the newest", s.Known, s.Version)
	}
	e := c.Epoch
	if s.Settings != (Settings{}) {
		e.Settings = s.Settings
	}
	e.Former = slices.DeleteFunc(slices.Clone(e.Former), func(f Former) bool { return f.Version < s.Known })
	if !e.Standbys.Equal(s.Standbys) {
		if len(e.Former) >= MaxFormer {
			return stale("%d former sets of standbys are still known to some member", len(e.Former))
		}
		e.Former = append(e.Former, Former{Version: e.Version, Standbys: e.Standbys})
		e.Standbys = s.Standbys.clone()
		e.Version++
	}
	c.Epoch = e
	return nil
}
