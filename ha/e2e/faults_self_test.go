package e2e

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/cstproxy/cstproxy/ha/remote"
	"github.com/cstproxy/cstproxy/ha/vip"
)

// still is how long silence is listened to. It can only make a fault go unnoticed, not a sound lab fail.
const still = 300 * time.Millisecond

// arrives sends until something arrives, for as long as it is told: the neighbour's address may have to
// be found first.
func arrives(t *testing.T, out net.Conn, in net.PacketConn, patience time.Duration) bool {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if _, err := out.Write([]byte("x")); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			continue // an ICMP answer to an earlier one
		}
		if err := in.SetReadDeadline(time.Now().Add(still / 6)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := in.ReadFrom(make([]byte, 1)); err == nil {
			return true
		}
	}
	return false
}

func someOfItIsLost(t *testing.T, l *Lab) {
	h1, h2 := l.Host("h1"), l.Host("h2")
	if !hears(t, h1, h2, patience) {
		t.Fatal("h1 does not reach h2")
	}
	l.Lose(50, h1, h2)
	defer l.Heal()
	in, out := datagrams(t, h1, h2)
	defer in.Close()
	defer out.Close()
	const sent = 200 // all or nothing of it arrives once in 2 to the power of 199 runs
	for range sent {
		if _, err := out.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	arrived := 0
	for err := error(nil); err == nil; arrived++ {
		if err = in.SetReadDeadline(time.Now().Add(still)); err == nil {
			_, _, err = in.ReadFrom(make([]byte, 1))
		}
	}
	if arrived--; arrived == 0 || arrived == sent {
		t.Errorf("with a loss of 50%%, %d of %d arrived", arrived, sent)
	}
}

// speaks opens a connection to the host's sshd and reads its banner.
func speaks(t *testing.T, from, to *Host) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := from.Dial(ctx, "tcp4", to.Addr+":22")
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 512)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// silent says that a connection is open and nothing comes, to a question either.
func silent(t *testing.T, conn net.Conn) {
	t.Helper()
	if _, err := conn.Write([]byte("SSH-2.0-lab\r\n")); err != nil {
		t.Errorf("write: %v", err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(still)); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 512)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection is not silent: %d bytes, %v", n, err)
	}
}

func aFrozenHostIsSilent(t *testing.T, l *Lab) {
	h1, h5 := l.Host("h1"), l.Host("h5")
	conn := speaks(t, h1, h5)
	defer conn.Close()
	h5.Freeze()
	if h1.reaches(t.Context(), h5.Addr) {
		t.Error("a frozen host takes a connection")
	}
	silent(t, conn)
	h5.Thaw()
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 512)); err != nil || n == 0 {
		t.Errorf("after the thaw the question has no answer: %v", err)
	}
}

func powerOffIsSilent(t *testing.T, l *Lab) {
	h1, h6 := l.Host("h1"), l.Host("h6")
	for name, before := range map[string]func(){"running": func() {}, "frozen": h6.Freeze} {
		conn := speaks(t, h1, h6)
		before()
		began := time.Now()
		h6.PowerOff()
		t.Logf("power off, %s: %s", name, time.Since(began).Round(time.Millisecond))
		silent(t, conn)
		if procs, err := os.ReadFile(h6.group() + "/cgroup.procs"); err != nil || len(procs) > 0 {
			t.Errorf("processes are left: %q %v", procs, err)
		}
		if got, err := h6.Exec(t.Context(), "hostname"); err == nil {
			t.Errorf("a host without power says %q", got)
		}
		if _, err := h6.Dial(t.Context(), "tcp4", h1.Addr+":22"); err == nil {
			t.Error("a host without power connects")
		}
		began = time.Now()
		h6.PowerOn()
		t.Logf("power on: %s", time.Since(began).Round(time.Millisecond))
		_ = conn.Close()
		if got, err := h6.Exec(t.Context(), "sh", "-c", "hostname; ls /var/log/sshd.log"); err != nil || got != "h6\n/var/log/sshd.log" {
			t.Errorf("powered on: %q, %v", got, err)
		}
		_ = speaks(t, h1, h6).Close()
	}
}

// member is a way from a host to another one, as the product makes it.
func member(t *testing.T, from, to *Host) *remote.Host {
	t.Helper()
	cfg := remote.DefaultConfig()
	cfg.Host, cfg.User = to.Addr, "root"
	cfg.KeyFile, cfg.KnownHostsFile = from.KeyFile(), from.lab.KnownHosts()
	host, err := remote.New(cfg, zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	// Run dials on the goroutine that it is called on, so its connections are the host's.
	go func() { ended <- from.Do(func() error { return host.Run(ctx) }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run the connection to %s: %v", to.Name, err)
		}
	})
	return host
}

// The address goes from h1 to h2 and back by the product's commands over its SSH connections, with h4
// as member, and h3 is a client whose neighbour entry is of the former holder.
func theVIPMoves(t *testing.T, l *Lab) {
	client, hosts := l.Host("h3"), []*Host{l.Host("h1"), l.Host("h2")}
	v := vip.VIP{Prefix: netip.MustParsePrefix("10.77.0.100/24")}
	ways := map[*Host]*remote.Host{}
	for _, h := range hosts {
		ways[h] = member(t, l.Host("h4"), h)
		if err := ways[h].Install(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	epoch := uint64(0)
	act := func(h *Host, argv []string) {
		t.Helper()
		epoch++
		token := remote.Token{Fleet: "lab", Cluster: "main", PGData: PGData, Epoch: epoch}
		if _, err := ways[h].Do(t.Context(), token, remote.Command{Argv: argv}); err != nil {
			t.Fatalf("%s: %v", h.Name, err)
		}
	}
	for i, holder := range []*Host{hosts[0], hosts[1], hosts[0]} {
		list, err := ways[holder].Ask(t.Context(), vip.ListCommand())
		if err != nil {
			t.Fatal(err)
		}
		addresses, err := vip.ParseAddresses(list.Stdout)
		if err != nil {
			t.Fatal(err)
		}
		iface, prefix, err := vip.Place(v, addresses)
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			act(hosts[i%2^1], vip.DropCommand(v))
		}
		act(holder, vip.TakeCommand(iface, prefix))
		if i == 0 { // an announcement changes what one knows, and teaches nobody
			await(t, "the VIP's answer", func(ctx context.Context) bool { return client.reaches(ctx, v.Addr().String()) })
		}
		entry, err := client.Exec(t.Context(), "ip", "neigh", "show", v.Addr().String())
		if want := holder.mac().String(); err != nil || !strings.Contains(entry, want) {
			t.Errorf("the client believes %q, want %s of %s: %v", entry, want, holder.Name, err)
		}
	}
	act(hosts[0], vip.DropCommand(v))
}

func aPrimaryAndTwoStandbys(t *testing.T, l *Lab) {
	h4 := l.Host("h4")
	nodes := l.Postgres(nil, l.Host("h1"), l.Host("h2"), l.Host("h3"))
	t.Cleanup(func() {
		for _, n := range nodes {
			if t.Failed() {
				t.Logf("%s:\n%s", n.Name, n.Log())
			}
		}
	})
	primary, standby := nodes[0], nodes[1]
	if _, err := PsqlFrom(t.Context(), h4, primary.Addr, "CREATE TABLE t (i int); INSERT INTO t VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes[1:] {
		await(t, "the row on "+n.Name, func(ctx context.Context) bool {
			got, err := PsqlFrom(ctx, h4, n.Name, "SELECT i, pg_is_in_recovery() FROM t")
			return err == nil && got == "1|t"
		})
	}
	primary.Hang()
	conn, err := h4.Dial(t.Context(), "tcp4", primary.Addr+":5432")
	if err != nil {
		t.Errorf("connect to a server that hangs: %v", err)
	} else {
		silent(t, conn)
		_ = conn.Close()
	}
	primary.Wake()
	if got, err := PsqlFrom(t.Context(), h4, primary.Name, "SELECT 1"); err != nil || got != "1" {
		t.Errorf("awake: %q, %v", got, err)
	}
	primary.Kill()
	if got, err := PsqlFrom(t.Context(), h4, primary.Name, "SELECT 1"); err == nil || !strings.Contains(err.Error(), "Connection refused") {
		t.Errorf("killed: %q, %v", got, err)
	}
	primary.Start()
	l.AwaitStreaming(primary, nodes[1:]...)
	primary.PowerOff()
	standby.Promote()
	if got, err := PsqlFrom(t.Context(), h4, standby.Name, "INSERT INTO t VALUES (2) RETURNING i"); err != nil || got != "2" {
		t.Errorf("promoted: %q, %v", got, err)
	}
	primary.PowerOn()
	primary.Start() // by hand, and wrongly: what is on its disk has outlived the power-off
	if got, err := primary.Psql(t.Context(), "SELECT i, pg_is_in_recovery() FROM t"); err != nil || got != "1|f" {
		t.Errorf("powered on: %q, %v", got, err)
	}
}
