package proxy

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/balancer"
	"github.com/cstproxy/cstproxy/ha/topology"
	"github.com/cstproxy/cstproxy/proxy/auth"
	"github.com/cstproxy/cstproxy/proxy/backend"
	"github.com/cstproxy/cstproxy/router"
)

// Two million frames of nonsense at the port of a real Proxy, before anybody has logged in: it does
// not fall, it does not grow, and whoever means well is still asked for a password.
func TestNonsenseBeforeLoginLeavesNothingBehind(t *testing.T) {
	const perConnection, atOnce = 1000, 8
	connections := 2_000_000 / perConnection
	if testing.Short() {
		connections /= 20
	}
	p := startProxy(t, topology.NewBoard("main"), auth.DefaultRules())
	address := p.Addresses()[0].String()
	throw := func(n int, seed uint64) {
		var throwers sync.WaitGroup
		for worker := range atOnce {
			throwers.Go(func() {
				r := rand.New(rand.NewPCG(seed, uint64(worker)))
				for range n / atOnce {
					throwFrames(t, address, nonsense(r, perConnection))
				}
			})
		}
		throwers.Wait()
		await(t, "all connections end", func() bool { return p.Stats().Clients.Load() == 0 })
	}
	throw(connections/10, 1) // buffers and tables reach their size
	before := heap()
	throw(connections, 2)
	if grown := heap() - before; grown > 4<<20 {
		t.Errorf("the process grew by %d bytes", grown)
	}
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(startupPacket(3<<16, "user", "scram")); err != nil {
		t.Fatal(err)
	}
	var head [1]byte
	if _, err := io.ReadFull(c, head[:]); err != nil || head[0] != 'R' {
		t.Errorf("a client who means well reads %q, %v", head, err)
	}
}

// startProxy runs a Proxy on a free port.
func startProxy(t *testing.T, board *topology.Board, access []auth.Rule, change ...func(*Config)) *Proxy {
	cfg := DefaultConfig()
	cfg.Listen = "127.0.0.1:0"
	cfg.PoolSize, cfg.MaxPrepared, cfg.MaxTurnBytes = 2, 2, 4096
	for _, fn := range change {
		fn(&cfg)
	}
	hba, err := auth.ParseRules(access)
	if err != nil {
		t.Fatal(err)
	}
	rules, err := router.CompileRules(nil)
	if err != nil {
		t.Fatal(err)
	}
	dial := backend.DefaultDialConfig()
	dial.ApplicationName = "" // as if nobody stood between
	dialer, err := backend.NewDialer(dial)
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(cfg, Parts{HBA: hba, Routing: rules, Dialer: dialer, Clusters: []Cluster{{Name: "main", Board: board,
		Catalog: &fakeCatalog{}, Balancer: balancer.New(balancer.DefaultConfig()), ReadOnly: balancer.New(balancer.DefaultConfig()),
		Failed: func(topology.NodeID) {}}}}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return p
}

// nonsense is a series of frames: some are start-up packets or nearly, some messages, some noise.
func nonsense(r *rand.Rand, n int) []byte {
	var out []byte
	switch r.IntN(4) {
	case 0:
		out = append(out, 0, 0, 0, 8, 4, 210, 22, 47) // SSLRequest
	case 1:
		out = startupPacket(3<<16, "user", "scram")
	}
	for range n {
		body := make([]byte, r.IntN(24))
		for i := range body {
			body[i] = byte(r.Uint32())
		}
		length := uint32(len(body) + 4)
		if r.IntN(8) == 0 {
			length = r.Uint32() >> r.IntN(32)
		}
		if r.IntN(2) == 0 {
			out = append(out, "pQPBXdSE\x16\x00"[r.IntN(10)])
		}
		out = append(binary.BigEndian.AppendUint32(out, length), body...)
	}
	return out
}

// throwFrames sends everything, as far as it is taken, and waits for the end.
func throwFrames(t *testing.T, address string, frames []byte) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Error(err)
		return
	}
	_, err = c.Write(frames)
	if err == nil {
		err = c.(*net.TCPConn).CloseWrite()
	}
	if err == nil {
		_, err = io.Copy(io.Discard, c)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the proxy neither answers nor hangs up")
	}
}

func heap() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// await polls a condition.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("it does not come about that %s", what)
		}
		<-tick.C
	}
}
