package oracle

import (
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/cstproxy/cstproxy/router"
)

// trial judges texts on one side and in both settings of standard_conforming_strings.
type trial struct {
	side       Side
	classifier *router.Classifier
	wrong      tally
	texts      int // that the grammar takes
	writes     int // of them, those that are no reads
	reads      int // that the classifier calls reads
}

func newTrial(s Side) *trial {
	return &trial{side: s, classifier: router.New(router.Config{}), wrong: tally{}}
}

// try says whether the grammar takes the text.
func (x *trial) try(text string) (taken bool) {
	if !utf8.ValidString(text) {
		return false
	}
	for _, syntax := range []Strings{Standard, Escape} {
		if syntax == Escape && strings.IndexByte(text, '\\') < 0 && strings.Index(text, "&'") < 0 {
			continue // reads the same
		}
		one := Text{text, syntax}
		v := x.side.Classify(x.classifier, one)
		tree, err := Parse(text, syntax)
		if err != nil {
			continue
		}
		taken = true
		x.texts++
		for _, what := range lacking(v, tree) {
			if unlike(text, what) {
				continue
			}
			x.wrong.add(what, Statement{Text: one, File: x.side.Name})
		}
		j := x.side.Truth.JudgeText(tree)
		if len(j.Reasons) > 0 {
			x.writes++
		}
		if v.Route.Target == router.Standby {
			x.reads++
		}
		for _, reason := range x.side.Broken(v, j) {
			x.wrong.add(reason.String(), Statement{Text: one, File: x.side.Name})
		}
	}
	return taken
}

// unlike says whether the tree is not that of a server: COPY to a file without a name, which a
// server refuses, looks like STDOUT, and libpg_query does not see UESCAPE behind a comment.
func unlike(text, what string) bool {
	low := strings.ToLower(text)
	return strings.HasPrefix(what, "no copy") && strings.Contains(text, "''") ||
		strings.Contains(low, "uescape") && (strings.Contains(text, "--") || strings.Contains(text, "/*"))
}

func (x *trial) report(t *testing.T, leastWrites int) {
	t.Helper()
	t.Logf("%s: %d texts, %d of them no reads, %d called reads", x.side.Name, x.texts, x.writes, x.reads)
	x.wrong.log(t.Errorf)
	if x.writes < leastWrites || x.reads == 0 {
		t.Errorf("too few texts to mean anything: want %d that are no reads, and some reads", leastWrites)
	}
}

func TestAWriteIsSeenAtEveryPlaceOfARead(t *testing.T) {
	for _, s := range []Side{Offline(), Invented()} {
		x := newTrial(s)
		for _, base := range Bases {
			for _, snippet := range Snippets {
				for _, text := range Inject(base, snippet) {
					x.try(text)
				}
			}
		}
		x.report(t, 5_000)
	}
}

// mutations is how many texts are made for each side; 15 µs each.
const mutations = 200_000

func TestMutatedReadsHaveNoWrites(t *testing.T) {
	// libpg_query keeps the last parse's string syntax per thread, and its scanner reads by it:
	// on one thread the same seed makes the same texts.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for i, s := range []Side{Offline(), Invented()} {
		x := newTrial(s)
		x.mutate(NewMutator(uint64(i), Bases), mutations)
		x.report(t, 3_000)
	}
}

func (x *trial) mutate(m *Mutator, n int) {
	for range n {
		if text := m.Next(); x.try(text) {
			m.Keep(text)
		}
	}
}
