package consensus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/cstproxy/cstproxy/ha/peer"
)

// Before raft speaks on a stream, the two ends say who they are, as raft knows them: the dialer its
// own identity and the one that it looks for, each with its length before it (1 byte). The other
// end answers with one byte. So what was meant for a member's lost disk is not taken by the new one.
const (
	answerMe    = 1
	answerNotMe = 2
	introTime   = 2 * time.Second
)

var errNotMe = errors.New("the member there has another disk than the fleet knows")

// address is a raft.ServerAddress as a net.Addr.
type address string

// Network implements net.Addr.
func (address) Network() string  { return "tcp" }
func (a address) String() string { return string(a) }

// streams is raft's StreamLayer over the link.
type streams struct {
	own     raft.ServerID
	address string
	streams *peer.Streams
	hangs   func() bool // this member's disk does; see hang.go
	dial    func(raft.ServerAddress, time.Duration) (*peer.Stream, raft.ServerID, error)
}

// dialer finds out who is to be reached at an address: raft dials addresses, but means members.
func (l *Log) dialer(ctx context.Context) func(raft.ServerAddress, time.Duration) (*peer.Stream, raft.ServerID, error) {
	return func(at raft.ServerAddress, timeout time.Duration) (*peer.Stream, raft.ServerID, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
		defer cancel()
		up := l.up.Load()
		if up == nil {
			return nil, "", errors.New("the log does not run")
		}
		for _, s := range servers(up.node) {
			if s.Address == at {
				stream, err := l.link.DialStream(ctx, peer.Member{Name: nameOf(s.ID), Address: string(at)})
				return stream, s.ID, err
			}
		}
		return nil, "", fmt.Errorf("no member has the address %s", at)
	}
}

// Accept implements net.Listener.
func (s *streams) Accept() (net.Conn, error) {
	stream, err := s.streams.Accept()
	if err != nil {
		return nil, err
	}
	return &introduced{Stream: stream, own: s.own, hangs: s.hangs}, nil
}

// Close implements net.Listener: all streams end.
func (s *streams) Close() error {
	s.streams.Close()
	return nil
}

// Addr implements net.Listener: where the others reach this member.
func (s *streams) Addr() net.Addr { return address(s.address) }

// Dial implements raft.StreamLayer.
func (s *streams) Dial(at raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	if s.hangs() {
		return nil, errHangs
	}
	stream, id, err := s.dial(at, timeout)
	if err != nil {
		return nil, err
	}
	if err := introduce(stream, s.own, id, timeout); err != nil {
		return nil, errors.Join(err, stream.Close())
	}
	return &spoken{stream, s.hangs}, nil
}

// spoken is a dialled stream, on which a member asks the others for their following or their votes.
type spoken struct {
	*peer.Stream
	hangs func() bool
}

// Write implements net.Conn.
func (s *spoken) Write(b []byte) (int, error) {
	if s.hangs() {
		return 0, errHangs
	}
	return s.Stream.Write(b)
}

func introduce(stream *peer.Stream, own, want raft.ServerID, timeout time.Duration) error {
	if err := stream.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	intro := append([]byte{byte(len(own))}, own...)
	intro = append(append(intro, byte(len(want))), want...)
	if _, err := stream.Write(intro); err != nil {
		return err
	}
	var answer [1]byte
	if _, err := io.ReadFull(stream, answer[:]); err != nil {
		return err
	}
	if answer[0] != answerMe {
		return fmt.Errorf("%s: %w", want, errNotMe)
	}
	return stream.SetDeadline(time.Time{})
}

// introduced is an accepted stream. The introduction is read by its first reader, so that a member
// that says nothing holds up nobody else.
type introduced struct {
	*peer.Stream
	own   raft.ServerID
	hangs func() bool
	once  sync.Once
	err   error
}

// Read implements net.Conn.
func (i *introduced) Read(b []byte) (int, error) {
	i.once.Do(func() { i.err = i.listen() })
	if i.err != nil {
		return 0, i.err
	}
	return i.Stream.Read(b)
}

func (i *introduced) listen() error {
	if i.hangs() {
		return errHangs
	}
	if err := i.SetDeadline(time.Now().Add(introTime)); err != nil {
		return err
	}
	theirs, err := readIdentity(i.Stream)
	if err != nil {
		return err
	}
	wanted, err := readIdentity(i.Stream)
	if err != nil {
		return err
	}
	answer := byte(answerMe)
	switch {
	case nameOf(theirs) != i.From:
		answer, err = answerNotMe, fmt.Errorf("member %s says that it is %s", i.From, theirs)
	case wanted != i.own:
		answer, err = answerNotMe, fmt.Errorf("member %s looks for %s, and this is %s: %w", i.From, wanted, i.own, errNotMe)
	}
	if _, writing := i.Write([]byte{answer}); err == nil {
		err = writing
	}
	if err != nil {
		return err
	}
	return i.SetDeadline(time.Time{})
}

func readIdentity(from io.Reader) (raft.ServerID, error) {
	var length [1]byte
	if _, err := io.ReadFull(from, length[:]); err != nil {
		return "", err
	}
	id := make([]byte, length[0])
	_, err := io.ReadFull(from, id)
	return raft.ServerID(id), err
}
