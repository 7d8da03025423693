package consensus

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
)

// maxSnapshot bounds a snapshot, in bytes; the record of a hundred clusters is a tenth of it.
const maxSnapshot = 64 << 20

var (
	metaKey = []byte("meta")
	dataKey = []byte("data")
)

// snapshot is the newest one; it is replaced as a whole.
type snapshot struct {
	Meta raft.SnapshotMeta
	CRC  uint32
	data []byte
}

func loadSnapshot(b *bbolt.Bucket) (*snapshot, error) {
	meta := b.Get(metaKey)
	if meta == nil {
		return nil, nil
	}
	s := &snapshot{data: bytes.Clone(b.Get(dataKey))}
	if err := json.Unmarshal(meta, s); err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	if s.Meta.Size != int64(len(s.data)) || s.CRC != checksum(s.data) {
		return nil, errors.New("the snapshot is damaged")
	}
	return s, nil
}

// Create implements raft.SnapshotStore.
func (s *store) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, _ raft.Transport,
) (raft.SnapshotSink, error) {
	return &sink{store: s, meta: raft.SnapshotMeta{
		Version: version, ID: fmt.Sprintf("%d-%d", term, index), Index: index, Term: term,
		Configuration: configuration, ConfigurationIndex: configurationIndex,
	}}, nil
}

// List implements raft.SnapshotStore.
func (s *store) List() ([]*raft.SnapshotMeta, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.snapshot == nil {
		return nil, nil
	}
	meta := s.snapshot.Meta
	return []*raft.SnapshotMeta{&meta}, nil
}

// Open implements raft.SnapshotStore.
func (s *store) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.snapshot == nil || s.snapshot.Meta.ID != id {
		return nil, nil, fmt.Errorf("snapshot %s is no more", id)
	}
	meta := s.snapshot.Meta
	return &meta, io.NopCloser(bytes.NewReader(s.snapshot.data)), nil
}

// sink collects a snapshot and replaces the one before when it is closed.
type sink struct {
	store *store
	meta  raft.SnapshotMeta
	data  bytes.Buffer
	over  bool
}

// ID implements raft.SnapshotSink.
func (k *sink) ID() string { return k.meta.ID }

// Write implements raft.SnapshotSink.
func (k *sink) Write(b []byte) (int, error) {
	if k.data.Len()+len(b) > maxSnapshot {
		return 0, fmt.Errorf("snapshot of more than %d bytes", maxSnapshot)
	}
	return k.data.Write(b)
}

// Cancel implements raft.SnapshotSink.
func (k *sink) Cancel() error {
	k.over = true
	return nil
}

// Close implements raft.SnapshotSink.
func (k *sink) Close() error {
	if k.over {
		return nil
	}
	k.over = true
	k.meta.Size = int64(k.data.Len())
	made := &snapshot{Meta: k.meta, CRC: checksum(k.data.Bytes()), data: k.data.Bytes()}
	meta, err := json.Marshal(made)
	if err != nil {
		return err
	}
	s := k.store
	s.writing.Lock()
	defer s.writing.Unlock()
	err = s.commit(func(tx *bbolt.Tx) error {
		b := tx.Bucket(snapshotBucket)
		if err := b.Put(metaKey, meta); err != nil {
			return err
		}
		return b.Put(dataKey, made.data)
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.snapshot = made
	return nil
}
