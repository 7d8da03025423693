package consensus

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
	"go.uber.org/zap"
	"pgregory.net/rapid"
)

func open(t testing.TB, dir string) *store {
	t.Helper()
	s, err := openStore(dir, "m1", make(chan struct{}), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.close() })
	return s
}

func entry(index, term uint64) *raft.Log {
	return &raft.Log{Index: index, Term: term, Type: raft.LogCommand, Data: []byte{byte(index), byte(term)}, AppendedAt: time.Unix(1, 2)}
}

func indexes(s *store) []uint64 {
	var list []uint64
	for _, l := range s.entries {
		list = append(list, l.Index)
	}
	return list
}

func TestTheLogIsReadBackAsItWasWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "here")
	s := open(t, dir)
	id := s.id
	if !s.empty() || nameOf(id) != "m1" {
		t.Errorf("a new store is %s", id)
	}
	if first, err := s.FirstIndex(); first != 0 || err != nil {
		t.Error(first, err)
	}
	if last, err := s.LastIndex(); last != 0 || err != nil {
		t.Error(last, err)
	}
	full := &raft.Log{Index: 3, Term: 7, Type: raft.LogConfiguration, Data: []byte("data"), Extensions: []byte("ext"), AppendedAt: time.Now()}
	bare := &raft.Log{Index: 4, Term: 7, Type: raft.LogNoop}
	if err := s.StoreLogs([]*raft.Log{full, bare}); err != nil {
		t.Fatal(err)
	}
	check := func(s *store) {
		t.Helper()
		for _, want := range []*raft.Log{full, bare} {
			var got raft.Log
			if err := s.GetLog(want.Index, &got); err != nil {
				t.Fatal(err)
			}
			if got.Index != want.Index || got.Term != want.Term || got.Type != want.Type || !bytes.Equal(got.Data, want.Data) ||
				!bytes.Equal(got.Extensions, want.Extensions) || !got.AppendedAt.Equal(want.AppendedAt) {
				t.Errorf("%+v became %+v", want, got)
			}
		}
	}
	check(s)
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	check(s)
	if s.id != id || s.empty() {
		t.Errorf("%s became %s", id, s.id)
	}
	var none raft.Log
	for _, index := range []uint64{0, 2, 5, 1 << 63} {
		if err := s.GetLog(index, &none); !errors.Is(err, raft.ErrLogNotFound) {
			t.Errorf("entry %d: %v", index, err)
		}
	}
	info, err := os.Stat(filepath.Join(dir, fileName))
	if err != nil || info.Mode().Perm() != fileMode {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestEntriesAreReplacedAndDeletedInRangesWithGaps(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for _, index := range []uint64{1, 2, 3, 10, 11, 1 << 62} {
		if err := s.StoreLog(entry(index, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.StoreLog(entry(2, 9)); err != nil {
		t.Fatal(err)
	}
	var l raft.Log
	if err := s.GetLog(2, &l); err != nil || l.Term != 9 {
		t.Errorf("%+v, %v", l, err)
	}
	for _, step := range []struct {
		from, to uint64
		want     []uint64
	}{
		{4, 9, []uint64{1, 2, 3, 10, 11, 1 << 62}},
		{0, 1, []uint64{2, 3, 10, 11, 1 << 62}},
		{3, 10, []uint64{2, 11, 1 << 62}},
		{5, 4, []uint64{2, 11, 1 << 62}},
		{12, 1<<64 - 1, []uint64{2, 11}},
		{0, 1<<64 - 1, nil},
	} {
		if err := s.DeleteRange(step.from, step.to); err != nil {
			t.Fatal(err)
		}
		if got := indexes(s); !slices.Equal(got, step.want) {
			t.Errorf("after deleting %d to %d: %v, want %v", step.from, step.to, got, step.want)
		}
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, dir)
		if got := indexes(s); !slices.Equal(got, step.want) {
			t.Errorf("on disk after deleting %d to %d: %v, want %v", step.from, step.to, got, step.want)
		}
	}
	if first, err := s.FirstIndex(); first != 0 || err != nil {
		t.Error(first, err)
	}
}

// TestTheStoreDoesWhatRaftsOwnDoes compares with raft's InmemStore, for what raft does to a log:
// it appends, drops a prefix, and drops a suffix.
func TestTheStoreDoesWhatRaftsOwnDoes(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		folder, err := os.MkdirTemp(dir, "")
		if err != nil {
			rt.Fatal(err)
		}
		s, model := open(t, folder), raft.NewInmemStore()
		defer func() { s.close() }()
		next := uint64(1)
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			first, _ := model.FirstIndex()
			last, _ := model.LastIndex()
			switch rapid.IntRange(0, 3).Draw(rt, "step") {
			case 0:
				var logs []*raft.Log
				for range rapid.IntRange(1, 5).Draw(rt, "entries") {
					logs = append(logs, entry(next, rapid.Uint64().Draw(rt, "term")))
					next++
				}
				if err := errors.Join(s.StoreLogs(logs), model.StoreLogs(logs)); err != nil {
					rt.Fatal(err)
				}
			case 1:
				if last > first {
					to := rapid.Uint64Range(first, last-1).Draw(rt, "to")
					if err := errors.Join(s.DeleteRange(first, to), model.DeleteRange(first, to)); err != nil {
						rt.Fatal(err)
					}
				}
			case 2:
				if last > first {
					from := rapid.Uint64Range(first+1, last).Draw(rt, "from")
					if err := errors.Join(s.DeleteRange(from, last), model.DeleteRange(from, last)); err != nil {
						rt.Fatal(err)
					}
					next = from
				}
			case 3:
				if err := s.close(); err != nil {
					rt.Fatal(err)
				}
				s = open(t, folder)
			}
			compare(rt, s, model)
		}
	})
}

func compare(rt *rapid.T, s *store, model *raft.InmemStore) {
	wantFirst, _ := model.FirstIndex()
	wantLast, _ := model.LastIndex()
	first, err := s.FirstIndex()
	if err != nil || first != wantFirst {
		rt.Fatalf("first %d, want %d, %v", first, wantFirst, err)
	}
	last, err := s.LastIndex()
	if err != nil || last != wantLast {
		rt.Fatalf("last %d, want %d, %v", last, wantLast, err)
	}
	for i := wantFirst; i <= wantLast && i > 0; i++ {
		var got, want raft.Log
		if err := errors.Join(s.GetLog(i, &got), model.GetLog(i, &want)); err != nil || got.Term != want.Term || !bytes.Equal(got.Data, want.Data) {
			rt.Fatalf("%d: %+v, want %+v, %v", i, got, want, err)
		}
	}
}

func TestValuesAreKeptAndWhatIsMissingIsNotFound(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if v, err := s.Get([]byte("none")); err == nil || err.Error() != "not found" || v != nil {
		t.Errorf("%q, %v", v, err) // raft compares with this text
	}
	if v, err := s.GetUint64([]byte("none")); err == nil || err.Error() != "not found" || v != 0 {
		t.Errorf("%d, %v", v, err)
	}
	if err := errors.Join(s.Set([]byte("a"), []byte("x")), s.Set([]byte("empty"), nil), s.SetUint64([]byte(termKey), 1<<63+5)); err != nil {
		t.Fatal(err)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	if v, err := s.Get([]byte("a")); err != nil || string(v) != "x" {
		t.Errorf("%q, %v", v, err)
	}
	if v, err := s.Get([]byte("empty")); err != nil || v == nil || len(v) != 0 {
		t.Errorf("%q, %v", v, err)
	}
	if v, err := s.GetUint64([]byte(termKey)); err != nil || v != 1<<63+5 {
		t.Errorf("%d, %v", v, err)
	}
	if _, err := s.GetUint64([]byte("a")); err == nil {
		t.Error("one byte is a number")
	}
}

func TestTheNewestSnapshotReplacesTheOneBefore(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if list, err := s.List(); err != nil || len(list) != 0 {
		t.Error(list, err)
	}
	configuration := raft.Configuration{Servers: []raft.Server{{ID: s.id, Address: "a:1"}}}
	for i, text := range []string{"one", "cancelled", "two"} {
		k, err := s.Create(1, uint64(10+i), 3, configuration, 2, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(k, text); err != nil {
			t.Fatal(err)
		}
		if text == "cancelled" {
			if err := errors.Join(k.Cancel(), k.Close()); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := errors.Join(k.Close(), k.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	list, err := s.List()
	if err != nil || len(list) != 1 || list[0].Index != 12 || list[0].Term != 3 || list[0].ConfigurationIndex != 2 ||
		list[0].Version != 1 || list[0].Size != 3 || list[0].Configuration.Servers[0].ID != s.id {
		t.Fatalf("%+v, %v", list, err)
	}
	_, r, err := s.Open(list[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(r); err != nil || string(text) != "two" {
		t.Errorf("%q, %v", text, err)
	}
	if _, _, err := s.Open("3-10"); err == nil {
		t.Error("the old one is still there")
	}
	k, err := s.Create(1, 20, 3, configuration, 2, nil)
	if err != nil {
		t.Fatal(err)
	}
	chunk := make([]byte, maxSnapshot/2)
	for range 2 {
		if _, err := k.Write(chunk); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := k.Write([]byte("x")); err == nil {
		t.Error("a snapshot without bounds")
	}
}

func TestADirectoryBelongsToOneMemberAndOneProcess(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if _, err := openStore(dir, "m1", nil, zap.NewNop()); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("opened twice: %v", err)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	if _, err := openStore(dir, "m2", nil, zap.NewNop()); err == nil || !strings.Contains(err.Error(), "belongs to the member m1") {
		t.Errorf("opened by another: %v", err)
	}
	again := open(t, dir)
	other := open(t, t.TempDir())
	if again.id != s.id || other.id == s.id {
		t.Errorf("%s, then %s, elsewhere %s", s.id, again.id, other.id)
	}
}

func TestAPromiseIsKept(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if err := errors.Join(s.setPromise("m0/1"), s.setPromise("m0/2")); err != nil {
		t.Fatal(err)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	if s.promised() != "m0/1" || !s.empty() {
		t.Errorf("promised to %s", s.promised())
	}
}

func TestDamageIsNoticed(t *testing.T) {
	for name, damage := range map[string]func(tx *bbolt.Tx) error{
		"an entry's bit":     func(tx *bbolt.Tx) error { return flip(tx.Bucket(logBucket), indexKey(1)) },
		"an entry cut short": func(tx *bbolt.Tx) error { return tx.Bucket(logBucket).Put(indexKey(1), []byte{1}) },
		"an entry's key":     func(tx *bbolt.Tx) error { return tx.Bucket(logBucket).Put([]byte("x"), []byte{1}) },
		"the snapshot's bit": func(tx *bbolt.Tx) error { return flip(tx.Bucket(snapshotBucket), dataKey) },
	} {
		dir := t.TempDir()
		s := open(t, dir)
		k, err := s.Create(1, 1, 1, raft.Configuration{}, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = k.Write([]byte("snapshot")); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(k.Close(), s.StoreLog(entry(1, 1)), s.db.Update(damage), s.close()); err != nil {
			t.Fatal(err)
		}
		if _, err := openStore(dir, "m1", nil, zap.NewNop()); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
}

func flip(b *bbolt.Bucket, key []byte) error {
	value := bytes.Clone(b.Get(key))
	value[len(value)/2] ^= 4
	return b.Put(key, value)
}

func FuzzDecodeEntry(f *testing.F) {
	f.Add(encodeEntry(entry(1, 2)))
	f.Add(encodeEntry(&raft.Log{Extensions: []byte("x")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := decodeEntry(indexKey(5), b)
		if err == nil && !bytes.Equal(encodeEntry(l), b) {
			t.Errorf("%x became %x", b, encodeEntry(l))
		}
	})
}
