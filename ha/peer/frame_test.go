package peer

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"testing"
	"time"
)

func TestFramesAreReadAsTheyWereWritten(t *testing.T) {
	q := request{method: "lease", budget: 1500 * time.Millisecond, body: []byte("body")}
	b := appendRequest(nil, 7, q)
	b = appendFrame(b, frameAnswer, 8)
	r := bytes.NewReader(b)
	f, err := readFrame(r)
	if err != nil || f.kind != frameRequest || f.id != 7 {
		t.Fatalf("%+v, %v", f, err)
	}
	got, err := parseRequest(f.rest)
	if err != nil || got.method != q.method || got.budget != q.budget || !bytes.Equal(got.body, q.body) {
		t.Fatalf("%+v, %v", got, err)
	}
	if f, err := readFrame(r); err != nil || f.kind != frameAnswer || f.id != 8 || len(f.rest) != 0 {
		t.Fatalf("%+v, %v", f, err)
	}
	if _, err := readFrame(r); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
}

func TestAClaimedLengthTakesNoMemory(t *testing.T) {
	claim := []byte{0, 0x10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1}
	const rounds = 100
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range rounds {
		if _, err := readFrame(bytes.NewReader(claim)); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / rounds; each > 4*readChunk {
		t.Errorf("a length of 1 MB and no body take %d bytes", each)
	}
	for _, claim := range [][]byte{{0, 0, 0, 0}, {0, 0, 0, 8}, {0xff, 0xff, 0xff, 0xff}, {0, 0x20, 0, 0}} {
		if _, err := readFrame(bytes.NewReader(append(claim, make([]byte, 64)...))); !errors.Is(err, errFrame) {
			t.Errorf("%x: %v", claim, err)
		}
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add(appendRequest(nil, 1, request{method: "m", budget: time.Second, body: []byte("x")}))
	f.Add(appendFrame(nil, frameRefusal, 2, []byte("no")))
	f.Add([]byte{0, 0, 0, 9, 1, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := readFrame(bytes.NewReader(b))
		if err != nil {
			return
		}
		if again := appendFrame(nil, got.kind, got.id, got.rest); !bytes.HasPrefix(b, again) {
			t.Errorf("%x was written as %x", b, again)
		}
		q, err := parseRequest(got.rest)
		if err != nil {
			return
		}
		if len(q.method) == 0 || len(q.method) > maxMethod || len(q.body) > MaxBody || q.budget > maxCallBudget || q.budget < 0 {
			t.Errorf("out of bounds: %+v", q)
		}
	})
}
