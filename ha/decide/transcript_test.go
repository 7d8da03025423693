package decide

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

var update = flag.Bool("update", false, "rewrite what the transcripts expect")

// TestTranscripts runs testdata/*.txt. A scenario begins with "== title". Lines that change the world
// begin with a word (see run), "?" asks for a decision. What follows is the answer: "> " what is
// committed, "+ " an action that begins, "= " why it waits now, "! " an alarm or a refusal.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := replay(t, string(text))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			compare(t, string(text), got)
		})
	}
}

func replay(t *testing.T, text string) string {
	var out strings.Builder
	var w *world
	for _, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		switch {
		case line != "" && strings.ContainsRune(">+=!", rune(line[0])) && !strings.HasPrefix(line, "=="):
			continue // an old answer
		case strings.HasPrefix(line, "=="):
			w = newWorld(t, &out)
		}
		out.WriteString(line + "\n")
		if line != "" && line[0] != '#' && line[0] != '=' {
			if w == nil {
				t.Fatalf("%q before the first scenario", line)
			}
			w.run(line)
		}
	}
	return out.String()
}

func compare(t *testing.T, want, got string) {
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(a), len(b)) {
		if i >= len(a) || i >= len(b) || a[i] != b[i] {
			t.Fatalf("line %d:\nwant %q\ngot  %q", i+1, strings.Join(a[min(i, len(a)):min(i+3, len(a))], "\n     "), strings.Join(b[min(i, len(b)):min(i+3, len(b))], "\n     "))
		}
	}
}

// node changes what is known of a node.
func (w *world) node(id topology.NodeID, settings []string) {
	n := w.p.node(id)
	f := &n.Fact
	for _, setting := range settings {
		key, value, _ := strings.Cut(setting, "=")
		switch key {
		case "at": // its position, as a standby or as a primary
			f.Receive, f.Replay, f.Write = w.lsn(value), w.lsn(value), w.lsn(value)
		case "replay":
			f.Replay = w.lsn(value)
		case "timeline": // 2@0/5000000 left timeline 1 there
			f.History = w.history(value)
		case "role":
			f.Role = map[string]topology.Role{"primary": topology.RolePrimary, "standby": topology.RoleStandby, "unknown": topology.RoleUnknown}[value]
			f.Streaming = value == "standby"
		case "streaming":
			f.Streaming = value == "yes"
		case "upstream":
			f.Upstream = w.id(value)
		case "recruited":
			f.Recruited = topology.Epoch(w.number(value))
		case "marked":
			f.Marked = topology.Epoch(w.number(value))
		case "moved":
			f.Moved = w.p.Now - w.duration(value)
		case "reaches-primary":
			f.Primary, f.PrimaryAt = Class(value), w.p.Now
		case "sync":
			f.Sync = record.SyncSet{Method: "any", Count: 1, Names: strings.Split(value, ",")}
		case "max_connections":
			f.Settings.MaxConnections = w.number(value)
		case "priority":
			n.Priority = w.number(value)
		case "system":
			f.SystemID = uint64(w.number(value))
		case "fresh":
			f.At = w.p.Now
		case "never":
			*f = Fact{}
		case "stale":
			f.At = w.p.Now - w.duration(value)
		case "since":
			f.Since = w.p.Now - w.duration(value)
		default:
			w.flag(n, key)
		}
	}
}

func (w *world) flag(n *Node, key string) {
	f := &n.Fact
	switch key {
	case "stopped":
		f.Stopped, f.Running, f.Streaming, f.At = true, false, false, w.p.Now
	case "running":
		f.Stopped, f.Running, f.At = false, true, w.p.Now
	case "complete":
		f.Complete = true
	case "incomplete":
		f.Complete = false
	case "vacant":
		f.Complete, f.Vacant = false, true
	case "halfway":
		f.Complete, f.Halfway = false, true
	case "full":
		f.DiskFull = true
	case "nofailover":
		n.NoFailover = true
	case "unmanaged":
		n.Managed = false
	default:
		w.t.Fatalf("no such fact: %s", key)
	}
}

func (w *world) history(s string) topology.History {
	number, fork, forked := strings.Cut(s, "@")
	h := topology.History{Timeline: topology.Timeline(w.number(number))}
	if forked {
		h.Forks = []topology.Fork{{Timeline: 1, End: w.lsn(fork)}}
	}
	return h
}

// record changes what was agreed, by way of the log.
func (w *world) record(f []string) {
	e := &w.p.Record.Epoch
	switch f[0] {
	case "froze":
		w.apply(NewFroze(w.p, Order{By: f[1]}))
	case "unfroze":
		w.apply(NewUnfroze(w.p))
	case "mark":
		mark := record.Mark{}
		text := strings.Join(f[3:], " ")
		switch f[2] {
		case "quarantine":
			mark.Quarantine = text
		case "fault":
			mark.Fault = text
		case "twin":
			mark.Quarantine, mark.Twin = text, true
		case "tries":
			mark.Fault, mark.Tries = "broken", w.number(f[3])
		}
		w.apply(record.Entry{Cluster: "c1", Mark: &record.Marking{Node: w.id(f[1]), Mark: &mark}})
	case "sync": // ANY 1 of these names, as published
		set := w.p.syncSet(record.SyncSet{Method: "any", Count: 1, Names: strings.Split(f[1], ",")}, e.Primary)
		w.p.primary().Fact.Sync = record.SyncSet{Method: "any", Count: 1, Names: strings.Split(f[1], ",")}
		w.apply(record.Entry{Cluster: "c1", Standbys: &record.Publish{Epoch: e.Number, Version: e.Version, Known: e.Version, Standbys: record.Standbys{Sync: set, Eligible: e.Eligible}}})
		e = &w.p.Record.Epoch
		w.apply(record.Entry{Cluster: "c1", Standbys: &record.Publish{Epoch: e.Number, Version: e.Version, Known: e.Version, Standbys: e.Standbys}})
	case "none": // a cluster that nobody has seen yet
		w.state = &record.State{Fleet: "f", Clusters: map[string]*record.Cluster{"c1": {LastEpoch: 6}}}
		w.p.Record = *w.state.Clusters["c1"]
	case "new-leader": // everything that only the leader before knew is gone; when the epoch began all know
		w.p.LeaderSince, w.p.StepSince, w.p.Self = w.p.Now, w.p.Now, f[1]
		w.p.LastRecruit = w.p.Now
		w.p.Finished, w.p.Running, w.p.TaskSince = nil, nil, map[topology.NodeID]time.Duration{}
	default:
		w.t.Fatalf("no such record: %s", f[0])
	}
}

// ends ends a running action: done VERB NODE, or fails VERB NODE why. What a success changes in the
// world is seen at once.
func (w *world) ends(f []string) {
	verb, id := Verb(f[1]), w.id(f[2])
	i := slices.IndexFunc(w.p.Running, func(a Action) bool { return a.Verb == verb && a.Node == id })
	if i < 0 {
		w.t.Fatalf("%s of node %d does not run: %v", verb, id, w.p.Running)
	}
	a := w.p.Running[i]
	w.p.Running = slices.Delete(w.p.Running, i, i+1)
	r := Result{Action: a, At: w.p.Now}
	if f[0] == "fails" {
		r.Err = strings.Join(f[3:], " ")
		r.Refused = strings.HasPrefix(r.Err, "refused")
	} else {
		w.effect(a)
	}
	w.p.Finished = append(w.p.Finished, r)
}

func (w *world) effect(a Action) {
	n := w.p.node(a.Node)
	f := &n.Fact
	before := *f
	switch a.Verb {
	case Recruit:
		f.Recruited, f.Streaming, f.Upstream = a.Epoch, false, 0
		w.p.LastRecruit = w.p.Now
	case Release, Follow, Rewind, Rebuild:
		f.Recruited, f.Streaming, f.Upstream = 0, true, a.Upstream
		f.Role, f.Stopped, f.Running, f.Complete, f.Halfway = topology.RoleStandby, false, true, true, false
		if up := w.p.node(a.Upstream); a.Verb != Release {
			f.History = up.Fact.History
			f.Receive, f.Replay = up.Fact.Write, up.Fact.Write
		}
	case Stop:
		f.Stopped, f.Running, f.Streaming = true, false, false
		f.Role = topology.RoleUnknown
	case Start:
		f.Stopped, f.Running, f.Role = false, true, topology.RoleStandby
	case Revive:
		f.Stopped, f.Running, f.Role = false, true, topology.RolePrimary
	case PromoteIt:
		f.Role, f.Recruited, f.Write = topology.RolePrimary, 0, f.Receive+0x100
		f.History = topology.History{Timeline: a.Timeline, Forks: append(slices.Clone(f.History.Forks), topology.Fork{Timeline: f.History.Timeline, End: f.Receive})}
	case Look, Checkpoint, TakeVIP, DropVIP, Hook:
	}
	f.At = w.p.Now
	if before.Role != f.Role || before.Streaming != f.Streaming || before.Recruited != f.Recruited || before.Running != f.Running {
		f.Since = w.p.Now
	}
}

// order is an operator's: order KIND NODE [data-loss | mode].
func (w *world) order(f []string) {
	o := Order{Node: w.id(f[1]), By: "dba"}
	for _, word := range f[2:] {
		if word == "data-loss" {
			o.Accept = record.AcceptLoss
		} else {
			o.Mode = word
		}
	}
	make := map[string]func(Picture, Order) (record.Entry, error){"switch": NewSwitch, "failover": NewFailover, "repair": NewRepair, "clone": NewClone, "restart": NewRestart}[f[0]]
	e, err := make(w.p, o)
	if err != nil {
		fmt.Fprintf(w.out, "! refused: %v\n", err)
		return
	}
	if room := MakeRoom(w.p, o); room != nil {
		fmt.Fprintf(w.out, "> room is made for the order\n")
		w.apply(*room)
	}
	fmt.Fprintf(w.out, "> %s by %s: %s\n", e.Begin.Operation.Kind, e.Begin.Operation.By, e.Begin.Operation.Why)
	w.apply(e)
}
