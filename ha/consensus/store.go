package consensus

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
	"go.uber.org/zap"
)

const (
	fileName    = "log.db"
	fileMode    = 0o600
	folderMode  = 0o700
	tokenSize   = 8           // bytes; distinguishes the disks that a member has had
	lockTime    = time.Second // for another process to let go of the file
	retryPause  = time.Second // between attempts on a full disk
	identityKey = "id"
	promiseKey  = "promise"
	spaceKey    = "space"
	spaceSize   = 64 << 10 // bytes; more than what raft writes at once, short of large entries
)

// The file's buckets. A fourth would be another format.
var (
	logBucket      = []byte("log")      // index (8 bytes, big endian) -> entry
	stableBucket   = []byte("stable")   // raft's term and vote
	memberBucket   = []byte("member")   // who this is, and whom it has promised itself to
	snapshotBucket = []byte("snapshot") // the newest snapshot
)

// errNotFound has the text that raft compares with.
var errNotFound = errors.New("not found")

// store is raft's LogStore, StableStore and SnapshotStore over one bbolt file. A write is on disk
// when it returns. Everything is held in memory too, and read only from there: the log is small, and
// raft panics when it cannot read or cannot keep its term, which a proxy must not do because a disk
// is full or dies. So a write that fails is returned where raft takes an error, and waits where it
// does not; after any failure but a full disk nothing is written any more, since nobody knows what
// of it is on disk.
type store struct {
	db       *bbolt.DB // nil: in memory only, or given up
	log      *zap.Logger
	stopping <-chan struct{} // ends the waiting for a disk
	id       raft.ServerID
	trouble  atomic.Pointer[string] // why writes fail; nil while they do not

	bound  time.Duration // after which a write hangs; 0: never. Not changed once raft runs
	hung   atomic.Bool   // the write under way hangs
	turned *signal       // hung has changed

	writing sync.Mutex // held while a change is made durable and then visible; guards broken
	broken  error
	spare   bool // the file holds bytes that only proved that there is space

	mu       sync.RWMutex // guards what follows; never held while the disk is waited for
	entries  []*raft.Log  // by rising index; gaps are possible
	values   map[string][]byte
	snapshot *snapshot // newest, nil when none
	promise  raft.ServerID
}

// openStore opens or makes the store of the member in the directory; an empty dir keeps it in memory.
func openStore(dir, member string, stopping <-chan struct{}, log *zap.Logger) (*store, error) {
	s := &store{log: log, stopping: stopping, turned: newSignal(), values: map[string][]byte{}}
	if dir != "" {
		db, err := openFile(dir)
		if err != nil {
			return nil, fmt.Errorf("open the fleet's log: %w", err)
		}
		s.db = db
	}
	if err := s.load(member); err != nil {
		return nil, errors.Join(fmt.Errorf("open the fleet's log in %q: %w", dir, err), s.close())
	}
	return s, nil
}

func openFile(dir string) (*bbolt.DB, error) {
	made := errors.Is(statError(dir), os.ErrNotExist)
	if err := os.MkdirAll(dir, folderMode); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, fileName)
	db, err := bbolt.Open(path, fileMode, &bbolt.Options{Timeout: lockTime, FreelistType: bbolt.FreelistMapType, NoStatistics: true})
	switch {
	case err == nil:
	case strings.Contains(err.Error(), "timeout"):
		return nil, fmt.Errorf("%s is in use by another process", path)
	default:
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	// A file whose name is not on disk would be a lost disk after a power cut.
	err = syncDirectory(dir)
	if err == nil && made {
		err = syncDirectory(filepath.Dir(dir))
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func statError(path string) error {
	_, err := os.Stat(path)
	return err
}

func syncDirectory(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// load makes the buckets and the identity of a new file, and reads an old one into memory.
func (s *store) load(member string) error {
	fresh, err := newIdentity(member)
	if err != nil {
		return err
	}
	s.id = fresh
	return s.commit(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{logBucket, stableBucket, memberBucket, snapshotBucket} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		if err := s.loadMember(tx.Bucket(memberBucket), member); err != nil {
			return err
		}
		err := tx.Bucket(stableBucket).ForEach(func(k, v []byte) error {
			s.values[string(k)] = bytes.Clone(v)
			return nil
		})
		if err == nil {
			err = s.loadEntries(tx.Bucket(logBucket))
		}
		if err == nil {
			s.snapshot, err = loadSnapshot(tx.Bucket(snapshotBucket))
		}
		return err
	})
}

func (s *store) loadMember(b *bbolt.Bucket, member string) error {
	if kept := b.Get([]byte(identityKey)); kept != nil {
		if s.id = raft.ServerID(kept); nameOf(s.id) != member {
			return fmt.Errorf("it belongs to the member %s, and this one is %s", nameOf(s.id), member)
		}
	} else if err := b.Put([]byte(identityKey), []byte(s.id)); err != nil {
		return err
	}
	s.promise = raft.ServerID(b.Get([]byte(promiseKey)))
	return b.Delete([]byte(spaceKey))
}

// newIdentity is the name that raft knows a member by as long as it has its disk. A member whose
// disk is lost or wiped gets another one, so that it cannot vote a second time under the first.
func newIdentity(member string) (raft.ServerID, error) {
	token := make([]byte, tokenSize)
	if _, err := rand.Read(token); err != nil {
		return "", err
	}
	return raft.ServerID(member + "/" + hex.EncodeToString(token)), nil
}

// nameOf is the member's name in an identity.
func nameOf(id raft.ServerID) string {
	name, _, _ := strings.Cut(string(id), "/")
	return name
}

// commit makes a change durable. Whoever calls holds writing, or is the only one who knows the store.
func (s *store) commit(change func(*bbolt.Tx) error) (err error) {
	if s.db == nil || s.broken != nil {
		return s.broken
	}
	ended := s.watched()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // bbolt reads by mmap; a dead disk faults
	defer func() {
		ended()
		if fault := recover(); fault != nil {
			err = fmt.Errorf("write the fleet's log: %v", fault)
			s.db = nil // its locks may be held for good; the process's end frees them
		}
		if err != nil && !full(err) {
			s.broken = err
		}
		s.report(err)
	}()
	var number int
	err = s.db.Update(func(tx *bbolt.Tx) error {
		number = tx.ID()
		if err := s.proveSpace(tx.Bucket(memberBucket)); err != nil {
			return err
		}
		return change(tx)
	})
	return s.certain(err, number)
}

// certain makes the error of a full disk one that does not pass when the transaction may be in the file all the
// same. A file system that finds out only by a sync that it is full (btrfs, zfs) can fail that of the page by which
// the transaction counts: after a restart its entries would be there, behind newer ones if any had been
// written since.
func (s *store) certain(err error, number int) error {
	if !full(err) {
		return err
	}
	shown := true
	looking := s.db.View(func(tx *bbolt.Tx) error { shown = tx.ID() >= number; return nil })
	if looking != nil || shown {
		return fmt.Errorf("nobody knows whether it was written: %v", err) // not %w: space does not cure it
	}
	return err
}

// proveSpace makes a full disk stay full until there is space for more than the next few bytes:
// a member that could still write a vote, but no entry, would win elections and lose them again.
func (s *store) proveSpace(b *bbolt.Bucket) error {
	troubled := s.trouble.Load() != nil
	switch {
	case troubled:
		s.spare = true
		return b.Put([]byte(spaceKey), make([]byte, spaceSize))
	case s.spare:
		s.spare = false
		return b.Delete([]byte(spaceKey))
	}
	return nil
}

// full says whether an error passes when somebody makes space.
func full(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// report remembers and logs the beginning and the end of trouble.
func (s *store) report(err error) {
	before := s.trouble.Load()
	switch {
	case err == nil && before != nil:
		s.trouble.Store(nil)
		s.log.Info("the fleet's log can be written again")
	case err != nil && before == nil:
		text := err.Error()
		s.trouble.Store(&text)
		s.log.Error("the fleet's log cannot be written; this member has no vote until it can", zap.Error(err))
	}
}

func (s *store) close() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.db == nil {
		return nil
	}
	db := s.db
	s.db, s.broken = nil, errors.New("the fleet's log is closed")
	return db.Close()
}

// empty says that nothing was ever agreed on, voted for or received here. Raft writes a term of 0
// when it starts.
func (s *store) empty() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for key, value := range s.values {
		if key != termKey || !bytes.Equal(value, make([]byte, 8)) {
			return false
		}
	}
	return len(s.entries) == 0 && s.snapshot == nil
}

// promised is the member that this one has promised to be founded by; empty when none.
func (s *store) promised() raft.ServerID {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.promise
}

// setPromise keeps the first promise for good.
func (s *store) setPromise(founder raft.ServerID) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.promised() != "" {
		return nil
	}
	err := s.commit(func(tx *bbolt.Tx) error {
		return tx.Bucket(memberBucket).Put([]byte(promiseKey), []byte(founder))
	})
	if err == nil {
		s.mu.Lock()
		s.promise = founder
		s.mu.Unlock()
	}
	return err
}
