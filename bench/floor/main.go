// Command floor is the least that a pooling relay for PostgreSQL can do, as a mark to measure
// against: one epoll loop, a fixed pool of server connections, and no look at what passes but the
// end of a request and of an answer. It asks for no login, repeats what the first server said to
// the first client, supports the simple and the extended protocol of pgbench and nothing else. A
// measuring instrument: it must not be used for anything but measuring.
package main

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// end is one socket of the relay. A server's partner is the client that it serves now.
type end struct {
	fd      int
	gen     uint32 // tells the sockets apart that had the same descriptor one after the other
	server  bool
	partner *end
	held    []byte // of a client: a request that is incomplete or waits for a server
}

type relay struct {
	epoll   int
	ends    []*end // by descriptor
	gen     uint32
	idle    []*end // servers, the last used on top
	waiting []*end // clients with a complete request
	buf     [64 << 10]byte
}

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address for clients")
	server := flag.String("server", "127.0.0.1:5432", "the PostgreSQL server; it must trust the user")
	pool := flag.Int("pool", 20, "connections to the server")
	user := flag.String("user", "postgres", "user of the server connections")
	database := flag.String("database", "postgres", "database of the server connections")
	flag.Parse()
	err := run(*listen, settings{*server, *user, *database, *pool}) // ends only by an error
	fmt.Fprintln(os.Stderr, "floor:", err)
	os.Exit(1)
}

type settings struct {
	server, user, database string
	pool                   int
}

func run(listen string, s settings) error {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	r := &relay{epoll: epoll}
	var greeting []byte
	for range s.pool {
		conn, hello, err := login(s)
		if err != nil {
			return err
		}
		greeting = hello
		e, err := r.add(conn)
		if err != nil {
			return err
		}
		e.server = true
		r.idle = append(r.idle, e)
	}
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	fmt.Println("listening on", ln.Addr())
	// Clients say hello on goroutines; the loop takes them over through this channel's pipe.
	wake, fresh := make([]int, 2), make(chan net.Conn, 1024)
	if err := unix.Pipe2(wake, unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		return err
	}
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				fmt.Fprintln(os.Stderr, "floor:", err)
				os.Exit(1)
			}
			go func() {
				if welcome(conn, greeting) != nil {
					_ = conn.Close()
					return
				}
				fresh <- conn
				_, _ = unix.Write(wake[1], []byte{1})
			}()
		}
	}()
	return r.loop(wake[0], fresh)
}

// login opens one server connection and returns everything that it said up to ReadyForQuery.
func login(s settings) (net.Conn, []byte, error) {
	conn, err := net.Dial("tcp", s.server)
	if err != nil {
		return nil, nil, err
	}
	params := fmt.Sprintf("user\x00%s\x00database\x00%s\x00\x00", s.user, s.database)
	start := binary.BigEndian.AppendUint32(nil, uint32(8+len(params)))
	start = append(binary.BigEndian.AppendUint32(start, 3<<16), params...)
	if _, err := conn.Write(start); err != nil {
		return nil, nil, err
	}
	var hello []byte
	header := make([]byte, 5)
	for {
		if _, err := io.ReadFull(conn, header); err != nil {
			return nil, nil, fmt.Errorf("log in: %w", err)
		}
		body := make([]byte, binary.BigEndian.Uint32(header[1:])-4)
		if _, err := io.ReadFull(conn, body); err != nil {
			return nil, nil, fmt.Errorf("log in: %w", err)
		}
		hello = append(append(hello, header...), body...)
		switch {
		case header[0] == 'E':
			return nil, nil, fmt.Errorf("log in: the server says %q", body)
		case header[0] == 'Z':
			return conn, hello, nil
		}
	}
}

// welcome reads a client's start-up message and answers with the greeting.
func welcome(conn net.Conn, greeting []byte) error {
	const requestSSL = 80877103
	head := make([]byte, 8)
	for {
		if _, err := io.ReadFull(conn, head); err != nil {
			return err
		}
		rest := int64(binary.BigEndian.Uint32(head)) - 8
		if binary.BigEndian.Uint32(head[4:]) != requestSSL {
			if _, err := io.CopyN(io.Discard, conn, rest); err != nil {
				return err
			}
			_, err := conn.Write(greeting)
			return err
		}
		if _, err := conn.Write([]byte{'N'}); err != nil {
			return err
		}
	}
}

// add gives the loop a socket of its own and lets go of Go's connection.
func (r *relay) add(conn net.Conn) (*end, error) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil, errors.New("not a TCP connection")
	}
	file, err := tcp.File() // a duplicate
	if err != nil {
		return nil, err
	}
	fd, err := unix.Dup(int(file.Fd()))
	if err := errors.Join(err, file.Close(), conn.Close()); err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, err
	}
	for fd >= len(r.ends) {
		r.ends = append(r.ends, nil)
	}
	r.gen++
	e := &end{fd: fd, gen: r.gen}
	r.ends[fd] = e
	return e, unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd), Pad: int32(e.gen)})
}

func (r *relay) loop(wake int, fresh <-chan net.Conn) error {
	runtime.LockOSThread()
	if err := unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, wake, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(wake)}); err != nil {
		return err
	}
	events := make([]unix.EpollEvent, 256)
	for {
		n, err := r.wait(events)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		for _, ev := range events[:n] {
			if int(ev.Fd) == wake {
				_, _ = unix.Read(wake, r.buf[:])
				for len(fresh) > 0 {
					if _, err := r.add(<-fresh); err != nil {
						return err
					}
				}
				continue
			}
			e := r.ends[ev.Fd]
			if e == nil || int32(e.gen) != ev.Pad {
				continue // closed earlier in this batch
			}
			if e.server {
				err = r.fromServer(e)
			} else {
				r.fromClient(e)
			}
			if err != nil {
				return err
			}
		}
	}
}

// wait looks for events without letting the scheduler know, and blocks only when there are none.
func (r *relay) wait(events []unix.EpollEvent) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(r.epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	if errno == 0 && n > 0 {
		return int(n), nil
	}
	return unix.EpollWait(r.epoll, events, -1)
}

// raw is a read or write that cannot block: the scheduler need not know of it.
func raw(call uintptr, fd int, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}

// fromClient passes a complete request to a server, or keeps it.
func (r *relay) fromClient(c *end) {
	n, err := raw(unix.SYS_READ, c.fd, r.buf[:])
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return
	}
	if n <= 0 {
		r.close(c)
		return
	}
	request := r.buf[:n]
	if len(c.held) > 0 {
		c.held = append(c.held, request...)
		request = c.held
	}
	complete, bye := scan(request)
	switch {
	case bye:
		r.close(c)
	case complete && len(r.idle) > 0:
		s := r.idle[len(r.idle)-1]
		r.idle = r.idle[:len(r.idle)-1]
		r.serve(s, c, request)
	default:
		if len(c.held) == 0 {
			c.held = append(c.held, request...)
		}
		if complete {
			r.waiting = append(r.waiting, c)
		}
	}
}

// scan says whether whole messages end with a Query or a Sync, and whether there is a Terminate.
func scan(b []byte) (complete, bye bool) {
	for len(b) >= 5 {
		n := 1 + int(binary.BigEndian.Uint32(b[1:]))
		if n > len(b) {
			return false, false
		}
		if b[0] == 'X' {
			return false, true
		}
		complete = b[0] == 'Q' || b[0] == 'S'
		b = b[n:]
	}
	return complete && len(b) == 0, false
}

func (r *relay) serve(s, c *end, request []byte) {
	s.partner, c.partner = c, s
	write(s.fd, request)
	c.held = c.held[:0]
}

// fromServer passes the answer on; one that ends with ReadyForQuery frees the server.
func (r *relay) fromServer(s *end) error {
	n, err := raw(unix.SYS_READ, s.fd, r.buf[:])
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return nil
	}
	if n <= 0 {
		return fmt.Errorf("a server connection ended: %w", errors.Join(err, io.EOF))
	}
	answer := r.buf[:n]
	if c := s.partner; c != nil {
		write(c.fd, answer)
	}
	if n < 6 || answer[n-6] != 'Z' || binary.BigEndian.Uint32(answer[n-5:]) != 5 {
		return nil
	}
	if s.partner != nil {
		s.partner.partner, s.partner = nil, nil
	}
	if len(r.waiting) == 0 {
		r.idle = append(r.idle, s)
		return nil
	}
	c := r.waiting[0]
	r.waiting = r.waiting[1:]
	r.serve(s, c, c.held)
	return nil
}

func (r *relay) close(c *end) {
	for i, w := range r.waiting {
		if w == c {
			r.waiting = append(r.waiting[:i], r.waiting[i+1:]...)
			break
		}
	}
	if c.partner != nil {
		c.partner.partner = nil // the rest of its answer is dropped
	}
	r.ends[c.fd] = nil
	_ = unix.Close(c.fd)
}

// write waits for room when there is none: pgbench's answers are far smaller than the buffers.
func write(fd int, b []byte) {
	for len(b) > 0 {
		n, err := raw(unix.SYS_WRITE, fd, b)
		switch {
		case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
			runtime.Gosched()
		case err != nil:
			return // the reading side will learn of it
		default:
			b = b[n:]
		}
	}
}
