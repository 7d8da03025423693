package peer

import (
	"net"
	"net/netip"
	"sync"
)

// gate counts connections: those that have not yet proven who they are, together and by host, and
// those that have.
type gate struct {
	maxStrangers, maxPerHost, maxPeers int

	mu        sync.Mutex
	strangers map[netip.Prefix]int
	total     int
	peers     int
}

func newGate(cfg Config) *gate {
	return &gate{
		maxStrangers: cfg.MaxHandshakes, maxPerHost: cfg.MaxHandshakesPerHost, maxPeers: cfg.MaxPeers,
		strangers: map[netip.Prefix]int{},
	}
}

// enter gives a stranger a place and the function that gives it back, or says why there is none.
func (g *gate) enter(from net.Addr) (leave func(), why string) {
	host := hostOf(from)
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.strangers[host] >= g.maxPerHost:
		return nil, "too many handshakes from this host"
	case g.total >= g.maxStrangers:
		return nil, "too many handshakes"
	}
	g.strangers[host]++
	g.total++
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.total--
		if g.strangers[host]--; g.strangers[host] == 0 {
			delete(g.strangers, host)
		}
	}, ""
}

// settle gives an authenticated connection a place, if there is one; leave gives it back.
func (g *gate) settle() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.peers >= g.maxPeers {
		return false
	}
	g.peers++
	return true
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.peers--
}

// hostOf is who counts as one: an IPv4 address, or the network of which an IPv6 host may choose any.
func hostOf(a net.Addr) netip.Prefix {
	at, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Prefix{}
	}
	ip := at.Addr().Unmap().WithZone("")
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	host, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return host
}
