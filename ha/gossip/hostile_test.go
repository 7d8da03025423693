package gossip

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"

	"go.uber.org/zap/zaptest/observer"
)

type loggedEntry = observer.LoggedEntry

// Strangers send packets and streams of every first byte and many lengths, also the beginnings of
// valid ones, and hold connections open. The fleet goes on, and a new member finds it.
func TestStrangersDoNotDisturbTheFleet(t *testing.T) {
	members := fleet(t, 2)
	target := members[0].address()
	udp, err := net.Dial("udp", target)
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	random := rand.New(rand.NewPCG(1, 2))
	junk := func(first byte) []byte {
		b := make([]byte, 1+random.IntN(1500))
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		b[0] = first
		return b
	}
	for i := range 1024 {
		if _, err := udp.Write(junk(byte(i))); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 64 {
		conn, err := net.Dial("tcp", target)
		if err != nil {
			t.Fatal(err)
		}
		b := junk(byte(i))
		if i%2 == 0 { // an encrypted stream that claims to be as long as it may be, and more
			b = append([]byte{10, byte(i / 2), 0x3f, 0xff, 0xff}, b...)
		}
		conn.Write(b)
		conn.Close()
	}

	// More connections than are taken: those beyond are closed at once, the others in time.
	var held []net.Conn
	for range maxStreams + 8 {
		conn, err := net.Dial("tcp", target)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		held = append(held, conn)
	}
	await(t, "closed connections", func() bool {
		n := 0
		for _, conn := range held {
			if closed(conn) {
				n++
			}
		}
		return n >= 8
	})
	for _, conn := range held {
		conn.Close()
	}

	if err := members[1].Broadcast([]byte("still there")); err != nil {
		t.Fatal(err)
	}
	members[0].await("a message", func() bool {
		return members[0].happened(func(e Event) bool { return string(e.Payload) == "still there" }) == 1
	})
	newcomer := begin(t, settings("m3", "127.0.0.3", target))
	newcomer.sees("m1 m2")
	if n := members[0].logs.FilterMessage("memberlist").FilterLevelExact(1).Len(); n > 100 {
		t.Errorf("a thousand packets of strangers made %d lines of log", n)
	}
}

// closed says whether the other side has closed the connection.
func closed(conn net.Conn) bool {
	conn.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err := conn.Read(make([]byte, 1))
	return err != nil && !errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, io.EOF)
}

// What a member with the key sends may be malformed too, by another version or a bug.
func TestMalformedFramesOfMembersAreLeftAlone(t *testing.T) {
	m := begin(t, settings("m1", "127.0.0.1"))
	calls := newCallbacks(m.Gossip)
	good := frame{kind: message, origin: "m2", boot: 1, number: 1, payload: []byte("hello")}
	for i := range good.encode()[:len(good.encode())-len(good.payload)] {
		calls.NotifyMsg(good.encode()[:i])
	}
	calls.NotifyMsg(nil)
	calls.NotifyMsg(frame{kind: 9, origin: "m2", boot: 1, number: 2}.encode())
	calls.NotifyMsg(frame{kind: message, origin: "m2", boot: 1, number: 0}.encode())
	calls.NotifyMsg(frame{kind: delta, origin: "m2", boot: 1, number: 3, payload: []byte("garbage")}.encode())
	calls.NotifyMsg(frame{kind: message, origin: "m1", boot: 1, number: 4}.encode()) // its own, come back
	calls.MergeRemoteState([]byte{ledgerFormat, 0xff, 0xff}, true)
	calls.MergeRemoteState(nil, false)
	if n := len(m.Ledger().All()); n != 0 || calls.queue.NumQueued() != 1 {
		t.Errorf("%d keys, %d frames passed on", n, calls.queue.NumQueued())
	}
	b := good.encode()
	calls.NotifyMsg(b)
	clear(b) // memberlist uses it again
	m.await("the message", func() bool {
		return m.happened(func(e Event) bool { return e.Kind == Message && string(e.Payload) == "hello" }) == 1
	})
	if n := m.happened(func(Event) bool { return true }); n != 1 {
		t.Errorf("%d events: %+v", n, m.events)
	}
}
