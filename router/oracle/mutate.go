package oracle

import (
	"math/rand/v2"
	"slices"
	"strings"

	pg_query "github.com/pganalyze/pg_query_go/v6"
)

// Mutator makes texts out of others: spelt differently, with writes put in at any place, with
// tokens lost, doubled and exchanged. What a text means afterwards is for the grammar to say.
type Mutator struct {
	rng   *rand.Rand
	bases []string
	kept  int // of the bases, how many were given
}

// NewMutator returns a Mutator whose results follow from the seed.
func NewMutator(seed uint64, bases []string) *Mutator {
	return &Mutator{rng: rand.New(rand.NewPCG(seed, 15)), bases: slices.Clone(bases), kept: len(bases)}
}

// Keep makes a text that the grammar took a base of later ones.
func (m *Mutator) Keep(text string) {
	const most, shortest, longest = 5000, 60, 600
	switch {
	case len(text) < shortest || len(text) > longest:
	case len(m.bases) < m.kept+most:
		m.bases = append(m.bases, text)
	default:
		m.bases[m.kept+m.rng.IntN(most)] = text
	}
}

// Next returns a mutated text.
func (m *Mutator) Next() string {
	base := pick(m.rng, m.bases[:m.kept])
	if m.rng.IntN(3) == 0 {
		base = pick(m.rng, m.bases)
	}
	pieces := cut(base)
	for range 1 + m.rng.IntN(2) {
		pieces = m.mutate(pieces)
	}
	if m.rng.IntN(2) == 0 {
		m.respell(pieces)
	}
	return strings.Join(pieces, "")
}

// cut divides a text into tokens and what is between them: the odd pieces are tokens.
func cut(text string) []string {
	scan, err := pg_query.Scan(text)
	if err != nil {
		return []string{"", text, ""}
	}
	var out []string
	at := 0
	for _, t := range scan.GetTokens() {
		start, end := int(t.GetStart()), int(t.GetEnd())
		if start < at || end < start || end > len(text) {
			return []string{"", text, ""}
		}
		out = append(out, text[at:start], text[start:end])
		at = end
	}
	return append(out, text[at:])
}

// Inject returns all texts in which the snippet stands before, instead of or behind a token of the
// base.
func Inject(base, snippet string) []string {
	pieces := cut(base)
	var out []string
	for i := range pieces {
		was := pieces[i]
		if i%2 == 0 {
			pieces[i] += " " + snippet + " "
		} else {
			pieces[i] = snippet
		}
		out = append(out, strings.Join(pieces, ""))
		pieces[i] = was
	}
	return out
}

func (m *Mutator) mutate(pieces []string) []string {
	tokens := len(pieces) / 2
	if tokens == 0 {
		return pieces
	}
	i := 2*m.rng.IntN(tokens) + 1
	switch m.rng.IntN(8) {
	case 0, 1, 2:
		pieces[i-1] += " " + pick(m.rng, Snippets) + " "
	case 3:
		pieces[i] = pick(m.rng, Snippets)
	case 4:
		pieces[i] = pick(m.rng, words)
	case 5:
		pieces[i] = ""
	case 6:
		j := 2*m.rng.IntN(tokens) + 1
		pieces[i], pieces[j] = pieces[j], pieces[i]
	default: // the rest of another text
		other := cut(pick(m.rng, m.bases))
		from := 2 * m.rng.IntN(len(other)/2+1)
		pieces = append(pieces[:i:i], other[from:]...)
	}
	return pieces
}

func pick(rng *rand.Rand, from []string) string { return from[rng.IntN(len(from))] }

// respell writes tokens and blanks in other ways.
func (m *Mutator) respell(pieces []string) {
	for i := range pieces {
		if m.rng.IntN(3) != 0 {
			continue
		}
		switch {
		case i%2 == 0:
			pieces[i] = pick(m.rng, blanks)
		case strings.HasPrefix(pieces[i], "'"):
			pieces[i] = m.constant(pieces[i])
		case pieces[i] != "" && isLetter(pieces[i][0]):
			pieces[i] = m.word(pieces[i])
		}
	}
}

// constant writes a string constant in another syntax, whose content may become another one.
func (m *Mutator) constant(s string) string {
	inner := strings.TrimSuffix(strings.TrimPrefix(s, "'"), "'")
	switch m.rng.IntN(9) {
	case 0:
		return "E'" + inner + "'"
	case 1:
		return "e'" + inner + `\''`
	case 2:
		return "$$" + inner + "$$"
	case 3:
		return "$q$" + inner + "$$$q$"
	case 4:
		return "U&'" + inner + "'"
	case 5:
		return "N'" + inner + "'"
	case 6:
		return "'" + inner + "'\n -- '\n 'x'"
	case 7:
		return "'" + inner + `\'`
	}
	return "E'" + inner + `\\' '` + "'"
}

func (m *Mutator) word(s string) string {
	switch m.rng.IntN(5) {
	case 0:
		return strings.ToUpper(s)
	case 1:
		return `"` + strings.ToLower(s) + `"`
	case 2:
		return `U&"` + strings.ToLower(s) + `"`
	case 3:
		return strings.ToUpper(s[:1]) + s[1:]
	}
	return `U&"!00` + hex(s[0]|0x20) + strings.ToLower(s[1:]) + `" UESCAPE '!'`
}

func hex(c byte) string {
	const digits = "0123456789abcdef"
	return string([]byte{digits[c>>4], digits[c&15]})
}
