package gossip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// Bounds of a Ledger. An entry fits into one packet, so that a change need not wait for the next
// full exchange. A ledger has no end: beyond maxEntries keys those are forgotten that were written longest ago,
// on all members the same ones, because what comes from others is bounded as what is written here. Who was away
// for so many changes does not hear of those. An encoding of a former build may have more entries.
const (
	MaxKey     = 384 // bytes; the longest name of a host has 253
	MaxValue   = 384 // bytes
	maxEntries = 1024
	maxMerged  = 8192 // entries in one encoding
	maxAuthor  = maxName
	// maxCount leaves room above what anybody can have counted to.
	maxCount = 1 << 62
)

// entry is the newest word on one key. Deleted entries stay, as tombstones: without them a member
// that was away would bring the key back.
type entry struct {
	count   uint64 // a Lamport clock: higher than all that its author had seen
	author  string // the member that wrote it; decides between equal counts
	deleted bool
	value   string
}

// newer says whether e wins over o. It is a total order on entries, also on two that one author
// wrote with the same count because it had lost its disk in between.
func (e entry) newer(o entry) bool {
	switch {
	case e.count != o.count:
		return e.count > o.count
	case e.author != o.author:
		return e.author > o.author
	case e.deleted != o.deleted:
		return e.deleted
	}
	return e.value > o.value
}

// Ledger is a map that every member may write and that all members agree on after they have
// exchanged it, in whatever order and how often: per key the last writer wins, by (count, author).
// It is for what operators said (backends added and deleted, orders for nodes), where the last word
// is the right one. It is no consensus: two members may differ until they have met. Any goroutine
// may call it.
type Ledger struct {
	author  string
	mu      sync.Mutex
	entries map[string]entry
	count   uint64 // the highest seen
	limit   int    // maxEntries
}

// NewLedger returns an empty ledger in which Set writes as author.
func NewLedger(author string) *Ledger {
	return &Ledger{author: author, entries: map[string]entry{}, limit: maxEntries}
}

// Set writes a key and returns the change as Merge reads it.
func (l *Ledger) Set(key string, value []byte) ([]byte, error) {
	if len(value) > MaxValue {
		return nil, fmt.Errorf("write %q into the ledger: %d bytes, at most %d", key, len(value), MaxValue)
	}
	return l.write(key, entry{value: string(value)})
}

// Delete takes a key away and returns the change as Merge reads it.
func (l *Ledger) Delete(key string) ([]byte, error) {
	return l.write(key, entry{deleted: true})
}

func (l *Ledger) write(key string, e entry) ([]byte, error) {
	if key == "" || len(key) > MaxKey {
		return nil, fmt.Errorf("write into the ledger: a key has 1 to %d bytes, not %d", MaxKey, len(key))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.count >= maxCount {
		return nil, errors.New("write into the ledger: its count has no room left")
	}
	l.count++
	e.count, e.author = l.count, l.author
	l.entries[key] = e
	l.forget()
	return encodeEntries(map[string]entry{key: e}), nil
}

// forget drops the oldest entries beyond the limit. What one key had before is older than what it has, so what
// was forgotten is not among the newest of any later union either: in whatever order ledgers are merged, the
// same entries stay. Ledger.mu is held.
func (l *Ledger) forget() {
	if len(l.entries) <= l.limit {
		return
	}
	keys := slices.SortedFunc(maps.Keys(l.entries), func(a, b string) int {
		switch x, y := l.entries[a], l.entries[b]; {
		case x.newer(y):
			return 1
		case y.newer(x):
			return -1
		}
		return strings.Compare(a, b)
	})
	for _, key := range keys[:len(keys)-l.limit] {
		delete(l.entries, key)
	}
}

// Get returns the value of a key; false when it was never written or is deleted.
func (l *Ledger) Get(key string) ([]byte, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.entries[key]
	if !ok || e.deleted {
		return nil, false
	}
	return []byte(e.value), true
}

// All returns a copy of what is written and not deleted.
func (l *Ledger) All() map[string][]byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make(map[string][]byte, len(l.entries))
	for key, e := range l.entries {
		if !e.deleted {
			all[key] = []byte(e.value)
		}
	}
	return all
}

// Encode returns the whole ledger as Merge reads it, for another member or for a file. Equal
// ledgers have equal encodings.
func (l *Ledger) Encode() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return encodeEntries(l.entries)
}

// Merge takes over what is newer in an encoding and returns the keys that changed, sorted. An
// encoding with anything wrong in it changes nothing.
func (l *Ledger) Merge(encoded []byte) ([]string, error) {
	theirs, err := decodeEntries(encoded)
	if err != nil {
		return nil, fmt.Errorf("merge a ledger: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var changed []string
	for key, e := range theirs {
		l.count = max(l.count, e.count)
		mine, known := l.entries[key]
		if !known || e.newer(mine) {
			l.entries[key] = e
			changed = append(changed, key)
		}
	}
	l.forget()
	changed = slices.DeleteFunc(changed, func(key string) bool { _, there := l.entries[key]; return !there })
	slices.Sort(changed)
	return changed, nil
}

// ledgerFormat is the first byte of an encoding.
const ledgerFormat = 1

// encodeEntries writes: format, number of entries, and per entry in the order of the keys: key,
// count, author, 1 or 0 for deleted, value. Numbers are uvarints, texts have their length before them.
func encodeEntries(entries map[string]entry) []byte {
	b := []byte{ledgerFormat}
	b = binary.AppendUvarint(b, uint64(len(entries)))
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		e := entries[key]
		b = appendText(b, key)
		b = binary.AppendUvarint(b, e.count)
		b = appendText(b, e.author)
		deleted := byte(0)
		if e.deleted {
			deleted = 1
		}
		b = append(b, deleted)
		b = appendText(b, e.value)
	}
	return b
}

func decodeEntries(encoded []byte) (map[string]entry, error) {
	r := reader{rest: encoded}
	if format := r.byte(); r.err == nil && format != ledgerFormat {
		return nil, fmt.Errorf("format %d is not known, only %d", format, ledgerFormat)
	}
	n := r.number(maxMerged)
	entries := map[string]entry{}
	last := ""
	for range n {
		key := r.text(MaxKey)
		e := entry{count: r.number(maxCount), author: r.text(maxAuthor)}
		deleted := r.byte()
		e.deleted, e.value = deleted == 1, r.text(MaxValue)
		if r.err != nil {
			return nil, r.err
		}
		if strings.Compare(key, last) <= 0 || deleted > 1 || e.deleted && e.value != "" {
			return nil, fmt.Errorf("the entry after %q is malformed", last)
		}
		entries[key], last = e, key
	}
	return entries, r.end()
}
