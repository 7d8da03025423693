package vip

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait; it decides nothing but how long a failing test takes.
const patience = 20 * time.Second

// host is a network namespace with eth0 on the bridge of its segment. It has no name: the kernel
// removes it with its last descriptor, also when the test is killed.
type host struct {
	t    *testing.T
	name string
	ns   netns.NsHandle
	mac  net.HardwareAddr
}

// do runs f on a thread that is in the host, and ends with it.
func (h *host) do(f func() error) error {
	ended := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: Go throws the thread away
		if err := netns.Set(h.ns); err != nil {
			ended <- err
			return
		}
		ended <- f()
	}()
	return <-ended
}

// must is do for what the scenario needs.
func (h *host) must(f func() error) {
	h.t.Helper()
	if err := h.do(f); err != nil {
		h.t.Fatalf("%s: %v", h.name, err)
	}
}

// run executes a command in the host and returns its standard output.
func (h *host) run(env []string, argv ...string) (string, error) {
	var out, stderr strings.Builder
	err := h.do(func() error {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Stdout, cmd.Stderr, cmd.Env = &out, &stderr, env
		return cmd.Run()
	})
	if err != nil {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return out.String(), err
}

func newHost(t *testing.T, name string) *host {
	t.Helper()
	h := &host{t: t, name: name, ns: netns.None()}
	ended := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		var err error
		h.ns, err = netns.New()
		if err == nil {
			err = up("lo")
		}
		ended <- err
	}()
	if err := <-ended; err != nil {
		if os.Getuid() != 0 || errors.Is(err, os.ErrPermission) {
			t.Skipf("this test makes network namespaces, which needs root: %v", err)
		}
		t.Skipf("this test makes network namespaces, which this machine does not let it: %v", err)
	}
	t.Cleanup(func() { h.ns.Close() })
	return h
}

func up(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

// segment4 is where the hosts of a test are: 10.99.0.1, 2, … and fd99::1, 2, … on one bridge.
const (
	segment4 = "10.99.0.%d/24"
	segment6 = "fd99::%d/64"
)

func newSegment(t *testing.T, names ...string) []*host {
	t.Helper()
	sw := newHost(t, "switch")
	sw.must(func() error {
		// Without snooping: what is sent to a group must arrive, as on a switch without a querier.
		off := false
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}, MulticastSnooping: &off}
		if err := netlink.LinkAdd(bridge); err != nil {
			return err
		}
		return netlink.LinkSetUp(bridge)
	})
	var hosts []*host
	for i, name := range names {
		h := newHost(t, name)
		hosts = append(hosts, h)
		sw.must(func() error { return plug(h, fmt.Sprint("p", i+1)) })
		h.must(func() error { return h.address(i + 1) })
	}
	return hosts
}

// plug runs in the switch.
func plug(h *host, port string) error {
	bridge, err := netlink.LinkByName("br0")
	if err != nil {
		return err
	}
	veth := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: port, MasterIndex: bridge.Attrs().Index},
		PeerName:  "eth0", PeerNamespace: netlink.NsFd(h.ns),
	}
	if err := netlink.LinkAdd(veth); err != nil {
		return err
	}
	return netlink.LinkSetUp(veth)
}

// address runs in the host. Its neighbour entries stay believed for an hour, so that nothing but an
// announcement changes them while a test runs.
func (h *host) address(number int) error {
	for _, family := range []string{"ipv4", "ipv6"} {
		if err := sysctl("net/"+family+"/neigh/eth0/base_reachable_time_ms", "3600000"); err != nil {
			return err
		}
	}
	if err := up("eth0"); err != nil {
		return err
	}
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	h.mac = link.Attrs().HardwareAddr
	for _, pattern := range []string{segment4, segment6} {
		address, err := netlink.ParseAddr(fmt.Sprintf(pattern, number))
		if err != nil {
			return err
		}
		if address.IP.To4() == nil {
			address.Flags = 0x2 // IFA_F_NODAD
		}
		if err := netlink.AddrAdd(link, address); err != nil {
			return err
		}
	}
	return nil
}

func sysctl(name, value string) error {
	return os.WriteFile("/proc/sys/"+name, []byte(value), 0o644)
}

// serve answers each connection to port 7000 with the host's name.
func (h *host) serve() {
	h.t.Helper()
	var l net.Listener
	h.must(func() (err error) {
		l, err = net.Listen("tcp", "[::]:7000")
		return err
	})
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, h.name)
			conn.Close()
		}
	})
	h.t.Cleanup(func() { l.Close(); serving.Wait() })
}

// reach connects to an address and returns the name of the host that answered, "" when none did.
func (h *host) reach(addr netip.Addr) string {
	var name []byte
	h.do(func() error {
		conn, err := net.DialTimeout("tcp", netip.AddrPortFrom(addr, 7000).String(), 100*time.Millisecond)
		if err != nil {
			return err
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(time.Second))
		name, err = io.ReadAll(conn)
		return err
	})
	return string(name)
}

func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("not seen: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// neighbour is the MAC that a host has cached for an address.
func (h *host) neighbour(addr netip.Addr) string {
	mac := ""
	h.must(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		list, err := whole(func() ([]netlink.Neigh, error) { return netlink.NeighList(link.Attrs().Index, netlink.FAMILY_ALL) })
		for _, n := range list {
			if n.IP.Equal(addr.AsSlice()) {
				mac = n.HardwareAddr.String()
			}
		}
		return err
	})
	return mac
}

// prefixes are what the host has on its interfaces for an address.
func (h *host) prefixes(v VIP) []string {
	var list []string
	h.must(func() error {
		all, err := local().Addresses()
		for _, a := range Held(v, all) {
			list = append(list, a.String())
		}
		return err
	})
	return list
}
