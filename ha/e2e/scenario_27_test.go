package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

const (
	aDay  = 24 * time.Hour
	aYear = 365 * aDay
)

// wrongClocks is a fleet of three whose members' wall clocks can be set; m3's is a year late from the
// start, as that of a machine whose battery is empty.
func wrongClocks(t *testing.T, more Layout) *Fleet {
	t.Helper()
	slow(t)
	needs(t)
	buildWithClock(t)
	l := New(t, Options{Hosts: []string{"m1", "m2", "m3", "c1"}})
	hosts := []*Host{l.Host("m1"), l.Host("m2"), l.Host("m3")}
	hosts[0].SetClock(0)
	hosts[1].SetClock(0)
	hosts[2].SetClock(-aYear)
	more.Members, more.Nodes = hosts, l.Postgres(nil, hosts...)
	f := newFleet(l, more)
	f.shows(t, f.memberOn(hosts[2]), -aYear)
	return f
}

// shows sees to it that a member's clock is as wrong as it is meant to be: else nothing is tried.
func (f *Fleet) shows(t *testing.T, m *Member, wrong time.Duration) {
	t.Helper()
	said := m.clock(t)
	if off := said.Sub(time.Now().Add(wrong)).Abs(); off > time.Minute {
		t.Fatalf("the clock of %s shows %s, want about %s", m.Name, said, time.Now().Add(wrong))
	}
}

// Nothing that a fleet decides, and nothing that a client waits for, depends on the time of day.
func TestClocksThatJumpChangeNothing(t *testing.T) {
	f := wrongClocks(t, Layout{Cluster: virtual})
	load := usual(f.way(f.members[2]))
	load.Readers, load.Pinned, load.Blocks = 2, 2, 2
	s := enact(t, f, load)
	s.also(f.lab.Host("c1"), usual(f.way(f.members[0])))
	s.also(f.lab.Host("c1"), usual(f.way(f.members[1])))
	leader := f.leads()
	if leader == nil {
		t.Fatal("nobody leads")
	}
	follower := f.members[0]
	if follower == leader {
		follower = f.members[1]
	}
	s.happens(func() {})
	for _, m := range []*Member{follower, leader} {
		for _, wrong := range []time.Duration{time.Hour, -time.Hour, aDay, -aDay, 0} {
			m.SetClock(wrong)
			f.shows(t, m, wrong)
			s.awaitWrites("writes after the jump", time.Now().Add(time.Second))
		}
	}
	for _, l := range f.log(s.event) {
		if l.Msg == "leads" || l.Msg == "leads no more" || strings.Contains(l.Raw, "lapsed") {
			t.Errorf("%s says: %s", l.Member.Name, l.Raw)
		}
	}
	s.ends(epochUnchanged, nothingIsLost, operationsEnd, noClientWasTold, idleClientsStay)
}

// The leader's clock jumps there and back while it replaces a primary whose host is gone.
func TestAFailoverGoesOnWhileTheLeadersClockJumps(t *testing.T) {
	f := wrongClocks(t, Layout{Cluster: virtual})
	primary := f.awaitWhole(t, patience)
	leader := f.members[1]
	if leader.Host == primary.Host {
		leader = f.members[0]
	}
	f.awaitLeader(t, leader)
	load := usual(f.way(leader))
	load.Readers, load.Pinned = 2, 2
	s := enact(t, f, load)
	s.happens(s.former.PowerOff)
	leader.SetClock(aDay)
	s.awaitSaid(time.Minute, "operation", "fence")
	leader.SetClock(-aDay)
	s.awaitSuccessor()
	leader.SetClock(time.Hour)
	s.former.PowerOn()
	s.former.SetClock(-time.Hour)
	f.memberOn(s.former.Host).Start()
	f.memberOn(s.former.Host).AwaitReady()
	f.awaitWhole(t, 2*time.Minute)
	s.ends(oneEpochMore, nobodyWasAhead, idleClientsStay, operationsEnd)
}

// clock is what the member takes for the time of day: its answers to HTTP are dated.
func (m *Member) clock(t *testing.T) time.Time {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DialContext: m.Dial, DisableKeepAlives: true}, Timeout: patience}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+m.at(adminPort)+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := client.Do(request)
	if err != nil {
		t.Fatalf("ask %s for the time: %v", m.Name, err)
	}
	defer answer.Body.Close()
	said, err := http.ParseTime(answer.Header.Get("Date"))
	if err != nil {
		t.Fatalf("ask %s for the time: %v", m.Name, err)
	}
	return said
}

// A lease that was granted before the clock went back is not longer for that: a member that is left alone
// with the primary stops acknowledging before another one is promoted.
func TestALeaseEndsInTimeAlthoughTheClockWentBack(t *testing.T) {
	slow(t)
	needs(t)
	buildWithClock(t)
	l, f := apart(t, Layout{Cluster: virtual})
	alone := f.members[0]
	alone.Kill()
	alone.SetClock(0)
	alone.Start()
	alone.AwaitReady()
	load := usual(f.way(f.members[1]))
	load.Readers = 1
	s := enact(t, f, load)
	inside := s.also(l.Host("c2"), Load{Way: Way{Addrs: f.way(alone).Addrs[:1]}, Writers: 4, Pause: 10 * time.Millisecond, Idle: 5})
	alone.SetClock(-aDay)
	f.shows(t, alone, -aDay)
	s.awaitWrites("writes after the jump", time.Now().Add(time.Second))
	s.happens(func() { l.Partition(l.some("d1", "m1", "c2"), l.some("d2", "d3", "m2", "m3", "c1")) })
	now := s.awaitSuccessor()
	s.heals(now, inside)
	s.heldBy(writeVIP, now.Host)
	s.ends(idleClientsStay, operationsEnd, nobodyWasAhead, oneEpochMore)
}
