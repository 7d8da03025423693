package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	// maxRunning bounds the handlers that run for one connection; while they run, no more is read.
	maxRunning = 16
	// answerTime bounds the writing of an answer to a member that does not read.
	answerTime = 5 * time.Second
)

// incoming is a connection on which another member calls.
type incoming struct {
	link    *Link
	conn    *tls.Conn
	from    string
	writing sync.Mutex
}

// serve answers the calls of one connection until it ends.
func (l *Link) serve(ctx context.Context, conn *tls.Conn, from string) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { conn.NetConn().Close() })
	defer stop()
	in := &incoming{link: l, conn: conn, from: from}
	err := in.read(ctx, cancel)
	if ctx.Err() == nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
		l.log.Debug("connection ended", zap.String("member", from), zap.Error(err))
	}
}

// read starts a handler for each request; it returns when the connection and all handlers ended.
func (in *incoming) read(ctx context.Context, cancel context.CancelFunc) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	places := make(chan struct{}, maxRunning)
	for {
		f, err := readFrame(in.conn)
		if err != nil {
			return err
		}
		if f.kind != frameRequest {
			return fmt.Errorf("%w: kind %d where a request was due", errFrame, f.kind)
		}
		q, err := parseRequest(f.rest)
		if err != nil {
			return err
		}
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		wg.Add(1)
		go func() { defer wg.Done(); in.handle(ctx, f.id, q); <-places }()
	}
}

func (in *incoming) handle(ctx context.Context, id uint64, q request) {
	ctx, cancel := context.WithTimeout(ctx, q.budget)
	defer cancel()
	h := in.link.handlers[q.method]
	var answer []byte
	err := fmt.Errorf("no such method")
	if h != nil {
		answer, err = h(ctx, in.from, q.body)
	}
	if err == nil && len(answer) > MaxBody {
		err = fmt.Errorf("%w: the answer has %d bytes", ErrTooLong, len(answer))
	}
	message := appendFrame(nil, frameAnswer, id, answer)
	if err != nil {
		text := err.Error()
		message = appendFrame(nil, frameRefusal, id, []byte(text[:min(len(text), maxText)]))
	}
	if err := in.write(message); err != nil {
		in.conn.NetConn().Close()
	}
}

func (in *incoming) write(message []byte) error {
	in.writing.Lock()
	defer in.writing.Unlock()
	if err := in.conn.SetWriteDeadline(time.Now().Add(answerTime)); err != nil {
		return err
	}
	_, err := in.conn.Write(message)
	return err
}
