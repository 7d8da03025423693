package gossip

import (
	"encoding/binary"
	"fmt"
)

// MaxMessage is how many bytes Broadcast takes: what fits into one packet of 1400 bytes next to
// encryption and the frame's head.
const MaxMessage = 1024

// kind says what a frame is.
type kind byte

const (
	message kind = iota + 1 // for the caller of Events
	delta                   // one change of the ledger
	goodbye                 // its origin leaves on purpose
)

const frameFormat = 1

// frame is one packet of ours inside memberlist's. Origin, boot and number name it, so that a
// member passes it on and handles it once, however often it comes.
type frame struct {
	kind    kind
	origin  string
	boot    uint64 // random for each run of the origin
	number  uint64 // from 1, rising by 1
	payload []byte
}

func (f frame) encode() []byte {
	b := append(make([]byte, 0, 2+maxName+20+len(f.payload)), frameFormat, byte(f.kind))
	b = appendText(b, f.origin)
	b = binary.BigEndian.AppendUint64(b, f.boot)
	b = binary.BigEndian.AppendUint64(b, f.number)
	return append(b, f.payload...)
}

// decodeFrame reads a frame; its payload lies in b.
func decodeFrame(b []byte) (frame, error) {
	r := reader{rest: b}
	format, f := r.byte(), frame{kind: kind(r.byte())}
	if r.err == nil && (format != frameFormat || f.kind < message || f.kind > goodbye) {
		return frame{}, fmt.Errorf("read a message: format %d, kind %d is not known", format, f.kind)
	}
	f.origin = r.text(maxName)
	if r.err == nil && (f.origin == "" || len(r.rest) < 16) {
		r.err = errTruncated
	}
	if r.err != nil {
		return frame{}, fmt.Errorf("read a message: %w", r.err)
	}
	f.boot = binary.BigEndian.Uint64(r.rest)
	f.number = binary.BigEndian.Uint64(r.rest[8:])
	f.payload = r.rest[16:]
	if f.number == 0 || len(f.payload) > MaxMessage {
		return frame{}, fmt.Errorf("read a message: number %d with %d bytes cannot be", f.number, len(f.payload))
	}
	return f, nil
}

// maxRuns bounds the memory of which frames were seen: runs of members.
const maxRuns = 128

type run struct {
	origin string
	boot   uint64
}

// window remembers the numbers of one run that were seen: top and the 64 before it. What is older
// counts as seen.
type window struct {
	top  uint64
	bits uint64 // bit i: top-i was seen
	used uint64 // when last, on seen's own count
}

// seen tells the first coming of a frame from the others. It is not safe for concurrent use.
type seen struct {
	runs map[run]*window
	uses uint64
}

// first notes a frame and says whether it is new.
func (s *seen) first(f frame) bool {
	s.uses++
	key := run{f.origin, f.boot}
	w := s.runs[key]
	if w == nil {
		if len(s.runs) >= maxRuns {
			s.forget()
		}
		s.runs[key] = &window{top: f.number, bits: 1, used: s.uses}
		return true
	}
	w.used = s.uses
	if f.number > w.top {
		w.bits = w.bits<<min(f.number-w.top, 64) | 1 // a shift by 64 or more gives 0
		w.top = f.number
		return true
	}
	back := w.top - f.number
	if back >= 64 || w.bits&(1<<back) != 0 {
		return false
	}
	w.bits |= 1 << back
	return true
}

// forget drops the run that was heard of the longest ago.
func (s *seen) forget() {
	var oldest run
	var used uint64
	for key, w := range s.runs {
		if used == 0 || w.used < used {
			oldest, used = key, w.used
		}
	}
	delete(s.runs, oldest)
}
