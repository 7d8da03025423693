package e2e

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// One lab and all it can do, one after the other: a boot of six hosts is a second, a cluster six.
func TestALabIsSixHostsAndTheirFaults(t *testing.T) {
	var dir, groups string
	t.Run("lab", func(t *testing.T) {
		l := New(t, Options{Hosts: []string{"h1", "h2", "h3", "h4", "h5", "h6"}})
		dir, groups = l.dir, l.groups
		t.Run("hosts are apart", func(t *testing.T) { hostsAreApart(t, l) })
		t.Run("ssh", func(t *testing.T) { sshVerifiesTheHost(t, l) })
		t.Run("partitions", func(t *testing.T) { partitionsCutAndHeal(t, l) })
		t.Run("loss", func(t *testing.T) { someOfItIsLost(t, l) })
		t.Run("freeze", func(t *testing.T) { aFrozenHostIsSilent(t, l) })
		t.Run("power", func(t *testing.T) { powerOffIsSilent(t, l) })
		t.Run("vip", func(t *testing.T) { theVIPMoves(t, l) })
		t.Run("postgres", func(t *testing.T) { aPrimaryAndTwoStandbys(t, l) })
	})
	if dir != "" {
		nothingIsLeft(t, dir, groups)
	}
}

// nothingIsLeft of a lab: what runs in a host is in its control group, so a group that is gone says
// that its processes, and with them its mounts and networks, are gone.
func nothingIsLeft(t *testing.T, dir, groups string) {
	t.Helper()
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", dir, err)
	}
	if left, err := filepath.Glob(groups + "*"); err != nil || len(left) > 0 {
		t.Errorf("control groups are left: %v %v", left, err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), dir) {
		t.Errorf("mounts are left:\n%s", mounts)
	}
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range all {
		if text, err := os.ReadFile(file); err == nil && strings.Contains(string(text), dir) {
			t.Errorf("a process is left: %s %q", file, text)
		}
	}
}

// reaches says whether the host gets a connection to an sshd. It gives up after a second.
func (h *Host) reaches(ctx context.Context, addr string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	conn, err := h.Dial(ctx, "tcp4", addr+":22")
	if err != nil {
		return false
	}
	return conn.Close() == nil
}

func hostsAreApart(t *testing.T, l *Lab) {
	h1, h2 := l.Host("h1"), l.Host("h2")
	if err := os.WriteFile(filepath.Join(l.Share(), "given"), []byte("to all"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"/etc", "/run", "/tmp", "/home", "/root", "/var/log", "/var/lib/postgresql", "/dev/shm"} {
		if _, err := h1.Exec(t.Context(), "touch", dir+"/of-h1"); err != nil {
			t.Fatal(err)
		}
		if _, err := h2.Exec(t.Context(), "test", "!", "-e", dir+"/of-h1"); err != nil {
			t.Errorf("h2 sees what h1 has in %s", dir)
		}
		if _, err := os.Stat(dir + "/of-h1"); !os.IsNotExist(err) {
			t.Errorf("the machine sees what h1 has in %s: %v", dir, err)
		}
	}
	for _, h := range l.hosts {
		if got, err := h.Exec(t.Context(), "sh", "-c", "hostname; cat /run/lab/given"); err != nil || got != h.Name+"\nto all" {
			t.Errorf("%s: %q, %v", h.Name, got, err)
		}
		for _, other := range l.hosts {
			if !hears(t, h, other, patience) {
				t.Errorf("%s does not reach %s", h.Name, other.Name)
			}
		}
	}
	if _, err := h1.Exec(t.Context(), "sh", "-c", "(sleep 0.1 &) "); err != nil { // an orphan
		t.Fatal(err)
	}
	await(t, "pid 1 to reap the orphan", func(ctx context.Context) bool {
		got, err := h1.Exec(ctx, "pgrep", "-c", "sleep")
		return err != nil && got == "0"
	})
}

func sshVerifiesTheHost(t *testing.T, l *Lab) {
	h4 := l.Host("h4")
	login := func(user string) (string, error) {
		return output(h4.Command(t.Context(), user, "ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", user+"@h2", "whoami; hostname"))
	}
	for _, user := range []string{"root", "postgres"} {
		if got, err := login(user); err != nil || got != user+"\nh2" {
			t.Errorf("as %s: %q, %v", user, got, err)
		}
	}
	// As another host's key, h2's is refused.
	const swap = `sed -i.bak 's|,h2 .*|,h2 '"$(cut -d' ' -f2- /etc/ssh/ssh_known_hosts | tail -1)"'|' /etc/ssh/ssh_known_hosts`
	if _, err := h4.Exec(t.Context(), "bash", "-c", swap); err != nil {
		t.Fatal(err)
	}
	if got, err := login("root"); err == nil || !strings.Contains(err.Error(), "Host key verification failed") {
		t.Errorf("a wrong host key: %q, %v", got, err)
	}
	if _, err := h4.Exec(t.Context(), "mv", "/etc/ssh/ssh_known_hosts.bak", "/etc/ssh/ssh_known_hosts"); err != nil {
		t.Fatal(err)
	}
}

// hears says whether a datagram of from arrives at to: one way, but for the question who has the address.
func hears(t *testing.T, from, to *Host, patience time.Duration) bool {
	t.Helper()
	in, out := datagrams(t, from, to)
	defer in.Close()
	defer out.Close()
	return arrives(t, out, in, patience)
}

// datagrams are a socket of to and one of from that sends there.
func datagrams(t *testing.T, from, to *Host) (in net.PacketConn, out net.Conn) {
	t.Helper()
	if err := to.Do(func() (err error) { in, err = net.ListenPacket("udp4", ":7946"); return err }); err != nil {
		t.Fatal(err)
	}
	out, err := from.Dial(t.Context(), "udp4", to.Addr+":7946")
	if err != nil {
		t.Fatal(err)
	}
	return in, out
}

func partitionsCutAndHeal(t *testing.T, l *Lab) {
	h1, h2, h3 := l.Host("h1"), l.Host("h2"), l.Host("h3")
	expect := func(what string, want map[[2]*Host]bool) {
		t.Helper()
		for pair, arrives := range want {
			listen := still
			if arrives {
				listen = patience
			}
			if got := hears(t, pair[0], pair[1], listen); got != arrives {
				t.Errorf("%s: %s to %s: %v", what, pair[0].Name, pair[1].Name, got)
			}
		}
	}
	expect("whole", map[[2]*Host]bool{{h1, h2}: true, {h2, h1}: true, {h2, h3}: true, {h3, h1}: true})
	l.Cut(h1, h2)
	expect("one way", map[[2]*Host]bool{{h1, h2}: false, {h2, h1}: true, {h1, h3}: true})
	l.Heal()
	l.Partition([]*Host{h1}, []*Host{h2})
	expect("a pair", map[[2]*Host]bool{{h1, h2}: false, {h2, h1}: false, {h1, h3}: true, {h3, h2}: true})
	l.Heal()
	l.Partition([]*Host{h1, h2}, []*Host{h3})
	expect("groups", map[[2]*Host]bool{{h1, h2}: true, {h2, h3}: false, {h3, h1}: false})
	l.Heal()
	h3.Unplug()
	if h1.reaches(t.Context(), h3.Addr) {
		t.Error("h3 is reached without a cable")
	}
	h3.Plug()
	await(t, "the cable", func(ctx context.Context) bool { return h1.reaches(ctx, h3.Addr) })
	expect("healed", map[[2]*Host]bool{{h1, h2}: true, {h2, h1}: true, {h3, h1}: true})
}
