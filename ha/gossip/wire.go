package gossip

import (
	"encoding/binary"
	"errors"
	"fmt"
)

var errTruncated = errors.New("it ends too early")

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// reader takes values off the front of bytes that somebody else wrote. After the first error it
// returns zero values and keeps that error.
type reader struct {
	rest []byte
	err  error
}

func (r *reader) byte() byte {
	if r.err == nil && len(r.rest) == 0 {
		r.err = errTruncated
	}
	if r.err != nil {
		return 0
	}
	b := r.rest[0]
	r.rest = r.rest[1:]
	return b
}

// number reads a uvarint of at most limit.
func (r *reader) number(limit uint64) uint64 {
	if r.err != nil {
		return 0
	}
	n, size := binary.Uvarint(r.rest)
	switch {
	case size <= 0:
		r.err = errTruncated
	case n > limit:
		r.err = fmt.Errorf("number %d is over the limit of %d", n, limit)
	default:
		r.rest = r.rest[size:]
		return n
	}
	return 0
}

// text reads a text of at most limit bytes.
func (r *reader) text(limit int) string {
	n := r.number(uint64(limit))
	if r.err == nil && n > uint64(len(r.rest)) {
		r.err = errTruncated
	}
	if r.err != nil {
		return ""
	}
	s := string(r.rest[:n])
	r.rest = r.rest[n:]
	return s
}

// end is the error so far, or that something is left over.
func (r *reader) end() error {
	if r.err == nil && len(r.rest) > 0 {
		r.err = fmt.Errorf("%d bytes too many", len(r.rest))
	}
	return r.err
}
