package proxy

import (
	"encoding/binary"
	"runtime"
	"testing"
)

// A message of a gigabyte goes through in pieces, either way, in bounded memory.
func TestAGigabyteIsStreamedInBoundedMemory(t *testing.T) {
	const size, piece = 1 << 30, 64 << 10
	head := func(typ byte) []byte {
		return binary.BigEndian.AppendUint32([]byte{typ}, size-1) // nearly PostgreSQL's own limit
	}
	chunk := make([]byte, piece)
	for _, test := range []struct {
		name  string
		begin string
		start string // what the server says before the data
		way   func(b *bench) (feed func([]byte), out *int)
		head  []byte
	}{
		{"a row", `Query "select 1"`, `Columns "a"`, toClient, head('D')},
		{"COPY out", `Query "copy t to stdout"`, `CopyOut`, toClient, head('d')},
		{"COPY in", `Query "copy t from stdin"`, `CopyIn`, toServer, head('d')},
		{"a Query", "", "", toServer, append(head('Q'), make([]byte, 4096)...)},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t)
			if test.begin != "" {
				b.session.Data(encode(t, test.begin, false))
			} else {
				b.session.Data(test.head)
			}
			b.w.settle()
			held := &silentLink{fakeLink: fakeLink{w: b.w}}
			b.session.held.Link = held
			if test.start != "" {
				b.session.held.Data(encode(t, test.start, true))
			}
			feed, out := test.way(b)
			if test.begin != "" {
				feed(test.head)
			}
			was, sent := allocated(), *out
			for range size/piece - 1 {
				feed(chunk)
			}
			if grown := allocated() - was; grown > 1<<20 {
				t.Errorf("allocated %d bytes", grown)
			}
			if n := *out - sent; n != (size/piece-1)*piece {
				t.Errorf("%d of %d bytes arrived", n, (size/piece-1)*piece)
			}
		})
	}
}

func toClient(b *bench) (func([]byte), *int) {
	return b.session.held.Data, &b.client.bytes
}

func toServer(b *bench) (func([]byte), *int) {
	return b.session.Data, &b.session.held.Link.(*silentLink).bytes
}

// allocated is how much has ever been allocated.
func allocated() int {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.TotalAlloc)
}
