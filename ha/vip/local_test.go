package vip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

func local() *Local { return NewLocal(zap.NewNop()) }

// put is Take without the announcements.
func put(v VIP) error {
	list, err := local().Addresses()
	if err == nil {
		_, err = local().add(v, list)
	}
	return err
}

func vipOf(t *testing.T, prefix string) VIP {
	t.Helper()
	p, err := Parse(prefix)
	if err != nil {
		t.Fatal(err)
	}
	v := VIP{Kind: Write, Cluster: "main", Prefix: p}
	if err := v.Validate(); err != nil {
		t.Fatal(err)
	}
	return v
}

var families = map[string]string{"IPv4": "10.99.0.40/24", "IPv6": "fd99::40/64"}

// Two hosts hold the VIP in turn. The third believes what it has cached for an hour, so it reaches
// the new holder only because of the announcements.
func TestAClientFollowsTheVIP(t *testing.T) {
	for family, prefix := range families {
		t.Run(family, func(t *testing.T) {
			t.Parallel()
			hosts := newSegment(t, "a", "b", "client")
			a, b, client := hosts[0], hosts[1], hosts[2]
			a.serve()
			b.serve()
			v := vipOf(t, prefix)
			a.must(func() error { return local().Take(context.Background(), v, yes) })
			await(t, "a's answer", func() bool { return client.reach(v.Addr()) == "a" })
			for _, move := range [][2]*host{{a, b}, {b, a}, {a, b}} {
				from, to := move[0], move[1]
				if got := client.neighbour(v.Addr()); got != from.mac.String() {
					t.Fatalf("the client believes that %s has the VIP, want %s", got, from.mac)
				}
				from.must(func() error { return local().Drop(v) })
				taken := make(chan error, 1)
				began := time.Now()
				go func() {
					taken <- to.do(func() error { return local().Take(context.Background(), v, yes) })
				}()
				await(t, to.name+"'s answer", func() bool { return client.reach(v.Addr()) == to.name })
				t.Logf("%s to %s: reached after %s", from.name, to.name, time.Since(began).Round(time.Millisecond))
				if err := <-taken; err != nil {
					t.Fatal(err)
				}
			}
			// The host that had it is dead to the network: nobody dropped anything.
			b.must(func() error { return linkDown("eth0") })
			a.must(func() error { return local().Take(context.Background(), v, yes) })
			await(t, "a's answer", func() bool { return client.reach(v.Addr()) == "a" })
		})
	}
}

func linkDown(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetDown(link)
}

func TestASegmentSaysWhoHasTheVIP(t *testing.T) {
	for family, prefix := range families {
		t.Run(family, func(t *testing.T) {
			t.Parallel()
			hosts := newSegment(t, "a", "b", "witness")
			a, b, witness := hosts[0], hosts[1], hosts[2]
			v := vipOf(t, prefix)
			ask := func(h *host, wait time.Duration) []net.HardwareAddr {
				t.Helper()
				var holders []net.HardwareAddr
				h.must(func() (err error) {
					holders, err = Holders(context.Background(), v.Addr(), "eth0", wait)
					return err
				})
				return holders
			}
			judge := func(wait time.Duration) Answer { return Judge(ask(witness, wait), a.mac) }
			if got := judge(500 * time.Millisecond); got != Nobody {
				t.Errorf("nobody has it, and the answer is %s", got)
			}
			a.must(func() error { return put(v) })
			await(t, "a alone", func() bool { return judge(300*time.Millisecond) == Alone })
			if got := ask(a, 300*time.Millisecond); len(got) != 0 {
				t.Errorf("a hears %s, and is the only one that has it", got)
			}
			b.must(func() error { return put(v) })
			await(t, "the conflict", func() bool { return judge(500*time.Millisecond) == Several })
			for _, h := range []*host{a, b} {
				other := map[*host]*host{a: b, b: a}[h]
				await(t, h.name+"'s sight of the other", func() bool {
					got := ask(h, 500*time.Millisecond)
					return len(got) == 1 && slices.Equal(got[0], other.mac)
				})
			}
			a.must(func() error { return local().Drop(v) })
			await(t, "the wrong one alone", func() bool { return judge(300*time.Millisecond) == Another })
			// A question must leave no trace: the answer may be of the host that shall not have it.
			if got := witness.neighbour(v.Addr()); got != "" {
				t.Errorf("asking left %s in the cache", got)
			}
		})
	}
}

func TestAMemberSpeaksForAHostWithoutTools(t *testing.T) {
	for family, prefix := range families {
		t.Run(family, func(t *testing.T) {
			t.Parallel()
			hosts := newSegment(t, "a", "b", "client", "member")
			a, b, client, member := hosts[0], hosts[1], hosts[2], hosts[3]
			a.serve()
			b.serve()
			v := vipOf(t, prefix)
			a.must(func() error { return local().Take(context.Background(), v, yes) })
			await(t, "a's answer", func() bool { return client.reach(v.Addr()) == "a" })
			a.must(func() error { return local().Drop(v) })
			b.must(func() error { return put(v) })
			member.must(func() error {
				return Announcement{Addr: v.Addr(), Interface: "eth0", MAC: b.mac}.Send(context.Background())
			})
			await(t, "b's answer", func() bool { return client.reach(v.Addr()) == "b" })
		})
	}
}

func TestAVIPTouchesNothingElse(t *testing.T) {
	t.Parallel()
	hosts := newSegment(t, "a")
	a := hosts[0]
	state := func() string {
		t.Helper()
		var all strings.Builder
		for _, args := range [][]string{{"ip", "-o", "addr", "show"}, {"ip", "route", "show"}, {"ip", "-6", "route", "show"}} {
			out, err := a.run(nil, args...)
			if err != nil {
				t.Fatal(err)
			}
			all.WriteString(out)
		}
		return all.String()
	}
	a.must(func() error { // the state is final only when duplicate detection has ended
		return sysctl("net/ipv6/conf/eth0/accept_dad", "0")
	})
	await(t, "settled addresses", func() bool { return !strings.Contains(state(), "tentative") })
	before := state()
	for prefix, want := range map[string]string{
		"10.99.0.40/24":   "eth0 10.99.0.40/32",
		"10.99.0.40/32":   "eth0 10.99.0.40/32",
		"10.99.0.130/25":  "eth0 10.99.0.130/32",
		"10.98.0.40/23":   "eth0 10.98.0.40/23", // another subnet, on the named interface
		"fd99::40/64":     "eth0 fd99::40/128",
		"fd99::41/128":    "eth0 fd99::41/128",
		"fd98:0:1::41/48": "eth0 fd98:0:1::41/48",
	} {
		v := vipOf(t, prefix)
		if strings.HasPrefix(want, "eth0 10.98") || strings.HasPrefix(want, "eth0 fd98") {
			v.Interface = "eth0"
		}
		for range 2 { // once more changes nothing
			a.must(func() error { return put(v) })
			if got := a.prefixes(v); len(got) != 1 || got[0] != want {
				t.Errorf("%s: the host has %q, want %s", prefix, got, want)
			}
		}
		for range 2 {
			a.must(func() error { return local().Drop(v) })
		}
		if after := state(); after != before {
			t.Fatalf("%s came and went, and left\n%swhere there had been\n%s", prefix, after, before)
		}
	}
}

// Somebody put it there by another tool, in another form, twice.
func TestAForeignVIPIsRecognized(t *testing.T) {
	t.Parallel()
	a := newSegment(t, "a")[0]
	v := vipOf(t, "10.99.0.40/24")
	if _, err := a.run(nil, "ip", "addr", "add", "10.99.0.40/24", "dev", "eth0", "label", "eth0:1"); err != nil {
		t.Fatal(err)
	}
	a.must(func() error { return put(v) })
	if got := a.prefixes(v); len(got) != 1 || got[0] != "eth0 10.99.0.40/24" {
		t.Errorf("taken again: %q", got)
	}
	if _, err := a.run(nil, "ip", "addr", "add", "10.99.0.40/32", "dev", "lo"); err != nil {
		t.Fatal(err)
	}
	a.must(func() error { return local().Drop(v) })
	if got := a.prefixes(v); len(got) != 0 {
		t.Errorf("dropped, and the host has %q", got)
	}
	if got := a.prefixes(vipOf(t, "10.99.0.1/24")); len(got) != 1 {
		t.Errorf("the host's own address is gone: %q", got)
	}
}

// Duplicate detection has put the address out of use, because the other host had it when it was
// added by hand. Take makes it work.
func TestAnAddressThatFailedDuplicateDetectionIsTakenAnew(t *testing.T) {
	t.Parallel()
	hosts := newSegment(t, "a", "b", "client")
	a, b, client := hosts[0], hosts[1], hosts[2]
	b.serve()
	v := vipOf(t, "fd99::40/64")
	a.must(func() error { return put(v) })
	if _, err := b.run(nil, "ip", "-6", "addr", "add", "fd99::40/128", "dev", "eth0"); err != nil {
		t.Fatal(err)
	}
	await(t, "the failed detection", func() bool {
		failed := false
		b.must(func() error {
			list, err := local().Addresses()
			for _, held := range Held(v, list) {
				failed = held.Failed
			}
			return err
		})
		return failed
	})
	a.must(func() error { return local().Drop(v) })
	b.must(func() error { return local().Take(context.Background(), v, yes) })
	await(t, "b's answer", func() bool { return client.reach(v.Addr()) == "b" })
}

// A host's own connections keep coming from its own address, also where the VIP is nearer to the
// other end by the rules of source selection (RFC 6724, rule 8): a server would see another client
// after each move.
func TestOwnConnectionsDoNotComeFromTheVIP(t *testing.T) {
	t.Parallel()
	needTools(t, "ip")
	hosts := newSegment(t, "a", "b")
	a := hosts[0]
	for prefix, own := range map[string]string{"10.99.0.3/24": "10.99.0.1", "fd99::3/64": "fd99::1"} {
		v := vipOf(t, prefix)
		other := map[bool]string{true: "10.99.0.2:1", false: "[fd99::2]:1"}[v.Addr().Is4()]
		source := func() string {
			var from net.Addr
			a.must(func() error {
				conn, err := net.Dial("udp", other)
				if err != nil {
					return err
				}
				from = conn.LocalAddr()
				return conn.Close()
			})
			host, _, _ := net.SplitHostPort(from.String())
			return host
		}
		a.must(func() error { return put(v) })
		if got := source(); got != own {
			t.Errorf("with %s put by netlink, connections come from %s", v, got)
		}
		a.must(func() error { return local().Drop(v) })
		full := netip.PrefixFrom(v.Addr(), v.Addr().BitLen())
		if _, err := a.run(nil, TakeCommand("eth0", full)...); err != nil {
			t.Fatal(err)
		}
		if got := source(); got != own {
			t.Errorf("with %s put by the command, connections come from %s", v, got)
		}
	}
}

func TestAVIPOnTheWrongInterfaceMoves(t *testing.T) {
	t.Parallel()
	needTools(t, "ip")
	a := newSegment(t, "a")[0]
	for _, prefix := range families {
		v := vipOf(t, prefix)
		v.Interface = "eth0"
		full := netip.PrefixFrom(v.Addr(), v.Addr().BitLen())
		misplace := func() {
			t.Helper()
			if _, err := a.run(nil, "ip", "addr", "add", full.String(), "dev", "lo"); err != nil {
				t.Fatal(err)
			}
		}
		misplace()
		a.must(func() error { return put(v) })
		if got := a.prefixes(v); len(got) != 1 || got[0] != "eth0 "+full.String() {
			t.Errorf("the host has %q", got)
		}
		a.must(func() error { return local().Drop(v) })
		misplace()
		if _, err := a.run(nil, TakeCommand("eth0", full)...); err != nil {
			t.Fatal(err)
		}
		if got := a.prefixes(v); len(got) != 1 || got[0] != "eth0 "+full.String() {
			t.Errorf("the host has %q", got)
		}
	}
}

func TestWithoutAFittingInterfaceNothingIsDone(t *testing.T) {
	t.Parallel()
	a := newSegment(t, "a")[0]
	v := vipOf(t, "192.168.56.40/24")
	err := a.do(func() error { return local().Take(context.Background(), v, yes) })
	if !errors.Is(err, ErrNoInterface) {
		t.Fatalf("Take: %v", err)
	}
	for _, part := range []string{"192.168.56.0/24", "eth0 10.99.0.1/24", "interface ="} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not say %q: %v", part, err)
		}
	}
	v.Interface = "eth7"
	if err := a.do(func() error { return local().Take(context.Background(), v, yes) }); !errors.Is(err, ErrNoInterface) || !strings.Contains(err.Error(), "eth7") {
		t.Errorf("Take: %v", err)
	}
}

func TestMissingCapabilitiesSayWhatToDo(t *testing.T) {
	t.Parallel()
	a := newSegment(t, "a")[0]
	v := vipOf(t, "10.99.0.40/24")
	for name, try := range map[string]func() error{
		"take":     func() error { return local().Take(context.Background(), v, yes) },
		"announce": func() error { return Announcement{Addr: v.Addr(), Interface: "eth0"}.Send(context.Background()) },
		"ask": func() error {
			_, err := Holders(context.Background(), v.Addr(), "eth0", time.Second)
			return err
		},
		"check": func() error { return local().Capable() },
	} {
		err := a.do(func() error {
			// The thread loses them for good, and is thrown away afterwards.
			head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			var none [2]unix.CapUserData
			if err := unix.Capset(&head, &none[0]); err != nil {
				return fmt.Errorf("drop the capabilities: %w", err)
			}
			return try()
		})
		if !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := a.do(func() error { return local().Capable() }); err != nil {
		t.Errorf("root may not: %v", err)
	}
}

func TestAnAnnouncementEndsWithItsContext(t *testing.T) {
	t.Parallel()
	a := newSegment(t, "a")[0]
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := a.do(func() error {
		return Announcement{Addr: netip.MustParseAddr("10.99.0.40"), Interface: "eth0"}.Send(ctx)
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Send: %v", err)
	}
	err = a.do(func() error {
		_, err := Holders(ctx, netip.MustParseAddr("10.99.0.40"), "eth0", time.Hour)
		return err
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Holders: %v", err)
	}
	for _, iface := range []string{"lo", "nothing"} {
		if err := a.do(func() error {
			return Announcement{Addr: netip.MustParseAddr("10.99.0.40"), Interface: iface}.Send(context.Background())
		}); err == nil {
			t.Errorf("an address was announced on %s", iface)
		}
	}
}

func exitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return 0
}
