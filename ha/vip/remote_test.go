package vip

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// The commands run in the hosts as SSH would run them: the same words, a bare environment.
func TestTheCommandsMoveTheVIP(t *testing.T) {
	needTools(t, "ip", "python3", "arping")
	for family, prefix := range families {
		for _, tools := range []string{"all tools", "no arping"} {
			t.Run(family+", "+tools, func(t *testing.T) {
				t.Parallel()
				env := []string{"PATH=/usr/bin:/bin"}
				if tools == "no arping" {
					env = []string{"PATH=" + toolsWithout(t, "arping")}
				}
				hosts := newSegment(t, "a", "b", "client")
				a, b, client := hosts[0], hosts[1], hosts[2]
				a.serve()
				b.serve()
				v := vipOf(t, prefix)
				run := func(h *host, argv []string) string {
					t.Helper()
					out, err := h.run(env, argv...)
					if err != nil {
						t.Fatalf("%s: %v", h.name, err)
					}
					return out
				}
				for _, holder := range []*host{a, b} {
					list, err := ParseAddresses([]byte(run(holder, ListCommand())))
					if err != nil {
						t.Fatal(err)
					}
					iface, full, err := Place(v, list)
					if err != nil {
						t.Fatal(err)
					}
					run(holder, TakeCommand(iface, full))
					await(t, holder.name+"'s answer", func() bool { return client.reach(v.Addr()) == holder.name })
					run(holder, TakeCommand(iface, full)) // a repetition changes nothing
					if got := holder.prefixes(v); len(got) != 1 || got[0] != iface+" "+full.String() {
						t.Errorf("%s has %q", holder.name, got)
					}
					for range 2 {
						run(holder, DropCommand(v))
					}
					if got := holder.prefixes(v); len(got) != 0 {
						t.Errorf("%s still has %q", holder.name, got)
					}
				}
			})
		}
	}
}

func TestAHostWithoutToolsSaysSo(t *testing.T) {
	t.Parallel()
	needTools(t, "ip")
	a := newSegment(t, "a")[0]
	env := []string{"PATH=" + toolsWithout(t, "arping", "python3")}
	for _, prefix := range families {
		v := vipOf(t, prefix)
		full := netip.PrefixFrom(v.Addr(), v.Addr().BitLen())
		_, err := a.run(env, TakeCommand("eth0", full)...)
		if exitCode(err) != ExitUnannounced || !strings.Contains(err.Error(), "install iputils-arping or python3") {
			t.Errorf("take %s: %v", v, err)
		}
		if got := a.prefixes(v); len(got) != 1 {
			t.Errorf("the host has %q", got)
		}
		_, err = a.run(env, DropCommand(v)...)
		if err != nil {
			t.Error(err)
		}
		if _, err := a.run(env, AnnounceCommand("eth0", v)...); exitCode(err) != 1 || !strings.Contains(err.Error(), "is not on eth0") {
			t.Errorf("announce what is not there: %v", err)
		}
		if _, err := a.run(env, TakeCommand("eth9", full)...); exitCode(err) != 1 || !strings.Contains(err.Error(), "eth9") {
			t.Errorf("take on an interface that is not there: %v", err)
		}
	}
}

// Without rights the commands say which are missing.
func TestTheCommandsNeedRights(t *testing.T) {
	t.Parallel()
	needTools(t, "ip")
	a := newSegment(t, "a")[0]
	v := vipOf(t, "10.99.0.40/24")
	asNobody := func(argv []string) error {
		var stderr strings.Builder
		err := a.do(func() error {
			cmd := exec.Command(argv[0], argv[1:]...)
			cmd.Env, cmd.Stderr = []string{"PATH=/usr/bin:/bin"}, &stderr
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
			return cmd.Run()
		})
		if err != nil {
			return fmt.Errorf("%w: %s", err, stderr.String())
		}
		return nil
	}
	take := TakeCommand("eth0", netip.PrefixFrom(v.Addr(), 32))
	if err := asNobody(take); exitCode(err) != 1 || !strings.Contains(err.Error(), "nobody needs sudo") {
		t.Errorf("take: %v", err)
	}
	if err := asNobody(DropCommand(v)); err != nil {
		t.Errorf("drop what is not there: %v", err)
	}
	a.must(func() error { return put(v) })
	if err := asNobody(DropCommand(v)); exitCode(err) != 1 || !strings.Contains(err.Error(), "nobody needs sudo") {
		t.Errorf("drop: %v", err)
	}
	if err := asNobody(ListCommand()); err != nil {
		t.Errorf("list: %v", err)
	}
}

// What a host says of itself over SSH is what netlink says there.
func TestTheListIsReadAsNetlinkReadsIt(t *testing.T) {
	t.Parallel()
	needTools(t, "ip")
	a := newSegment(t, "a")[0]
	await(t, "settled addresses", func() bool {
		var mine []Address
		a.must(func() (err error) { mine, err = local().Addresses(); return err })
		return !slices.ContainsFunc(mine, func(x Address) bool { return x.Tentative })
	})
	out, err := a.run(nil, ListCommand()...)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := ParseAddresses([]byte(out))
	if err != nil {
		t.Fatal(err)
	}
	var mine []Address
	a.must(func() (err error) { mine, err = local().Addresses(); return err })
	key := func(list []Address) (keys []string) {
		for _, x := range list {
			up := "down"
			if x.Up {
				up = "up"
			}
			keys = append(keys, strings.Join([]string{x.String(), up, x.MAC.String()}, " "))
		}
		slices.Sort(keys)
		return keys
	}
	if len(mine) < 4 || !slices.Equal(key(mine), key(theirs)) {
		t.Errorf("netlink says %q, ip says %q", key(mine), key(theirs))
	}
}

func TestAddressesOfHostsAreNotTrusted(t *testing.T) {
	for _, output := range []string{
		"", "nothing", "{}", `[{"ifname":"eth0","addr_info":[{"local":"x","prefixlen":24}]}]`,
		`[{"ifname":"eth0","addr_info":[{"local":"10.0.0.1","prefixlen":33}]}]`,
		`[{"ifname":"eth0","addr_info":[{"local":"10.0.0.1","prefixlen":-1}]}]`, `[{"ifname":7}]`,
	} {
		if list, err := ParseAddresses([]byte(output)); err == nil {
			t.Errorf("%s was read as %v", output, list)
		}
	}
	list, err := ParseAddresses([]byte(`[{},{"ifname":"wg0","flags":["UP"],"operstate":"UNKNOWN","addr_info":[{"local":"10.0.0.1","prefixlen":24}]},
		{"ifname":"eth0","link_type":"ether","address":"02:00:00:00:00:01","flags":["UP"],"operstate":"DOWN","addr_info":[{"local":"fd00::1","prefixlen":64,"tentative":true,"dadfailed":true}]}]`))
	if err != nil || len(list) != 2 {
		t.Fatalf("%v, %v", list, err)
	}
	if list[0].MAC != nil || !list[0].Up || list[1].Up || !list[1].Tentative || !list[1].Failed || list[1].MAC == nil {
		t.Errorf("%+v", list)
	}
}

func needTools(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("this test needs %s: scripts/install-deps test installs it", name)
		}
	}
}

// toolsWithout is a directory with the tools of the script but for some.
func toolsWithout(t *testing.T, missing ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"sh", "id", "ip", "sleep", "arping", "python3", "sudo"} {
		path, err := exec.LookPath(filepath.Join("/usr/bin", name))
		if slices.Contains(missing, name) || err != nil {
			continue
		}
		if err := os.Symlink(path, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
