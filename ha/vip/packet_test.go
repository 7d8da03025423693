package vip

import (
	"bytes"
	"encoding/hex"
	"net"
	"net/netip"
	"testing"
)

var (
	holder = net.HardwareAddr{2, 0, 0, 0, 0, 0xaa}
	port   = net.HardwareAddr{2, 0, 0, 0, 0, 0xbb}
)

// The bytes were written down from RFC 826, 5227 and 4861; the checksum is computed here once more.
func TestFrames(t *testing.T) {
	v4, v6 := netip.MustParseAddr("10.0.0.40"), netip.MustParseAddr("fd00::40")
	v6hex := "fd000000000000000000000000000040"
	all := announcements(v4, holder, port)
	six := announcements(v6, holder, port)
	for name, c := range map[string]struct {
		got  []byte
		want string
	}{
		"gratuitous request": {all[0], "ffffffffffff0200000000bb0806" + "0001080006040001" + "0200000000aa0a000028" + "0000000000000a000028"},
		"gratuitous reply":   {all[1], "ffffffffffff0200000000bb0806" + "0001080006040002" + "0200000000aa0a000028" + "ffffffffffff0a000028"},
		"probe":              {question(v4, port), "ffffffffffff0200000000bb0806" + "0001080006040001" + "0200000000bb00000000" + "0000000000000a000028"},
		"advertisement": {six[0], "3333000000010200000000bb86dd" + "6000000000203aff" + v6hex + "ff020000000000000000000000000001" +
			"8800" + sum(six[0]) + "20000000" + v6hex + "02010200000000aa"},
		"solicitation": {question(v6, port), "3333ff0000400200000000bb86dd" + "6000000000183aff" + "00000000000000000000000000000000" +
			"ff0200000000000000000001ff000040" + "8700" + sum(question(v6, port)) + "00000000" + v6hex},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, c.want)
		}
	}
	for _, frame := range [][]byte{all[0], all[1], six[0]} {
		addr := v4
		if len(frame) > 60 {
			addr = v6
		}
		if got := claim(addr, frame); !bytes.Equal(got, holder) {
			t.Errorf("%x claims for %s", frame, got)
		}
		if got := claim(netip.MustParseAddr("10.0.0.41"), frame); got != nil {
			t.Errorf("%x claims another address", frame)
		}
		for n := range len(frame) {
			if got := claim(addr, frame[:n]); got != nil {
				t.Errorf("%d bytes of %x claim for %s", n, frame, got)
			}
		}
	}
	for _, frame := range [][]byte{question(v4, port), question(v6, port)} {
		if claim(v4, frame) != nil || claim(v6, frame) != nil {
			t.Errorf("the question %x claims something", frame)
		}
	}
}

// sum is the checksum of an ICMPv6 frame, by the textbook: with it, everything adds up to 0xffff.
func sum(frame []byte) string {
	body := frame[etherHead:]
	total := uint64(body[4])<<8 + uint64(body[5]) + ipICMPv6
	words := append([]byte(nil), body[8:]...)
	words[ipv6Head-8+2], words[ipv6Head-8+3] = 0, 0
	for i := 0; i < len(words); i += 2 {
		total += uint64(words[i])<<8 + uint64(words[i+1])
	}
	total = total%0x10000 + total/0x10000
	total = total%0x10000 + total/0x10000
	return hex.EncodeToString([]byte{byte(^total >> 8), byte(^total)})
}

func FuzzClaim(f *testing.F) {
	v4, v6 := netip.MustParseAddr("10.0.0.40"), netip.MustParseAddr("fd00::40")
	for _, frame := range append(announcements(v4, holder, port), announcements(v6, holder, port)...) {
		f.Add(frame)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		for _, addr := range []netip.Addr{v4, v6} {
			if got := claim(addr, frame); got != nil && (len(got) != 6 || !bytes.Contains(frame, addr.AsSlice())) {
				t.Fatalf("%x claims %s for %s", frame, addr, got)
			}
		}
	})
}
