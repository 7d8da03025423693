package consensus

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"time"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
)

const (
	entryFormat = 1
	entryHead   = 1 + 1 + 8 + 8 + 4 // format, type, term, time of appending in ns, length of extensions
	entryTail   = 4                 // CRC-32C of all before it
)

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

func encodeEntry(l *raft.Log) []byte {
	b := make([]byte, 0, entryHead+len(l.Extensions)+len(l.Data)+entryTail)
	b = append(b, entryFormat, byte(l.Type))
	b = binary.BigEndian.AppendUint64(b, l.Term)
	var appended int64
	if !l.AppendedAt.IsZero() {
		appended = l.AppendedAt.UnixNano()
	}
	b = binary.BigEndian.AppendUint64(b, uint64(appended))
	b = binary.BigEndian.AppendUint32(b, uint32(len(l.Extensions)))
	b = append(b, l.Extensions...)
	b = append(b, l.Data...)
	return binary.BigEndian.AppendUint32(b, checksum(b))
}

// decodeEntry copies what it keeps: b is bbolt's.
func decodeEntry(key, b []byte) (*raft.Log, error) {
	if len(key) != 8 {
		return nil, fmt.Errorf("an entry has a key of %d bytes", len(key))
	}
	index := binary.BigEndian.Uint64(key)
	if len(b) < entryHead+entryTail {
		return nil, fmt.Errorf("entry %d has %d bytes", index, len(b))
	}
	b, sum := b[:len(b)-entryTail], binary.BigEndian.Uint32(b[len(b)-entryTail:])
	if checksum(b) != sum {
		return nil, fmt.Errorf("entry %d is damaged", index)
	}
	if b[0] != entryFormat {
		return nil, fmt.Errorf("entry %d has the format %d of a newer cstproxy", index, b[0])
	}
	l := &raft.Log{Index: index, Type: raft.LogType(b[1]), Term: binary.BigEndian.Uint64(b[2:])}
	if appended := int64(binary.BigEndian.Uint64(b[10:])); appended != 0 {
		l.AppendedAt = time.Unix(0, appended)
	}
	n := binary.BigEndian.Uint32(b[18:])
	rest := b[entryHead:]
	if uint64(n) > uint64(len(rest)) {
		return nil, fmt.Errorf("entry %d has extensions of %d bytes in %d", index, n, len(rest))
	}
	if n > 0 {
		l.Extensions = bytes.Clone(rest[:n])
	}
	if len(rest) > int(n) {
		l.Data = bytes.Clone(rest[n:])
	}
	return l, nil
}

func indexKey(index uint64) []byte { return binary.BigEndian.AppendUint64(nil, index) }

func (s *store) loadEntries(b *bbolt.Bucket) error {
	return b.ForEach(func(k, v []byte) error { // in the order of keys
		l, err := decodeEntry(k, v)
		if err == nil {
			s.entries = append(s.entries, l)
		}
		return err
	})
}

// FirstIndex implements raft.LogStore; 0 when there is no entry.
func (s *store) FirstIndex() (uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if len(s.entries) == 0 {
		return 0, nil
	}
	return s.entries[0].Index, nil
}

// LastIndex implements raft.LogStore; 0 when there is no entry.
func (s *store) LastIndex() (uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if len(s.entries) == 0 {
		return 0, nil
	}
	return s.entries[len(s.entries)-1].Index, nil
}

// at is the place of an index among the entries, and whether it is taken.
func (s *store) at(index uint64) (int, bool) {
	return slices.BinarySearchFunc(s.entries, index, func(l *raft.Log, index uint64) int {
		switch {
		case l.Index < index:
			return -1
		case l.Index > index:
			return 1
		}
		return 0
	})
}

// GetLog implements raft.LogStore.
func (s *store) GetLog(index uint64, l *raft.Log) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	i, ok := s.at(index)
	if !ok {
		return raft.ErrLogNotFound
	}
	*l = *s.entries[i]
	return nil
}

// StoreLog implements raft.LogStore.
func (s *store) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore: all of them are on disk, or none.
func (s *store) StoreLogs(logs []*raft.Log) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	err := s.commit(func(tx *bbolt.Tx) error {
		b := tx.Bucket(logBucket)
		for _, l := range logs {
			if err := b.Put(indexKey(l.Index), encodeEntry(l)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range logs {
		kept := *l
		i, taken := s.at(l.Index)
		if taken {
			s.entries[i] = &kept
		} else {
			s.entries = slices.Insert(s.entries, i, &kept)
		}
	}
	return nil
}

// DeleteRange implements raft.LogStore; both ends are included.
func (s *store) DeleteRange(first, last uint64) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	from, _ := s.at(first)
	to, taken := s.at(last)
	if taken {
		to++
	}
	if from >= to {
		return nil
	}
	err := s.commit(func(tx *bbolt.Tx) error {
		b := tx.Bucket(logBucket)
		for _, l := range s.entries[from:to] {
			if err := b.Delete(indexKey(l.Index)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entries = slices.Delete(s.entries, from, to)
	return nil
}
