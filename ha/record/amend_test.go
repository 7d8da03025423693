package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func amend(version uint64, set map[string]string, unset ...string) Entry {
	return Entry{Cluster: cluster, Amend: &Amend{Version: version, Set: set, Unset: unset, By: "dba", Why: "a test", At: 1}}
}

func TestPoliciesChangeFromVersionToVersion(t *testing.T) {
	s := log(t, &State{}, found())
	if s.Amended() || s.Clusters[cluster].Policies().Version != 0 {
		t.Error("policies are changed before anybody has")
	}
	first := log(t, s, amend(0, map[string]string{"on_crash": `"failover"`, "max_repairs": "5"}))
	if _, err := first.Apply(amend(0, map[string]string{"max_repairs": "1"})); !errors.Is(err, ErrStale) || !strings.Contains(err.Error(), "newest, which is 1") {
		t.Errorf("a change of an old version: %v", err)
	}
	second := log(t, first, amend(1, map[string]string{"max_repairs": "7"}, "on_crash"))
	m := second.Clusters[cluster].Policies()
	if m.Version != 2 || !reflect.DeepEqual(m.Values, map[string]string{"max_repairs": "7"}) || !second.Amended() {
		t.Errorf("after two changes: %+v", m)
	}
	want := Change{Version: 2, By: "dba", Why: "a test", At: 1, Set: map[string]string{"max_repairs": "7"}, Unset: []string{"on_crash"},
		Former: map[string]string{"max_repairs": "5", "on_crash": `"failover"`}}
	if got := m.Changes[1]; !reflect.DeepEqual(got, want) {
		t.Errorf("the second is remembered as %+v", got)
	}
	if old := first.Clusters[cluster].Policies(); old.Values["max_repairs"] != "5" || len(old.Changes) != 1 {
		t.Errorf("the record that others read has changed: %+v", old)
	}
}

func TestOnlyTheLastChangesAreRemembered(t *testing.T) {
	s := log(t, &State{}, found())
	for i := range uint64(maxChanges + 5) {
		s = log(t, s, amend(i, map[string]string{"max_repairs": fmt.Sprint(i)}))
	}
	m := s.Clusters[cluster].Policies()
	if len(m.Changes) != maxChanges || m.Changes[0].Version != 6 || m.Version != maxChanges+5 {
		t.Errorf("version %d remembers %d, the first of version %d", m.Version, len(m.Changes), m.Changes[0].Version)
	}
}

func TestAnAmendmentThatIsNoneIsRefused(t *testing.T) {
	s, long := log(t, &State{}, found()), strings.Repeat("x", maxPolicy+1)
	many := map[string]string{}
	for i := range maxPolicies {
		many[fmt.Sprint(i)] = "1"
	}
	full := log(t, s, amend(0, many))
	for name, c := range map[string]struct {
		s *State
		e Entry
	}{
		"nothing":          {s, amend(0, nil)},
		"set and unset":    {s, amend(0, map[string]string{"a": "1"}, "a")},
		"no key":           {s, amend(0, map[string]string{"": "1"})},
		"no key to unset":  {s, amend(0, nil, "")},
		"a long key":       {s, amend(0, map[string]string{long: "1"})},
		"a long value":     {s, amend(0, map[string]string{"a": long})},
		"nobody's":         {s, Entry{Cluster: cluster, Amend: &Amend{Unset: []string{"a"}}}},
		"too many of them": {full, amend(1, map[string]string{"one more": "1"})},
	} {
		if next, err := c.s.Apply(c.e); !errors.Is(err, ErrMalformed) || next != c.s {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What a build before Amend wrote is read, and what it reads is written, until the first change.
func TestRecordsWithoutChangesAreThoseOfOlderBuilds(t *testing.T) {
	s := log(t, &State{}, found(), adopt())
	text, err := json.Marshal(s)
	if err != nil || strings.Contains(string(text), "meta") {
		t.Errorf("a build that knows no changes could not read %s, %v", text, err)
	}
	if text, err = json.Marshal(begin(failover())); err != nil || strings.Contains(string(text), "amend") {
		t.Errorf("nor %s, %v", text, err)
	}
	s = log(t, s, amend(0, map[string]string{"on_crash": `"failover"`}))
	if text, err = json.Marshal(s); err != nil {
		t.Fatal(err)
	}
	var back State
	if err := json.Unmarshal(text, &back); err != nil || !reflect.DeepEqual(&back, s) {
		t.Errorf("%+v came back from a snapshot, %v", back, err)
	}
}
