package e2e

import (
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/cstproxy/cstproxy/cmd/cstproxy/stand"
)

// startupFrames are beginnings that get a server past its first check.
func startupFrames() [][]byte {
	packet := func(code uint32, body string) []byte {
		b := binary.BigEndian.AppendUint32(nil, uint32(8+len(body)))
		return append(binary.BigEndian.AppendUint32(b, code), body...)
	}
	return [][]byte{
		{},
		packet(80877103, ""), packet(80877104, ""), packet(80877102, "12345678"), // SSL, GSS, cancel
		packet(3<<16, "user\x00app\x00database\x00app\x00\x00"),
		packet(3<<16|9999, "user\x00app\x00_pq_.x\x00y\x00\x00"),
		packet(3<<16, "user\x00app\x00options\x00-c a=b -c\x00\x00"),
		packet(3<<16, "user"), packet(2<<16, ""), packet(0xffffffff, ""),
	}
}

// frame is a random message, with a length that may lie.
func frame(rng *rand.Rand) []byte {
	const kinds = "pQPBDECSHXfdcFp\x00\x16\xff"
	body := make([]byte, rng.IntN(40))
	for i := range body {
		body[i] = byte(rng.Uint32())
	}
	length := uint32(len(body) + 4)
	switch rng.IntN(8) {
	case 0:
		length = rng.Uint32()
	case 1:
		length = uint32(rng.IntN(5))
	}
	b := []byte{kinds[rng.IntN(len(kinds))]}
	return append(binary.BigEndian.AppendUint32(b, length), body...)
}

// TestRandomFramesNeitherCrashTheProxyNorFeedIt talks nonsense to the unauthenticated port.
func TestRandomFramesNeitherCrashTheProxyNorFeedIt(t *testing.T) {
	w := sharedWorld(t)
	p := w.secondProxy(t, stand.Options{Proxy: "login_timeout = \"2s\""})
	frames := 20_000
	if span(1, 2) == 2 {
		frames = 2_000_000
	}
	rng := rand.New(rand.NewPCG(1, 2)) // the same nonsense each time
	begin, settled := rss(t, p.PID()), 0
	for sent := 0; sent < frames; {
		conn, err := net.Dial("tcp", p.Listen())
		if err != nil {
			t.Fatalf("after %d frames: %v", sent, err)
		}
		starts := startupFrames()
		_, err = conn.Write(starts[rng.IntN(len(starts))])
		for range 1 + rng.IntN(50) {
			if err != nil {
				break // it had enough
			}
			_, err = conn.Write(frame(rng))
			sent++
		}
		if rng.IntN(4) == 0 { // hear it out
			_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			_, _ = io.CopyN(io.Discard, conn, 1<<16)
		}
		_ = conn.Close()
		if settled == 0 && sent > frames/10 {
			settled = rss(t, p.PID())
		}
	}
	mustExec(t, connect(t, p.URL(appUser, appPassword, appDB)), "SELECT 1")
	end := rss(t, p.PID())
	t.Logf("%d frames; resident memory %d kB at first, %d kB after a tenth, %d kB at the end", frames, begin, settled, end)
	if end > settled+8<<10 {
		t.Errorf("resident memory grew from %d kB to %d kB", settled, end)
	}
}
