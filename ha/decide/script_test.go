package decide

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// world is what a transcript changes line by line, and what is decided from. It begins as a healthy
// cluster: members m1 (leader), m2, m3; node 1 primary of epoch 7 on timeline 1 at 0/5000000, nodes
// 2 and 3 streaming; everything seen just now. The commands are the cases of run.
type world struct {
	t     *testing.T
	p     Picture
	state *record.State
	out   *strings.Builder
}

func newWorld(t *testing.T, out *strings.Builder) *world {
	w := &world{t: t, out: out}
	w.p = Picture{Cluster: "c1", Self: "m1", Now: time.Hour, LeaderSince: time.Minute, StepSince: time.Minute,
		TaskSince: map[topology.NodeID]time.Duration{},
		Policy: Policy{Lease: 1500 * time.Millisecond, Drift: 0.01, OnCrash: "restart", RestartBudget: 5 * time.Second, Gray: 5 * time.Second,
			Unreachable: 10 * time.Second, AntiFlap: 5 * time.Minute, MaxLag: 1 << 20, Drain: 200 * time.Millisecond, SwitchBudget: 5 * time.Second, MaxRepairs: 3}}
	w.members("m1", "m2", "m3")
	for id := topology.NodeID(1); id <= 3; id++ {
		n := Node{Node: topology.Node{ID: id, Host: fmt.Sprintf("h%d", id), Port: 5432, AppName: fmt.Sprintf("stb%d", id)}, Managed: true}
		n.Fact = Fact{At: w.p.Now, Role: topology.RoleStandby, SystemID: 42, History: topology.History{Timeline: 1},
			Receive: 0x5000000, Replay: 0x5000000, Streaming: true, Upstream: 1, Running: true, Complete: true}
		if id == 1 {
			n.Fact.Role, n.Fact.Write, n.Fact.Streaming, n.Fact.Upstream = topology.RolePrimary, 0x5000000, false, 0
		}
		w.p.Nodes = append(w.p.Nodes, n)
	}
	w.state = &record.State{}
	w.apply(record.Entry{Found: &record.Found{Fleet: "f", Floors: map[string]topology.Epoch{"c1": 6}}})
	w.apply(record.Entry{Cluster: "c1", Adopt: &record.Adopt{Epoch: record.Epoch{Number: 7, Primary: 1, SystemID: 42,
		History: topology.History{Timeline: 1}, Standbys: record.Standbys{Eligible: []topology.NodeID{2, 3}}}}})
	w.eachSight(func(s *Sight) { *s = Sight{Class: Answers, Since: time.Minute} })
	return w
}

func (w *world) members(names ...string) {
	w.p.Members = nil
	for _, name := range names {
		m := Member{Name: name, Voter: true, Heard: w.p.Now, Known: 1, Sights: map[topology.NodeID]Sight{}}
		for id := topology.NodeID(1); id <= 3; id++ {
			m.Sights[id] = Sight{Class: Answers, Since: time.Minute}
		}
		w.p.Members = append(w.p.Members, m)
	}
	w.p.Alone = len(names) == 1
}

func (w *world) eachSight(change func(*Sight)) {
	for i := range w.p.Members {
		for id, s := range w.p.Members[i].Sights {
			change(&s)
			w.p.Members[i].Sights[id] = s
		}
	}
}

// apply is the log: what is committed is known at once.
func (w *world) apply(e record.Entry) {
	w.t.Helper()
	before := w.p.Record
	next, err := w.state.Apply(e)
	if err != nil {
		fmt.Fprintf(w.out, "! the log refuses: %v\n", err)
		return
	}
	w.state = next
	w.p.Record = *next.Clusters["c1"]
	c := &w.p.Record
	if (before.Operation == nil) != (c.Operation == nil) || c.Operation != nil && before.Operation.Step != c.Operation.Step {
		w.p.StepSince = w.p.Now
	}
	if before.Epoch.Number != c.Epoch.Number && before.Epoch.Number != 0 {
		w.p.EpochSince = w.p.Now
	}
	for id, task := range c.Tasks {
		if old := before.Tasks[id]; old == nil || old.Step != task.Step {
			w.p.TaskSince[id] = w.p.Now
		}
	}
	w.p.Finished = slices.DeleteFunc(w.p.Finished, func(r Result) bool { return c.Find(r.Action.Operation) == nil })
	w.p.Running = slices.DeleteFunc(w.p.Running, func(a Action) bool { return c.Find(a.Operation) == nil })
	for i := range w.p.Members {
		w.p.Members[i].Known = c.Epoch.Version
	}
}

// decide prints what the leader does until it waits for something.
func (w *world) decide() {
	for range 12 {
		plan := Decide(w.p)
		if plan.Alarm != "" && plan.Entry == nil {
			fmt.Fprintf(w.out, "! %s\n", plan.Alarm)
		}
		if plan.Entry == nil {
			w.begin(plan)
			return
		}
		fmt.Fprintf(w.out, "> %s\n", plan.Why)
		w.apply(*plan.Entry)
	}
	fmt.Fprintln(w.out, "! it never comes to rest")
}

func (w *world) begin(plan Plan) {
	for _, a := range plan.Actions {
		if slices.Contains(w.p.Running, a) {
			continue
		}
		w.p.Running = append(w.p.Running, a)
		fmt.Fprintf(w.out, "+ %s node %d%s\n", a.Verb, a.Node, details(a))
	}
	if plan.Why == "" {
		return
	}
	fmt.Fprintf(w.out, "= %s", plan.Why)
	if plan.Again != 0 {
		fmt.Fprintf(w.out, " [again within %s]", short(plan.Again))
	}
	fmt.Fprintln(w.out)
}

func details(a Action) string {
	text := ""
	if a.Mode != "" {
		text += " " + a.Mode
	}
	if a.Upstream != 0 {
		text += fmt.Sprintf(" from %d", a.Upstream)
	}
	if a.Timeline != 0 {
		text += fmt.Sprintf(" to timeline %d", a.Timeline)
	}
	step := a.Step.String()
	return fmt.Sprintf("%s (epoch %d, %s)", text, a.Epoch, step)
}

// run obeys one line.
func (w *world) run(line string) {
	f := strings.Fields(line)
	switch f[0] {
	case "?":
		w.decide()
	case "after":
		w.after(w.duration(f[1]))
	case "members":
		w.members(f[1:]...)
	case "witness", "away", "drains", "acks":
		for _, name := range f[1:] {
			w.member(name, f[0])
		}
	case "open": // open MEMBER N: write transactions
		w.p.Members[slices.IndexFunc(w.p.Members, func(m Member) bool { return m.Name == f[1] })].Open = w.number(f[2])
	case "sees": // sees MEMBERS NODE CLASS SINCE [host=up|down] [traffic]
		w.sees(f[1:])
	case "node": // node ID key=value …
		w.node(w.id(f[1]), f[2:])
	case "policy":
		w.policy(f[1:])
	case "record":
		w.record(f[1:])
	case "done", "fails":
		w.ends(f)
	case "order":
		w.order(f[1:])
	default:
		w.t.Fatalf("no such line: %s", line)
	}
}

// after lets time pass. Members that are not away report, and whatever answered before answers.
func (w *world) after(d time.Duration) {
	now := w.p.Now
	w.p.Now += d
	for i := range w.p.Members {
		if m := &w.p.Members[i]; m.Heard == now {
			m.Heard = w.p.Now
			for id, s := range m.Sights {
				s.Since += d
				m.Sights[id] = s
			}
		}
	}
	for i := range w.p.Nodes {
		if f := &w.p.Nodes[i].Fact; f.At == now {
			f.At = w.p.Now
		}
	}
}

func (w *world) member(name, what string) {
	i := slices.IndexFunc(w.p.Members, func(m Member) bool { return m.Name == name })
	if i < 0 {
		w.t.Fatalf("no member %s", name)
	}
	switch m := &w.p.Members[i]; what {
	case "witness":
		m.Witness = true
	case "away":
		m.Heard = w.p.Now - time.Hour/2
	case "drains": // begins no new writes; it still may forward answers
		m.Drains = w.p.Record.LastOperation
	case "acks":
		m.Drains, m.Frozen = w.p.Record.LastOperation, w.p.Record.LastOperation
	}
}

func (w *world) sees(f []string) {
	names := strings.Split(f[0], ",")
	for i := range w.p.Members {
		m := &w.p.Members[i]
		if f[0] != "all" && !slices.Contains(names, m.Name) {
			continue
		}
		s := Sight{Class: Class(f[2]), Since: w.duration(f[3]), Traffic: slices.Contains(f, "traffic")}
		for _, word := range f[4:] {
			if host, ok := strings.CutPrefix(word, "host="); ok {
				s.Host = host
			}
		}
		m.Sights[w.id(f[1])] = s
		if n := w.p.node(w.id(f[1])); s.Class != Answers && n.Fact.At == w.p.Now {
			n.Fact.At = w.p.Now - s.Since // last heard of when it still worked
		}
	}
}

func (w *world) policy(f []string) {
	for _, setting := range f {
		key, value, _ := strings.Cut(setting, "=")
		switch key {
		case "on_crash":
			w.p.Policy.OnCrash = value
		case "vip":
			w.p.Policy.WriteVIP = value
		case "on_open":
			w.p.Policy.OnOpen = value
		case "unreachable":
			w.p.Policy.Unreachable = w.duration(value)
		case "max_lag":
			w.p.Policy.MaxLag = uint64(w.number(value))
		case "hook":
			w.p.Policy.Hooks = append(w.p.Policy.Hooks, value)
		case "fence_hook":
			w.p.Policy.FenceHooks = append(w.p.Policy.FenceHooks, value)
		default:
			w.t.Fatalf("no such policy: %s", key)
		}
	}
}

func (w *world) id(s string) topology.NodeID { return topology.NodeID(w.number(s)) }

func (w *world) number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

func (w *world) duration(s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

func (w *world) lsn(s string) topology.LSN {
	l, err := topology.ParseLSN(s)
	if err != nil {
		w.t.Fatal(err)
	}
	return l
}
