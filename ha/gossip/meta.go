package gossip

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/cstproxy/cstproxy/ha/topology"
)

// Role says what a member is in the fleet, by its own word; who votes is in the consensus log.
type Role byte

const (
	Observer Role = iota // no vote
	Voter
	Witness // a voter without a data path
)

func (r Role) String() string {
	switch r {
	case Voter:
		return "voter"
	case Witness:
		return "witness"
	}
	return "observer"
}

// Meta is what a member tells of itself with its presence, in at most 512 bytes.
type Meta struct {
	// Peer is where its consensus and leases are reached, "host:port"; Admin its admin port.
	Peer, Admin string
	Version     string
	Role        Role
	// Epochs are the epochs that it routes by, per cluster. As many as there is room for, by name.
	Epochs map[string]topology.Epoch
}

const (
	maxName    = 64  // of a member, a cluster or a version, bytes
	maxAddress = 128 // a host name with its port, bytes
	maxMeta    = 512 // memberlist.MetaMaxSize
	metaFormat = 1
)

func (m Meta) validate() error {
	for _, address := range []string{m.Peer, m.Admin} {
		if len(address) > maxAddress {
			return fmt.Errorf("address %q is longer than %d bytes", address, maxAddress)
		}
	}
	if len(m.Version) > maxName {
		return fmt.Errorf("version %q is longer than %d bytes", m.Version, maxName)
	}
	for cluster := range m.Epochs {
		if cluster == "" || len(cluster) > maxName {
			return fmt.Errorf("cluster name %q has not 1 to %d bytes", cluster, maxName)
		}
	}
	return nil
}

// encode writes: format, role, peer, admin, version, number of epochs, and per epoch the cluster
// and the number.
func (m Meta) encode() []byte {
	b := []byte{metaFormat, byte(m.Role)}
	b = appendText(appendText(appendText(b, m.Peer), m.Admin), m.Version)
	var epochs []byte
	n := 0
	for _, cluster := range slices.Sorted(maps.Keys(m.Epochs)) {
		e := binary.AppendUvarint(appendText(nil, cluster), uint64(m.Epochs[cluster]))
		if len(b)+binary.MaxVarintLen16+len(epochs)+len(e) > maxMeta {
			break
		}
		epochs = append(epochs, e...)
		n++
	}
	return append(binary.AppendUvarint(b, uint64(n)), epochs...)
}

func decodeMeta(encoded []byte) (Meta, error) {
	r := reader{rest: encoded}
	if format := r.byte(); r.err == nil && format != metaFormat {
		return Meta{}, fmt.Errorf("read a member's description: format %d is not known, only %d", format, metaFormat)
	}
	m := Meta{Role: Role(r.byte()), Peer: r.text(maxAddress), Admin: r.text(maxAddress), Version: r.text(maxName)}
	for range r.number(maxMeta) {
		cluster := r.text(maxName)
		epoch := r.number(1<<64 - 1)
		if r.err != nil {
			break
		}
		if m.Epochs == nil {
			m.Epochs = map[string]topology.Epoch{}
		}
		m.Epochs[cluster] = topology.Epoch(epoch)
	}
	if err := r.end(); err != nil {
		return Meta{}, fmt.Errorf("read a member's description: %w", err)
	}
	return m, nil
}
