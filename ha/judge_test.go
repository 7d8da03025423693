package ha

import (
	"strings"
	"testing"
	"time"

	"github.com/cstproxy/cstproxy/ha/pgnode"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// world is three servers a, b, c (nodes 1, 2, 3) of system 7 that a story moves about.
type world struct {
	t      *testing.T
	now    time.Time
	facts  []fact
	known  standing
	last   verdict
	bytes  int64 // the lag limit
	ruling *Ruling
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, bytes: 1 << 20, now: time.Unix(1_700_000_000, 0), facts: make([]fact, 3)}
	for i := range w.facts {
		w.facts[i] = fact{node: topology.Node{ID: topology.NodeID(i + 1), Weight: 1}, slot: i}
	}
	return w
}

func (w *world) node(id int) *fact { return &w.facts[id-1] }

// history is timeline t, reached by leaving each older one at 0x1000 times its number.
func history(t topology.Timeline) topology.History {
	h := topology.History{Timeline: t}
	for o := topology.Timeline(1); o < t; o++ {
		h.Forks = append(h.Forks, topology.Fork{Timeline: o, End: topology.LSN(o) * 0x1000})
	}
	return h
}

func (w *world) up(id int, role topology.Role, h topology.History, at topology.LSN) {
	o := pgnode.Observation{Role: role, SystemID: 7, Timeline: h.Timeline, History: h, Receiver: "streaming"}
	if role == topology.RolePrimary {
		o.Insert, o.Write, o.Flush = at, at, at
	} else {
		o.Receive, o.Replay = at, at
	}
	w.node(id).pulse = pulse{condition: conditionUp, seen: w.now, tried: w.now, observed: o}
}

func (w *world) primary(id int, t topology.Timeline, at topology.LSN) {
	w.up(id, topology.RolePrimary, history(t), at)
}

func (w *world) standby(id int, t topology.Timeline, at topology.LSN) {
	w.up(id, topology.RoleStandby, history(t), at)
}

func (w *world) is(id int, c condition, why string) {
	p := &w.node(id).pulse
	p.condition, p.why, p.tried = c, why, w.now
}

// judge lets a second pass and judges.
func (w *world) judge() verdict {
	w.now = w.now.Add(time.Second)
	v := judge(picture{facts: w.facts, known: w.known, limits: limits{bytes: w.bytes, time: 10 * time.Second}, grace: 30 * time.Second, now: w.now, ruling: w.ruling})
	w.known, w.last = v.known, v
	for i := range w.facts {
		h := v.nodes[i].Health
		w.facts[i].lagging = h == topology.Lagging || h == topology.NotStreaming
	}
	return v
}

// expect judges and compares the primary, the epoch and the health of a, b, c in one line.
func (w *world) expect(when string, primary topology.NodeID, epoch topology.Epoch, health string) {
	w.t.Helper()
	v := w.judge()
	var list []string
	for i := range v.nodes {
		list = append(list, v.nodes[i].Health.String())
	}
	got := strings.Join(list, ", ")
	if v.primary != primary || v.known.epoch != epoch || got != health {
		w.t.Errorf("%s: primary %d, epoch %d, %s; want %d, %d, %s (%s)", when, v.primary, v.known.epoch, got, primary, epoch, health, v.why)
	}
	if (v.primary == 0) != (v.why != "") {
		w.t.Errorf("%s: primary %d with the reason %q", when, v.primary, v.why)
	}
}

func (w *world) alarmed(when, about string) {
	w.t.Helper()
	if !strings.Contains(w.last.alarm, about) || about == "" && w.last.alarm != "" {
		w.t.Errorf("%s: alarm %q, want one about %q", when, w.last.alarm, about)
	}
}

// normal is a as primary with two standbys, accepted.
func normal(t *testing.T) *world {
	w := newWorld(t)
	w.primary(1, 1, 0x1000)
	w.standby(2, 1, 0x1000)
	w.standby(3, 1, 0x1000)
	w.expect("normal", 1, 1, "healthy, healthy, healthy")
	w.alarmed("normal", "")
	return w
}

func TestNobodyIsPrimaryBeforeAllNodesWereProbed(t *testing.T) {
	w := newWorld(t)
	w.expect("nothing probed", 0, 0, "unknown, unknown, unknown")
	w.primary(1, 1, 0x1000)
	w.standby(2, 1, 0x1000)
	w.expect("one is missing", 0, 0, "unknown, unknown, unknown")
	w.is(3, conditionDown, "no answer")
	w.expect("all probed", 1, 1, "healthy, healthy, down")
}

func TestStandbysServeWithoutAPrimary(t *testing.T) {
	w := newWorld(t)
	w.is(1, conditionDown, "connection refused")
	w.standby(2, 1, 0x1000)
	w.standby(3, 1, 0x900)
	w.expect("never a primary", 0, 0, "down, healthy, healthy")
	w.node(3).pulse.observed.SystemID = 8
	w.expect("two systems", 0, 0, "down, foreign, foreign")
}

func TestThePrimaryOfAnEpochMayComeBack(t *testing.T) {
	w := normal(t)
	w.is(1, conditionSuspect, "no answer")
	w.expect("one failed probe", 1, 1, "healthy, healthy, healthy")
	w.is(1, conditionDeaf, "takes no new connections")
	w.expect("deaf but answering", 1, 1, "healthy, healthy, healthy")
	w.is(2, conditionDeaf, "takes no new connections")
	w.expect("a deaf standby", 1, 1, "healthy, down, healthy")
	w.standby(2, 1, 0x1000)
	w.is(1, conditionFull, "too many clients")
	w.expect("full", 1, 1, "healthy, healthy, healthy")
	w.is(1, conditionDown, "connection refused")
	w.expect("down", 0, 1, "down, healthy, healthy")
	w.is(1, conditionStarting, "the database system is starting up")
	w.expect("starting", 0, 1, "starting, healthy, healthy")
	w.primary(1, 1, 0x1100)
	w.expect("back", 1, 1, "healthy, healthy, healthy")
	w.primary(1, 2, 0x1200)
	w.expect("back on another timeline", 1, 2, "healthy, healthy, healthy")
}

func TestAPromotionAfterThePrimarysDeathIsFollowed(t *testing.T) {
	w := normal(t)
	w.primary(1, 1, 0x1800)
	w.judge()
	w.is(1, conditionDown, "connection refused")
	w.expect("dead", 0, 1, "down, healthy, healthy")
	w.primary(2, 2, 0x1100)
	w.expect("promoted", 2, 2, "down, healthy, healthy")
	if !strings.Contains(w.last.reason, "2048 bytes") {
		t.Errorf("reason %q does not say what is lost", w.last.reason)
	}
	w.standby(3, 1, 0x1001)
	w.expect("c has more than b kept", 2, 2, "down, healthy, foreign")
	w.standby(3, 2, 0x1100)
	w.expect("c follows", 2, 2, "down, healthy, healthy")
	w.primary(1, 1, 0x1800)
	w.expect("a returns as it was", 2, 2, "foreign, healthy, healthy")
	w.alarmed("a returns", "node 1")
	w.is(2, conditionDown, "connection refused")
	w.expect("b dies", 0, 2, "foreign, down, healthy")
	w.alarmed("b dies", "not known to descend")
	w.standby(1, 1, 0x1800)
	w.expect("a is a standby ahead of the fork", 0, 2, "foreign, down, healthy")
	w.standby(1, 2, 0x1800)
	w.primary(2, 2, 0x1800)
	w.expect("a follows", 2, 2, "healthy, healthy, healthy")
}

func TestAPromotionBesideALivingPrimaryIsNotFollowed(t *testing.T) {
	w := normal(t)
	w.primary(2, 2, 0x1100)
	w.expect("b promoted", 1, 1, "healthy, foreign, healthy")
	w.alarmed("b promoted", "node 2 claims")
	w.now = w.now.Add(time.Second)
	w.primary(1, 1, 0x1100)
	w.standby(3, 2, 0x1100)
	w.expect("c follows b", 1, 1, "healthy, foreign, foreign")
	w.is(1, conditionDown, "connection refused")
	w.expect("a restarts", 0, 1, "down, foreign, foreign")
	w.alarmed("a restarts", "was promoted while node 1 was alive")
	w.primary(1, 1, 0x1100)
	w.expect("a is back", 1, 1, "healthy, foreign, foreign")
	w.is(1, conditionDown, "connection refused")
	w.expect("a dies", 0, 1, "down, foreign, foreign")
	w.now = w.now.Add(30 * time.Second)
	w.expect("a stays dead", 2, 2, "down, healthy, healthy")
}

func TestARivalIsFollowedAtOnceWhenThePrimaryGivesUp(t *testing.T) {
	w := normal(t)
	w.primary(2, 2, 0x1100)
	w.expect("b promoted", 1, 1, "healthy, foreign, healthy")
	w.now = w.now.Add(time.Second)
	w.primary(1, 1, 0x1000)
	w.expect("a still there", 1, 1, "healthy, foreign, healthy")
	w.standby(1, 1, 0x1000)
	w.expect("a became a standby", 2, 2, "healthy, healthy, healthy")
}

// The primary's host falls silent; somebody promotes b before the silence has lasted long enough
// for us. That is no rivalry: a has not answered since.
func TestAPromotionDuringThePrimarysSilenceIsFollowed(t *testing.T) {
	w := normal(t)
	w.primary(2, 2, 0x1100)
	w.expect("b promoted, a not missed yet", 1, 1, "healthy, foreign, healthy")
	w.is(1, conditionSuspect, "no answer")
	w.expect("a missed once", 1, 1, "healthy, foreign, healthy")
	w.is(1, conditionDown, "no answer")
	w.expect("a down", 2, 2, "down, healthy, healthy")
}

func TestTwoPromotionsOfTheSameNumberAreNotMistakenForOne(t *testing.T) {
	w := normal(t)
	w.is(1, conditionDown, "connection refused")
	w.judge()
	w.primary(2, 2, 0x1100)
	w.up(3, topology.RolePrimary, topology.History{Timeline: 2, Forks: []topology.Fork{{Timeline: 1, End: 0x800}}}, 0x1100)
	w.expect("both promoted", 0, 1, "down, foreign, foreign")
	w.alarmed("both promoted", "2 nodes claim")
	w.node(3).pulse.observed.Role = topology.RoleStandby
	w.node(3).pulse.observed.Replay = 0x1100
	w.expect("c a standby of the other branch", 2, 2, "down, healthy, foreign")
}

func TestAnUnrelatedBranchIsNeverFollowed(t *testing.T) {
	w := newWorld(t)
	w.primary(1, 3, 0x3000)
	w.standby(2, 3, 0x3000)
	w.standby(3, 3, 0x3000)
	w.expect("on timeline 3", 1, 1, "healthy, healthy, healthy")
	w.is(1, conditionDown, "connection refused")
	w.judge()
	w.up(2, topology.RolePrimary, topology.History{Timeline: 4, Forks: []topology.Fork{{Timeline: 1, End: 0x1000}}}, 0x3000)
	w.expect("b from an old backup", 0, 1, "down, foreign, healthy")
	w.up(2, topology.RolePrimary, topology.History{Timeline: 4}, 0x3000)
	w.expect("b's history cannot be read", 0, 1, "down, foreign, healthy")
	w.primary(2, 5, 0x5000)
	w.expect("b two promotions further", 2, 2, "down, healthy, healthy")
}

func TestARestartTrustsTheFileOnlyAsFarAsItGoes(t *testing.T) {
	file := func(rivals map[topology.NodeID]rival) standing {
		return standing{epoch: 4, primary: 1, system: 7, history: history(1), rivals: rivals}
	}
	w := newWorld(t)
	w.known = file(nil)
	w.primary(1, 1, 0x1800)
	w.primary(2, 2, 0x2000)
	w.standby(3, 2, 0x2000)
	w.expect("a failover happened meanwhile", 2, 5, "foreign, healthy, healthy")

	w = newWorld(t)
	w.known = file(map[topology.NodeID]rival{2: {timeline: 2, outlived: true}})
	w.primary(1, 1, 0x1800)
	w.primary(2, 2, 0x2000)
	w.standby(3, 1, 0x1800)
	w.expect("b was a rival before", 1, 4, "healthy, foreign, healthy")

	w = newWorld(t)
	w.known = file(nil)
	for id := 1; id <= 3; id++ {
		w.standby(id, 1, 0x1000)
		w.node(id).pulse.observed.SystemID = 8
	}
	w.node(2).pulse.observed.Role = topology.RolePrimary
	w.expect("the cluster was built anew", 2, 5, "healthy, healthy, healthy")

	w = newWorld(t)
	w.known = file(nil)
	w.known.primary = 9
	w.primary(3, 1, 0x1800)
	w.standby(1, 1, 0x1800)
	w.standby(2, 1, 0x1800)
	w.expect("the primary has moved to another address", 3, 5, "healthy, healthy, healthy")
}

func TestHistoryThatCannotBeReadCostsOnlyTheStragglers(t *testing.T) {
	w := newWorld(t)
	unread := topology.History{Timeline: 2}
	w.up(1, topology.RolePrimary, unread, 0x2000)
	w.up(2, topology.RoleStandby, unread, 0x2000)
	w.standby(3, 1, 0x1000)
	w.expect("c on the old timeline", 1, 1, "healthy, healthy, foreign")
	w.is(1, conditionDown, "connection refused")
	w.judge()
	w.primary(2, 3, 0x3000)
	w.expect("b promoted, its history can be read", 2, 2, "down, healthy, healthy")
}

func TestLagTakesAStandbyOutWithHysteresis(t *testing.T) {
	w := normal(t)
	w.bytes = 1000
	for _, s := range []struct {
		lag      lag
		receiver string
		want     string
	}{
		{lag{true, 1000, 10 * time.Second}, "streaming", "healthy"},
		{lag{true, 1001, 0}, "streaming", "lagging"},
		{lag{true, 501, 0}, "streaming", "lagging"},
		{lag{true, 500, 5 * time.Second}, "streaming", "healthy"},
		{lag{true, 0, 11 * time.Second}, "streaming", "lagging"},
		{lag{true, 0, 6 * time.Second}, "", "not streaming"},
		{lag{true, 0, 5 * time.Second}, "", "healthy"},
	} {
		w.node(2).lag, w.node(2).pulse.observed.Receiver = s.lag, s.receiver
		if got := w.judge().nodes[1].Health.String(); got != s.want {
			t.Errorf("lag %+v: %s, want %s", s.lag, got, s.want)
		}
	}
	w.node(2).lag = lag{}
	w.standby(2, 1, 0x100)
	w.expect("before the first round the observations count", 1, 1, "healthy, lagging, healthy")
}

func TestAnOperatorsOrderHidesNoDanger(t *testing.T) {
	w := normal(t)
	w.node(1).order = orderDetached
	w.node(2).order = orderDetached
	w.node(3).order = orderDraining
	w.expect("ordered", 1, 1, "detached, detached, draining")
	w.node(2).pulse.observed.SystemID = 9
	w.is(3, conditionDown, "connection refused")
	w.expect("worse than ordered", 1, 1, "detached, foreign, down")
}
