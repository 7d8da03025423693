package params

import (
	"testing"

	"pgregory.net/rapid"
)

func TestCatchupSendsOnlyTheDifference(t *testing.T) {
	r := NewRegistry()
	start := r.With(r.Empty(), "datestyle", Value{"ISO, MDY", Plain})
	a := r.With(start, "search_path", Value{`app, "Odd"`, SQL})
	b := r.With(r.With(r.Empty(), "work_mem", Value{"4MB", Plain}), "datestyle", Value{"ISO, MDY", Plain})
	for _, c := range []struct {
		from, to *Set
		want     string
	}{
		{r.Empty(), r.Empty(), ""},
		{a, a, ""},
		{r.Empty(), start, `SELECT pg_catalog.set_config('datestyle','ISO, MDY',false);`},
		{start, a, `SET SESSION "search_path" TO app, "Odd";`},
		{a, b, `RESET "search_path";SELECT pg_catalog.set_config('work_mem','4MB',false);`},
		{r.Empty(), r.With(r.Empty(), "a.b", Value{`it's \n`, Plain}), `SELECT pg_catalog.set_config('a.b', E'it''s \\n',false);`},
	} {
		if got := string(Catchup(nil, c.from, c.to)); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

func TestResetGoesBackToTheStartUpValue(t *testing.T) {
	r := NewRegistry()
	start := r.With(r.Empty(), "timezone", Value{"UTC", Plain})
	now := r.With(start, "timezone", Value{"'Asia/Tokyo'", SQL})
	if got := r.Reset(now, start, "timezone"); got != start {
		t.Errorf("got %q, want the start-up set", got.Key())
	}
	if got := r.Reset(now, r.Empty(), "timezone"); got != r.Empty() {
		t.Errorf("got %q, want the empty set", got.Key())
	}
}

func TestEqualSetsAreTheSamePointer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := NewRegistry()
		names := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c", "d"}), 0, 8).Draw(t, "names")
		forward, backward := r.Empty(), r.Empty()
		for i := range names {
			forward = r.With(forward, names[i], Value{Text: "1"})
			backward = r.With(backward, names[len(names)-1-i], Value{Text: "1"})
		}
		if forward != backward {
			t.Fatalf("%q and %q", forward.Key(), backward.Key())
		}
		for _, n := range names {
			forward = r.Without(forward, n)
		}
		if forward != r.Empty() {
			t.Fatalf("not empty: %q", forward.Key())
		}
	})
}
