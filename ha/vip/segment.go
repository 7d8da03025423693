package vip

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// repeats are when an announcement is sent, from the first on. A host may miss one while its own
// queue is full, and a switch may still be learning.
func repeats() []time.Duration {
	return []time.Duration{0, 50 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond, time.Second}
}

// Announcement says to a segment where an address is.
type Announcement struct {
	Addr      netip.Addr
	Interface string // of this host, on the segment
	// MAC is who has the address. Nil: this host's Interface. Another one speaks for a host that has no
	// tool to do it; a switch that inspects ARP may not let that through.
	MAC net.HardwareAddr
	// While, unless nil, is asked before each frame: after it said no, none is sent.
	While func() bool
}

// errOver is why nothing was sent when While said no.
var errOver = errors.New("the address is not this host's any more")

// Send tells the segment five times within a second. It returns after the last time, with an error
// when none could be sent; the first is out at once.
func (a Announcement) Send(ctx context.Context) error {
	s, err := open(a.Interface, protocol(a.Addr))
	if err != nil {
		return fmt.Errorf("announce %s on %s: %w", a.Addr, a.Interface, err)
	}
	defer s.close()
	who := a.MAC
	if who == nil {
		who = s.mac
	}
	frames := announcements(a.Addr, who, s.mac)
	begin := time.Now()
	var last error
	sent := 0
	for _, at := range repeats() {
		if sleep(ctx, time.Until(begin.Add(at))) != nil || errors.Is(last, errOver) {
			break
		}
		for _, frame := range frames {
			if a.While != nil && !a.While() {
				last = errOver
				break
			}
			if err := s.send(frame); err != nil {
				last = err
				continue
			}
			sent++
		}
	}
	if sent == 0 {
		return fmt.Errorf("announce %s on %s: %w", a.Addr, a.Interface, errors.Join(last, ctx.Err()))
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// askEvery is the pause between two questions. A host that answers does so within a millisecond or
// two; a question or an answer may be lost.
const askEvery = 150 * time.Millisecond

// Holders asks the segment who has an address, by ARP or neighbour discovery, for as long as wait,
// and returns the MACs of those that answered, in their order. Two are a conflict. This host does
// not hear itself: what it has is in Addresses.
func Holders(ctx context.Context, addr netip.Addr, iface string, wait time.Duration) ([]net.HardwareAddr, error) {
	s, err := open(iface, protocol(addr))
	if err != nil {
		return nil, fmt.Errorf("ask on %s who has %s: %w", iface, addr, err)
	}
	defer s.close()
	ask := question(addr, s.mac)
	var holders []net.HardwareAddr
	end := time.Now().Add(wait)
	var asked time.Time
	for now := time.Now(); now.Before(end); now = time.Now() {
		if ctx.Err() != nil {
			return holders, fmt.Errorf("ask on %s who has %s: %w", iface, addr, ctx.Err())
		}
		if now.Sub(asked) >= askEvery {
			if err := s.send(ask); err != nil {
				return holders, fmt.Errorf("ask on %s who has %s: %w", iface, addr, err)
			}
			asked = now
		}
		frame, err := s.receive(min(time.Until(end), askEvery/3))
		if err != nil {
			return holders, fmt.Errorf("ask on %s who has %s: %w", iface, addr, err)
		}
		who := claim(addr, frame)
		if who == nil || slices.Equal(who, s.mac) ||
			slices.ContainsFunc(holders, func(known net.HardwareAddr) bool { return slices.Equal(known, who) }) {
			continue
		}
		holders = append(holders, who)
	}
	return holders, nil
}

// Answer is what a segment says about an address.
type Answer string

const (
	Nobody  Answer = "nobody"  // nobody answers for it
	Alone   Answer = "alone"   // the expected host, and nobody else
	Another Answer = "another" // one host, and not the expected one
	Several Answer = "several" // more than one: a conflict
)

// Judge compares who answered with who shall have the address.
func Judge(holders []net.HardwareAddr, expected net.HardwareAddr) Answer {
	switch {
	case len(holders) == 0:
		return Nobody
	case len(holders) > 1:
		return Several
	case slices.Equal(holders[0], expected):
		return Alone
	}
	return Another
}

func protocol(addr netip.Addr) uint16 {
	if addr.Is4() {
		return etherARP
	}
	return etherIPv6
}

// segment is a raw socket on one interface. It is used by one goroutine.
type segment struct {
	fd    int
	index int
	kind  uint16
	mac   net.HardwareAddr
	buf   [2048]byte
}

func open(iface string, kind uint16) (*segment, error) {
	i, err := net.InterfaceByName(iface)
	if err != nil {
		return nil, err
	}
	if len(i.HardwareAddr) != 6 {
		return nil, fmt.Errorf("interface %s is no Ethernet", iface)
	}
	// Protocol 0 receives nothing before bind, so that no frame of another interface slips in.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, permitted(err, "open a raw socket")
	}
	s := &segment{fd: fd, index: i.Index, kind: kind, mac: i.HardwareAddr}
	if err := unix.Bind(fd, s.address()); err != nil {
		s.close()
		return nil, fmt.Errorf("bind a raw socket to %s: %w", iface, err)
	}
	return s, nil
}

func (s *segment) close() { unix.Close(s.fd) }

func (s *segment) address() *unix.SockaddrLinklayer {
	network := binary.BigEndian.AppendUint16(nil, s.kind)
	return &unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16(network), Ifindex: s.index}
}

func (s *segment) send(frame []byte) error {
	if err := unix.Sendto(s.fd, frame, 0, s.address()); err != nil {
		return fmt.Errorf("send a frame: %w", err)
	}
	return nil
}

// receive returns the next frame of another host, or nil when none came within wait. The frame is
// valid until the next call.
func (s *segment) receive(wait time.Duration) ([]byte, error) {
	milliseconds := int(max(wait, time.Millisecond) / time.Millisecond)
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}, milliseconds)
	if errors.Is(err, unix.EINTR) || err == nil && n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("wait for a frame: %w", err)
	}
	n, from, err := unix.Recvfrom(s.fd, s.buf[:], unix.MSG_DONTWAIT)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("receive a frame: %w", err)
	}
	if link, ok := from.(*unix.SockaddrLinklayer); ok && link.Pkttype == unix.PACKET_OUTGOING {
		return nil, nil
	}
	return s.buf[:n], nil
}
