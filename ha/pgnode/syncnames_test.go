package pgnode

import (
	"errors"
	"reflect"
	"testing"

	"github.com/cstproxy/cstproxy/ha/pglocal"
	"github.com/cstproxy/cstproxy/ha/record"
)

func TestSynchronousStandbyNamesAreReadAsTheServerReadsThem(t *testing.T) {
	set := func(method string, n int, names ...string) record.SyncSet {
		s := record.SyncSet{Method: method, Count: n, Names: names}
		for _, name := range names {
			s.Any = s.Any || name == "*"
		}
		return s
	}
	pg := pglocal.ForTest(t, pglocal.Options{})
	for _, c := range []struct {
		text string
		want record.SyncSet
		bad  bool
	}{
		{text: ""}, {text: " \t\n", bad: true},
		{text: "a", want: set("first", 1, "a")},
		{text: "a, b ,c", want: set("first", 1, "a", "b", "c")},
		{text: "2 (a, b)", want: set("first", 2, "a", "b")},
		{text: "2(a,b)", want: set("first", 2, "a", "b")},
		{text: "FIRST 2 (a, b)", want: set("first", 2, "a", "b")},
		{text: "fIrSt 1 (Ab)", want: set("first", 1, "Ab")},
		{text: "ANY 1 (a, \"b c\", \"d\"\"e\")", want: set("any", 1, "a", "b c", `d"e`)},
		{text: "any 3 (a)", want: set("any", 3, "a")},
		{text: "*", want: set("first", 1, "*")},
		{text: `"*"`, want: set("first", 1, "*")},
		{text: "ANY 2 (*)", want: set("any", 2, "*")},
		{text: "first_one", want: set("first", 1, "first_one")},
		{text: `"any"`, want: set("first", 1, "any")},
		{text: "1, 2", want: set("first", 1, "1", "2")},
		{text: "7", want: set("first", 1, "7")},
		{text: "ANY 1 (1, 2)", want: set("any", 1, "1", "2")},
		{text: "é$1", want: set("first", 1, "é$1")},
		{text: "a b", bad: true}, {text: "a,", bad: true}, {text: ",a", bad: true}, {text: "ANY", bad: true},
		{text: "ANY (a)", bad: true}, {text: "2 (a", bad: true}, {text: "2 a)", bad: true}, {text: "FIRST 0 (a)", bad: true},
		{text: `"a`, bad: true}, {text: "a;b", bad: true}, {text: "2 ()", bad: true}, {text: "(a)", bad: true}, {text: "2 (a) b", bad: true},
		{text: "any, b", bad: true}, {text: "a-b", bad: true}, {text: "ANY 99999999999999999999 (a)", bad: true},
	} {
		got, err := ParseSyncNames(c.text)
		if c.bad != (err != nil) || err != nil && !errors.Is(err, ErrSyncNames) || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: %+v, %v", c.text, got, err)
		}
		// The server's own parser is the judge of what is allowed.
		_, err = pg.Primary().Psql(t.Context(), "ALTER SYSTEM SET synchronous_standby_names = "+quoted(c.text))
		if (err != nil) != c.bad {
			t.Errorf("%q: the server says %v", c.text, err)
		}
	}
}

func FuzzSyncNames(f *testing.F) {
	f.Add(`ANY 2 (a, "b""c", *)`)
	f.Fuzz(func(t *testing.T, s string) {
		set, err := ParseSyncNames(s)
		if err == nil && (set.Count < 1) != (len(set.Names) == 0) {
			t.Errorf("%q: %+v", s, set)
		}
	})
}
