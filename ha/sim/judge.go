package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// Failure is an invariant that a run broke.
type Failure struct {
	Invariant string // "I1" to "I12", or "model" when the world itself is wrong
	What      string
	At        time.Duration
}

// ack is a write that a client was told is committed.
type ack struct {
	epoch  topology.Epoch
	member *member
	at     time.Duration
}

// judge sees everything, the processes that are stopped or cut off included, and says when an
// invariant is broken. It remembers the first one.
type judge struct {
	w         *world
	failure   *Failure
	alarm     string
	primaries map[topology.Epoch]*node // who was promoted for an epoch
	newest    topology.Epoch           // the highest of them
	acks      map[int]ack
	ackEpoch  topology.Epoch // the highest epoch in which a write was acknowledged
	served    map[*member]time.Duration
	lastAck   time.Duration
	stall     time.Duration   // the longest time between two of them
	executed  map[*node]token // the highest that ran there
	fine      time.Duration   // since when the primary is; below 0: it is not
	operated  time.Duration   // when an operator last acted
	twoVIPs   time.Duration   // since when two hosts hold it and the leader reaches both; below 0: they do not
	helped    int             // how often an operator had to act at the end
	proved    int             // reads with a ticket that standbys answered
	struck    map[int]bool    // which faults that wait for a step have happened
}

func (j *judge) fail(invariant, what string) {
	if j.failure != nil {
		return
	}
	j.failure = &Failure{invariant, what, j.w.now}
	j.w.trace("%s BROKEN: %s", invariant, what)
}

func (j *judge) strict() bool { return j.w.plan.sync.Count > 0 }

// acknowledged: I1 and, with synchronous replication, I2 for a success that comes late.
func (j *judge) acknowledged(m *member, t *turn) {
	w := j.w
	if t.epoch < j.ackEpoch {
		j.fail("I1", fmt.Sprintf("%s tells a client that write %d of epoch %d is committed, after one of epoch %d was", m.name, t.id, t.epoch, j.ackEpoch))
	}
	j.ackEpoch = max(j.ackEpoch, t.epoch)
	if len(j.acks) > 0 {
		j.stall = max(j.stall, w.now-j.lastAck)
	}
	j.lastAck = w.now
	j.acks[t.id] = ack{t.epoch, m, w.now}
	j.served[m] = w.now
	if !hasWrite(t.node.wal, t.id) {
		j.fail("I10", fmt.Sprintf("%s tells a client that write %d is committed, but %s has no such record", m.name, t.id, t.node.name()))
	}
	if n := j.primaries[j.newest]; j.strict() && n != nil && j.newest > t.epoch && !j.outdated(n, j.newest) && !hasWrite(n.wal, t.id) {
		j.fail("I2", fmt.Sprintf("write %d of epoch %d is acknowledged by %s and is not on %s, promoted for epoch %d", t.id, t.epoch, m.name, n.name(), j.newest))
	}
}

// hasWrite looks from the end: what is asked for is mostly new.
func hasWrite(log []walRecord, id int) bool {
	for i := len(log) - 1; i >= 0; i-- {
		if log[i].write == id {
			return true
		}
	}
	return false
}

// answer is what a client is given to read.
type answer struct {
	member  *member
	session session // as it was when the read began
	node    *node
	log     []walRecord // what the node had replayed
	must    []int       // the writes that have to be there, by rising number
}

// read: I11. Of the writes only the newest is asked for that the primary of the present epoch has:
// what an asynchronous failover has lost is nobody's to show.
func (j *judge) read(a answer) {
	s, n := &a.session, a.node
	if s.ticket != (topology.Ticket{}) && !n.primary {
		j.proved++
	}
	for _, id := range slices.Backward(a.must) {
		switch {
		case hasWrite(a.log, id):
			return
		case hasWrite(j.lineage(), id):
			j.fail("I11", fmt.Sprintf("a %s of %s, with ticket %v, reads from %s (%s, replayed %s of %s) without write %d, of which it was told", s.name(), a.member.name, s.ticket, n.name(), n.roleName(), position(len(a.log)), n.end(), id))
			return
		}
	}
}

// missing are acknowledged writes that a log lacks.
func (j *judge) missing(log []walRecord) []int {
	there := make(map[int]struct{}, len(log))
	for _, r := range log {
		there[r.write] = struct{}{}
	}
	var list []int
	for id := range j.acks {
		if _, ok := there[id]; !ok {
			list = append(list, id)
		}
	}
	slices.Sort(list)
	return list
}

// promoting is called when a server turns into a primary by the fleet's order.
func (j *judge) promoting(n *node, epoch topology.Epoch) {
	if epoch == 0 {
		return // by hand
	}
	if other := j.primaries[epoch]; other != nil && other != n {
		j.fail("I3", fmt.Sprintf("%s and %s are both promoted for epoch %d", other.name(), n.name(), epoch))
	}
	if j.outdated(n, epoch) {
		return
	}
	for _, m := range j.w.members {
		if m.process.alive && m.holder.Epoch() < epoch && m.holder.Held(m.now()) {
			j.fail("I1", fmt.Sprintf("%s becomes primary of epoch %d while %s may route writes of epoch %d", n.name(), epoch, m.name, m.holder.Epoch()))
		}
	}
	if j.accepted(epoch) {
		j.forgive(n)
	}
	if lost := j.missing(n.wal); j.strict() && len(lost) > 0 {
		j.fail("I2", fmt.Sprintf("%s becomes primary of epoch %d without %d acknowledged writes, the first is %d", n.name(), epoch, len(lost), lost[0]))
	}
	j.primaries[epoch], j.newest = n, max(j.newest, epoch)
}

// forgive takes the writes that an operator gave up with n: from now on nobody has to have them. A success of the
// old epoch that comes later is another thing.
func (j *judge) forgive(n *node) {
	for _, id := range j.missing(n.wal) {
		delete(j.acks, id)
	}
}

// outdated says whether the record has gone on without the promotion that is being executed: a
// server that becomes primary now belongs to no epoch, and nobody routes to it.
func (j *judge) outdated(n *node, epoch topology.Epoch) bool {
	c := j.w.truth()
	if c.Epoch.Number >= epoch {
		return c.Epoch.Number > epoch || c.Epoch.Primary != n.id
	}
	return c.Operation == nil || c.Operation.To != epoch || c.Operation.Step == record.Undo
}

func (j *judge) accepted(epoch topology.Epoch) bool {
	o := j.w.truth().Operation
	return o != nil && o.To == epoch && o.Accept == record.AcceptLoss
}

// deciding: I4, at the moment when a leader proposes a candidate: of those that are cut off and fit,
// none has received more. That is I2's promise for asynchronous replication, too.
func (j *judge) deciding(l *leadership, p *decide.Picture, e *record.Entry) {
	a := e.Advance
	if a == nil || a.To.Step != record.Promote || a.From == record.Promote || a.To.Accept == record.AcceptLoss || j.w.plan.without == Recruit {
		return
	}
	chosen := j.w.node(a.To.Candidate)
	if c := &p.Record; !j.w.plan.settingsSuffice(chosen.id) && settingsKnown(p, c.Epoch.Primary) && j.w.plan.settingsSuffice(c.Epoch.Primary) && a.To.By != operator {
		j.fail("I4", fmt.Sprintf("%s is to be promoted for epoch %d with a lower max_connections than the primary's", chosen.name(), a.To.To))
	}
	for i := range p.Nodes {
		n := &p.Nodes[i]
		f := n.Fact
		recent := j.strict() || p.Now-f.At <= 2*p.Policy.Lease
		fits := recent && f.Recruited == a.To.To && !f.Streaming && f.Role == topology.RoleStandby && f.Complete && !n.NoFailover && slices.Contains(p.Record.Epoch.Eligible, n.ID)
		if n.ID == chosen.id {
			if !fits && a.To.Kind == record.Failover && f.Role != topology.RolePrimary { // who is one already was promoted by hand
				j.fail("I4", fmt.Sprintf("%s is to be promoted for epoch %d: %s", chosen.name(), a.To.To, describe(n)))
			}
			continue
		}
		other := j.w.node(n.ID)
		if fits && a.To.Node == 0 && f.SystemID == p.Record.Epoch.SystemID && j.w.plan.settingsSuffice(n.ID) &&
			recordsTo(f.Receive) > shared(chosen.wal, other.wal) && shared(j.lineage(), other.wal) == recordsTo(f.Receive) {
			j.fail("I4", fmt.Sprintf("%s is to be promoted for epoch %d, but %s has received more: %s", chosen.name(), a.To.To, other.name(), f.Receive))
		}
	}
}

// settingsKnown says whether anybody knows with which settings a node ran.
func settingsKnown(p *decide.Picture, id topology.NodeID) bool {
	return slices.ContainsFunc(p.Nodes, func(n decide.Node) bool { return n.ID == id && n.Fact.Settings.MaxConnections > 0 })
}

// lineage is the log of the present epoch's primary.
func (j *judge) lineage() []walRecord {
	if n := j.w.node(j.w.truth().Epoch.Primary); n != nil {
		return n.wal
	}
	return nil
}

func describe(n *decide.Node) string {
	f := n.Fact
	return fmt.Sprintf("role %s, streaming %t, recruited for epoch %d, complete %t, nofailover %t", f.Role, f.Streaming, f.Recruited, f.Complete, n.NoFailover)
}

// acting: I5, when an action begins on a host.
func (j *judge) acting(job *job) {
	a, c, n := job.action, j.w.truth(), job.n
	j.w.trace("%s: %s of (%d, %s) %s", n.name(), a.Verb, a.Epoch, a.Step, a.Mode)
	before := j.executed[n]
	if before.below(job.token) {
		j.executed[n] = job.token
	}
	switch a.Verb {
	case decide.Recruit, decide.Release, decide.Stop, decide.PromoteIt, decide.Follow, decide.Rewind, decide.Rebuild, decide.Revive:
	default:
		return
	}
	if a.Epoch < c.Epoch.Number && n.id == c.Epoch.Primary && n.primary || job.token.below(before) {
		j.fail("I5", fmt.Sprintf("%s of (%d, %s) runs on %s after an action of (%d, %s) did; epoch %d is current", a.Verb, a.Epoch, a.Step, n.name(), before.epoch, before.step, c.Epoch.Number))
	}
}

// wiping: I6, when a rewind or a rebuild takes a directory's log away.
func (j *judge) wiping(n, source *node, a decide.Action) {
	c := j.w.truth()
	switch {
	case n.id == c.Epoch.Primary:
		j.fail("I6", fmt.Sprintf("%s of %s, which is the primary of epoch %d", a.Verb, n.name(), c.Epoch.Number))
	case source.id != c.Epoch.Primary || !source.primary:
		j.fail("I6", fmt.Sprintf("%s of %s from %s, which is not the primary of epoch %d", a.Verb, n.name(), source.name(), c.Epoch.Number))
	case j.strict():
		for _, r := range n.wal {
			if _, acked := j.acks[r.write]; acked && r.write != 0 && !hasWrite(source.wal, r.write) {
				j.fail("I6", fmt.Sprintf("%s of %s from %s, which lacks write %d", a.Verb, n.name(), source.name(), r.write))
				return
			}
		}
	}
}

// twins: I3, when a server is to go on from a log that differs from its own in nothing but the content.
func (j *judge) twins(n, source *node) {
	j.fail("I3", fmt.Sprintf("%s goes on from %s on timeline %s, which two promotions made from the same position: nothing notices that their logs differ", n.name(), source.name(), n.history.Timeline))
}

// committed: I3 and I8, when an entry counts for the first time.
func (j *judge) committed(change stateChange) {
	w, e := j.w, change.entry
	if change.err != nil {
		w.trace("log: %v", change.err)
		return
	}
	before, after := clusterOf(change.before), clusterOf(change.after)
	w.traceEntry(e)
	if after.Epoch.Number < before.Epoch.Number || after.LastEpoch < before.LastEpoch {
		j.fail("I3", fmt.Sprintf("epoch %d follows epoch %d", after.Epoch.Number, before.Epoch.Number))
	}
	if b := e.Begin; b != nil && b.Operation.Kind == record.Failover && b.Operation.By != operator && j.fine >= 0 && w.now-j.fine > patientWithPrimary && j.primaryIsFine() {
		j.fail("I8", fmt.Sprintf("failover begins (%s) although the primary n%d has been well and within reach of a majority for %s", b.Operation.Why, before.Epoch.Primary, w.now-j.fine))
	}
	if a := e.Advance; a != nil {
		w.strikeAt(a.To.Step, a.From)
		if n := w.node(a.To.Candidate); n != nil && n.primary && a.To.Step == record.Promote && a.To.Accept == record.AcceptLoss {
			j.forgive(n) // it was promoted by hand, and promoting is not called
		}
	}
	if e.Begin != nil {
		w.strikeAt(record.Intent, 0)
	}
}

// stateChange is one entry that was applied for the first time.
type stateChange struct {
	before, after *record.State
	entry         *record.Entry
	err           error
}

// patientWithPrimary is how long a primary may be well while a failover that it was not begins.
const patientWithPrimary = 6 * time.Second

// watch looks at the world ten times a second: I8's memory, and I9.
func (j *judge) watch() {
	w := j.w
	switch ok := j.primaryIsFine(); {
	case !ok:
		j.fine = -1
	case j.fine < 0:
		j.fine = w.now
	}
	switch {
	case !j.contact():
		j.twoVIPs = -1
	case j.twoVIPs < 0:
		j.twoVIPs = w.now
	case w.now-j.twoVIPs > patientWithVIPs:
		j.fail("I9", fmt.Sprintf("two hosts have held the write VIP for %s although the leader reaches both", w.now-j.twoVIPs))
	}
	w.schedule(100*time.Millisecond, nil, j.watch)
}

// patientWithVIPs is how long a leader may take to notice and to act, the time of its own election
// included.
const patientWithVIPs = 10 * time.Second

// contact says whether two hosts hold the VIP and the leader could do something about it.
func (j *judge) contact() bool {
	m := j.w.leader()
	if m == nil || m.leading == nil || !m.process.running() || j.w.truth().Froze != nil {
		return false
	}
	holders := 0
	for _, n := range j.w.nodes {
		if n.host.vip && n.host.sshd.running() && j.w.net.bothWays(m.host, n.host) {
			holders++
		}
	}
	return holders > 1
}

// primaryIsFine says whether a majority of the members can work with the primary.
func (j *judge) primaryIsFine() bool {
	w := j.w
	n := w.node(w.truth().Epoch.Primary)
	if n == nil || !n.taking() || !n.primary || n.hung || n.crowded || n.host.sshd.stopped || w.net.loss > 0 || w.net.extra > 50*time.Millisecond {
		return false
	}
	reach := 0
	for _, m := range w.members {
		if m.process.running() && w.net.bothWays(m.host, n.host) {
			reach++
		}
	}
	return reach >= w.quorum()
}
