package gossip

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// patience bounds every wait; it decides nothing but how long a failing test takes.
const patience = 30 * time.Second

// probe is long enough that a busy machine does not make members miss each other all the time.
const probe = 250 * time.Millisecond

// memberOf makes this program be one member: name, join address.
const memberOf = "GOSSIP_TEST_MEMBER"

func TestMain(m *testing.M) {
	if args := os.Getenv(memberOf); args != "" {
		beMember(strings.Fields(args))
		return
	}
	code := m.Run()
	if code == 0 {
		if err := leaks(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// leaks awaits the end of memberlist's last goroutines.
func leaks() error {
	deadline := time.Now().Add(patience)
	for {
		err := goleak.Find()
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// beMember runs a member until it is killed, in a process of its own.
func beMember(args []string) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	g, err := New(settings(args[0], "127.0.0.9", args[1:]...), nil, zap.NewNop())
	if err == nil {
		err = g.Run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func settings(name, ip string, join ...string) Config {
	c := DefaultConfig()
	c.Name, c.Bind, c.Join, c.Key = name, net.JoinHostPort(ip, "0"), join, bytes.Repeat([]byte("k"), KeySize)
	c.Meta = Meta{Peer: ip + ":7947", Version: "1.0", Role: Voter}
	c.ProbeInterval = probe
	return c
}

// member is a running Gossip with a reader of its events.
type member struct {
	*Gossip
	t     *testing.T
	logs  *observer.ObservedLogs
	stop  func()
	ended chan struct{}

	mu     sync.Mutex
	events []Event
	wake   chan struct{}
}

// begin runs a member until the test ends.
func begin(t *testing.T, c Config) *member {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	g, err := New(c, nil, zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m := &member{Gossip: g, t: t, logs: logs, ended: make(chan struct{}), wake: make(chan struct{}, 1)}
	var running sync.WaitGroup
	running.Go(func() {
		if err := g.Run(ctx); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
	})
	running.Go(func() { m.read(ctx) })
	var once sync.Once
	m.stop = func() { once.Do(func() { cancel(); running.Wait(); close(m.ended) }) }
	t.Cleanup(m.stop)
	m.await("its own address", func() bool { return m.address() != "" })
	return m
}

func (m *member) address() string { return m.Members()[0].Address }

func (m *member) read(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-m.Events():
			m.mu.Lock()
			m.events = append(m.events, e)
			m.mu.Unlock()
		}
	}
}

// happened is how often an event happened that satisfies is.
func (m *member) happened(is func(Event) bool) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, e := range m.events {
		if is(e) {
			n++
		}
	}
	return n
}

func (m *member) await(what string, is func() bool) {
	m.t.Helper()
	await(m.t, m.config.Name+": "+what, is)
}

func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("not seen: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// present are the names of the members that m sees.
func (m *member) present() string {
	var names []string
	for _, other := range m.Members()[1:] {
		if other.Presence == Present {
			names = append(names, other.Name)
		}
	}
	return strings.Join(names, " ")
}

func (m *member) presence(name string) Presence {
	for _, other := range m.Members() {
		if other.Name == name {
			return other.Presence
		}
	}
	return Gone
}

func (m *member) sees(names string) {
	m.t.Helper()
	m.await("the members "+names, func() bool { return m.present() == names })
}

// fleet begins n members m1, m2 … that all join the first, and awaits that each sees all.
func fleet(t *testing.T, n int) []*member {
	t.Helper()
	members := []*member{begin(t, settings("m1", "127.0.0.1"))}
	for i := 2; i <= n; i++ {
		members = append(members, begin(t, settings(fmt.Sprint("m", i), fmt.Sprint("127.0.0.", i), members[0].address())))
	}
	for _, m := range members {
		m.await("the whole fleet", func() bool { return len(m.Members()) == n && len(strings.Fields(m.present())) == n-1 })
	}
	return members
}

// spawn begins a member in a process of its own, so that it can be killed and stopped.
func spawn(t *testing.T, name, join string) *os.Process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), memberOf+"="+name+" "+join)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("%s: %s", name, stderr.String())
		}
	})
	return cmd.Process
}

// relay carries packets and connections to one member, three times each packet, unless it is cut.
type relay struct {
	address string
	target  atomic.Pointer[string]
	cut     atomic.Bool
	copies  int
}

// newRelay makes a relay that knows its target later.
func newRelay(t *testing.T, copies int) *relay {
	t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{address: tcp.Addr().String(), copies: copies}
	var running sync.WaitGroup
	running.Go(func() { r.packets(udp) })
	running.Go(func() { r.connections(tcp, &running) })
	t.Cleanup(func() { tcp.Close(); udp.Close(); running.Wait() })
	return r
}

func (r *relay) packets(udp net.PacketConn) {
	buf := make([]byte, 65536)
	for {
		n, _, err := udp.ReadFrom(buf)
		if err != nil {
			return
		}
		target := r.target.Load()
		if r.cut.Load() || target == nil {
			continue
		}
		if to, err := net.ResolveUDPAddr("udp", *target); err == nil {
			for range r.copies {
				udp.WriteTo(buf[:n], to)
			}
		}
	}
}

func (r *relay) connections(tcp net.Listener, running *sync.WaitGroup) {
	for {
		conn, err := tcp.Accept()
		if err != nil {
			return
		}
		target := r.target.Load()
		if r.cut.Load() || target == nil {
			conn.Close()
			continue
		}
		running.Go(func() {
			defer conn.Close()
			to, err := net.Dial("tcp", *target)
			if err != nil {
				return
			}
			defer to.Close()
			var back sync.WaitGroup
			back.Go(func() { io.Copy(conn, to); conn.Close(); to.Close() })
			io.Copy(to, bufio.NewReader(conn))
			back.Wait()
		})
	}
}

// behind begins a member that the others reach through a relay only.
func behind(t *testing.T, r *relay, c Config) *member {
	t.Helper()
	c.Bind = "127.0.0.1:0"
	c.Advertise = strings.Replace(r.address, "127.0.0.1", "localhost", 1)
	// The relay must know the bound port, which the kernel chooses: bind one and give it back.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.Bind = l.Addr().String()
	l.Close()
	r.target.Store(&c.Bind)
	return begin(t, c)
}
