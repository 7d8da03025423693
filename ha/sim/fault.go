package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cstproxy/cstproxy/ha/record"
)

// Fault is one thing that goes wrong, or that an operator does.
type Fault struct {
	Kind Kind
	At   time.Duration
	// On makes it happen At after an operation comes to this step, the first time that one does.
	On record.Step
	// For is how long it lasts.
	For time.Duration
	// Who are the hosts, members or nodes that it is about: "n1", "m2", or by what they are when it
	// happens: "primary", "standby" (one of them), "standbys", "leader", "candidate", "other" (a
	// member that does not lead), "rest" (all hosts that From does not name).
	Who []string
	// From is the other side of a Cut.
	From []string
	// Much is how much of it: a probability of loss, a delay in seconds.
	Much float64
}

// Kind is what goes wrong.
type Kind string

const (
	PowerOff   Kind = "power off"        // a host, with all on it
	PauseHost  Kind = "pause host"       // its virtual machine
	KillServer Kind = "kill postgres"    // SIGKILL
	StopServer Kind = "stop postgres"    // SIGSTOP, later SIGCONT
	HangDisk   Kind = "hang disk"        // writes do not end
	Crowd      Kind = "crowd"            // max_connections exhausted
	SlowReplay Kind = "slow replay"      // of a standby
	KillMember Kind = "kill member"      // it is started again after For
	StopMember Kind = "stop member"      // SIGSTOP, later SIGCONT
	Cut        Kind = "cut"              // between Who and From, both ways
	CutOneWay  Kind = "cut one way"      // from Who to From
	Lose       Kind = "lose"             // packets, everywhere
	Jitter     Kind = "jitter"           // everywhere
	ByHand     Kind = "promote by hand"  // pg_ctl promote on a standby
	AsStandby  Kind = "make a standby"   // stop the server, put standby.signal there, start it
	Switchover Kind = "ask for a switch" // an operator
	Freeze     Kind = "froze"            // an operator, and unfroze after For
	TakeLoss   Kind = "accept loss"      // an operator promotes a node with --accept-data-loss, whatever works
)

func (f *Fault) String() string {
	var b strings.Builder
	if f.On != 0 {
		fmt.Fprintf(&b, "%s after step %s: ", f.At, f.On)
	} else {
		fmt.Fprintf(&b, "at %s: ", f.At)
	}
	b.WriteString(string(f.Kind))
	if len(f.Who) > 0 {
		b.WriteString(" " + strings.Join(f.Who, ","))
	}
	if len(f.From) > 0 {
		b.WriteString(" | " + strings.Join(f.From, ","))
	}
	if f.Much != 0 {
		fmt.Fprintf(&b, " %.2f", f.Much)
	}
	if f.For != 0 {
		fmt.Fprintf(&b, ", for %s", f.For)
	}
	return b.String()
}

// strikeAt makes the faults happen that wait for an operation to come to a step.
func (w *world) strikeAt(step, from record.Step) {
	if step == from {
		return
	}
	for i := range w.plan.faults {
		if f := &w.plan.faults[i]; f.On == step && !w.struck[i] && w.now+f.At < w.plan.end-f.For {
			w.struck[i] = true
			w.schedule(f.At, nil, func() { w.strike(f) })
		}
	}
}

// strike lets a fault happen, and its end later.
func (w *world) strike(f *Fault) {
	who := w.resolve(f.Who, nil)
	w.trace("FAULT %s (%s)", f, hostNames(who))
	undo := w.hurt(f, who)
	if undo != nil {
		w.schedule(f.For, nil, func() {
			w.trace("end of %s (%s)", f.Kind, hostNames(who))
			undo()
		})
	}
}

func hostNames(hosts []*host) string {
	var names []string
	for _, h := range hosts {
		names = append(names, h.name)
	}
	return strings.Join(names, ",")
}

// hurt does it and returns what ends it; nil when nothing does.
func (w *world) hurt(f *Fault, who []*host) (undo func()) {
	switch f.Kind {
	case Cut, CutOneWay:
		from := w.resolve(f.From, who)
		w.net.cut(who, from)
		if f.Kind == Cut {
			w.net.cut(from, who)
		}
		return func() {
			w.net.heal(who, from)
			if f.Kind == Cut {
				w.net.heal(from, who)
			}
		}
	case Lose:
		w.net.loss += f.Much
		return func() { w.net.loss = max(0, w.net.loss-f.Much) }
	case Jitter:
		d := time.Duration(f.Much * float64(time.Second))
		w.net.extra += d
		return func() { w.net.extra -= d }
	case Switchover:
		w.askSwitch(who)
		return nil
	case TakeLoss:
		w.askLoss(who)
		return nil
	case Freeze:
		return w.askFroze()
	}
	var undos []func()
	for _, h := range who {
		if u := w.hurtHost(f, h); u != nil {
			undos = append(undos, u)
		}
	}
	return func() {
		for _, u := range undos {
			u()
		}
	}
}

func (w *world) hurtHost(f *Fault, h *host) (undo func()) {
	switch f.Kind {
	case PowerOff:
		h.powerOff(w)
		return func() { h.powerOn(w) }
	case PauseHost:
		h.paused = true
		for _, p := range h.processes() {
			w.stop(p)
		}
		return func() {
			h.paused = false
			for _, p := range h.processes() {
				w.resume(p)
			}
		}
	case KillMember, StopMember:
		return w.hurtMembers(f, h)
	}
	if h.node == nil {
		return nil
	}
	return w.hurtServer(f, h.node)
}

func (w *world) hurtMembers(f *Fault, h *host) (undo func()) {
	members := slices.Clone(h.members)
	for _, m := range members {
		if f.Kind == KillMember {
			m.crash()
		} else {
			w.stop(m.process)
		}
	}
	return func() {
		for _, m := range members {
			if f.Kind == KillMember {
				m.boot()
			} else {
				w.resume(m.process)
			}
		}
	}
}

func (w *world) hurtServer(f *Fault, n *node) (undo func()) {
	switch f.Kind {
	case KillServer:
		n.crash()
		if w.plan.selfStart {
			return n.boot
		}
	case StopServer:
		w.stop(n.postmaster)
		return func() { w.resume(n.postmaster) }
	case HangDisk:
		n.hung = true
		return func() { n.hung = false }
	case Crowd:
		n.crowded = true
		return func() { n.crowded = false }
	case SlowReplay:
		n.slowReplay = f.For
		return func() { n.slowReplay = 0 }
	case ByHand:
		if n.taking() && !n.primary {
			n.promote(0, func() {})
		}
	case AsStandby:
		n.crash()
		n.signal = true
		n.boot()
	}
	return nil
}

func (h *host) processes() []*process {
	list := []*process{h.sshd}
	if h.node != nil {
		list = append(list, h.node.postmaster)
	}
	for _, m := range h.members {
		list = append(list, m.process)
	}
	return list
}

func (h *host) powerOff(w *world) {
	h.outages++
	h.up, h.vip = false, false
	for _, m := range h.members {
		m.crash()
	}
	if h.node != nil {
		h.node.crash()
		h.node.ratchet.running, h.node.ratchet.queue = nil, nil
	}
	w.kill(h.sshd)
}

func (h *host) powerOn(w *world) {
	if h.outages--; h.outages > 0 {
		return
	}
	h.up = true
	w.start(h.sshd)
	if h.node != nil && w.plan.selfStart {
		h.node.boot()
	}
	for _, m := range h.members {
		m.boot()
	}
	w.net.release()
}

// resolve finds the hosts that are meant now; not are those that "rest" leaves out.
func (w *world) resolve(names []string, not []*host) []*host {
	var list []*host
	add := func(h *host) {
		if h != nil && !slices.Contains(list, h) && !slices.Contains(not, h) {
			list = append(list, h)
		}
	}
	for _, name := range names {
		for _, h := range w.meant(name) {
			add(h)
		}
	}
	return list
}

func (w *world) meant(name string) []*host {
	c := w.truth()
	var list []*host
	switch name {
	case "rest":
		return w.hosts
	case "primary", "candidate":
		id := c.Epoch.Primary
		if name == "candidate" && c.Operation != nil {
			id = c.Operation.Candidate
		}
		if n := w.node(id); n != nil {
			list = append(list, n.host)
		}
	case "standby", "standbys":
		for _, n := range w.nodes {
			if n.id != c.Epoch.Primary && (name == "standbys" || len(list) == 0) {
				list = append(list, n.host)
			}
		}
	case "leader":
		if m := w.leader(); m != nil {
			list = append(list, m.host)
		}
	case "other", "others":
		for _, m := range w.members {
			if m != w.leader() && (name == "others" || len(list) == 0) {
				list = append(list, m.host)
			}
		}
	default:
		for _, h := range w.hosts {
			if h.name == name || slices.ContainsFunc(h.members, func(m *member) bool { return m.name == name }) {
				list = append(list, h)
			}
		}
	}
	return list
}
