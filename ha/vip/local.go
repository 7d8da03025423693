package vip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// Local is this host. It keeps nothing: the kernel has the state.
type Local struct{ log *zap.Logger }

// NewLocal returns this host.
func NewLocal(log *zap.Logger) *Local { return &Local{log: log} }

// permitted says what to do when the kernel forbids something.
func permitted(err error, what string) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%s: %w: virtual addresses on this host need CAP_NET_ADMIN and CAP_NET_RAW; "+
			"give them to the service with AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW, or run cstproxy as root", what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// Addresses lists what this host has.
func (l *Local) Addresses() ([]Address, error) {
	links, err := whole(netlink.LinkList)
	if err != nil {
		return nil, permitted(err, "list the interfaces")
	}
	found, err := whole(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, permitted(err, "list the addresses")
	}
	byIndex := map[int]*netlink.LinkAttrs{}
	for _, link := range links {
		byIndex[link.Attrs().Index] = link.Attrs()
	}
	var list []Address
	for _, a := range found {
		link := byIndex[a.LinkIndex]
		addr, ok := netip.AddrFromSlice(a.IP)
		if link == nil || !ok {
			continue // it came or went between the two lists
		}
		bits, _ := a.Mask.Size()
		list = append(list, Address{
			Interface: link.Name,
			MAC:       link.HardwareAddr,
			Up:        link.Flags&net.FlagUp != 0 && link.OperState != netlink.OperDown && link.OperState != netlink.OperLowerLayerDown,
			Prefix:    netip.PrefixFrom(addr.Unmap(), bits),
			Tentative: a.Flags&unix.IFA_F_TENTATIVE != 0,
			Failed:    a.Flags&unix.IFA_F_DADFAILED != 0,
		})
	}
	return list, nil
}

// whole repeats a listing that was disturbed by a change, a few times.
func whole[T any](list func() ([]T, error)) ([]T, error) {
	const tries = 10
	var found []T
	var err error
	for range tries {
		if found, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return found, err
}

// Take puts a VIP on this host and announces it, also when it is there already. It returns when the
// last announcement is out, after a second; the address works at once. An address that IPv6 duplicate
// detection has put out of use, or that is on another interface than the named one, is put there anew. While
// is asked before each frame, as in Announcement.
func (l *Local) Take(ctx context.Context, v VIP, while func() bool) error {
	list, err := l.Addresses()
	if err != nil {
		return fmt.Errorf("take %s: %w", v, err)
	}
	iface, err := l.add(v, list)
	if err != nil {
		return fmt.Errorf("take %s: %w", v, err)
	}
	return Announcement{Addr: v.Addr(), Interface: iface, While: while}.Send(ctx)
}

func (l *Local) add(v VIP, list []Address) (iface string, err error) {
	for _, held := range Held(v, list) {
		if !held.Failed && (v.Interface == "" || v.Interface == held.Interface) {
			return held.Interface, nil
		}
		if err := l.remove(held); err != nil {
			return "", err
		}
	}
	iface, prefix, err := Place(v, list)
	if err != nil {
		return "", err
	}
	link, err := netlink.LinkByName(iface)
	if err != nil {
		return "", permitted(err, "find interface "+iface)
	}
	address := &netlink.Addr{IPNet: network(prefix), Scope: unix.RT_SCOPE_UNIVERSE}
	if v.Addr().Is6() {
		// Duplicate detection would keep the address unusable for one to two seconds, and give it up
		// if the former holder still answers, who is fenced or about to be.
		address.Flags = unix.IFA_F_NODAD
		// Deprecated from the start: clients reach it, and this host's own connections (replication
		// among them) never come from it.
		forever := ^uint32(0)
		address.ValidLft, address.PreferedLft = int(forever), 0
	}
	if err := netlink.AddrAdd(link, address); err != nil && !errors.Is(err, unix.EEXIST) {
		return "", permitted(err, fmt.Sprintf("add %s to %s", prefix, iface))
	}
	l.log.Info("a virtual address is on this host", zap.Stringer("vip", v), zap.String("interface", iface))
	return iface, nil
}

// Drop takes a VIP off this host, from every interface; it is no error when it is not there.
func (l *Local) Drop(v VIP) error {
	list, err := l.Addresses()
	if err != nil {
		return fmt.Errorf("drop %s: %w", v, err)
	}
	for _, held := range Held(v, list) {
		if err := l.remove(held); err != nil {
			return fmt.Errorf("drop %s: %w", v, err)
		}
		l.log.Info("a virtual address is off this host", zap.Stringer("vip", v), zap.String("interface", held.Interface))
	}
	return nil
}

func (l *Local) remove(a Address) error {
	link, err := netlink.LinkByName(a.Interface)
	if err != nil {
		var gone netlink.LinkNotFoundError
		if errors.As(err, &gone) {
			return nil
		}
		return permitted(err, "find interface "+a.Interface)
	}
	err = netlink.AddrDel(link, &netlink.Addr{IPNet: network(a.Prefix)})
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return permitted(err, fmt.Sprintf("remove %s from %s", a.Prefix, a.Interface))
	}
	return nil
}

func network(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// Capable says whether this process may move virtual addresses, and if not what to do; for the
// start, when one is configured.
func (l *Local) Capable() error {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&head, &sets[0]); err != nil {
		return fmt.Errorf("read this process's capabilities: %w", err)
	}
	var missing []string
	for name, bit := range map[string]uint32{"CAP_NET_ADMIN": unix.CAP_NET_ADMIN, "CAP_NET_RAW": unix.CAP_NET_RAW} {
		if sets[0].Effective&(1<<bit) == 0 {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return permitted(unix.EPERM, "this process lacks "+strings.Join(missing, " and "))
}
