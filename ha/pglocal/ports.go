package pglocal

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// portLocks are the ports of one cluster. A server that was killed must come back on its own port,
// so a port stays ours while the server is down: it lies below the range from which the kernel
// takes ports for outgoing connections, and a lock keeps the clusters of other processes away. The
// lock on port N is one on byte N of a file, so it ends with the process.
type portLocks struct {
	mu    sync.Mutex
	file  *os.File
	taken map[int]bool
}

// take finds a port of 127.0.0.1 that is free and stays ours until release.
func (p *portLocks) take() (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.open(); err != nil {
		return 0, fmt.Errorf("reserve a port: %w", err)
	}
	low, high := 10000, ephemeralStart()
	for range 1000 {
		port := low + rand.IntN(high-low)
		if p.taken[port] {
			continue
		}
		ours, err := p.lock(port)
		if err != nil {
			return 0, fmt.Errorf("reserve port %d: %w", port, err)
		}
		if !ours {
			continue
		}
		if ln, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			p.taken[port] = true
			return port, ln.Close()
		}
	}
	return 0, errors.New("no free port found on 127.0.0.1")
}

func (p *portLocks) open() error {
	if p.file != nil {
		return nil
	}
	o, err := serverOwner()
	if err != nil {
		return err
	}
	base, err := cacheDir(o)
	if err != nil {
		return err
	}
	p.taken = map[int]bool{}
	p.file, err = os.OpenFile(filepath.Join(base, "ports"), os.O_CREATE|os.O_RDWR, 0o600)
	return err
}

// lock asks for byte number port. The lock belongs to the open file, so the kernel would grant a
// byte that this cluster has already: taken says which those are.
func (p *portLocks) lock(port int) (bool, error) {
	err := unix.FcntlFlock(p.file.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{
		Type: unix.F_WRLCK, Whence: io.SeekStart, Start: int64(port), Len: 1,
	})
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return false, nil
	}
	return err == nil, err
}

func (p *portLocks) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.file != nil {
		_ = p.file.Close() // releases the locks whatever it says
		p.file = nil
	}
}

// ephemeralStart is the first port that the kernel gives to outgoing connections.
func ephemeralStart() int {
	const usual = 32768
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return usual
	}
	first, err := strconv.Atoi(strings.Fields(string(b) + " 0")[0])
	if err != nil || first < 11000 {
		return usual
	}
	return first
}
