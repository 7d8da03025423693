package sim

import (
	"time"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/record"
)

// operatorLooks is how long after the last fault somebody looks whether the fleet waits for a human.
const operatorLooks = 20 * time.Second

const operator = "operator"

// order proposes what an operator asks of the leader; a refusal is an answer, too.
func (w *world) order(what string, ask func(decide.Picture) (record.Entry, error)) {
	m := w.leader()
	if m == nil || m.leading == nil || m.leading.proposing || !m.voter.established() {
		return
	}
	e, err := ask(m.leading.look())
	if err != nil {
		w.trace("the operator's %s is refused: %v", what, err)
		return
	}
	w.trace("an operator asks for a %s", what)
	m.leading.propose(&e)
}

// askSwitch is `ctl switch` to a node.
func (w *world) askSwitch(who []*host) {
	if len(who) == 0 || who[0].node == nil {
		return
	}
	w.order("switch to "+who[0].name, func(p decide.Picture) (record.Entry, error) {
		return decide.NewSwitch(p, decide.Order{Node: who[0].node.id, By: operator, Why: "maintenance"})
	})
}

// askLoss is `ctl failover -i N --accept-data-loss`, also while a part of the fleet cannot be asked.
func (w *world) askLoss(who []*host) {
	if len(who) == 0 || who[0].node == nil {
		return
	}
	o := decide.Order{Node: who[0].node.id, By: operator, Why: "give up what is missing", Accept: record.AcceptLoss}
	w.order("failover to "+who[0].name+" that may lose data", func(p decide.Picture) (record.Entry, error) { return decide.NewFailover(p, o) })
}

// askFroze is `ctl froze` and later `ctl unfroze`.
func (w *world) askFroze() (undo func()) {
	w.order("froze", func(p decide.Picture) (record.Entry, error) {
		return decide.NewFroze(p, decide.Order{By: operator, Why: "maintenance"}), nil
	})
	return w.askUnfroze
}

func (w *world) askUnfroze() {
	w.order("unfroze", func(p decide.Picture) (record.Entry, error) { return decide.NewUnfroze(p), nil })
}

// operate is what an operator does who finds the fleet waiting. That is no I7 broken as long as the
// fleet has said so, by an operation that waits or by an alarm.
func (w *world) operate() {
	c := w.truth()
	last := record.Operation{}
	if n := len(c.Past); n > 0 {
		last = c.Past[n-1]
	}
	if w.now < w.operated+5*time.Second || c.Operation != nil || w.alarm == "" && last.Outcome != record.Waits && c.Froze == nil {
		return
	}
	w.operated = w.now
	w.helped++
	if c.Froze != nil {
		w.askUnfroze()
		return
	}
	w.order("remedy", func(p decide.Picture) (record.Entry, error) { return w.remedy(p) })
}

// remedy is the first of what an operator can order that is not refused, gentle things first.
func (w *world) remedy(p decide.Picture) (record.Entry, error) {
	o := decide.Order{By: operator, Why: "nobody writes"}
	for _, n := range w.nodes {
		id, mark := n.id, p.Record.Mark(n.id)
		if mark != (record.Mark{}) && p.Record.Tasks[id] == nil && w.node(p.Record.Epoch.Primary).taking() {
			o.Node = id
			if e, err := decide.NewRepair(p, o); err == nil {
				return e, nil
			}
		}
	}
	o.Node = 0
	if w.now > w.plan.end+operatorLooks+15*time.Second { // what was ordered before was begun and came to nothing, too
		o.Accept = record.AcceptLoss
		return w.lastRemedy(p, o)
	}
	e, err := decide.NewFailover(p, o)
	if err == nil {
		return e, nil
	}
	o.Node = p.Record.Epoch.Primary
	if e, again := decide.NewRestart(p, o); again == nil {
		return e, nil
	}
	return e, err
}

// lastRemedy accepts the loss, and where that is refused it names one node after the other.
func (w *world) lastRemedy(p decide.Picture, o decide.Order) (record.Entry, error) {
	e, err := decide.NewFailover(p, o)
	for _, n := range w.nodes {
		if err == nil {
			break
		}
		o.Node = n.id
		if named, again := decide.NewFailover(p, o); again == nil {
			return named, nil
		}
	}
	return e, err
}
