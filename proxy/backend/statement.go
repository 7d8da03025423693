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
	// Shape identifies how a server described the statement (parameters and columns); 0 while no
	// client has asked.
	Shape uint64
	refs  int
	key   string
}

// Registry interns Prepared statements of one loop.
type Registry struct {
	known map[string]*Prepared
	bytes int
	limit int
	next  uint64
	buf   []byte
}

// NewRegistry returns a registry that forgets unused statements when their texts together exceed
// limit bytes.
func NewRegistry(limit int) *Registry {
	return &Registry{known: map[string]*Prepared{}, limit: limit}
}

// Intern finds or makes the statement and counts one more user of it; Drop ends the use. schema
// tells texts apart that were parsed before and after DDL: they may mean different things.
func (r *Registry) Intern(text, types []byte, schema uint64) *Prepared {
	r.buf = append(append(append(r.buf[:0], text...), 0), types...)
	r.buf = binary.BigEndian.AppendUint64(r.buf, schema)
	p, ok := r.known[string(r.buf)]
	if !ok {
		if r.bytes > r.limit {
			r.sweep()
		}
		r.next++
		key := string(r.buf)
		p = &Prepared{Name: "cst_" + strconv.FormatUint(r.next, 36), Text: key[:len(text)], Types: []byte(key[len(text)+1 : len(key)-8]), key: key}
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
}

// Len is how many statements are known.
func (r *Registry) Len() int { return len(r.known) }

// Statements is what one server has prepared, least recently used last.
type Statements struct {
	have  map[*Prepared]*held
	first held // ring: first.next is the newest
	// Unnamed is the text behind the server's unnamed statement; nil when it has none that is known.
	Unnamed *Prepared
}

type held struct {
	prepared   *Prepared
	prev, next *held
	stale      bool
}

// Has says whether the server has the statement, and counts it as used now. stale: it has, but
// its plan can no longer be used and it must be closed and parsed again.
func (s *Statements) Has(p *Prepared) (has, stale bool) {
	h := s.have[p]
	if h == nil {
		return false, false
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

// Clear notes that the server has none (DEALLOCATE ALL, DISCARD ALL).
func (s *Statements) Clear() { *s = Statements{} }

func (s *Statements) link(h *held) {
	h.prev, h.next = &s.first, s.first.next
	h.prev.next, h.next.prev = h, h
}

func (h *held) unlink() { h.prev.next, h.next.prev = h.next, h.prev }
