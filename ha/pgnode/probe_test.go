package pgnode

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/cstproxy/cstproxy/ha/pglocal"
)

// One probe says what Facts say.
func TestAProbeSaysWhomAServerFollows(t *testing.T) {
	pg := pglocal.ForTest(t, pglocal.Options{Standbys: 1})
	a, b := pg.Nodes()[0], pg.Nodes()[1]
	s := server(t, b, "postgres")
	c := connect(t, s)
	agree := func(what string) Observation {
		t.Helper()
		o, f := observe(t, c), facts(t, s)
		if o.Marker != f.Marker || o.Upstream != f.Upstream || o.Slot != f.Slot || o.Receiving != f.Receiver || o.Complete != f.Complete ||
			(o.Receiver == "streaming") != f.Streaming || !slices.Equal(o.Warnings, f.Warnings) {
			t.Errorf("%s: the probe says %+v, the facts %+v", what, o, f)
		}
		return o
	}
	if o := agree("streaming"); o.Upstream != a.Address() || !o.Complete || !o.Receiving || len(o.Warnings) == 0 || o.Marker != (Marker{}) {
		t.Errorf("streaming: %+v", o)
	}
	if _, err := s.Recruit(within(t, ample), 7); err != nil {
		t.Fatal(err)
	}
	if o := agree("recruited"); o.Marker != (Marker{Epoch: 7}) || o.Receiving || o.Upstream != "" {
		t.Errorf("recruited: %+v", o)
	}
	up := upstream(a, b)
	up.Slot = "cstproxy_b"
	if err := connect(t, server(t, a, "postgres")).MakeSlot(t.Context(), up.Slot); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Follow(within(t, ample), 7, up); err != nil {
		t.Fatal(err)
	}
	if o := agree("released"); o.Marker != (Marker{7, true}) || o.Upstream != a.Address() || o.Slot != up.Slot {
		t.Errorf("released: %+v", o)
	}
	// Somebody else's use of the setting must not make the server unknown.
	psql(t, b, `ALTER SYSTEM SET "cstproxy.epoch" = 'mine'`)
	psql(t, b, "SELECT pg_reload_conf()")
	c = connect(t, s)
	if o := observe(t, c); o.Marker != (Marker{}) || !strings.Contains(o.Warnings[0], `"mine"`) {
		t.Errorf("with something else in the marker: %+v", o)
	}
	if o := observe(t, connect(t, server(t, a, "postgres"))); o.Receiving || o.Upstream != "" || !o.Complete {
		t.Errorf("the primary: %+v", o)
	}
}

func TestAFailureOnThisSideOfALoginIsNotTheServersDeath(t *testing.T) {
	for _, c := range []struct {
		before, after Cause
	}{{Silent, Hung}, {Unclassified, Denied}, {Reset, Reset}, {Refused, Refused}} {
		f := &Failure{Cause: c.before, err: errors.New("x")}
		if f.afterDial(); f.Cause != c.after {
			t.Errorf("%s became %s, want %s", c.before, f.Cause, c.after)
		}
	}
}

func TestSizesOfLogAreReadWithTheirUnits(t *testing.T) {
	for text, want := range map[string]int64{"512MB": 512, "1GB": 1024, "2TB": 2 << 20, "16384kB": 16, "0": 0, "-1": -1} {
		if got, err := parseMegabytes(text); err != nil || got != want {
			t.Errorf("%q is %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "MB", "5 MB", "5PB", "5MBMB"} {
		if got, err := parseMegabytes(text); err == nil {
			t.Errorf("%q is %d", text, got)
		}
	}
}
