package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cstproxy/cstproxy/admin"
	"github.com/cstproxy/cstproxy/ha"
	"github.com/cstproxy/cstproxy/ha/consensus"
	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/fleet"
	"github.com/cstproxy/cstproxy/ha/member"
	"github.com/cstproxy/cstproxy/ha/peer"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// fleetSource speaks for a member of a fleet to the admin port: it is an admin.Fleet.
type fleetSource struct {
	fleet   *fleet.Fleet
	prepare func(ctx context.Context, cluster string, line func(string)) error
	file    func(cluster string) clusterFile
	// policies are those that this member would have in force with values of the log.
	policies func(cluster string, values map[string]string) (member.Policies, error)

	mu   sync.Mutex
	kept map[string]keptFile // by cluster
}

// keptFile is what the file said a moment ago: pictures of a cluster are asked for many times a second.
type keptFile struct {
	clusterFile
	until time.Time
}

// keepFile is how long a reload may take to be seen in ctl show and get_meta.
const keepFile = 2 * time.Second

// clusterFile is what the configuration file says of a cluster, without secrets; Values are for
// `ctl get_meta`.
type clusterFile struct {
	WriteVIP, ReadVIP string
	Values            any
}

// newFleetSource returns the spokesman of f. prepare is what `ctl init` does; file tells what is
// configured now.
func newFleetSource(f *fleet.Fleet, prepare func(context.Context, string, func(string)) error, file func(cluster string) clusterFile,
	policies func(string, map[string]string) (member.Policies, error),
) *fleetSource {
	return &fleetSource{fleet: f, prepare: prepare, file: file, policies: policies, kept: map[string]keptFile{}}
}

// configured is what the file says of the cluster, or said lately.
func (s *fleetSource) configured(cluster string) clusterFile {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept, now := s.kept[cluster], time.Now()
	if now.After(kept.until) {
		kept = keptFile{s.file(cluster), now.Add(keepFile)}
		if values, ok := kept.Values.(map[string]string); ok {
			kept.Values = unquoted(values)
		}
		s.kept[cluster] = kept
	}
	return kept.clusterFile
}

// unquoted turns values as they stand in the file into themselves.
func unquoted(values map[string]string) map[string]any {
	all := map[string]any{}
	for key, text := range values {
		var value any = text
		if json.Unmarshal([]byte(text), &value) != nil {
			value = text
		}
		all[key] = value
	}
	return all
}

func (s *fleetSource) Order(ctx context.Context, o admin.Order) (admin.Task, error) {
	c := fleet.Command{Cluster: o.Cluster, Verb: fleet.Verb(o.Verb), Order: decide.Order{Node: topology.NodeID(o.Node), By: o.By, Why: o.Why, Mode: o.Mode}}
	if !o.At.IsZero() && c.Verb == fleet.Switch {
		c.Verb, c.At = fleet.Appoint, o.At.UnixMilli()
	}
	if o.AcceptDataLoss {
		c.Accept = record.AcceptLoss
	}
	if o.DryRun {
		op, err := s.fleet.Foresee(ctx, c)
		return taskOf(o.Cluster, &op), fleetError(err)
	}
	id, err := s.fleet.Command(ctx, c)
	if err != nil || id == 0 {
		return admin.Task{Cluster: o.Cluster}, fleetError(err)
	}
	t := admin.Task{ID: uint64(id), Cluster: o.Cluster, Kind: o.Verb, Node: o.Node, Step: record.Intent.String(), By: o.By, Why: o.Why}
	if known, err := s.fleet.Record(o.Cluster); err == nil {
		// This member may have read it already.
		if op := known.Find(id); op != nil {
			t = taskOf(o.Cluster, op)
		}
		if a := known.Appointment; a != nil && a.ID == id {
			t = plannedTask(o.Cluster, a)
		}
	}
	return t, nil
}

func (s *fleetSource) Voter(ctx context.Context, c admin.VoterChange) error {
	return fleetError(s.fleet.Voter(ctx, fleet.Change{Verb: c.Verb, Member: peer.Member{Name: c.Name, Address: c.Address}, Role: consensus.Role(c.Role)}))
}

func (s *fleetSource) Adopt(ctx context.Context, a admin.Adoption) (admin.Adopted, error) {
	got, err := s.fleet.Adopt(ctx, fleet.Adoption{Cluster: a.Cluster, Epoch: topology.Epoch(a.Epoch), By: a.By})
	floors := map[string]uint64{}
	for name, floor := range got.Floors {
		floors[name] = uint64(floor)
	}
	return admin.Adopted{Fleet: got.Fleet, Floors: floors, Former: got.Former, Missing: got.Missing}, fleetError(err)
}

func (s *fleetSource) Tasks(cluster string) ([]admin.Task, error) {
	c, err := s.fleet.Record(cluster)
	if err != nil {
		return nil, fleetError(err)
	}
	list := []admin.Task{}
	for i := range c.Past {
		list = append(list, taskOf(cluster, &c.Past[i]))
	}
	for _, op := range c.Tasks {
		list = append(list, taskOf(cluster, op))
	}
	if c.Operation != nil {
		list = append(list, taskOf(cluster, c.Operation))
	}
	for i := range c.Appointments {
		list = append(list, plannedTask(cluster, &c.Appointments[i]))
	}
	if c.Appointment != nil {
		list = append(list, plannedTask(cluster, c.Appointment))
	}
	slices.SortFunc(list, func(a, b admin.Task) int { return int(a.ID) - int(b.ID) })
	return list, nil
}

func (s *fleetSource) TaskLog(ctx context.Context, p admin.TaskPlace) (admin.TaskLog, error) {
	got, err := s.fleet.TaskLog(ctx, fleet.Place{Cluster: p.Cluster, ID: record.OperationID(p.ID), Log: p.Log, From: p.From})
	log := admin.TaskLog{Log: got.Log, Next: got.Next, Lines: []admin.TaskLine{}, Task: taskOf(p.Cluster, &got.Operation)}
	for _, l := range got.Lines {
		log.Lines = append(log.Lines, admin.TaskLine{Number: l.Number, At: l.At, Kind: string(l.Kind), Step: l.Step, Node: int(l.Node),
			Seconds: l.Lasted.Seconds(), Failed: l.Failed, Text: l.Text})
	}
	return log, fleetError(err)
}

func (s *fleetSource) Status() admin.FleetStatus {
	f := s.fleet.Status()
	status := admin.FleetStatus{Member: f.Member, Fleet: f.Fleet, Leader: f.Leader, Term: f.Term, Alone: f.Alone, Waiting: f.Waiting, Trouble: f.Trouble,
		Members: members(f.Members), Clusters: []admin.MemberShare{}}
	for _, c := range f.Clusters {
		status.Clusters = append(status.Clusters, admin.MemberShare{Cluster: c.Cluster, Epoch: uint64(c.Epoch), Primary: int(c.Primary),
			LeaseSeconds: seconds(c.Lease), Held: c.Held, Froze: frozeOf(c.Froze)})
	}
	return status
}

func (s *fleetSource) Members(ctx context.Context) ([]admin.Member, error) {
	list, err := s.fleet.Members(ctx)
	return members(list), fleetError(err)
}

func members(list []fleet.MemberStatus) []admin.Member {
	all := []admin.Member{}
	for _, m := range list {
		all = append(all, admin.Member{Name: m.Name, Address: m.Address, Role: string(m.Role), Leads: m.Leads, Witness: m.Witness, HeardSeconds: seconds(m.Heard)})
	}
	return all
}

func seconds(d *time.Duration) *float64 {
	if d == nil {
		return nil
	}
	s := d.Seconds()
	return &s
}

func frozeOf(f *record.Froze) *admin.Froze {
	if f == nil {
		return nil
	}
	return &admin.Froze{By: f.By, Why: f.Why}
}

func (s *fleetSource) Evidence(ctx context.Context, cluster string) (admin.Evidence, error) {
	got, err := s.fleet.Evidence(ctx, cluster)
	if err != nil {
		return admin.Evidence{}, fleetError(err)
	}
	e := admin.Evidence{Cluster: cluster, Leader: got.Leader, Since: got.Since, Alarm: got.Alarm, Decisions: []admin.Decision{}, Sights: []admin.Sight{}, Facts: []admin.Fact{}}
	for _, d := range got.Decisions {
		one := admin.Decision{At: d.At, Why: d.Why, Alarm: d.Alarm}
		for _, a := range d.Actions {
			one.Actions = append(one.Actions, fmt.Sprintf("%s node %d", a.Verb, a.Node))
		}
		e.Decisions = append(e.Decisions, one)
	}
	for _, v := range got.Sights {
		e.Sights = append(e.Sights, admin.Sight{Member: v.Member, Node: int(v.Node), Class: string(v.Class), SinceSeconds: v.Since.Seconds(), AgoSeconds: v.Ago.Seconds(), Host: v.Host, Why: v.Why})
	}
	for _, n := range got.Nodes {
		fact := admin.Fact{Node: int(n.Node), Role: n.Role, AgoSeconds: seconds(n.Ago), Timeline: uint32(n.Timeline), Streaming: n.Streaming, Recruited: uint64(n.Recruited), Mark: markOf(n.Mark)}
		if lsn := max(n.Write, n.Receive); lsn != 0 {
			fact.LSN = lsn.String()
		}
		if n.Replay != 0 {
			fact.ReplayLSN = n.Replay.String()
		}
		e.Facts = append(e.Facts, fact)
	}
	for _, p := range got.Addresses {
		e.Addresses = append(e.Addresses, admin.Holding{Kind: p.Kind, Address: p.Address, Hosts: append([]string{}, p.Hosts...), AgoSeconds: p.Ago.Seconds()})
	}
	return e, nil
}

func (s *fleetSource) Meta(cluster string) (admin.Meta, error) {
	c, err := s.fleet.Record(cluster)
	if err != nil {
		return admin.Meta{}, fleetError(err)
	}
	file, e := s.configured(cluster), &c.Epoch
	m := admin.Meta{Cluster: cluster, Fleet: s.fleet.Status().Fleet, Epoch: uint64(e.Number), LastEpoch: uint64(c.LastEpoch), Primary: int(e.Primary), Address: e.Address,
		Timeline: uint32(e.History.Timeline), Eligible: ids(e.Eligible), Froze: frozeOf(c.Froze), Marks: map[string]string{},
		Sync:     admin.MetaSync{Method: e.Sync.Method, Count: e.Sync.Count, Names: e.Sync.Names, Nodes: ids(e.Sync.Nodes)},
		WriteVIP: file.WriteVIP, ReadVIP: file.ReadVIP, Configuration: file.Values, Settings: primarySettings(e.Settings)}
	if e.SystemID != 0 {
		m.SystemID = strconv.FormatUint(e.SystemID, 10)
	}
	if e.Switch != 0 {
		m.SwitchLSN = e.Switch.String()
	}
	for id, mark := range c.Nodes {
		m.Marks[strconv.Itoa(int(id))] = markOf(*mark)
	}
	for i, f := range e.History.Forks {
		fork := admin.Fork{Timeline: uint32(f.Timeline), End: uint64(f.End), LSN: f.End.String()}
		next := e.History.Timeline
		if i+1 < len(e.History.Forks) {
			next = e.History.Forks[i+1].Timeline
		}
		if start, known := c.StartOf(next); known {
			at := start.Time().UTC()
			fork.Primary, fork.At = int(start.Primary), &at
		}
		for i := range c.Past {
			if o := &c.Past[i]; o.Kind.MakesEpoch() && o.Left == f.Timeline && o.Outcome == record.Completed {
				fork.Why, fork.Primary = o.Why, int(o.Candidate)
			}
		}
		m.Former = append(m.Former, fork)
	}
	if c.Operation != nil {
		t := taskOf(cluster, c.Operation)
		m.Task = &t
	}
	if c.Appointment != nil {
		t := plannedTask(cluster, c.Appointment)
		m.Planned = &t
	}
	return m, nil
}

func (s *fleetSource) Init(ctx context.Context, cluster string, line func(string)) error {
	return fleetError(s.prepare(ctx, cluster, line))
}

func ids(list []topology.NodeID) []int {
	all := []int{}
	for _, id := range list {
		all = append(all, int(id))
	}
	return all
}

func primarySettings(s record.Settings) map[string]int {
	all := map[string]int{"max_connections": s.MaxConnections, "max_worker_processes": s.MaxWorkers, "max_wal_senders": s.MaxSenders,
		"max_prepared_transactions": s.MaxPrepared, "max_locks_per_transaction": s.MaxLocks}
	maps.DeleteFunc(all, func(_ string, v int) bool { return v == 0 })
	return all
}

func markOf(m record.Mark) string {
	var list []string
	for _, one := range []struct{ name, text string }{{"quarantine", m.Quarantine}, {"fault", m.Fault}, {"barred", m.Barred}} {
		if one.text != "" {
			list = append(list, one.name+": "+one.text)
		}
	}
	if m.Twin {
		list = append(list, "its timeline is another one of the same number: rebuild it")
	}
	if m.Tries > 0 {
		list = append(list, fmt.Sprintf("%d repairs failed", m.Tries))
	}
	return strings.Join(list, "; ")
}

func taskOf(cluster string, o *record.Operation) admin.Task {
	t := admin.Task{ID: uint64(o.ID), Cluster: cluster, Kind: string(o.Kind), Node: int(o.Node), Candidate: int(o.Candidate), Former: int(o.Former),
		From: uint64(o.From), To: uint64(o.To), LostBytes: o.Lost, Mode: o.Mode, Why: o.Why, By: o.By, Outcome: string(o.Outcome), Note: o.Note}
	if o.Step != 0 {
		t.Step = o.Step.String()
	}
	return t
}

// plannedTask is a switchover for later, or what became of it.
func plannedTask(cluster string, a *record.Appointment) admin.Task {
	at := time.UnixMilli(a.At).UTC()
	t := admin.Task{ID: uint64(a.ID), Cluster: cluster, Kind: string(record.Switch), Node: int(a.Node), From: uint64(a.Epoch), At: &at,
		Step: "planned", Why: a.Why, By: a.By, Outcome: string(a.Outcome), Note: a.Note}
	if a.Outcome != record.Open {
		t.Step = record.Done.String()
	}
	return t
}

// fleetError gives the fleet's errors the kind that chooses the HTTP status; their words stay.
func fleetError(err error) error {
	for _, k := range []struct{ is, kind error }{{ha.ErrPolicy, admin.ErrInvalid}, {ha.ErrUnknown, admin.ErrUnknown}, {ha.ErrRefused, admin.ErrRefused},
		{fleet.ErrNoLeader, admin.ErrNoLeader}, {consensus.ErrUnknownOutcome, admin.ErrOutcome}} {
		if errors.Is(err, k.is) {
			return &fleetFailure{err, k.kind}
		}
	}
	return err
}

// fleetFailure prints the fleet's words alone.
type fleetFailure struct{ err, kind error }

func (e *fleetFailure) Error() string   { return e.err.Error() }
func (e *fleetFailure) Unwrap() []error { return []error{e.err, e.kind} }

var _ admin.Fleet = (*fleetSource)(nil)
