package gossip

import (
	"bytes"
	"fmt"
	"maps"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// The members write, delete, exchange whole ledgers and single changes, in any order and as often
// as they like, lose their disks and come back. Once all have met, all have the same.
func TestLedgersThatHaveMetAreEqual(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const members = 4
		var ledgers [members]*Ledger
		for i := range ledgers {
			ledgers[i] = NewLedger(fmt.Sprint("m", i))
		}
		limit := rapid.SampledFrom([]int{1, 2, maxEntries}).Draw(t, "limit")
		for _, l := range ledgers {
			l.limit = limit
		}
		var changes [][]byte
		member := rapid.IntRange(0, members-1)
		key := rapid.SampledFrom([]string{"a", "b", "c"})
		for range rapid.IntRange(0, 40).Draw(t, "steps") {
			l := ledgers[member.Draw(t, "member")]
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0, 1:
				change, err := l.Set(key.Draw(t, "key"), []byte(rapid.StringN(0, 3, 3).Draw(t, "value")))
				if err != nil {
					t.Fatal(err)
				}
				changes = append(changes, change)
			case 2:
				change, err := l.Delete(key.Draw(t, "key"))
				if err != nil {
					t.Fatal(err)
				}
				changes = append(changes, change)
			case 3:
				merge(t, l, ledgers[member.Draw(t, "from")].Encode())
				if len(changes) > 0 {
					merge(t, l, rapid.SampledFrom(changes).Draw(t, "change"))
				}
			case 4:
				i := member.Draw(t, "disk lost")
				ledgers[i] = NewLedger(fmt.Sprint("m", i))
				ledgers[i].limit = limit
			}
		}
		for _, i := range rapid.Permutation([]int{0, 1, 2, 3}).Draw(t, "first round") {
			merge(t, ledgers[0], ledgers[i].Encode())
		}
		for _, i := range rapid.Permutation([]int{0, 1, 2, 3}).Draw(t, "second round") {
			merge(t, ledgers[i], ledgers[0].Encode())
		}
		for i := range ledgers {
			if !bytes.Equal(ledgers[i].Encode(), ledgers[0].Encode()) {
				t.Fatalf("member %d has %q, member 0 has %q", i, ledgers[i].Encode(), ledgers[0].Encode())
			}
			if !maps.EqualFunc(ledgers[i].All(), ledgers[0].All(), bytes.Equal) {
				t.Fatalf("member %d shows other values", i)
			}
		}
	})
}

// Merging is commutative, associative and idempotent on whatever can be encoded.
func TestMergingHasNoOrder(t *testing.T) {
	one := rapid.Custom(func(t *rapid.T) map[string]entry {
		return rapid.MapOfN(rapid.SampledFrom([]string{"a", "b", "c"}), rapid.Custom(func(t *rapid.T) entry {
			e := entry{count: rapid.Uint64Range(0, 2).Draw(t, "count"), author: rapid.SampledFrom([]string{"x", "y"}).Draw(t, "author")}
			if e.deleted = rapid.Bool().Draw(t, "deleted"); !e.deleted {
				e.value = rapid.SampledFrom([]string{"", "1", "2"}).Draw(t, "value")
			}
			return e
		}), 0, 2).Draw(t, "entries")
	})
	limit := maxEntries
	join := func(t *rapid.T, all ...map[string]entry) string {
		l := NewLedger("me")
		l.limit = limit
		for _, entries := range all {
			merge(t, l, encodeEntries(entries))
		}
		return string(l.Encode())
	}
	rapid.Check(t, func(t *rapid.T) {
		limit = rapid.SampledFrom([]int{1, 2, maxEntries}).Draw(t, "limit")
		a, b, c := one.Draw(t, "a"), one.Draw(t, "b"), one.Draw(t, "c")
		want := join(t, a, b, c)
		for _, got := range []string{join(t, c, b, a), join(t, b, a, c), join(t, a, b, c, a, b, c), join(t, a, a, c, b)} {
			if got != want {
				t.Fatalf("%q and %q", got, want)
			}
		}
	})
}

func merge(t *rapid.T, l *Ledger, encoded []byte) {
	if _, err := l.Merge(encoded); err != nil {
		t.Fatal(err)
	}
}

func TestTheLastWordCounts(t *testing.T) {
	a, b := NewLedger("a"), NewLedger("b")
	set := func(l *Ledger, key, value string) []byte {
		t.Helper()
		change, err := l.Set(key, []byte(value))
		if err != nil {
			t.Fatal(err)
		}
		return change
	}
	set(a, "k", "1")
	set(a, "k", "2")
	set(b, "k", "other") // has seen less
	if changed, err := b.Merge(a.Encode()); err != nil || len(changed) != 1 {
		t.Fatalf("changed %q, %v", changed, err)
	}
	if v, _ := b.Get("k"); string(v) != "2" {
		t.Errorf("b has %q, a had written later", v)
	}
	change, err := b.Delete("k") // b has seen a's word now, so this one is the last
	if err != nil {
		t.Fatal(err)
	}
	if changed, err := a.Merge(change); err != nil || len(changed) != 1 {
		t.Fatalf("changed %q, %v", changed, err)
	}
	if _, there := a.Get("k"); there {
		t.Error("a deleted key is there")
	}
	if changed, err := a.Merge(change); err != nil || len(changed) != 0 {
		t.Errorf("the same change again changed %q, %v", changed, err)
	}
}

func TestALedgerRefusesWhatDoesNotFit(t *testing.T) {
	l := NewLedger("m")
	if _, err := l.Set("", nil); err == nil {
		t.Error("an empty key was written")
	}
	if _, err := l.Set(strings.Repeat("k", MaxKey+1), nil); err == nil {
		t.Error("a long key was written")
	}
	if _, err := l.Set("k", make([]byte, MaxValue+1)); err == nil {
		t.Error("a long value was written")
	}
	change, err := l.Set(strings.Repeat("k", MaxKey), make([]byte, MaxValue))
	if err != nil {
		t.Fatal(err)
	}
	if len(change) > MaxMessage {
		t.Errorf("the largest change has %d bytes and does not fit into a message of %d", len(change), MaxMessage)
	}
}

// An operator's word counts however many came before it, and everybody forgets the same ones.
func TestALedgerForgetsWhatWasSaidLongestAgo(t *testing.T) {
	a, b := NewLedger("a"), NewLedger("b")
	set := func(key, value string) []byte {
		t.Helper()
		change, err := a.Set(key, []byte(value))
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		return change
	}
	first := set("0", "once")
	if _, err := b.Merge(first); err != nil {
		t.Fatal(err)
	}
	for i := range maxEntries {
		if i == maxEntries/2 {
			set("0", "again")
		}
		set(fmt.Sprint("added ", i), "x")
	}
	if _, there := a.Get("added 0"); there || len(a.All()) != maxEntries {
		t.Errorf("%d keys are kept, the oldest %v", len(a.All()), there)
	}
	if v, _ := a.Get("0"); string(v) != "again" {
		t.Errorf("what was said anew is %q", v)
	}
	if changed, err := b.Merge(a.Encode()); err != nil || len(changed) != maxEntries || !bytes.Equal(a.Encode(), b.Encode()) {
		t.Errorf("another member learns %d keys, %v", len(changed), err)
	}
	late := encodeEntries(map[string]entry{"added 0": {count: 2, author: "a", value: "x"}})
	if changed, err := b.Merge(late); err != nil || len(changed) != 0 || len(b.All()) != maxEntries {
		t.Errorf("what is forgotten changes %q when it comes again, %v", changed, err)
	}
}

func TestAMalformedLedgerChangesNothing(t *testing.T) {
	good := encodeEntries(map[string]entry{"a": {count: 1, author: "m", value: "v"}, "b": {count: 2, author: "m", deleted: true}})
	bad := map[string][]byte{
		"empty": {}, "another format": append([]byte{9}, good[1:]...), "too long": append(bytes.Clone(good), 0),
		"more entries than a ledger has": {ledgerFormat, 0xff, 0xff, 0xff, 0x7f},
		"a length beyond the end":        {ledgerFormat, 1, 100, 'a'},
		"a number without an end":        append([]byte{ledgerFormat}, bytes.Repeat([]byte{0x80}, 20)...),
		"keys out of order":              {ledgerFormat, 2, 1, 'b', 1, 0, 0, 0, 1, 'a', 1, 0, 0, 0},
		"a tombstone with a value":       {ledgerFormat, 1, 1, 'b', 1, 0, 1, 1, 'v'},
		"a count that leaves no room":    append(append([]byte{ledgerFormat, 1, 1, 'b'}, bytes.Repeat([]byte{0xff}, 9)...), 1, 0, 0, 0),
	}
	for i := range good[:len(good)-1] {
		bad[fmt.Sprint("cut at ", i)] = good[:i]
	}
	for name, encoded := range bad {
		l := NewLedger("m")
		if changed, err := l.Merge(encoded); err == nil || len(changed) > 0 || len(l.All()) > 0 {
			t.Errorf("%s: changed %q, %v", name, changed, err)
		}
	}
	if _, err := NewLedger("m").Merge(good); err != nil {
		t.Error(err)
	}
}

func FuzzLedger(f *testing.F) {
	f.Add(encodeEntries(map[string]entry{"a": {count: 1, author: "m", value: "v"}, "b": {count: 2, author: "m", deleted: true}}))
	f.Fuzz(func(t *testing.T, encoded []byte) {
		l := NewLedger("m")
		if _, err := l.Merge(encoded); err != nil {
			return
		}
		again := NewLedger("n")
		if _, err := again.Merge(l.Encode()); err != nil || !bytes.Equal(again.Encode(), l.Encode()) {
			t.Fatalf("%q was taken, and its own encoding is not: %v", encoded, err)
		}
	})
}
