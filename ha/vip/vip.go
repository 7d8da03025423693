// Package vip moves virtual addresses: onto a host and away from it, on this host by netlink, on
// another by a command for SSH; tells the network segment at once where the address is; and asks
// the segment who answers for it. It decides nothing: who shall hold an address is said by the
// caller, and that the former holder is fenced is the caller's to have seen to.
package vip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// Kind says what a virtual address is for.
type Kind string

const (
	Write  Kind = "write"  // on the host of the primary
	Read   Kind = "read"   // on the host of a standby, or of the primary when there is none
	Member Kind = "member" // on the host of one member, that is of this program
)

// VIP is one virtual address. Comparable.
type VIP struct {
	Kind    Kind
	Cluster string
	// Prefix is the address with the length of its subnet, as configured: 192.168.56.40/24. The full
	// length (/32, /128) says nothing about the subnet.
	Prefix netip.Prefix
	// Interface names where the address goes on every host that may have it; "" finds it by the
	// subnet.
	Interface string
}

// Parse reads "192.168.56.40/24" or an address alone.
func Parse(s string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		addr, err := netip.ParseAddr(s)
		if err != nil {
			return netip.Prefix{}, fmt.Errorf("virtual address %q: want an IP address, with the length of its subnet: 192.168.56.40/24", s)
		}
		prefix = netip.PrefixFrom(addr, addr.BitLen())
	}
	addr := prefix.Addr()
	switch {
	case addr.Is4In6() || addr.Zone() != "":
		return netip.Prefix{}, fmt.Errorf("virtual address %q: want a plain IPv4 or IPv6 address", s)
	case addr.IsUnspecified() || addr.IsMulticast() || addr.IsLoopback() || addr.IsLinkLocalUnicast():
		return netip.Prefix{}, fmt.Errorf("virtual address %q: no client of another host can reach such an address", s)
	case prefix.Bits() == 0:
		return netip.Prefix{}, fmt.Errorf("virtual address %q: a subnet of length 0 is everything", s)
	case addr.Is4() && prefix.Bits() < 31 && (addr == prefix.Masked().Addr() || addr == broadcast(prefix)):
		return netip.Prefix{}, fmt.Errorf("virtual address %q: this is the network's own or its broadcast address", s)
	}
	return prefix, nil
}

// broadcast is the last address of an IPv4 subnet.
func broadcast(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		b[bit/8] |= 1 << (7 - bit%8)
	}
	return netip.AddrFrom4(b)
}

// maxInterface is IFNAMSIZ-1.
const maxInterface = 15

// Validate says what is wrong with a VIP.
func (v VIP) Validate() error {
	if v.Kind != Write && v.Kind != Read && v.Kind != Member {
		return fmt.Errorf("virtual address of kind %q: want write, read or member", v.Kind)
	}
	if _, err := Parse(v.Prefix.String()); err != nil {
		return err
	}
	if len(v.Interface) > maxInterface || strings.ContainsAny(v.Interface, "/ \t\n") || strings.HasPrefix(v.Interface, "-") {
		return fmt.Errorf("virtual address %s: %q is no name of an interface", v, v.Interface)
	}
	return nil
}

// Addr is the address alone.
func (v VIP) Addr() netip.Addr { return v.Prefix.Addr() }

func (v VIP) String() string { return v.Prefix.String() }

// Address is one address that a host has on an interface.
type Address struct {
	Interface string
	// MAC is the interface's; nil when it has none.
	MAC net.HardwareAddr
	// Up: the interface is, and carries.
	Up     bool
	Prefix netip.Prefix
	// Tentative: IPv6 has not finished looking for a duplicate, and nobody can connect yet. Failed:
	// it has found one.
	Tentative, Failed bool
}

func (a Address) String() string { return a.Interface + " " + a.Prefix.String() }

// Held are the entries of list that are the VIP, whatever the length of their prefix.
func Held(v VIP, list []Address) []Address {
	var held []Address
	for _, a := range list {
		if a.Prefix.Addr() == v.Addr() {
			held = append(held, a)
		}
	}
	return held
}

// ErrNoInterface is in the error of Place when no interface fits.
var ErrNoInterface = errors.New("no interface fits")

// Place says where a VIP goes on a host with these addresses: an interface, and the prefix to add
// there. The prefix has the full length wherever the interface has an address of the same subnet:
// then neither adding nor removing the VIP touches a route, and it can never become the primary
// address of the subnet, whose removal takes the others with it. Only where the interface has no
// address of the subnet, the configured length makes the subnet reachable.
func Place(v VIP, list []Address) (iface string, prefix netip.Prefix, err error) {
	full := netip.PrefixFrom(v.Addr(), v.Addr().BitLen())
	if v.Interface != "" {
		known := false
		for _, a := range list {
			if a.Interface != v.Interface {
				continue
			}
			known = true
			if covers(a, v) {
				return v.Interface, full, nil
			}
		}
		if !known {
			return "", netip.Prefix{}, fmt.Errorf("put %s on interface %s: %w: there is no such interface with an address; there are %s",
				v, v.Interface, ErrNoInterface, describe(list))
		}
		return v.Interface, v.Prefix, nil
	}
	var best *Address
	for i, a := range list {
		if covers(a, v) && (best == nil || better(a, *best)) {
			best = &list[i]
		}
	}
	if best == nil {
		return "", netip.Prefix{}, fmt.Errorf("put %s on an interface: %w: none has an address of %s; there are %s; name one with interface = \"…\"",
			v, ErrNoInterface, v.Prefix.Masked(), describe(list))
	}
	return best.Interface, full, nil
}

// covers says whether a is an address, other than the VIP, whose subnet the VIP is in.
func covers(a Address, v VIP) bool {
	if a.Prefix.Addr() == v.Addr() || a.Prefix.IsSingleIP() || !a.Prefix.Masked().Contains(v.Addr()) {
		return false
	}
	// A default-like prefix of a tunnel holds everything; the configured subnet is the better witness.
	return v.Prefix.IsSingleIP() || v.Prefix.Overlaps(a.Prefix)
}

// better prefers an interface that is up, then the narrower subnet.
func better(a, b Address) bool {
	if a.Up != b.Up {
		return a.Up
	}
	return a.Prefix.Bits() > b.Prefix.Bits()
}

func describe(list []Address) string {
	if len(list) == 0 {
		return "no addresses at all"
	}
	var names []string
	for _, a := range list {
		if !a.Prefix.Addr().IsLoopback() && !a.Prefix.Addr().IsLinkLocalUnicast() {
			names = append(names, a.String())
		}
	}
	if len(names) == 0 {
		return "only loopback and link-local addresses"
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ", ")
}
