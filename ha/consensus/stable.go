package consensus

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
)

// termKey is raft's key of the current term: the one value that it panics over.
const termKey = "CurrentTerm"

// Set implements raft.StableStore.
func (s *store) Set(key, value []byte) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	value = bytes.Clone(value)
	if value == nil {
		value = []byte{}
	}
	err := s.commit(func(tx *bbolt.Tx) error { return tx.Bucket(stableBucket).Put(key, value) })
	if err == nil {
		s.mu.Lock()
		s.values[string(key)] = value
		s.mu.Unlock()
	}
	return err
}

// Get implements raft.StableStore; what was never set is errNotFound.
func (s *store) Get(key []byte) ([]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	value, ok := s.values[string(key)]
	if !ok {
		return nil, errNotFound
	}
	return bytes.Clone(value), nil
}

// SetUint64 implements raft.StableStore. For the term it waits until it is on disk: raft stands
// still meanwhile, so this member neither votes nor leads.
func (s *store) SetUint64(key []byte, value uint64) error {
	bytes := binary.BigEndian.AppendUint64(nil, value)
	for {
		err := s.Set(key, bytes)
		if err == nil || string(key) != termKey {
			return err
		}
		select {
		case <-s.stopping:
			return nil // nothing is sent any more that would depend on it
		case <-time.After(retryPause):
		}
	}
}

// GetUint64 implements raft.StableStore.
func (s *store) GetUint64(key []byte) (uint64, error) {
	value, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	if len(value) != 8 {
		return 0, fmt.Errorf("%s has %d bytes, want 8", key, len(value))
	}
	return binary.BigEndian.Uint64(value), nil
}
