package vip

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func has(prefix string) Sight {
	s := Sight{Known: true, Addresses: []Address{{Interface: "eth0", Up: true, Prefix: netip.MustParsePrefix("10.0.0.1/24")}}}
	if prefix != "" {
		s.Addresses = append(s.Addresses, Address{Interface: "eth0", Up: true, Prefix: netip.MustParsePrefix(prefix)})
	}
	return s
}

func TestPlans(t *testing.T) {
	v := VIP{Kind: Write, Cluster: "main", Prefix: netip.MustParsePrefix("10.0.0.40/24")}
	for name, c := range map[string]struct {
		holder string
		seen   map[string]Sight
		want   string
	}{
		"all is well":                     {"a", map[string]Sight{"a": has("10.0.0.40/32"), "b": has("")}, ""},
		"in another form, all is well":    {"a", map[string]Sight{"a": has("10.0.0.40/24"), "b": has("")}, ""},
		"nobody has it":                   {"b", map[string]Sight{"a": has(""), "b": has("")}, "take b"},
		"it moves: off first":             {"a", map[string]Sight{"a": has(""), "b": has("10.0.0.40/32"), "c": has("10.0.0.40/32")}, "drop b, drop c, take a"},
		"the former holder is silent":     {"b", map[string]Sight{"a": {}, "b": has("")}, "take b"},
		"a silent host may have it still": {"b", map[string]Sight{"a": {}, "b": has("10.0.0.40/32")}, "announce b"},
		"two have it":                     {"a", map[string]Sight{"a": has("10.0.0.40/32"), "b": has("10.0.0.40/32")}, "drop b, announce a"},
		"the wanted holder is silent":     {"b", map[string]Sight{"a": has("10.0.0.40/32"), "b": {}}, "drop a, take b"},
		"nobody shall have it":            {"", map[string]Sight{"a": has("10.0.0.40/32"), "b": {}}, "drop a"},
		"the wanted holder was not asked": {"z", map[string]Sight{"a": has("")}, "take z"},
	} {
		var got []string
		for _, a := range Plan([]Want{{VIP: v, Holder: c.holder}}, c.seen) {
			got = append(got, string(a.Verb)+" "+a.Host)
			if a.Why == "" || a.VIP != v {
				t.Errorf("%s: %v", name, a)
			}
		}
		if strings.Join(got, ", ") != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestAHostWithTwoNamesKeepsItsVIP(t *testing.T) {
	v := VIP{Kind: Write, Cluster: "main", Prefix: netip.MustParsePrefix("10.0.0.40/24")}
	at := func(mac string) Sight {
		s := has("10.0.0.40/32")
		for i := range s.Addresses {
			s.Addresses[i].MAC, _ = net.ParseMAC(mac)
		}
		return s
	}
	for name, c := range map[string]struct {
		a, b string
		want int
	}{
		"one host":                 {"02:00:00:00:00:01", "02:00:00:00:00:01", 0},
		"two hosts":                {"02:00:00:00:00:01", "02:00:00:00:00:02", 2},
		"on interfaces without":    {"", "", 2},
		"only one of them is seen": {"02:00:00:00:00:01", "", 2},
	} {
		if plan := Plan([]Want{{VIP: v, Holder: "a"}}, map[string]Sight{"a": at(c.a), "b": at(c.b)}); len(plan) != c.want {
			t.Errorf("%s: %v", name, plan)
		}
	}
}

// Whoever carries a plan out, host by host, gets where he wants to be: one holder among those that
// answer, and at no moment two of them; then the plan is empty.
func TestAPlanCarriedOutIsTheLast(t *testing.T) {
	hosts := []string{"a", "b", "c"}
	vips := []VIP{
		{Kind: Write, Prefix: netip.MustParsePrefix("10.0.0.40/24")},
		{Kind: Read, Prefix: netip.MustParsePrefix("fd00::45/64")},
	}
	rapid.Check(t, func(t *rapid.T) {
		seen := map[string]Sight{}
		for _, h := range hosts {
			s := Sight{Known: true}
			for _, v := range vips {
				if rapid.Bool().Draw(t, "has") {
					s.Addresses = append(s.Addresses, Address{Interface: "eth0", Prefix: v.Prefix})
				}
			}
			seen[h] = s
		}
		var wants []Want
		for _, v := range vips {
			wants = append(wants, Want{v, rapid.SampledFrom(append([]string{""}, hosts...)).Draw(t, "holder")})
		}
		holders := func(v VIP) (list []string) {
			for _, h := range hosts {
				if len(Held(v, seen[h].Addresses)) > 0 {
					list = append(list, h)
				}
			}
			return list
		}
		for _, a := range Plan(wants, seen) {
			s := seen[a.Host]
			if a.Verb == Drop {
				s.Addresses = slices.DeleteFunc(slices.Clone(s.Addresses), func(x Address) bool { return x.Prefix.Addr() == a.VIP.Addr() })
			}
			if a.Verb == Take {
				if other := holders(a.VIP); len(other) > 0 {
					t.Fatalf("%v, and %q have it", a, other)
				}
				s.Addresses = append(slices.Clone(s.Addresses), Address{Interface: "eth0", Prefix: a.VIP.Prefix})
			}
			seen[a.Host] = s
		}
		for _, w := range wants {
			if got := strings.Join(holders(w.VIP), " "); got != w.Holder {
				t.Fatalf("%s is on %q, want %q", w.VIP, got, w.Holder)
			}
		}
		if again := Plan(wants, seen); len(again) > 0 {
			t.Fatalf("there is still something to do: %v", again)
		}
	})
}

func TestTheReadVIPMovesOnlyWhenItMust(t *testing.T) {
	for _, c := range []struct {
		present  string
		standbys []string
		want     string
	}{
		{"", []string{"b", "c"}, "b"}, {"c", []string{"b", "c"}, "c"}, {"d", []string{"b", "c"}, "b"}, {"b", nil, "a"}, {"a", []string{"b"}, "b"},
	} {
		if got := Reader(c.present, c.standbys, "a"); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

func TestVirtualAddressesThatCannotBe(t *testing.T) {
	for _, s := range []string{
		"", "x", "10.0.0.40/33", "10.0.0.0/24", "10.0.0.255/24", "10.0.0.40/0", "0.0.0.0/8", "127.0.0.5/8", "224.0.0.1/4",
		"fe80::1/64", "fe80::1%eth0/64", "::/64", "ff02::1", "::ffff:10.0.0.1/120", "10.0.0.40 /24", "10.0.0.40/24;reboot",
	} {
		if p, err := Parse(s); err == nil {
			t.Errorf("%q was read as %s", s, p)
		}
	}
	for s, want := range map[string]string{"10.0.0.40/24": "10.0.0.40/24", "10.0.0.40": "10.0.0.40/32", "fd00::1": "fd00::1/128", "10.0.0.0/31": "10.0.0.0/31"} {
		if p, err := Parse(s); err != nil || p.String() != want {
			t.Errorf("%q: %s, %v", s, p, err)
		}
	}
	for _, iface := range []string{"eth0/1", "-j", "averyverylongname", "a b"} {
		v := VIP{Kind: Write, Prefix: netip.MustParsePrefix("10.0.0.40/24"), Interface: iface}
		if err := v.Validate(); err == nil {
			t.Errorf("interface %q was taken", iface)
		}
	}
	if err := (VIP{Prefix: netip.MustParsePrefix("10.0.0.40/24")}).Validate(); err == nil {
		t.Error("a VIP without a kind was taken")
	}
}

func TestPlaces(t *testing.T) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	on := func(iface, prefix string) Address {
		return Address{Interface: iface, MAC: mac, Up: true, Prefix: netip.MustParsePrefix(prefix)}
	}
	down := on("eth9", "10.0.0.9/25")
	down.Up = false
	host := []Address{
		on("lo", "127.0.0.1/8"), on("eth0", "10.0.0.1/24"), down, on("eth1", "10.1.0.1/16"), on("eth2", "10.1.2.1/24"),
		on("wg0", "172.16.0.1/32"), on("eth0", "fd00::1/64"), on("eth0", "fe80::1/64"),
	}
	for _, c := range []struct{ prefix, named, want string }{
		{"10.0.0.40/24", "", "eth0 10.0.0.40/32"},     // eth9 is narrower, and down
		{"10.1.2.40/24", "", "eth2 10.1.2.40/32"},     // the narrower of two
		{"10.1.3.40", "", "eth1 10.1.3.40/32"},        // without a length: whatever holds it
		{"10.1.2.40/24", "eth1", "eth1 10.1.2.40/32"}, // as named
		{"fd00::40/64", "", "eth0 fd00::40/128"},
		{"192.168.1.40/24", "eth0", "eth0 192.168.1.40/24"},
		{"192.168.1.40/24", "", ""},
		{"172.16.0.1/32", "", ""}, // the VIP itself is no witness for its place
		{"fd01::40/64", "", ""},
		{"10.0.0.40/24", "eth5", ""},
	} {
		v := VIP{Kind: Write, Interface: c.named}
		v.Prefix, _ = Parse(c.prefix)
		iface, prefix, err := Place(v, host)
		got := ""
		if err == nil {
			got = iface + " " + prefix.String()
		}
		if got != c.want {
			t.Errorf("%s on %q: %q (%v), want %q", c.prefix, c.named, got, err, c.want)
		}
	}
	if _, _, err := Place(VIP{Kind: Write, Prefix: netip.MustParsePrefix("10.0.0.40/24")}, nil); err == nil {
		t.Error("a host without addresses has a place")
	}
}
