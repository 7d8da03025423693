package e2e

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"
)

// apart is a fleet whose members and servers are on hosts of their own: d1 to d3 and m1 to m3. Clients
// are on c1 and c2. The first primary is on d1.
func apart(t *testing.T, more Layout) (*Lab, *Fleet) {
	t.Helper()
	return apartWith(t, nil, more)
}

// apartWith has more lines in the servers' configuration, the same for all of them.
func apartWith(t *testing.T, settings map[string]string, more Layout) (*Lab, *Fleet) {
	t.Helper()
	l := New(t, Options{Hosts: []string{"d1", "d2", "d3", "m1", "m2", "m3", "c1", "c2"}})
	more.Nodes = l.Postgres(settings, l.Host("d1"), l.Host("d2"), l.Host("d3"))
	more.Members = l.some("m1", "m2", "m3")
	return l, newFleet(l, more)
}

// some are hosts by their names.
func (l *Lab) some(names ...string) []*Host {
	l.t.Helper()
	var list []*Host
	for _, name := range names {
		list = append(list, l.Host(name))
	}
	return list
}

// heals ends the partition, and waits until the cluster is whole and clients of a trial write.
func (s *scene) heals(now *Node, clients *trial) {
	s.t.Helper()
	s.fleet.lab.Heal()
	healed := time.Now()
	if whole := s.fleet.awaitWhole(s.t, 2*time.Minute); whole != now {
		s.t.Errorf("%s is the primary, after %s", whole.Name, now.Name)
	}
	awaitFor(s.t, time.Minute, "writes of all clients", func(context.Context) bool { return clients.ledger.acknowledged(healed) > 20 })
	s.t.Logf("all was well again %s after the partition", time.Since(healed).Round(100*time.Millisecond))
}

// The primary cannot hear that it is one no more. A client that knows it, and no member, can talk to it.
func TestAPrimaryThatIsCutOffFromAllOthersIsReplaced(t *testing.T) {
	slow(t)
	l, f := apart(t, Layout{Cluster: virtual})
	s := enact(t, f, usual(f.way(f.members[0])))
	s.happens(func() { l.Partition(l.some("d1"), l.some("d2", "d3", "m1", "m2", "m3", "c1", "c2")) })
	now := s.awaitSuccessor()
	s.heals(now, s.run)
	s.heldBy(writeVIP, now.Host)
	s.ends(idleClientsStay, operationsEnd, nobodyWasAhead, oneEpochMore)
}

// A member is on the primary's side, and clients are: both work well together, but for the majority.
func TestAPrimaryWithAMinorityOfTheMembersIsReplacedAndAcknowledgesNothingFurther(t *testing.T) {
	slow(t)
	l, f := apart(t, Layout{Cluster: virtual})
	load := usual(f.way(f.members[1]))
	load.Readers = 1
	s := enact(t, f, load)
	inside := s.also(l.Host("c2"), Load{Way: Way{Addrs: f.way(f.members[0]).Addrs[:1]}, Writers: 4, Pause: 10 * time.Millisecond, Idle: 5})
	s.happens(func() { l.Partition(l.some("d1", "m1", "c2"), l.some("d2", "d3", "m2", "m3", "c1")) })
	now := s.awaitSuccessor()
	s.heals(now, inside)
	s.heldBy(writeVIP, now.Host)
	s.ends(idleClientsStay, operationsEnd, nobodyWasAhead, oneEpochMore)
}

// The same where a commit waits for a standby: then nothing is lost of what any client was told is there.
func TestNoAcknowledgedRowIsLostInAPartitionWhereReplicationIsSynchronous(t *testing.T) {
	l, f := apartWith(t, map[string]string{"synchronous_standby_names": "'ANY 1 (d1, d2, d3)'"}, Layout{Cluster: virtual})
	load := usual(f.way(f.members[1]))
	load.Readers = 1
	s := enact(t, f, load)
	inside := s.also(l.Host("c2"), Load{Way: Way{Addrs: f.way(f.members[0]).Addrs[:1]}, Writers: 4, Pause: 10 * time.Millisecond, Idle: 5})
	s.happens(func() { l.Partition(l.some("d1", "m1", "c2"), l.some("d2", "d3", "m2", "m3", "c1")) })
	await(t, "the member on the primary's side to tell load balancers that it may not write", func(ctx context.Context) bool {
		status, _, _ := f.members[0].get(ctx, "/primary")
		return status == http.StatusServiceUnavailable
	})
	now := s.awaitSuccessor()
	s.heals(now, inside)
	s.heldBy(writeVIP, now.Host)
	s.ends(nothingIsLost, idleClientsStay, operationsEnd, nobodyWasAhead, oneEpochMore)
}

// The standbys are cut off, with one of the members: nothing is wrong with the primary.
func TestAPrimaryWithAMajorityOfTheMembersStaysWithoutItsStandbys(t *testing.T) {
	slow(t)
	l, f := apart(t, Layout{Cluster: virtual})
	s := enact(t, f, usual(f.way(f.members[0])))
	outside := s.also(l.Host("c2"), Load{Way: Way{Addrs: f.way(f.members[2]).Addrs[:1]}, Writers: 2, Pause: 10 * time.Millisecond, Idle: 5})
	s.happens(func() { l.Partition(l.some("d1", "m1", "m2", "c1"), l.some("d2", "d3", "m3", "c2")) })
	s.awaitWrites("writes beside the partition", s.event.Add(10*time.Second))
	s.heals(s.former, outside)
	s.heldBy(writeVIP, s.former.Host)
	s.ends(epochUnchanged, nothingIsLost, idleClientsStay, operationsEnd)
}

// No member reaches the primary, but its standbys do: it may well be the members that are wrong.
func TestAPrimaryThatOnlyItsStandbysReachIsAnAlarmFirst(t *testing.T) {
	slow(t)
	l, f := apart(t, Layout{Cluster: virtual})
	s := enact(t, f, usual(f.way(f.members[0])))
	s.happens(func() { l.Partition(l.some("d1"), l.some("m1", "m2", "m3")) })
	alarm := s.awaitSaid(patience, `"alarm"`, "node 1 cannot be reached", "lives")
	now := s.awaitSuccessor()
	if at, _ := s.run.watch.promoted(s.former, s.event); at.Before(alarm.Time) {
		t.Errorf("%s was promoted before anybody said why", now.Name)
	}
	s.heals(now, s.run)
	s.heldBy(writeVIP, now.Host)
	s.ends(idleClientsStay, operationsEnd, nobodyWasAhead, oneEpochMore)
}

// One of three members cannot reach the primary. That is that member's matter: clients that came by the
// members' own address find another one behind it.
func TestAPrimaryThatOneMemberCannotReachStays(t *testing.T) {
	slow(t)
	const proxyVIP = "10.77.0.200"
	l, f := apart(t, Layout{Fleet: map[string]string{"proxy_vip": `"` + proxyVIP + `/24"`}})
	f.awaitWhole(t, patience)
	var holder *Member
	await(t, "a member to have the members' address", func(context.Context) bool {
		for _, name := range l.holders(proxyVIP) {
			holder = f.memberOn(l.Host(name))
		}
		return holder != nil
	})
	s := enact(t, f, usual(f.way(f.elsewhere(&Node{holder.Host}))))
	byAddress := s.also(l.Host("c2"), Load{Way: Way{Addrs: []string{fmt.Sprintf("%s:%d", proxyVIP, proxyPort)}}, Writers: 2, Pause: 10 * time.Millisecond})
	s.happens(func() { l.Partition(l.some("d1"), []*Host{holder.Host}) })
	await(t, "the address to be elsewhere", func(context.Context) bool {
		now := l.holders(proxyVIP)
		return len(now) == 1 && now[0] != holder.Name
	})
	moved := time.Now()
	t.Logf("the members' address is elsewhere %s after the event", moved.Sub(s.event).Round(time.Millisecond))
	await(t, "writes by the address", func(context.Context) bool { return byAddress.ledger.acknowledged(moved) > 20 })
	await(t, "load balancers to be told", func(ctx context.Context) bool {
		status, _, _ := holder.get(ctx, "/primary")
		return status == http.StatusServiceUnavailable
	})
	s.awaitWrites("writes of the other members' clients", s.event.Add(10*time.Second))
	s.heals(s.former, byAddress)
	s.ends(epochUnchanged, nothingIsLost, idleClientsStay, operationsEnd)
}
