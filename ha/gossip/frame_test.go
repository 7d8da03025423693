package gossip

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/cstproxy/cstproxy/ha/topology"
)

func TestAFrameIsNewOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := seen{runs: map[run]*window{}}
		model := map[frame2]bool{}
		top := map[string]uint64{}
		for range rapid.IntRange(0, 300).Draw(t, "frames") {
			f := frame{origin: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "origin"), number: rapid.Uint64Range(1, 200).Draw(t, "number")}
			was := model[frame2{f.origin, f.number}]
			first := s.first(f)
			if first && was {
				t.Fatalf("frame %d of %s is new twice", f.number, f.origin)
			}
			if !first && !was && f.number+63 >= top[f.origin] {
				t.Fatalf("frame %d of %s was not seen, newest is %d", f.number, f.origin, top[f.origin])
			}
			model[frame2{f.origin, f.number}] = true
			top[f.origin] = max(top[f.origin], f.number)
		}
	})
}

type frame2 struct {
	origin string
	number uint64
}

func TestTheMemoryOfRunsIsBounded(t *testing.T) {
	s := seen{runs: map[run]*window{}}
	for boot := range uint64(10 * maxRuns) {
		if !s.first(frame{origin: "m", boot: boot, number: 1}) {
			t.Fatalf("run %d was seen before", boot)
		}
		if !s.first(frame{origin: "steady", number: boot + 1}) || s.first(frame{origin: "steady", number: boot + 1}) {
			t.Fatalf("the steady member's run was forgotten at %d", boot)
		}
	}
	if len(s.runs) > maxRuns {
		t.Errorf("%d runs are remembered", len(s.runs))
	}
}

func TestFramesAndDescriptionsSurviveTheWire(t *testing.T) {
	f := frame{kind: delta, origin: strings.Repeat("n", maxName), boot: 1<<63 + 5, number: 7, payload: bytes.Repeat([]byte("x"), MaxMessage)}
	got, err := decodeFrame(f.encode())
	if err != nil || !reflect.DeepEqual(got, f) {
		t.Errorf("%+v came back, %v", got, err)
	}
	m := Meta{Peer: "10.0.0.1:7947", Admin: "10.0.0.1:8082", Version: "1.2.3", Role: Witness, Epochs: map[string]topology.Epoch{"main": 7, "other": 1 << 40}}
	back, err := decodeMeta(m.encode())
	if err != nil || !reflect.DeepEqual(back, m) {
		t.Errorf("%+v came back, %v", back, err)
	}
}

func TestADescriptionAlwaysFits(t *testing.T) {
	long := strings.Repeat("h", maxAddress)
	m := Meta{Peer: long, Admin: long, Version: strings.Repeat("v", maxName), Epochs: map[string]topology.Epoch{}}
	for i := range 100 {
		m.Epochs[fmt.Sprintf("cluster%02d", i)] = topology.Epoch(i)
	}
	if err := m.validate(); err != nil {
		t.Fatal(err)
	}
	b := m.encode()
	if len(b) > maxMeta {
		t.Fatalf("%d bytes", len(b))
	}
	back, err := decodeMeta(b)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(back.Epochs); n < 5 || n == 100 {
		t.Errorf("%d epochs were told", n)
	}
	if back.Epochs["cluster01"] != 1 || back.Peer != long {
		t.Errorf("%+v", back)
	}
}

func FuzzFrame(f *testing.F) {
	f.Add(frame{kind: message, origin: "m", number: 1, payload: []byte("hello")}.encode())
	f.Add(Meta{Peer: "a:1", Epochs: map[string]topology.Epoch{"c": 1}}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := decodeFrame(b); err == nil && !bytes.Equal(mustEncode(got), b) {
			if again, err := decodeFrame(mustEncode(got)); err != nil || !reflect.DeepEqual(again, got) {
				t.Fatalf("%+v and %+v, %v", got, again, err)
			}
		}
		if got, err := decodeMeta(b); err == nil && len(got.encode()) > maxMeta {
			t.Fatalf("%d bytes", len(got.encode()))
		}
	})
}

func mustEncode(f frame) []byte { return f.encode() }
