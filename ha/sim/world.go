package sim

import (
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// world is everything that is made up. One goroutine; the same seed makes the same world.
type world struct {
	plan   plan
	now    time.Duration
	agenda agenda
	rng    *rand.Rand
	// readers is what rng is while somebody reads; see aside.
	readers *rand.Rand
	events  int
	out     io.Writer // of the trace; nil: none

	hosts   []*host
	nodes   []*node
	members []*member
	voters  []*voter
	net     *network

	// states and log are what is committed, by index; states[0] is the empty one.
	states []*record.State
	log    []applied

	serial int // of the last log record
	writes int // number of the last write
	judge
}

func newWorld(p plan, out io.Writer) *world {
	w := &world{plan: p, out: out, rng: rand.New(rand.NewPCG(p.seed, 0x5eed)), readers: rand.New(rand.NewPCG(p.seed, 0x4ead)), states: []*record.State{{}}, log: []applied{{}}}
	w.judge = judge{w: w, primaries: map[topology.Epoch]*node{}, acks: map[int]ack{}, served: map[*member]time.Duration{}, executed: map[*node]token{}, struck: map[int]bool{}, fine: -1, twoVIPs: -1}
	w.net = &network{w: w, cuts: map[[2]int]int{}, delay: 200 * time.Microsecond, extra: 300 * time.Microsecond}
	for i := range p.nodes {
		w.addNode(i)
	}
	for i := range p.members {
		w.addMember(i)
	}
	return w
}

func (w *world) addHost(name string) *host {
	h := &host{id: len(w.hosts), name: name, up: true}
	h.sshd = &process{name: name + " sshd", host: h, alive: true}
	w.hosts = append(w.hosts, h)
	return h
}

func (w *world) addNode(i int) {
	id := topology.NodeID(i + 1)
	h := w.addHost(fmt.Sprintf("n%d", id))
	n := &node{w: w, id: id, host: h, postmaster: &process{name: h.name, host: h}, senders: map[*node]*sender{}}
	n.conf = decide.Node{
		Node:       topology.Node{ID: id, Host: h.name, Port: 5432, Weight: 1, OSUser: "postgres", PGData: "/data", AppName: fmt.Sprintf("stb%d", id)},
		NoFailover: w.plan.noFailover == id, Priority: w.plan.priority[i], Managed: true,
	}
	n.ratchet = ratchet{w: w}
	n.directory = directory{history: topology.History{Timeline: 1}, known: 1, system: 7, signal: i > 0, recovery: i > 0}
	if i > 0 {
		n.upstream = 1
		n.wal = append(n.wal, w.nodes[0].wal...)
	} else {
		for range 10 {
			w.serial++
			n.wal = append(n.wal, walRecord{serial: w.serial})
		}
	}
	h.node = n
	w.nodes = append(w.nodes, n)
}

func (w *world) addMember(i int) {
	name := fmt.Sprintf("m%d", i+1)
	var h *host
	if w.plan.together && i < len(w.nodes) {
		h = w.nodes[i].host
	} else {
		h = w.addHost(name)
	}
	m := &member{w: w, name: name, host: h, process: &process{name: name, host: h}, witness: w.plan.witness == i+1}
	m.clock = clock{offset: time.Hour + w.upTo(1000*time.Hour), rate: 1}
	switch drift := w.plan.policy.Drift; w.rng.IntN(3) {
	case 0:
		m.clock.rate += drift * 0.999
	case 1:
		m.clock.rate += drift * 0.999 * w.rng.Float64()
	}
	m.voter = &voter{w: w, member: m, state: w.states[0]}
	if !m.witness {
		m.clients = []*client{{m: m}, {m: m}}
	}
	h.members = append(h.members, m)
	w.members = append(w.members, m)
	w.voters = append(w.voters, m.voter)
}

func (w *world) node(id topology.NodeID) *node {
	if id < 1 || int(id) > len(w.nodes) {
		return nil
	}
	return w.nodes[id-1]
}

// truth is the cluster as of the newest entry that is committed, whoever knows of it.
func (w *world) truth() *record.Cluster { return clusterOf(w.states[len(w.states)-1]) }

// leader is the member that leads, in the newest term when two think so; nil when none does.
func (w *world) leader() *member {
	var best *voter
	for _, v := range w.voters {
		if v.role == raftLeader && v.member.process.alive && (best == nil || v.term > best.term) {
			best = v
		}
	}
	if best == nil {
		return nil
	}
	return best.member
}

func (w *world) trace(format string, args ...any) {
	if w.out != nil {
		fmt.Fprintf(w.out, "%9.3f  %s\n", w.now.Seconds(), fmt.Sprintf(format, args...))
	}
}

// begin lets everything start.
func (w *world) begin() {
	for _, n := range w.nodes {
		n.boot()
	}
	for _, m := range w.members {
		w.schedule(w.upTo(time.Second), nil, m.boot)
	}
	for i := range w.plan.faults {
		f := &w.plan.faults[i]
		if f.On == 0 {
			w.schedule(f.At, nil, func() { w.strike(f) })
		}
	}
	w.schedule(0, nil, w.watch)
}
