package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"go.uber.org/zap"
)

var (
	// ErrTooLong: a body is longer than MaxBody.
	ErrTooLong = errors.New("body too long")
	// ErrNotSent: there was no connection to be had, so nothing was delivered.
	ErrNotSent  = errors.New("not sent")
	errEnded    = errors.New("link has ended")
	errNotBegun = errors.New("nobody has begun to connect")
)

// RefusedError is a handler's error, as the member that ran it put it. The call was delivered and
// answered; every other error but ErrNotSent leaves open whether it was.
type RefusedError struct{ Member, Method, Text string }

func (e *RefusedError) Error() string {
	return fmt.Sprintf("member %s refuses %s: %s", e.Member, e.Method, e.Text)
}

// attempt is one connection to a member, from when it is wanted until it is lost. Calls share it.
type attempt struct {
	to    Member
	ready chan struct{} // closed when conn is there, or err says why not
	conn  *tls.Conn
	err   error
	turn  chan struct{} // one at a time writes

	mu      sync.Mutex // guards what follows
	next    uint64
	pending map[uint64]chan frame
	lost    error
}

// Call asks a member and returns its answer. It uses a connection that is kept, or has one made.
func (l *Link) Call(ctx context.Context, to Member, method string, body []byte) ([]byte, error) {
	if len(body) > MaxBody {
		return nil, fmt.Errorf("call %s of member %s: %w: %d bytes", method, to.Name, ErrTooLong, len(body))
	}
	if len(method) == 0 || len(method) > maxMethod {
		return nil, fmt.Errorf("call %q of member %s: no such method", method, to.Name)
	}
	ctx, cancel := context.WithTimeout(ctx, maxCallBudget)
	defer cancel()
	a, err := l.route(ctx, to)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotSent, err)
	}
	answer, err := a.call(ctx, method, body)
	if err != nil {
		return nil, fmt.Errorf("call %s of member %s: %w", method, to.Name, err)
	}
	switch answer.kind {
	case frameAnswer:
		return answer.rest, nil
	case frameRefusal:
		return nil, &RefusedError{Member: to.Name, Method: method, Text: string(answer.rest)}
	}
	return nil, fmt.Errorf("call %s of member %s: %w: kind %d", method, to.Name, errFrame, answer.kind)
}

// route finds the connection to a member, or has Run make one, and waits until it is ready.
func (l *Link) route(ctx context.Context, to Member) (*attempt, error) {
	l.mu.Lock()
	a, known := l.routes[to]
	if !known {
		a = &attempt{to: to, ready: make(chan struct{}), turn: make(chan struct{}, 1), pending: map[uint64]chan frame{}}
		l.routes[to] = a
	}
	l.mu.Unlock()
	if !known {
		select {
		case l.wanted <- a:
		case <-ctx.Done():
			l.forget(a, errNotBegun)
			close(a.ready)
		case <-l.ended:
			l.forget(a, errEnded)
			close(a.ready)
		}
	}
	select {
	case <-a.ready:
		return a, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("connect to member %s: %w", to.Name, ctx.Err())
	}
}

// forget takes a failed attempt out of the routes, so that the next call makes another.
func (l *Link) forget(a *attempt, err error) {
	a.err = err
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.routes[a.to] == a {
		delete(l.routes, a.to)
	}
}

// keep makes a connection and reads the answers from it until it is lost.
func (l *Link) keep(ctx context.Context, a *attempt) {
	conn, err := l.dial(ctx, a.to, callProtocol)
	if err != nil {
		l.forget(a, err)
		close(a.ready)
		return
	}
	a.conn = conn
	close(a.ready)
	stop := context.AfterFunc(ctx, func() { conn.NetConn().Close() })
	defer stop()
	err = a.read()
	l.mu.Lock()
	if l.routes[a.to] == a {
		delete(l.routes, a.to)
	}
	l.mu.Unlock()
	a.end(err)
	l.log.Debug("connection lost", zap.String("member", a.to.Name), zap.Error(err))
}

func (a *attempt) read() error {
	for {
		f, err := readFrame(a.conn)
		if err != nil {
			if errors.Is(err, io.EOF) {
				return errors.New("connection closed by the member")
			}
			return err
		}
		a.mu.Lock()
		waiting := a.pending[f.id]
		delete(a.pending, f.id)
		a.mu.Unlock()
		if waiting != nil { // nobody waits for what came too late
			waiting <- f
		}
	}
}

// end fails the calls that wait, and closes the connection.
func (a *attempt) end(err error) {
	a.conn.NetConn().Close()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lost == nil {
		a.lost = err
	}
	for id, waiting := range a.pending {
		delete(a.pending, id)
		close(waiting)
	}
}

func (a *attempt) call(ctx context.Context, method string, body []byte) (frame, error) {
	answer := make(chan frame, 1)
	a.mu.Lock()
	if a.lost != nil {
		a.mu.Unlock()
		return frame{}, a.lost
	}
	a.next++
	id := a.next
	a.pending[id] = answer
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.pending, id)
	}()
	if err := a.send(ctx, id, method, body); err != nil {
		return frame{}, err
	}
	select {
	case f, ok := <-answer:
		if !ok {
			a.mu.Lock()
			defer a.mu.Unlock()
			return frame{}, a.lost
		}
		return f, nil
	case <-ctx.Done():
		return frame{}, ctx.Err()
	}
}

// send writes a request. A write that does not end in time leaves half a record behind, so the
// connection ends with it.
func (a *attempt) send(ctx context.Context, id uint64, method string, body []byte) error {
	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	until, _ := ctx.Deadline()
	message := appendRequest(nil, id, request{method: method, budget: time.Until(until), body: body})
	err := a.conn.SetWriteDeadline(until)
	if err == nil {
		_, err = a.conn.Write(message)
	}
	if err != nil {
		a.end(err)
	}
	return err
}
