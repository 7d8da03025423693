package decide

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// The functions of this file make entries of an operator's orders. Each looks at the Picture first
// and refuses with a sentence for the operator what could not work; what changes after that is
// noticed by the operation itself. Order.By is the operator's name, for the history.

// Order is what an operator asks for.
type Order struct {
	Node topology.NodeID
	By   string
	Why  string
	// Accept is what may be lost.
	Accept record.Accept
	// Mode is the one rung of a repair to take ("reattach", "rewind", "rebuild"); empty: as needed.
	Mode string
}

// NewSwitch makes Order.Node the primary in a planned way; 0 takes the best.
func NewSwitch(p Picture, o Order) (record.Entry, error) {
	f, err := p.orderable(o)
	if err != nil {
		return record.Entry{}, err
	}
	e := &p.Record.Epoch
	switch {
	case p.steppedDown():
		return record.Entry{}, fmt.Errorf("node %d runs as a standby: there is no primary to switch from; see `cstproxy ctl failover`", e.Primary)
	case f.is != healthy:
		return record.Entry{}, fmt.Errorf("the primary is not well (%s): a switch needs one that can be shut down in order; see `cstproxy ctl failover`", f.why)
	case o.Node == e.Primary:
		return record.Entry{}, fmt.Errorf("node %d is the primary already", o.Node)
	case !p.primary().Managed:
		return record.Entry{}, fmt.Errorf("node %d, the primary, cannot be operated from here", e.Primary)
	}
	if o.Node == 0 {
		c := p.choose(nil)
		if c.node == nil {
			return record.Entry{}, fmt.Errorf("no standby can take over: %s", join(c.refused))
		}
		o.Node = c.node.ID
	}
	n := p.node(o.Node)
	if n == nil {
		return record.Entry{}, unknown(o.Node)
	}
	if why := p.notReady(n); why != "" {
		return record.Entry{}, fmt.Errorf("node %d cannot take over: it %s", o.Node, why)
	}
	return p.order(record.Switch, o, fmt.Sprintf("switch to node %d", o.Node)), nil
}

// NewFailover promotes Order.Node, or with 0 the best, although the primary cannot be shut down.
func NewFailover(p Picture, o Order) (record.Entry, error) {
	f, err := p.orderable(o)
	switch {
	case err != nil:
		return record.Entry{}, err
	case f.is == healthy && o.Accept != record.AcceptLoss && !p.steppedDown():
		return record.Entry{}, fmt.Errorf("the primary works (%s): use `cstproxy ctl switch`, or repeat with --accept-data-loss", f.why)
	case o.Node == p.Record.Epoch.Primary:
		return record.Entry{}, fmt.Errorf("node %d is the primary already", o.Node)
	case o.Node != 0 && p.node(o.Node) == nil:
		return record.Entry{}, unknown(o.Node)
	}
	// Only a choice that says what is accepted can be judged like the operation itself.
	trial := record.Operation{Kind: record.Failover, Node: o.Node, Accept: o.Accept, By: o.By}
	if why := p.hopeless(&trial); why != "" {
		return record.Entry{}, errors.New(why)
	}
	why := "failover on request: " + f.why
	if n := p.node(o.Node); n != nil && p.lastResource(n, &trial) {
		why += "; " + p.forsaken(n)
	}
	return p.order(record.Failover, o, why), nil
}

// steppedDown says whether the epoch's primary is known to run as a standby.
func (p *Picture) steppedDown() bool {
	f := &p.primary().Fact
	return p.fresh(f) && f.Role == topology.RoleStandby
}

// hopeless says why a failover could promote nobody, whatever it finds when it has cut off whom it
// can.
func (p *Picture) hopeless(op *record.Operation) string {
	var reasons []string
	for i := range p.Nodes {
		n := &p.Nodes[i]
		if n.ID == p.Record.Epoch.Primary || op.Node != 0 && n.ID != op.Node {
			continue
		}
		why := p.unfitKnown(n, op)
		if why == "" {
			return ""
		}
		if op.Node == n.ID && op.Accept == record.AcceptLoss {
			why += p.wayTo(n)
		}
		reasons = append(reasons, fmt.Sprintf("node %d %s", n.ID, why))
	}
	if way := p.lastWay(); way != "" {
		reasons = append(reasons, way)
	}
	return "nobody can be promoted: " + join(reasons)
}

// NewRepair makes a standby of Order.Node again.
func NewRepair(p Picture, o Order) (record.Entry, error) {
	n, f, err := p.orderableNode(o)
	if err != nil {
		return record.Entry{}, err
	}
	if !slices.Contains([]string{"", "reattach", "rewind", "rebuild"}, o.Mode) {
		return record.Entry{}, fmt.Errorf("there is no way %q to repair: reattach, rewind or rebuild", o.Mode)
	}
	if why := p.onlyCopy(n, f); why != "" {
		return record.Entry{}, errors.New(why)
	}
	return p.order(record.Repair, o, "repair on request"), nil
}

// NewClone builds a standby on the empty host of Order.Node.
func NewClone(p Picture, o Order) (record.Entry, error) {
	n, f, err := p.orderableNode(o)
	if err != nil {
		return record.Entry{}, err
	}
	if p.fresh(&n.Fact) && n.Fact.Role != topology.RoleUnknown {
		return record.Entry{}, fmt.Errorf("a server runs on node %d: use `cstproxy ctl repair -i %d`", o.Node, o.Node)
	}
	if why := p.onlyCopy(n, f); why != "" {
		return record.Entry{}, errors.New(why)
	}
	return p.order(record.Clone, o, "clone on request"), nil
}

// NewRestart starts the server of Order.Node when it is down.
func NewRestart(p Picture, o Order) (record.Entry, error) {
	_, _, err := p.orderableNode(o)
	if err != nil {
		return record.Entry{}, err
	}
	if p.Record.Mark(o.Node).Quarantine != "" {
		return record.Entry{}, fmt.Errorf("node %d is in quarantine (%s): use `cstproxy ctl repair -i %d`", o.Node, p.Record.Mark(o.Node).Quarantine, o.Node)
	}
	return p.order(record.Restart, o, "restart on request"), nil
}

// NewFroze stops everything automatic, NewUnfroze allows it again.
func NewFroze(p Picture, o Order) record.Entry {
	return record.Entry{Cluster: p.Cluster, Proposer: p.Self, Froze: &record.Frozen{Froze: &record.Froze{By: o.By, Why: o.Why}}}
}

// NewUnfroze lifts a froze.
func NewUnfroze(p Picture) record.Entry {
	return record.Entry{Cluster: p.Cluster, Proposer: p.Self, Froze: &record.Frozen{}}
}

// orderable refuses what no operation can begin beside, and finds out how the primary is.
func (p *Picture) orderable(o Order) (finding, error) {
	r := &p.Record
	switch {
	case r.Epoch.Number == 0:
		return finding{}, fmt.Errorf("cluster %s has no primary yet: %s", p.Cluster, p.firstSight().Why)
	case r.Operation != nil:
		return finding{}, fmt.Errorf("%s %d is under way (%s)", r.Operation.Kind, r.Operation.ID, r.Operation.Step)
	case p.primary() == nil:
		return finding{}, fmt.Errorf("node %d, the primary of epoch %d, is not configured any more", r.Epoch.Primary, r.Epoch.Number)
	case o.Node != 0 && r.Tasks[o.Node] != nil && !p.rests(r.Tasks[o.Node]):
		return finding{}, fmt.Errorf("%s %d of node %d is under way", r.Tasks[o.Node].Kind, r.Tasks[o.Node].ID, o.Node)
	case o.By == "":
		return finding{}, errors.New("the order does not say whose it is")
	}
	return p.find(), nil
}

// rests says whether an automatic task has touched nothing: it may wait for minutes, because the ones before it
// failed. A leader that has just come finds it at the same step.
func (p *Picture) rests(task *record.Operation) bool {
	return task.Step == record.Intent && p.automatic(task)
}

// MakeRoom ends an automatic task that rests, for an order about the same node; nil when none is there. It is to
// be committed before the order's own entry. Whoever dies between the two leaves the node to the next
// automatic task.
func MakeRoom(p Picture, o Order) *record.Entry {
	task := p.Record.Tasks[o.Node]
	if task == nil || !p.rests(task) {
		return nil
	}
	return p.end(task, record.Undone, fmt.Sprintf("%s gave an order about node %d before anything was done", o.By, o.Node)).Entry
}

// orderableNode is orderable for an order about one node, which it finds.
func (p *Picture) orderableNode(o Order) (*Node, finding, error) {
	f, err := p.orderable(o)
	if err != nil {
		return nil, finding{}, err
	}
	n := p.node(o.Node)
	switch {
	case n == nil:
		return nil, finding{}, unknown(o.Node)
	case !n.Managed:
		return nil, finding{}, fmt.Errorf("node %d cannot be operated from here", o.Node)
	}
	return n, f, nil
}

func unknown(id topology.NodeID) error { return fmt.Errorf("there is no node %d", id) }

func (p *Picture) order(kind record.Kind, o Order, why string) record.Entry {
	if o.Why != "" {
		why += ": " + o.Why
	}
	op := p.numbered(record.Operation{Kind: kind, Node: o.Node, Accept: o.Accept, Mode: o.Mode, By: o.By, Why: why})
	return record.Entry{Cluster: p.Cluster, Proposer: p.Self, Begin: &record.Begin{Operation: op}}
}
