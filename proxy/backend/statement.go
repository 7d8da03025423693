package backend

import (
	"encoding/binary"
	"strconv"
)

// Prepared is one text with its parameter types, known under one name on every server that has
// it. Sessions that prepare the same text share it, so a server parses it once.
type Prepared struct {
	Name  string // on the servers
	Text  string
	Types []byte // raw parameter type part of the Parse message
	refs  int
	key   string
}

// Registry interns Prepared statements of one loop.
type Registry struct {
	known map[string]*Prepared
	bytes int
	limit int
	full  int // sweep when bytes has passed this
	next  uint64
	buf   []byte
}

// NewRegistry returns a registry that forgets unused statements when their texts together exceed
// limit bytes.
func NewRegistry(limit int) *Registry {
	return &Registry{known: map[string]*Prepared{}, limit: limit, full: limit}
}

// Intern finds or makes the statement and counts one more user of it; Drop ends the use. schema
// tells texts apart that were parsed before and after DDL: they may mean different things.
func (r *Registry) Intern(text, types []byte, schema uint64) *Prepared {
	r.buf = append(append(append(r.buf[:0], text...), 0), types...)
	r.buf = binary.BigEndian.AppendUint64(r.buf, schema)
	p, ok := r.known[string(r.buf)]
	if !ok {
		if r.bytes > r.full {
			r.sweep()
		}
		r.next++
		key := string(r.buf)
		p = &Prepared{Name: sharedPrefix + strconv.FormatUint(r.next, 36), Text: key[:len(text)], Types: []byte(key[len(text)+1 : len(key)-8]), key: key}
		r.known[key] = p
		r.bytes += len(key)
	}
	p.refs++
	if cap(r.buf) > 64<<10 {
		r.buf = nil
	}
	return p
}

// Use counts one more user.
func (p *Prepared) Use() { p.refs++ }

// Drop ends one use. The statement stays known until room is needed: the next client may want it.
func (p *Prepared) Drop() { p.refs-- }

func (r *Registry) sweep() {
	for key, p := range r.known {
		if p.refs <= 0 {
			delete(r.known, key)
			r.bytes -= len(key)
		}
	}
	r.full = max(r.limit, 2*r.bytes) // what is in use is not looked at again for each new text
}

// Len is how many statements are known.
func (r *Registry) Len() int { return len(r.known) }

// Statements is what one server has prepared, least recently used last.
type Statements struct {
	have    map[*Prepared]*held
	first   held // ring: first.next is the newest
	doubt   bool // it may have others than those in have
	unnamed Unnamed
}

// Unnamed is what is known of a server's unnamed statement: its text, nil when it has none.
type Unnamed struct{ text *Prepared }

type held struct {
	prepared   *Prepared
	prev, next *held
	stale      bool
}

// Has says whether the server has the statement, and counts it as used now. stale: its name may be
// taken on the server by a plan that cannot be used; it must be closed before it is parsed.
func (s *Statements) Has(p *Prepared) (has, stale bool) {
	h := s.have[p]
	if h == nil {
		return false, s.doubt
	}
	h.unlink()
	s.link(h)
	return true, h.stale
}

// Add notes that the server is being given the statement.
func (s *Statements) Add(p *Prepared) {
	if s.have == nil {
		s.have = map[*Prepared]*held{}
		s.first.prev, s.first.next = &s.first, &s.first
	}
	if h := s.have[p]; h != nil {
		h.stale = false
		return
	}
	h := &held{prepared: p}
	s.have[p] = h
	s.link(h)
}

// Remove notes that the server does not have the statement (any more).
func (s *Statements) Remove(p *Prepared) {
	if h := s.have[p]; h != nil {
		h.unlink()
		delete(s.have, p)
	}
}

// Stale notes that the server refuses to run the statement's plan.
func (s *Statements) Stale(p *Prepared) {
	if h := s.have[p]; h != nil {
		h.stale = true
	}
}

// Oldest is the least recently used statement once there are more than limit; nil otherwise.
func (s *Statements) Oldest(limit int) *Prepared {
	if len(s.have) <= limit {
		return nil
	}
	return s.first.prev.prepared
}

// Len is how many statements the server has.
func (s *Statements) Len() int { return len(s.have) }

// Clear notes that the server has none with a name (DEALLOCATE ALL, DISCARD ALL). The unnamed
// statement survives both.
func (s *Statements) Clear() {
	*s = Statements{unnamed: s.unnamed}
}

// Doubt notes that nobody knows which of its statements the server still has.
func (s *Statements) Doubt() {
	s.Clear()
	s.doubt = true
}

// SetUnnamed notes what the server's unnamed statement is, nil when it has none, and returns what
// it was.
func (s *Statements) SetUnnamed(p *Prepared) (was Unnamed) {
	was = s.unnamed
	s.unnamed = Unnamed{p}
	return was
}

// RestoreUnnamed takes a SetUnnamed back.
func (s *Statements) RestoreUnnamed(was Unnamed) { s.unnamed = was }

// Unnamed is what is known of the server's unnamed statement.
func (s *Statements) Unnamed() Unnamed { return s.unnamed }

// Is says whether it is p, or missing when p is nil.
func (u Unnamed) Is(p *Prepared) bool { return u.text == p }

// RemoveName notes that the server does not have the statement of that name, if it is one of those
// that sessions share.
func (s *Statements) RemoveName(name string) {
	for p := range s.have {
		if p.Name == name {
			s.Remove(p)
			return
		}
	}
}

// Shared says whether a name has the form of those under which servers keep shared statements.
func Shared(name []byte) bool {
	return len(name) >= len(sharedPrefix) && string(name[:len(sharedPrefix)]) == sharedPrefix
}

const sharedPrefix = "cst_"

func (s *Statements) link(h *held) {
	h.prev, h.next = &s.first, s.first.next
	h.prev.next, h.next.prev = h, h
}

func (h *held) unlink() { h.prev.next, h.next.prev = h.next, h.prev }
