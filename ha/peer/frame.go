package peer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// MaxBody bounds the body of a request or an answer, in bytes.
const MaxBody = 1 << 20

const (
	maxMethod     = 64      // bytes
	maxText       = 4 << 10 // bytes of a refusal's text
	frameHead     = 4 + 1 + 8
	requestHead   = 4 + 1
	maxFrame      = 1 + 8 + requestHead + maxMethod + MaxBody // what the length field may say
	minFrame      = 1 + 8
	readChunk     = 32 << 10 // bytes taken on trust in a claimed length
	maxCallBudget = 60 * time.Second
)

// frameKind is the fifth byte of a frame.
type frameKind byte

const (
	frameRequest frameKind = iota + 1 // timeout in ms (4 bytes), length of method (1), method, body
	frameAnswer                       // body
	frameRefusal                      // text
)

// frame is one message of a call: length (4 bytes, of what follows), kind (1), id (8), rest.
type frame struct {
	kind frameKind
	id   uint64
	rest []byte
}

// request is the rest of a frameRequest.
type request struct {
	method string
	budget time.Duration // how long the caller waits
	body   []byte
}

var errFrame = errors.New("malformed frame")

func appendFrame(b []byte, kind frameKind, id uint64, rest ...[]byte) []byte {
	n := minFrame
	for _, part := range rest {
		n += len(part)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(n))
	b = append(b, byte(kind))
	b = binary.BigEndian.AppendUint64(b, id)
	for _, part := range rest {
		b = append(b, part...)
	}
	return b
}

// readFrame takes memory as bytes arrive, not as a length claims.
func readFrame(r io.Reader) (frame, error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(r, head[:4]); err != nil {
		return frame{}, err
	}
	n := binary.BigEndian.Uint32(head[:4])
	if n < minFrame || n > maxFrame {
		return frame{}, fmt.Errorf("%w: length %d", errFrame, n)
	}
	if _, err := io.ReadFull(r, head[4:]); err != nil {
		return frame{}, noEOF(err)
	}
	f := frame{kind: frameKind(head[4]), id: binary.BigEndian.Uint64(head[5:])}
	var rest bytes.Buffer
	left := int64(n - minFrame)
	rest.Grow(int(min(left, readChunk)))
	if _, err := io.CopyN(&rest, r, left); err != nil {
		return frame{}, noEOF(err)
	}
	f.rest = rest.Bytes()
	return f, nil
}

// noEOF: an end in the middle of a frame is no orderly end.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func appendRequest(b []byte, id uint64, q request) []byte {
	head := binary.BigEndian.AppendUint32(nil, uint32(min(max(q.budget, 0), maxCallBudget)/time.Millisecond))
	head = append(head, byte(len(q.method)))
	return appendFrame(b, frameRequest, id, head, []byte(q.method), q.body)
}

func parseRequest(rest []byte) (request, error) {
	if len(rest) < requestHead {
		return request{}, fmt.Errorf("%w: request of %d bytes", errFrame, len(rest))
	}
	n := int(rest[4])
	body := rest[requestHead:]
	if n == 0 || n > maxMethod || n > len(body) || len(body)-n > MaxBody {
		return request{}, fmt.Errorf("%w: method of %d bytes in %d", errFrame, n, len(body))
	}
	budget := time.Duration(binary.BigEndian.Uint32(rest)) * time.Millisecond
	return request{method: string(body[:n]), budget: min(budget, maxCallBudget), body: body[n:]}, nil
}
