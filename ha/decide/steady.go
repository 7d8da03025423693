package decide

import (
	"fmt"
	"time"

	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// steady is what the leader does while no failover or switch is under way.
func (p *Picture) steady() Plan {
	if p.primary() == nil {
		return Plan{Why: "the primary was taken out of the configuration", Alarm: fmt.Sprintf("node %d, the primary of epoch %d, is not configured any more", p.Record.Epoch.Primary, p.Record.Epoch.Number)}
	}
	f := p.find()
	plan := p.judge(f)
	if plan.Entry != nil {
		return plan
	}
	for _, next := range []func(finding) Plan{p.tasks, p.upkeep} {
		other := next(f)
		if plan.Alarm == "" {
			plan.Alarm = other.Alarm
		}
		if other.Again != 0 && (plan.Again == 0 || other.Again < plan.Again) {
			plan.Again = other.Again
		}
		if other.Entry != nil {
			other.Alarm, other.Again = plan.Alarm, plan.Again
			return other
		}
		if other.Why != "" {
			plan.Why += "; " + other.Why
		}
		if plan.Actions = other.Actions; len(plan.Actions) > 0 {
			return plan
		}
	}
	return plan
}

// judge decides what the primary's condition asks for.
func (p *Picture) judge(f finding) Plan {
	switch f.is {
	case healthy:
		return p.standing(f)
	case crashed:
		return p.crash(f)
	case starting:
		budget := p.Policy.RestartBudget
		if f.since < budget {
			return wait(budget-f.since, "%s; it has %s before a failover", f.why, short(budget-f.since))
		}
		return p.cause(f, f.why)
	case lost:
		return p.cause(f, f.why)
	case gray:
		if f.since < p.Policy.Gray {
			return wait(p.Policy.Gray-f.since, "%s; a failover follows after %s", f.why, short(p.Policy.Gray))
		}
		return p.cause(f, f.why)
	case unreachable:
		return p.unreached(f)
	}
	if f.since >= alarming {
		return Plan{Why: f.why, Alarm: f.why}
	}
	return Plan{Why: f.why}
}

// standing looks closer at a primary that answers: does it still say that it is one, and the same?
func (p *Picture) standing(f finding) Plan {
	n := p.primary()
	fact, e := &n.Fact, &p.Record.Epoch
	plan := Plan{Why: fmt.Sprintf("node %d is primary of epoch %d: %s", n.ID, e.Number, f.why)}
	switch {
	case !p.fresh(fact) || fact.Role == topology.RoleUnknown:
	case fact.SystemID != e.SystemID:
		plan.Alarm = fmt.Sprintf("node %d is of system %d, the cluster of system %d", n.ID, fact.SystemID, e.SystemID)
	case fact.Role == topology.RoleStandby:
		return p.stepped(n, f)
	case fact.History.Known() && fact.History.Timeline > e.History.Timeline:
		next := *e
		next.Number, next.Operation, next.History = p.Record.LastEpoch+1, 0, fact.History
		next.Switch, _ = fact.History.LeftAt(e.History.Timeline)
		return p.commit(record.Entry{Adopt: &record.Adopt{Current: e.Number, Epoch: next, Why: "it went on on another timeline"}},
			"node %d went on as primary on timeline %d", n.ID, fact.History.Timeline)
	case p.Policy.WriteVIP != "" && fact.NoVIP && p.Record.Tasks[n.ID] == nil && p.restartsInVain(n.ID) < 3:
		return p.revive(n, fmt.Sprintf("the write VIP is not on the host of node %d", n.ID))
	}
	return plan
}

// stepped is about a primary that has become a standby. When somebody else was promoted in its
// place that is the successor; else it is made primary again, unless somebody did this on purpose. Its host
// does that only for a server that was a primary when it last ran: for one that has run as a standby since,
// it would be a promotion on the timeline that it is on. So after two restarts in vain the best standby,
// which may have what it has, is promoted by way of a failover, with all that a failover waits for.
//
// Only the leader begins either. The restarts are counted in the record, so a next leader goes on where this
// one died; one that wakes late is refused by the record, and its Revive by the host.
func (p *Picture) stepped(n *Node, f finding) Plan {
	if heir := p.heir(rivalGrace); heir != nil {
		return p.succeed(heir, fmt.Sprintf("node %d has become a standby", n.ID))
	}
	why := fmt.Sprintf("node %d, the primary of epoch %d, has become a standby", n.ID, p.Record.Epoch.Number)
	if n.Fact.Streaming || !n.Fact.History.Equal(p.Record.Epoch.History) {
		return refuse(why, "it follows somebody whom nobody here can see as a primary")
	}
	if vain := p.restartsInVain(n.ID); vain >= 2 && p.Record.Tasks[n.ID] == nil {
		plan := p.cause(f, fmt.Sprintf("%s, and its host does not restart it as a primary (%d tries)", why, vain))
		if plan.Entry == nil { // a promotion by hand goes on on another timeline, which is seen (standing)
			plan.Alarm += fmt.Sprintf("; `pg_ctl promote` on the host of node %d makes it the primary again", n.ID)
		}
		return plan
	}
	return p.revive(n, why)
}

// rivalGrace is how long a primary must be gone before a node follows it that somebody promoted
// while it was alive (docs/decisions, "When two servers claim to be primary").
const rivalGrace = 30 * time.Second

// heir is a node that was promoted from outside, and whose history leads on from the epoch's; of
// several the one that descends from all others. Nil: none. The primary has been gone for gone.
func (p *Picture) heir(gone time.Duration) *Node {
	var heirs []*Node
	for i := range p.Nodes {
		n := &p.Nodes[i]
		f := &n.Fact
		if n.ID != p.Record.Epoch.Primary && p.fresh(f) && f.Role == topology.RolePrimary &&
			p.reached(n.ID) && f.SystemID == p.Record.Epoch.SystemID && f.History.Descends(p.Record.Epoch.History) &&
			(gone >= rivalGrace || p.Record.Mark(n.ID).Quarantine == "") && !p.outdone(n) {
			heirs = append(heirs, n)
		}
	}
	return newest(heirs)
}

// outdone says whether a standby that may be promoted has more of the epoch's log than a node that was promoted
// from outside: a failover chooses that one, and would refuse the other each time anew.
func (p *Picture) outdone(heir *Node) bool {
	for i := range p.Nodes {
		n := &p.Nodes[i]
		if n.ID != p.Record.Epoch.Primary && n.Fact.Role == topology.RoleStandby && p.position(n) > p.position(heir) && p.unfitKnown(n, nil) == "" {
			return true
		}
	}
	return false
}

// newest is the one whose history descends from all others'; nil when there is none.
func newest(list []*Node) *Node {
	for _, c := range list {
		best := true
		for _, o := range list {
			best = best && (o == c || c.Fact.History.Descends(o.Fact.History))
		}
		if best {
			return c
		}
	}
	return nil
}

// succeed makes a node that is primary already the one of a new epoch. It goes the way of a
// failover, because members may still hold leases of the present epoch.
func (p *Picture) succeed(heir *Node, why string) Plan {
	if p.Record.Froze != nil {
		return p.froze(why)
	}
	var c choice
	c.take(p, heir)
	return p.tryFor(c, record.Operation{Kind: record.Failover, Node: heir.ID}, fmt.Sprintf("%s, and node %d was promoted from outside", why, heir.ID))
}

func (p *Picture) froze(why string) Plan {
	by := p.Record.Froze.By
	return Plan{Why: fmt.Sprintf("%s; nothing is done: %s froze the cluster", why, by), Alarm: fmt.Sprintf("%s, and the cluster is froze by %s", why, by)}
}

// crash restarts the server on its own host when the policy wants that, as long as its budget lasts.
func (p *Picture) crash(f finding) Plan {
	n := p.primary()
	task := p.Record.Tasks[n.ID]
	switch {
	case p.Policy.OnCrash != "restart" || !n.Managed:
		return p.cause(f, f.why)
	case p.heir(f.since) != nil:
		return p.cause(f, f.why)
	case task == nil && p.hostAway(n.ID):
		return p.cause(f, f.why+"; SSH does not reach its host, so it cannot be restarted")
	case task != nil && task.Kind == record.Restart && p.taskAge(n.ID) < p.Policy.RestartBudget:
		return wait(p.Policy.RestartBudget-p.taskAge(n.ID), "%s; it is being restarted", f.why)
	case task == nil && p.restartsInVain(n.ID) == 0:
		return p.revive(n, f.why) // however long ago it crashed: the cluster may have been frozen, or without a leader
	}
	return p.cause(f, f.why+"; its restart did not help")
}

// revive begins the task that runs the epoch's primary again.
func (p *Picture) revive(n *Node, why string) Plan {
	switch {
	case p.Record.Froze != nil:
		return p.froze(why)
	case !n.Managed || p.Record.Tasks[n.ID] != nil:
		return Plan{Why: why, Alarm: why}
	}
	return p.begin(record.Operation{Kind: record.Restart, Node: n.ID}, why)
}

// lastResort restarts a crashed primary whatever on_crash says, because nothing else is left. The
// server may lack something that returns, so the pauses between the tries double.
func (p *Picture) lastResort(f finding, why string) Plan {
	const restarts = 12 // the last one an hour after the crash
	n := p.restartsInVain(p.Record.Epoch.Primary)
	if n >= restarts {
		return refuse(why, fmt.Sprintf("its restart failed %d times", n))
	}
	if due := time.Second<<n - time.Second; f.since < due {
		plan := wait(due-f.since, "%s; its restart failed %d times, the next one follows in %s", why, n, short(due-f.since))
		plan.Alarm = plan.Why
		return plan
	}
	return p.revive(p.primary(), why)
}

// restartsInVain counts the restarts of the node in this epoch that failed since one succeeded.
func (p *Picture) restartsInVain(id topology.NodeID) int {
	vain := 0
	for i := range p.Record.Past {
		o := &p.Record.Past[i]
		switch {
		case o.Kind != record.Restart || o.Node != id || o.From != p.Record.Epoch.Number:
		case o.Outcome == record.Completed:
			vain = 0
		case o.Outcome == record.Failed:
			vain++
		}
	}
	return vain
}

// taskAge is how long this leader has known the task of a node.
func (p *Picture) taskAge(id topology.NodeID) time.Duration {
	since, ok := p.TaskSince[id]
	if !ok {
		return 0
	}
	return p.Now - since
}

// alarming is how long members must disagree about the primary before an operator is told: when it dies,
// one of them learns of it before the others.
const alarming = 2 * time.Second

// unreached is about a primary that a quorum cannot reach although it lives. It may serve others;
// so this takes longer, and more voters than one host's network can hold.
func (p *Picture) unreached(f finding) Plan {
	limit := p.Policy.Unreachable
	t := p.tally(p.Record.Epoch.Primary)
	switch {
	case limit == 0:
		return Plan{Why: f.why + "; the policy is not to fail over for that", Alarm: f.why}
	case t.voters < 3:
		return Plan{Why: fmt.Sprintf("%s; it takes three voters to act against that, and there are %d", f.why, t.voters), Alarm: f.why}
	case f.since < limit:
		plan := wait(limit-f.since, "%s; a failover follows after %s", f.why, short(limit))
		if f.since >= alarming {
			plan.Alarm = f.why
		} else {
			plan.Again = alarming - f.since
		}
		return plan
	}
	return p.cause(f, f.why)
}

// cause begins a failover, or says why not.
func (p *Picture) cause(f finding, why string) Plan {
	if p.Record.Froze != nil {
		return p.froze(why)
	}
	if heir := p.heir(f.since); heir != nil {
		return p.succeed(heir, why)
	}
	t := p.tally(p.Record.Epoch.Primary)
	if t.voters == 2 && f.is == crashed && p.primary().Managed {
		return p.lastResort(f, why+"; two voters do not fail over by themselves")
	}
	if t.voters == 2 {
		return refuse(why, "two voters do not fail over by themselves: add a witness, or use `cstproxy ctl failover`")
	}
	if left := p.Policy.AntiFlap - (p.Now - p.EpochSince); p.EpochSince != 0 && left > 0 && p.madeBy(record.Failover) {
		if f.is == crashed && p.primary().Managed {
			return p.lastResort(f, fmt.Sprintf("%s; the last failover was %s ago", why, short(p.Now-p.EpochSince)))
		}
		plan := refuse(why, fmt.Sprintf("the last failover was %s ago, the next one may begin after %s; `cstproxy ctl failover` does it now", short(p.Now-p.EpochSince), short(p.Policy.AntiFlap)))
		plan.Again = left
		return plan
	}
	return p.attempt(f, why)
}

// attempt begins a failover when there is somebody who might be promoted.
func (p *Picture) attempt(f finding, why string) Plan {
	c := p.choose(nil)
	if c.node == nil {
		why += fmt.Sprintf("; nobody can be promoted: %s", join(c.refused))
		if way := p.lastWay(); way != "" {
			why += "; " + way
		}
		if f.is == crashed {
			return p.lastResort(f, why)
		}
		return Plan{Why: why, Alarm: why}
	}
	return p.tryFor(c, record.Operation{Kind: record.Failover}, why)
}

// tryFor begins the failover o, as whose end c is foreseen. After attempts that came to nothing it takes
// somebody who could be promoted by all that is known, and ever more time.
func (p *Picture) tryFor(c choice, o record.Operation, why string) Plan {
	n, waits := p.attempts()
	if n == 0 {
		return p.begin(o, why)
	}
	if waits != "" {
		var known []topology.NodeID
		for i := range p.Nodes {
			if m := &p.Nodes[i]; m.Managed && p.fresh(&m.Fact) && m.ID != p.Record.Epoch.Primary {
				known = append(known, m.ID)
			}
		}
		if against := p.lossy(c, known); against != "" {
			return refuse(why, waits)
		}
	}
	pause := time.Duration(0)
	if n > 1 {
		pause = min(time.Second<<min(n-2, 10), time.Minute)
	}
	if idle := p.Now - p.StepSince; idle < pause {
		plan := wait(pause-idle, "%s; %d attempts have failed, the next one begins in %s", why, n, short(pause-idle))
		plan.Alarm = plan.Why
		return plan
	}
	return p.begin(o, why)
}

// attempts counts the failovers of this epoch that promoted nobody, and says what the newest one
// waits for.
func (p *Picture) attempts() (n int, waits string) {
	for i := range p.Record.Past {
		o := &p.Record.Past[i]
		if o.Kind != record.Failover || o.From != p.Record.Epoch.Number {
			continue
		}
		n, waits = n+1, ""
		if o.Outcome == record.Waits {
			waits = o.Note
		}
	}
	return n, waits
}

// madeBy says whether the present epoch was made by an operation of that kind.
func (p *Picture) madeBy(kind record.Kind) bool {
	for i := range p.Record.Past {
		if o := &p.Record.Past[i]; o.ID == p.Record.Epoch.Operation {
			return o.Kind == kind && p.automatic(o)
		}
	}
	return false
}

func refuse(why, because string) Plan {
	return Plan{Why: why + "; " + because, Alarm: why + "; " + because}
}
