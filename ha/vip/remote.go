package vip

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// The commands below are argument lists for execution on a node's host, as root or as an account
// that may run ip, arping and python3 by sudo without a password. All of them can be repeated.

//go:embed node.sh
var nodeScript string

//go:embed announce.py
var announceProgram string

// ExitUnannounced is the exit code of a Take or Announce that has put the address in place and could
// not tell the segment, for want of a tool. Announcement with the host's MAC can, from a member on
// the same segment.
const ExitUnannounced = 3

func command(args ...string) []string {
	return append([]string{"sh", "-c", nodeScript, "vip"}, args...)
}

// ListCommand prints what ParseAddresses reads.
func ListCommand() []string { return command("list") }

// TakeCommand puts a VIP on the host, where Place said, and announces it: 0.5 to 1.5 s.
func TakeCommand(iface string, prefix netip.Prefix) []string {
	return command("take", prefix.String(), iface, announceProgram)
}

// AnnounceCommand tells the segment again.
func AnnounceCommand(iface string, v VIP) []string {
	return command("announce", v.Addr().String(), iface, announceProgram)
}

// DropCommand takes a VIP off every interface of the host.
func DropCommand(v VIP) []string { return command("drop", v.Addr().String()) }

// ipInterface is what `ip -j addr show` says of an interface, as far as it matters here.
type ipInterface struct {
	Name      string   `json:"ifname"`
	Kind      string   `json:"link_type"`
	MAC       string   `json:"address"`
	Flags     []string `json:"flags"`
	State     string   `json:"operstate"`
	Addresses []struct {
		Local     string `json:"local"`
		Length    int    `json:"prefixlen"`
		Tentative bool   `json:"tentative"`
		Failed    bool   `json:"dadfailed"`
	} `json:"addr_info"`
}

// ParseAddresses reads the output of ListCommand.
func ParseAddresses(output []byte) ([]Address, error) {
	var interfaces []ipInterface
	if err := json.Unmarshal(output, &interfaces); err != nil {
		return nil, fmt.Errorf("read the addresses of a host: %w (ip -j needs iproute2 4.14 or newer)", err)
	}
	var list []Address
	for _, i := range interfaces {
		if i.Name == "" {
			continue // iproute2 prints {} for what a filter leaves out
		}
		mac, err := net.ParseMAC(i.MAC)
		if err != nil || i.Kind != "ether" {
			mac = nil // a loopback's is all zeros, a tunnel's is something else
		}
		for _, a := range i.Addresses {
			addr, err := netip.ParseAddr(a.Local)
			if err != nil || a.Length < 0 || a.Length > addr.BitLen() {
				return nil, fmt.Errorf("read the addresses of a host: %q/%d on %q is none", a.Local, a.Length, i.Name)
			}
			list = append(list, Address{
				Interface: i.Name,
				MAC:       mac,
				Up:        slices.Contains(i.Flags, "UP") && i.State != "DOWN" && i.State != "LOWERLAYERDOWN",
				Prefix:    netip.PrefixFrom(addr, a.Length),
				Tentative: a.Tentative,
				Failed:    a.Failed,
			})
		}
	}
	return list, nil
}
