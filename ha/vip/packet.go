package vip

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// The frames below are whole Ethernet frames. ARP: RFC 826 and 5227; neighbour discovery: RFC 4861.
const (
	etherARP  = 0x0806
	etherIPv6 = 0x86dd

	arpRequest = 1
	arpReply   = 2

	ipICMPv6             = 58
	neighborSolicitation = 135
	neighborAdvert       = 136
	optionTargetMAC      = 2
	flagOverride         = 0x20 // of an advertisement: replace what is cached

	etherHead = 14
	arpSize   = 28
	ipv6Head  = 40
)

var (
	everybody   = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	allNodes    = netip.MustParseAddr("ff02::1")
	allNodesMAC = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
)

func ether(to, from net.HardwareAddr, kind uint16) []byte {
	b := make([]byte, 0, 96)
	b = append(append(b, to...), from...)
	return binary.BigEndian.AppendUint16(b, kind)
}

// arp is the fields of an ARP packet for IPv4 over Ethernet.
type arp struct {
	operation          uint16
	senderMAC, whomMAC net.HardwareAddr
	senderIP, whomIP   netip.Addr
}

func (a arp) encode() []byte {
	b := []byte{0, 1, 8, 0, 6, 4} // Ethernet, IPv4, and the lengths of their addresses
	b = binary.BigEndian.AppendUint16(b, a.operation)
	b = append(append(b, a.senderMAC...), a.senderIP.AsSlice()...)
	return append(append(b, a.whomMAC...), a.whomIP.AsSlice()...)
}

// announcements are the frames that tell a segment that mac has the address: for IPv4 both forms of
// gratuitous ARP, because some hosts and switches heed only the request and some only the reply.
// from is the interface that they leave by; it differs from mac when one host speaks for another.
func announcements(addr netip.Addr, mac, from net.HardwareAddr) [][]byte {
	if addr.Is4() {
		ask := arp{arpRequest, mac, make(net.HardwareAddr, 6), addr, addr}
		reply := arp{arpReply, mac, everybody, addr, addr}
		return [][]byte{
			append(ether(everybody, from, etherARP), ask.encode()...),
			append(ether(everybody, from, etherARP), reply.encode()...),
		}
	}
	body := []byte{neighborAdvert, 0, 0, 0, flagOverride, 0, 0, 0}
	body = append(body, addr.AsSlice()...)
	body = append(append(body, optionTargetMAC, 1), mac...)
	return [][]byte{append(ether(allNodesMAC, from, etherIPv6), icmp6(addr, allNodes, body)...)}
}

// question asks who has the address, without saying anything about this host: an ARP probe, or the
// solicitation of duplicate detection. Nobody's caches change by it.
func question(addr netip.Addr, from net.HardwareAddr) []byte {
	if addr.Is4() {
		probe := arp{arpRequest, from, make(net.HardwareAddr, 6), netip.IPv4Unspecified(), addr}
		return append(ether(everybody, from, etherARP), probe.encode()...)
	}
	body := append([]byte{neighborSolicitation, 0, 0, 0, 0, 0, 0, 0}, addr.AsSlice()...)
	a := addr.As16()
	group := netip.AddrFrom16([16]byte{0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a[13], a[14], a[15]})
	to := net.HardwareAddr{0x33, 0x33, 0xff, a[13], a[14], a[15]}
	return append(ether(to, from, etherIPv6), icmp6(netip.IPv6Unspecified(), group, body)...)
}

// icmp6 puts an IPv6 head before an ICMPv6 body and fills in its checksum. The hop limit of 255 is
// what proves to the receiver that the packet comes from the segment.
func icmp6(from, to netip.Addr, body []byte) []byte {
	b := []byte{0x60, 0, 0, 0, 0, byte(len(body)), ipICMPv6, 255}
	b = append(append(b, from.AsSlice()...), to.AsSlice()...)
	binary.BigEndian.PutUint16(body[2:], 0)
	sum := uint32(len(body)) + ipICMPv6 // the pseudo head: length, next header, both addresses
	for _, part := range [][]byte{b[8:], body} {
		for i := 0; i+1 < len(part); i += 2 {
			sum += uint32(part[i])<<8 | uint32(part[i+1])
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(body[2:], ^uint16(sum))
	return append(b, body...)
}

// claim reads a received frame: the MAC that it says has the address, nil when it says nothing about
// it. Every byte of it comes from the network.
func claim(addr netip.Addr, frame []byte) net.HardwareAddr {
	if len(frame) < etherHead {
		return nil
	}
	kind, body := binary.BigEndian.Uint16(frame[12:]), frame[etherHead:]
	switch {
	case addr.Is4() && kind == etherARP:
		return arpClaim(addr, body)
	case addr.Is6() && kind == etherIPv6:
		return advertClaim(addr, frame[6:12], body)
	}
	return nil
}

func arpClaim(addr netip.Addr, b []byte) net.HardwareAddr {
	if len(b) < arpSize || b[0] != 0 || b[1] != 1 || b[2] != 8 || b[3] != 0 || b[4] != 6 || b[5] != 4 {
		return nil
	}
	if sender := netip.AddrFrom4([4]byte(b[14:18])); sender != addr {
		return nil
	}
	return mac(b[8:14])
}

// advertClaim reads a neighbour advertisement; one without the option means the frame's sender.
func advertClaim(addr netip.Addr, sender, b []byte) net.HardwareAddr {
	if len(b) < ipv6Head+24 || b[0]>>4 != 6 || b[6] != ipICMPv6 || b[7] != 255 {
		return nil
	}
	length := int(binary.BigEndian.Uint16(b[4:]))
	if length < 24 || length > len(b)-ipv6Head {
		return nil
	}
	b = b[ipv6Head : ipv6Head+length]
	if b[0] != neighborAdvert || netip.AddrFrom16([16]byte(b[8:24])) != addr {
		return nil
	}
	for rest := b[24:]; len(rest) >= 8; {
		size := int(rest[1]) * 8
		if size == 0 || size > len(rest) {
			return nil
		}
		if rest[0] == optionTargetMAC {
			return mac(rest[2:8])
		}
		rest = rest[size:]
	}
	return mac(sender)
}

func mac(b []byte) net.HardwareAddr { return append(net.HardwareAddr(nil), b...) }
