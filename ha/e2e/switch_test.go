package e2e

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os/exec"
	"runtime"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// direction is from one port of the switch to another.
type direction struct{ from, to string }

// faults are what the switch does not forward, ARP included.
type faults struct {
	cut    map[direction]bool
	loss   map[direction]int // percent
	silent map[string]bool   // ports from and to which nothing is forwarded
}

func newFaults() faults {
	return faults{cut: map[direction]bool{}, loss: map[direction]int{}, silent: map[string]bool{}}
}

// rules are the faults for nft. They replace the former ones in one transaction: the network is at no
// time partly healed.
func (f faults) rules() string {
	var b strings.Builder
	b.WriteString("table bridge lab\ndelete table bridge lab\ntable bridge lab {\nchain forward {\n")
	b.WriteString("type filter hook forward priority 0; policy accept;\n")
	for _, port := range slices.Sorted(maps.Keys(f.silent)) {
		fmt.Fprintf(&b, "iifname %q drop\noifname %q drop\n", port, port)
	}
	for d := range f.cut {
		fmt.Fprintf(&b, "iifname %q oifname %q drop\n", d.from, d.to)
	}
	for d, percent := range f.loss {
		fmt.Fprintf(&b, "iifname %q oifname %q numgen random mod 100 < %d drop\n", d.from, d.to, percent)
	}
	b.WriteString("}\n}\n")
	return b.String()
}

// apply makes the switch obey l.faults.
func (l *Lab) apply() {
	l.t.Helper()
	err := l.inSwitch(func() error {
		nft := exec.Command("nft", "-f", "-")
		nft.Stdin = strings.NewReader(l.faults.rules())
		_, err := output(nft)
		return err
	})
	if err != nil {
		l.t.Fatalf("tell the switch: %v", err)
	}
}

// Cut is a one-way partition: nothing of from reaches to any more. That is so for the answer to the
// question who has from's address, too: for the other direction, to must have asked before.
func (l *Lab) Cut(from, to *Host) {
	l.t.Helper()
	l.faults.cut[direction{from.port(), to.port()}] = true
	l.apply()
}

// Partition cuts the groups off from each other, both ways. Hosts that are in no group go on reaching
// everybody.
func (l *Lab) Partition(groups ...[]*Host) {
	l.t.Helper()
	for i, group := range groups {
		for _, a := range group {
			for j, others := range groups {
				for _, b := range others {
					if i != j {
						l.faults.cut[direction{a.port(), b.port()}] = true
					}
				}
			}
		}
	}
	l.apply()
}

// Lose drops so many percent of the packets from one host to another, at random.
func (l *Lab) Lose(percent int, from, to *Host) {
	l.t.Helper()
	l.faults.loss[direction{from.port(), to.port()}] = percent
	l.apply()
}

// Heal ends all partitions and losses. Frozen hosts stay silent.
func (l *Lab) Heal() {
	l.t.Helper()
	clear(l.faults.cut)
	clear(l.faults.loss)
	l.apply()
}

// Unplug takes the host's cable out: it sees that it has no carrier.
func (h *Host) Unplug() { h.lab.t.Helper(); h.setPort(netlink.LinkSetDown) }

// Plug puts it back.
func (h *Host) Plug() { h.lab.t.Helper(); h.setPort(netlink.LinkSetUp) }

func (h *Host) setPort(set func(netlink.Link) error) {
	h.lab.t.Helper()
	err := h.lab.inSwitch(func() error {
		port, err := netlink.LinkByName(h.port())
		if err != nil {
			return err
		}
		return set(port)
	})
	if err != nil {
		h.lab.t.Fatalf("cable of %s: %v", h.Name, err)
	}
}

// inSwitch runs f on a thread that is in the switch; the programs that f starts are there, too.
func (l *Lab) inSwitch(f func() error) error { return within(l.sw, f) }

// makeSwitch: the network namespace has no name, so it ends with its last descriptor.
func (l *Lab) makeSwitch() error {
	ended := make(chan error, 1)
	go func() { // the last line waits
		runtime.LockOSThread() // and never unlocked: Go throws the thread away
		var err error
		l.sw, err = netns.New()
		if err == nil {
			err = makeBridge()
		}
		ended <- err
	}()
	return <-ended
}

func makeBridge() error {
	// Without snooping: what is sent to a group must arrive, as on a switch without a querier.
	off := false
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}, MulticastSnooping: &off}
	if err := netlink.LinkAdd(bridge); err != nil {
		return err
	}
	return netlink.LinkSetUp(bridge)
}

// mac is the hardware address of the host's eth0.
func (h *Host) mac() net.HardwareAddr { return net.HardwareAddr{2, 0, 10, 77, 0, byte(10 + h.number)} }

// plug runs in the switch. A host keeps its hardware address over a power-off.
func plug(h *Host, ns netns.NsHandle) error {
	bridge, err := netlink.LinkByName("br0")
	if err != nil {
		return err
	}
	veth := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: h.port(), MasterIndex: bridge.Attrs().Index},
		PeerName:  "eth0", PeerNamespace: netlink.NsFd(ns),
		PeerHardwareAddr: h.mac(),
	}
	if err := netlink.LinkAdd(veth); err != nil {
		return err
	}
	return netlink.LinkSetUp(veth)
}

// unplug runs in the switch, and takes the host's end of the cable away as well.
func unplug(h *Host) error {
	port, err := netlink.LinkByName(h.port())
	var none netlink.LinkNotFoundError
	if errors.As(err, &none) {
		return nil
	}
	if err != nil {
		return err
	}
	return netlink.LinkDel(port)
}
