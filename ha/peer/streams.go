package peer

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
)

// Stream is a connection of the consensus log, with the verified name of the other member.
type Stream struct {
	*tls.Conn
	From string

	streams *Streams
	once    sync.Once
	closed  chan struct{}
}

// Close ends the stream.
func (s *Stream) Close() error {
	err := s.NetConn().Close() // no close_notify: it would wait for a peer that does not read
	s.once.Do(func() {
		s.streams.remove(s)
		close(s.closed)
	})
	return err
}

// Streams are the link's connections for the consensus log, incoming ones to be accepted and
// outgoing ones to be dialed. They end with the Link, or by Close.
type Streams struct {
	arrived chan *Stream
	ended   chan struct{}

	mu   sync.Mutex // guards what follows
	open map[*Stream]struct{}
	over bool
}

func newStreams() *Streams {
	return &Streams{arrived: make(chan *Stream), ended: make(chan struct{}), open: map[*Stream]struct{}{}}
}

// Streams are the same for every call.
func (l *Link) Streams() *Streams { return l.streams }

// DialStream opens a stream to a member.
func (l *Link) DialStream(ctx context.Context, to Member) (*Stream, error) {
	conn, err := l.dial(ctx, to, streamProtocol)
	if err != nil {
		return nil, err
	}
	s := l.streams.add(conn, to.Name)
	if s == nil {
		conn.NetConn().Close()
		return nil, errEnded
	}
	return s, nil
}

// Accept waits for a stream from another member; net.ErrClosed after Close.
func (s *Streams) Accept() (*Stream, error) {
	select {
	case stream := <-s.arrived:
		return stream, nil
	case <-s.ended:
		return nil, net.ErrClosed
	}
}

// Close ends all streams for good, in both directions.
func (s *Streams) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return
	}
	s.over = true
	close(s.ended)
	for stream := range s.open {
		stream.NetConn().Close() // whoever uses it gets an error and then closes it
	}
}

// serve offers a stream to Accept, and returns when whoever accepted it has closed it.
func (s *Streams) serve(ctx context.Context, conn *tls.Conn, from string) {
	stream := s.add(conn, from)
	if stream == nil {
		conn.NetConn().Close()
		return
	}
	select {
	case s.arrived <- stream:
		<-stream.closed
	case <-s.ended:
		stream.Close()
	case <-ctx.Done():
		stream.Close()
	}
}

// add is nil after Close.
func (s *Streams) add(conn *tls.Conn, from string) *Stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return nil
	}
	stream := &Stream{Conn: conn, From: from, streams: s, closed: make(chan struct{})}
	s.open[stream] = struct{}{}
	return stream
}

func (s *Streams) remove(stream *Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, stream)
}
