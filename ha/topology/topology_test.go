package topology

import (
	"strings"
	"testing"
)

func TestPositionsAreReadAndWrittenAsPostgreSQLDoes(t *testing.T) {
	for text, want := range map[string]LSN{"0/0": 0, "16/B374D848": 0x16B374D848, "FFFFFFFF/FFFFFFFF": ^LSN(0), "0/1000060": 0x1000060} {
		got, err := ParseLSN(text)
		if err != nil || got != want || got.String() != text {
			t.Errorf("%s became %d (%s), %v", text, uint64(got), got, err)
		}
	}
	for _, text := range []string{"", "/", "0", "1/", "/1", "G/0", "0/100000000", "100000000/0", "-1/0", "0/0/0", " 0/0", "+1/0"} {
		if got, err := ParseLSN(text); err == nil {
			t.Errorf("%q became %s", text, got)
		}
	}
}

func TestTimelinesAreReadFromFileNames(t *testing.T) {
	if got, err := ParseTimeline("0000000A"); err != nil || got != 10 || got.HistoryFile() != "0000000A.history" {
		t.Errorf("0000000A became %d (%s), %v", got, got.HistoryFile(), err)
	}
	for _, text := range []string{"", "A", "0000000G", "00000000A"} {
		if got, err := ParseTimeline(text); err == nil {
			t.Errorf("%q became %d", text, got)
		}
	}
}

func TestHistoryFilesAreRead(t *testing.T) {
	h, err := ParseHistory(4, []byte("# comment\n1\t0/3000060\tno recovery target specified\n\n2\t0/5000000\tbefore 2000-01-01 00:00:00+00\r\n  3 1/0"))
	want := History{4, []Fork{{1, 0x3000060}, {2, 0x5000000}, {3, 0x100000000}}}
	if err != nil || !h.Equal(want) || !h.Known() {
		t.Errorf("%+v, %v", h, err)
	}
	for name, text := range map[string]string{
		"one column": "1\n", "no number": "x\t0/1\n", "timeline 0": "0\t0/1\n", "no position": "1\tx\n",
		"falling timelines": "2\t0/1\n1\t0/2\n", "falling positions": "1\t0/2\n2\t0/1\n", "its own parent": "4\t0/1\n",
		"too long": strings.Repeat("#", maxHistory+1),
	} {
		if h, err := ParseHistory(4, []byte(text)); err == nil {
			t.Errorf("%s: %+v", name, h)
		}
	}
}

func TestWhoDescendsFromWhom(t *testing.T) {
	one := History{Timeline: 1}
	two := History{2, []Fork{{1, 100}}}
	other := History{2, []Fork{{1, 90}}}
	three := History{3, []Fork{{1, 100}, {2, 200}}}
	skipped := History{3, []Fork{{1, 100}}}
	for _, c := range []struct {
		name string
		h    History
		of   History
		at   LSN
		want bool
	}{
		{"the same", two, two, 999, true},
		{"before the fork", one, two, 99, true},
		{"at the fork", one, two, 100, true},
		{"past the fork", one, two, 101, false},
		{"two forks back", one, three, 100, true},
		{"the newer one", two, one, 0, false},
		{"the same number elsewhere", other, two, 50, false},
		{"the same number elsewhere, further on", other, three, 50, false},
		{"a branch beside it", skipped, three, 50, false},
		{"a parent past its fork", two, three, 201, false},
	} {
		if got := c.h.IsPrefixOf(c.of, c.at); got != c.want {
			t.Errorf("%s: %t, want %t", c.name, got, c.want)
		}
	}
	for _, c := range []struct {
		name  string
		h, of History
		want  bool
	}{
		{"child", two, one, true}, {"grandchild", three, one, true}, {"itself", two, two, false}, {"parent", one, two, false},
		{"child of the other", three, other, false}, {"a number higher on another branch", skipped, two, false}, {"unknown", History{Timeline: 3}, two, false},
	} {
		if got := c.h.Descends(c.of); got != c.want {
			t.Errorf("%s descends: %t, want %t", c.name, got, c.want)
		}
	}
	if at, ok := three.LeftAt(2); !ok || at != 200 {
		t.Errorf("left timeline 2 at %s, %t", at, ok)
	}
	if _, ok := three.LeftAt(3); ok {
		t.Error("left its own timeline")
	}
}

func FuzzParseHistory(f *testing.F) {
	f.Add([]byte("1\t0/3000060\tno recovery target specified\n2\t0/5000000\tx\n"))
	f.Add([]byte("# a\n\n1 0/0\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		h, err := ParseHistory(9, content)
		if err != nil {
			return
		}
		if !h.IsPrefixOf(h, 0) || h.Descends(h) {
			t.Errorf("%+v is no prefix of itself, or descends from itself", h)
		}
		for _, fork := range h.Forks {
			if !h.Contains(fork.Timeline, fork.End) || h.Contains(fork.Timeline, fork.End+1) && fork.End+1 != 0 {
				t.Errorf("%+v does not end timeline %d at %s", h, fork.Timeline, fork.End)
			}
		}
	})
}

func FuzzParseLSN(f *testing.F) {
	f.Add("16/B374D848")
	f.Fuzz(func(t *testing.T, text string) {
		if l, err := ParseLSN(text); err == nil {
			if again, err := ParseLSN(l.String()); err != nil || again != l {
				t.Errorf("%q became %s and then %s, %v", text, l, again, err)
			}
		}
	})
}

func TestTheBoardShowsTheNewestViewAndTellsWatchersInOrder(t *testing.T) {
	b := NewBoard("c")
	if v := b.View(); v.Primary != 0 || v.WhyNoPrimary == "" || v.Rounds == nil {
		t.Errorf("first View %+v", v)
	}
	var seen []uint64
	stop := b.Watch(func(v *View) { seen = append(seen, v.Version) })
	b.Publish(&View{Primary: 1})
	b.Publish(&View{Primary: 2})
	stop()
	b.Publish(&View{Primary: 3})
	if len(seen) != 2 || seen[0] != 1 || seen[1] != 2 || b.View().Primary != 3 {
		t.Errorf("saw %v, the board shows %d", seen, b.View().Primary)
	}
	if h := Health(99); h.String() != "unknown" || Role(99).String() != "unknown" {
		t.Error("a value out of range has a name")
	}
	n := Node{Host: "::1", Port: 5432}
	if n.Address() != "[::1]:5432" {
		t.Errorf("address %s", n.Address())
	}
}
