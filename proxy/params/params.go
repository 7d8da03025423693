// Package params holds a session's parameters as values that can be compared: which settings it
// asked for at start-up, which it SET since, and what has to be sent to a server so that it
// serves the session as if it had been its own from the beginning. A Set is immutable and
// interned, so "is this server as the session wants it" is one pointer comparison.
package params

import (
	"sort"
	"strings"
)

// Value is what a parameter was set to. SQL says which form Text has: the text behind TO in a
// client's own SET (replayed exactly as written), or a plain string as start-up packets have it.
type Value struct {
	Text string
	Form Form
}

// Form tells how a Value is written.
type Form int

const (
	Plain Form = iota // a string; sent through set_config
	SQL               // SQL text of a SET statement
)

type entry struct {
	name  string
	value Value
}

// Set is an immutable, interned set of parameters, by rising name. Two Sets of one Registry that
// are equal are the same pointer, as long as the Registry has not been emptied between them; so
// equal pointers prove equality, and different ones prove nothing (Catchup then finds no difference).
type Set struct {
	entries []entry
	key     string
}

// Registry interns Sets. It belongs to one loop: not safe for use by several goroutines.
type Registry struct {
	empty *Set
	known map[string]*Set
}

// maxKnown bounds the interned Sets; application names can be different for each client.
const maxKnown = 10000

// NewRegistry returns a registry that knows the empty Set.
func NewRegistry() *Registry {
	r := &Registry{empty: &Set{}}
	r.known = map[string]*Set{"": r.empty}
	return r
}

// Empty is the Set of a server fresh from its login.
func (r *Registry) Empty() *Set { return r.empty }

// With is s with one parameter set; names are lower case.
func (r *Registry) With(s *Set, name string, v Value) *Set {
	i, found := s.find(name)
	if found && s.entries[i].value == v {
		return s
	}
	next := make([]entry, 0, len(s.entries)+1)
	next = append(next, s.entries[:i]...)
	next = append(next, entry{name, v})
	if found {
		i++
	}
	return r.intern(append(next, s.entries[i:]...))
}

// Without is s with one parameter at the server's own default.
func (r *Registry) Without(s *Set, name string) *Set {
	i, found := s.find(name)
	if !found {
		return s
	}
	next := make([]entry, 0, len(s.entries)-1)
	next = append(next, s.entries[:i]...)
	return r.intern(append(next, s.entries[i+1:]...))
}

// Reset is s after RESET name: the parameter is again what start has, or the server's default.
func (r *Registry) Reset(s, start *Set, name string) *Set {
	if v, ok := start.Get(name); ok {
		return r.With(s, name, v)
	}
	return r.Without(s, name)
}

func (r *Registry) intern(entries []entry) *Set {
	var key strings.Builder
	for _, e := range entries {
		key.WriteString(e.name)
		key.WriteByte(byte(e.value.Form))
		key.WriteString(e.value.Text)
		key.WriteByte(0)
	}
	if s, ok := r.known[key.String()]; ok {
		return s
	}
	if len(r.known) >= maxKnown {
		clear(r.known)
		r.known[""] = r.empty
	}
	s := &Set{entries: entries, key: key.String()}
	r.known[s.key] = s
	return s
}

func (s *Set) find(name string) (int, bool) {
	i := sort.Search(len(s.entries), func(i int) bool { return s.entries[i].name >= name })
	return i, i < len(s.entries) && s.entries[i].name == name
}

// Get is the value of a parameter; names are lower case.
func (s *Set) Get(name string) (Value, bool) {
	i, found := s.find(name)
	if !found {
		return Value{}, false
	}
	return s.entries[i].value, true
}

// Len is how many parameters the Set holds.
func (s *Set) Len() int { return len(s.entries) }

// Key identifies the Set's content.
func (s *Set) Key() string { return s.key }

// Names lists the parameters.
func (s *Set) Names() []string {
	names := make([]string, len(s.entries))
	for i, e := range s.entries {
		names[i] = e.name
	}
	return names
}

// Catchup appends to dst the SQL that turns a server whose parameters are from into one whose
// parameters are to; nothing when there is no difference.
func Catchup(dst []byte, from, to *Set) []byte {
	if from == to {
		return dst
	}
	i, j := 0, 0
	for i < len(from.entries) || j < len(to.entries) {
		switch {
		case j == len(to.entries) || i < len(from.entries) && from.entries[i].name < to.entries[j].name:
			dst = append(dst, "RESET "...)
			dst = appendName(dst, from.entries[i].name)
			dst = append(dst, ';')
			i++
		case i == len(from.entries) || to.entries[j].name < from.entries[i].name:
			dst = appendSet(dst, to.entries[j])
			j++
		default:
			if from.entries[i].value != to.entries[j].value {
				dst = appendSet(dst, to.entries[j])
			}
			i, j = i+1, j+1
		}
	}
	return dst
}

func appendSet(dst []byte, e entry) []byte {
	if e.value.Form == SQL {
		dst = append(dst, "SET SESSION "...)
		dst = appendName(dst, e.name)
		dst = append(dst, " TO "...)
		dst = append(dst, e.value.Text...)
		return append(dst, ';')
	}
	// set_config reads a list the way a start-up packet is read; SET … TO 'a, b' would take it
	// for one quoted name.
	dst = append(dst, "SELECT pg_catalog.set_config("...)
	dst = appendLiteral(dst, e.name)
	dst = append(dst, ',')
	dst = appendLiteral(dst, e.value.Text)
	return append(dst, ",false);"...)
}

// appendName writes a parameter name as identifiers joined by dots, each quoted.
func appendName(dst []byte, name string) []byte {
	for i, part := range strings.Split(name, ".") {
		if i > 0 {
			dst = append(dst, '.')
		}
		dst = append(dst, '"')
		dst = append(dst, strings.ReplaceAll(part, `"`, `""`)...)
		dst = append(dst, '"')
	}
	return dst
}

// appendLiteral writes a string literal that reads the same whatever standard_conforming_strings is.
func appendLiteral(dst []byte, s string) []byte {
	if strings.IndexByte(s, '\\') >= 0 {
		dst = append(dst, " E"...)
		s = strings.ReplaceAll(s, `\`, `\\`)
	}
	dst = append(dst, '\'')
	dst = append(dst, strings.ReplaceAll(s, "'", "''")...)
	return append(dst, '\'')
}
