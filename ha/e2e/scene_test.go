package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// slow skips, unless everything is to be tried, a scenario that tells less for its time than others do.
func slow(t *testing.T) {
	t.Helper()
	if os.Getenv("CST_E2E") != "all" {
		t.Skip("this scenario takes a while, and others tell most of it: CST_E2E=all (make e2e) runs it, too")
	}
}

// scene is one scenario: a fleet that clients use, and what becomes of both.
type scene struct {
	*trace
	t      *testing.T
	former *Node // the primary before the event
}

// enact has clients work with a fleet that is whole. The event is still to come.
func enact(t *testing.T, f *Fleet, load Load) *scene {
	t.Helper()
	former := f.awaitWhole(t, patience)
	run := begin(t, f.lab.Host("c1"), load, former, f.nodes)
	return &scene{trace: &trace{fleet: f, run: run, event: time.Now()}, t: t, former: former}
}

// happens makes the event, and notes when.
func (s *scene) happens(make func()) {
	s.t.Helper()
	s.event = time.Now()
	make()
}

// others are the nodes beside the former primary.
func (s *scene) others() []*Node {
	var list []*Node
	for _, n := range s.fleet.nodes {
		if n != s.former {
			list = append(list, n)
		}
	}
	return list
}

// awaitWrites waits until clients write, and have done so for a while since a time.
func (s *scene) awaitWrites(what string, since time.Time) {
	s.t.Helper()
	awaitFor(s.t, time.Minute, what, func(context.Context) bool {
		return time.Since(since) > time.Second && s.run.ledger.acknowledged(time.Now().Add(-time.Second)) > 20
	})
}

// awaitSuccessor waits until another node than the former primary is one, and clients write there.
func (s *scene) awaitSuccessor() *Node {
	s.t.Helper()
	var at time.Time
	awaitFor(s.t, time.Minute, "another primary", func(context.Context) bool {
		var ok bool
		at, ok = s.run.watch.promoted(s.former, s.event)
		return ok
	})
	s.t.Logf("another primary was seen %s after the event", at.Sub(s.event).Round(time.Millisecond))
	s.awaitWrites("writes on another primary", at)
	for _, seen := range s.run.watch.seen(s.event) {
		if seen.Writable && seen.Node != s.former {
			return seen.Node
		}
	}
	return nil
}

// awaitSaid waits until a member has logged, since the event, a line that holds all of the words.
func (s *scene) awaitSaid(limit time.Duration, words ...string) line {
	s.t.Helper()
	var found line
	awaitFor(s.t, limit, fmt.Sprintf("a member to say %q", words), func(context.Context) bool {
		said := s.said(words...)
		if len(said) > 0 {
			found = said[0]
		}
		return len(said) > 0
	})
	s.t.Logf("%s said after %s: %s", found.Member.Name, found.Time.Sub(s.event).Round(time.Millisecond), found.Raw)
	return found
}

// said are the lines since the event that hold all of the words.
func (s *scene) said(words ...string) []line {
	var found []line
	for _, l := range s.fleet.log(s.event) {
		all := true
		for _, w := range words {
			all = all && strings.Contains(l.Raw, w)
		}
		if all {
			found = append(found, l)
		}
	}
	return found
}

// also has more clients of the members at work from now on.
func (s *scene) also(client *Host, load Load) *trial {
	s.t.Helper()
	r := s.launch(client, load)
	s.more = append(s.more, r)
	return r
}

// direct has a client at work that knows only a virtual address of the servers.
func (s *scene) direct(vip string) *trial {
	s.t.Helper()
	r := s.launch(s.run.client, Load{Way: Way{Addrs: []string{net.JoinHostPort(vip, strconv.Itoa(PGPort))}}, Writers: 2, Pause: 10 * time.Millisecond})
	s.past = append(s.past, r)
	return r
}

func (s *scene) launch(client *Host, load Load) *trial {
	s.t.Helper()
	w := newWorkload(client, load)
	w.ids.Store(int64(len(s.more)+len(s.past)+1) << 32)
	return launch(s.t, w, nil)
}

// ends ends the clients, says what they have seen and what took how long, and checks what always holds
// and what the scenario promises beyond. The rows are those of the present primary.
func (s *scene) ends(promises ...invariant) {
	s.t.Helper()
	var now *Node
	await(s.t, "one primary", func(ctx context.Context) bool {
		now = writable(ctx, s.fleet.nodes)
		return now != nil
	})
	for _, r := range append(s.more, s.past...) {
		missed := r.end()
		report := r.report(s.event, rows(s.t, now))
		report.Missed = missed
		s.reports = append(s.reports, report)
	}
	s.report = s.run.finish(s.t, s.event, now)
	s.t.Log(s.report)
	for _, r := range s.reports {
		s.t.Logf("other clients: %s", r)
	}
	if parts := phases(s.fleet.log(s.event), s.event, s.report.Ended); !s.report.Ended.IsZero() {
		s.t.Logf("load %s; phases in ms: %v", loadAverage(), parts)
	}
	s.check(s.t, always...)
	s.check(s.t, promises...)
}

// elsewhere is a member on another host than the node's.
func (f *Fleet) elsewhere(n *Node) *Member {
	for _, m := range f.members {
		if m.Host != n.Host {
			return m
		}
	}
	return nil
}

// Block drops everything from and to these TCP ports of the host, connections that there are included,
// and leaves the rest of it alone. Unblock ends that; so does a power-off.
func (h *Host) Block(ports ...int) {
	h.lab.t.Helper()
	set := strings.Trim(strings.ReplaceAll(fmt.Sprint(ports), " ", ", "), "[]")
	h.must("block ports", fmt.Sprintf(`nft 'table inet block { chain in { type filter hook input priority 0; tcp dport { %[1]s } drop; }; chain out { type filter hook output priority 0; tcp sport { %[1]s } drop; }; }'`, set))
}

// Unblock ends Block.
func (h *Host) Unblock() { h.lab.t.Helper(); h.must("unblock ports", "nft delete table inet block") }

// must runs a shell script as root, for what a scenario needs.
func (h *Host) must(what, script string) {
	h.lab.t.Helper()
	ctx, cancel := context.WithTimeout(h.lab.t.Context(), patience)
	defer cancel()
	if _, err := h.Exec(ctx, "sh", "-c", script); err != nil {
		h.lab.t.Fatalf("%s of %s: %v", what, h.Name, err)
	}
}

// holders are the hosts that have an address on an interface of theirs.
func (l *Lab) holders(addr string) []string {
	l.t.Helper()
	var found []string
	for _, h := range l.hosts {
		if h.pid.Load() == 0 {
			continue
		}
		ctx, cancel := context.WithTimeout(l.t.Context(), patience)
		said, err := h.Exec(ctx, "ip", "-o", "addr", "show", "to", addr)
		cancel()
		if err != nil {
			l.t.Fatalf("addresses of %s: %v", h.Name, err)
		}
		if said != "" {
			found = append(found, h.Name)
		}
	}
	return found
}

// heldBy waits until this host has the address, and no other one has.
func (s *scene) heldBy(addr string, h *Host) {
	s.t.Helper()
	var holders []string
	awaitFor(s.t, patience, fmt.Sprintf("%s alone to have %s", h.Name, addr), func(context.Context) bool {
		holders = s.fleet.lab.holders(addr)
		return len(holders) == 1 && holders[0] == h.Name
	})
}
