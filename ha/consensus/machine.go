package consensus

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
	"go.uber.org/zap"

	"github.com/cstproxy/cstproxy/ha/record"
)

// maxEntry bounds an entry, in bytes; above half a megabyte raft's heartbeats would suffer.
const maxEntry = 256 << 10

// ErrNewer says that the log holds what a newer cstproxy wrote. This member cannot follow any
// more: skipping an entry would let it hold another truth than the rest.
var ErrNewer = errors.New("the fleet's log was written by a newer cstproxy; update this member")

// truth is the record as of an entry of the log. Immutable.
type truth struct {
	Index uint64        `json:"index"`
	State *record.State `json:"state"`
}

// snapshotFormat is the first field of a snapshot.
const snapshotFormat = 1

type snapshotFile struct {
	Format int `json:"format"`
	truth
}

// machine is raft's FSM: it applies what was committed.
type machine struct {
	log     *zap.Logger
	now     atomic.Pointer[truth]
	changed *signal
	failed  chan error // holds the first thing that this member could not follow
	stuck   atomic.Bool
}

func newMachine(changed *signal, log *zap.Logger) *machine {
	m := &machine{log: log, changed: changed, failed: make(chan error, 1)}
	m.now.Store(&truth{State: &record.State{}})
	return m
}

// Apply implements raft.FSM. The response is an error or nil.
func (m *machine) Apply(l *raft.Log) any {
	if m.stuck.Load() {
		return ErrNewer
	}
	var e record.Entry
	if err := strictly(l.Data, &e); err != nil {
		return m.fail(fmt.Errorf("entry %d: %w (%w)", l.Index, ErrNewer, err))
	}
	e.At = l.AppendedAt
	state, err := m.now.Load().State.Apply(e)
	m.now.Store(&truth{Index: l.Index, State: state})
	m.changed.fire()
	return err
}

func (m *machine) fail(err error) error {
	m.stuck.Store(true)
	select {
	case m.failed <- err:
	default:
	}
	return err
}

// strictly decodes one JSON value and refuses fields that it does not know.
func strictly(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if d.More() {
		return errors.New("something follows")
	}
	return nil
}

// Snapshot implements raft.FSM.
func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	if m.stuck.Load() {
		return nil, ErrNewer
	}
	return &frozen{m.now.Load()}, nil
}

// Restore implements raft.FSM.
func (m *machine) Restore(from io.ReadCloser) error {
	defer from.Close()
	data, err := io.ReadAll(io.LimitReader(from, maxSnapshot))
	if err != nil {
		return err
	}
	var file snapshotFile
	if err := strictly(data, &file); err != nil {
		return m.fail(fmt.Errorf("snapshot: %w (%w)", ErrNewer, err))
	}
	if file.Format != snapshotFormat || file.State == nil {
		return m.fail(fmt.Errorf("snapshot of format %d: %w", file.Format, ErrNewer))
	}
	m.now.Store(&truth{Index: file.Index, State: file.State})
	m.changed.fire()
	return nil
}

// frozen is a truth on its way into a snapshot.
type frozen struct{ truth *truth }

// Persist implements raft.FSMSnapshot.
func (f *frozen) Persist(to raft.SnapshotSink) error {
	data, err := json.Marshal(snapshotFile{snapshotFormat, *f.truth})
	if err == nil {
		_, err = to.Write(data)
	}
	if err != nil {
		return errors.Join(err, to.Cancel())
	}
	return to.Close()
}

// Release implements raft.FSMSnapshot.
func (f *frozen) Release() {}

// signal tells any number of waiters that something has changed.
type signal struct {
	mu sync.Mutex
	ch chan struct{}
}

func newSignal() *signal { return &signal{ch: make(chan struct{})} }

// wait is a channel that is closed at the next fire.
func (s *signal) wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ch
}

func (s *signal) fire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.ch)
	s.ch = make(chan struct{})
}
