package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/conf"
	"github.com/cstproxy/cstproxy/ha/peer"
)

func TestAWitnessTakesNoClientsAndSaysSo(t *testing.T) {
	dir := t.TempDir()
	key, err := peer.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := peer.WriteKey(filepath.Join(dir, "key"), key); err != nil {
		t.Fatal(err)
	}
	proxyPort, readPort, adminPort, peerPort, server := freeAddress(t), freeAddress(t), freeAddress(t), freeAddress(t), freeAddress(t)
	host, port, _ := strings.Cut(server, ":")
	file := filepath.Join(dir, "cstproxy.toml")
	text := fmt.Sprintf("[proxy]\nlisten = %q\n[[listen]]\naddress = %q\nmode = \"standby\"\n[admin]\nlisten = %q\n[ha]\nstate_dir = %q\n"+
		"[fleet]\nname = \"w\"\nwitness = true\nbind = %q\npeer_bind = %q\nkey_file = %q\nvoters = [%q]\n"+
		"[[cluster]]\nname = \"a\"\n[[cluster.node]]\nid = 1\nhost = %q\nport = %s\n",
		proxyPort, readPort, adminPort, dir, freeAddress(t), peerPort, filepath.Join(dir, "key"), "w="+peerPort, host, port)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := conf.Load(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := newService(cfg, nil, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()

	for _, address := range []string{proxyPort, readPort} {
		if conn, err := net.DialTimeout("tcp", address, time.Second); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("the port %s of a witness: %v, %v", address, conn, err)
		}
	}
	code, out, errOut := cstproxy("status", "-f", file)
	if code != 0 || !strings.Contains(out, routesNothing) {
		t.Errorf("status: exit code %d\n%s%s", code, out, errOut)
	}
	for _, path := range []string{"/readyz", "/primary", "/replica"} {
		asked := stage{T: t, admin: adminPort}
		if code, body := asked.get(path); code != 503 || !strings.Contains(body, routesNothing) {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
}
