package reactor

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// TestAcceptingRestsWhileDescriptorsAreOut runs itself in a process of its own that may open few
// descriptors, dials more than those, and sees all of them served as descriptors come free.
func TestAcceptingRestsWhileDescriptorsAreOut(t *testing.T) {
	if os.Getenv("REACTOR_FEW_DESCRIPTORS") != "" {
		serveWithFewDescriptors(t)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestAcceptingRestsWhileDescriptorsAreOut$", "-test.v")
	cmd.Env = append(os.Environ(), "REACTOR_FEW_DESCRIPTORS=1")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	value := func(key string) string {
		for lines.Scan() {
			if v, ok := strings.CutPrefix(lines.Text(), key+" "); ok {
				return v
			}
		}
		t.Fatalf("the process ended without saying its %s", key)
		return ""
	}
	addr := value("address")
	var conns []*net.TCPConn
	for range 60 {
		conns = append(conns, dial(t, addr))
	}
	if _, err := readFull(conns[0], make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
	if v := value("resting"); v != "yes" {
		t.Fatal(v)
	}
	for i, c := range conns {
		if i > 0 {
			if _, err := readFull(c, make([]byte, 2)); err != nil {
				t.Fatalf("client %d: %v", i, err)
			}
		}
		c.Close()
	}
	stdin.Close()
	cycles, err := strconv.Atoi(value("cycles"))
	if err != nil || cycles > 2000 {
		t.Errorf("%d cycles of the loop, %v: it must not spin", cycles, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
}

func serveWithFewDescriptors(t *testing.T) {
	cfg := quick()
	cfg.AcceptPause = 5 * time.Millisecond
	l, err := New(cfg, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Listen(ln, func(c *Conn, _ netip.AddrPort) Handler {
		c.Write([]byte("hi"))
		return &funcs{}
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 40, Max: 40}); err != nil {
		t.Fatal(err)
	}
	fmt.Printf("address %s\n", ln.Addr())
	eventually(t, "accepting rests", func() bool { return l.Stats().AcceptPauses > 2 })
	fmt.Println("resting yes")
	_, _ = os.Stdin.Read(make([]byte, 1))
	fmt.Printf("cycles %d\n", l.Stats().Cycles)
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
