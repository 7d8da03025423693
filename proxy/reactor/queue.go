package reactor

import "golang.org/x/sys/unix"

// chunkSize is also the most that one TLS record carries (RFC 8446, 5.1), so that a full chunk of
// waiting plain text becomes one full record.
const chunkSize = 16 << 10

// maxFreeChunks bounds what a loop keeps for later: 2 MiB.
const maxFreeChunks = 128

// maxIovecs bounds one writev: 256 KiB, the default of HighWater.
const maxIovecs = 16

// chunk holds bytes waiting to be written: buf[r:w].
type chunk struct {
	next *chunk
	r, w int
	buf  []byte
}

// chunks is a loop's store of unused chunks.
type chunks struct {
	free *chunk
	n    int
}

func (s *chunks) get() *chunk {
	k := s.free
	if k == nil {
		return &chunk{buf: make([]byte, chunkSize)}
	}
	s.free, s.n = k.next, s.n-1
	k.next, k.r, k.w = nil, 0, 0
	return k
}

func (s *chunks) put(k *chunk) {
	if s.n >= maxFreeChunks {
		return
	}
	k.next, s.free = s.free, k
	s.n++
}

// queue is a list of chunks, first in, first out. The zero queue is empty.
type queue struct {
	head, tail *chunk
	n          int // bytes
}

func (q *queue) append(s *chunks, b []byte) {
	q.n += len(b)
	for len(b) > 0 {
		if q.tail == nil || q.tail.w == chunkSize {
			k := s.get()
			if q.tail == nil {
				q.head = k
			} else {
				q.tail.next = k
			}
			q.tail = k
		}
		m := copy(q.tail.buf[q.tail.w:], b)
		q.tail.w += m
		b = b[m:]
	}
}

// room is what the last chunk still takes.
func (q *queue) room() int {
	if q.tail == nil {
		return 0
	}
	return chunkSize - q.tail.w
}

// front is the first chunk's bytes.
func (q *queue) front() []byte { return q.head.buf[q.head.r:q.head.w] }

// drop removes the first n bytes.
func (q *queue) drop(s *chunks, n int) {
	q.n -= n
	for n > 0 {
		k := q.head
		if m := k.w - k.r; n < m {
			k.r += n
			return
		} else {
			n -= m
		}
		q.head = k.next
		if q.head == nil {
			q.tail = nil
		}
		s.put(k)
	}
}

func (q *queue) clear(s *chunks) { q.drop(s, q.n) }

// gather points v at the queue's first bytes and then, if all of the queue fitted, at b.
func (q *queue) gather(v []unix.Iovec, b []byte) []unix.Iovec {
	k := q.head
	for ; k != nil && len(v) < cap(v); k = k.next {
		v = append(v, iovec(k.buf[k.r:k.w]))
	}
	if k == nil && len(b) > 0 && len(v) < cap(v) {
		v = append(v, iovec(b))
	}
	return v
}

func iovec(b []byte) unix.Iovec {
	v := unix.Iovec{Base: &b[0]}
	v.SetLen(len(b))
	return v
}
