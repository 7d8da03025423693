package router

import (
	"bytes"
	"hash/maphash"
	"weak"
)

// cache keeps decisions by text. Texts live in a ring that overwrites its oldest ones; entries
// live in sets of four, as in a processor's cache, and point into the ring. So both are bounded
// from the start, nothing is allocated later, and there is no list to keep in order: an entry is
// out of date when the ring has passed over its text.
type cache struct {
	seed maphash.Seed // random, so that no client can aim at one set
	ring []byte
	head uint64 // bytes ever written; the next text goes to head modulo len(ring)
	sets [][ways]entry
}

const ways = 4

// maxCachedShare bounds a single text to this share of the ring.
const maxCachedShare = 64

// maxCachedEffects bounds the effects of a Verdict that is kept.
const maxCachedEffects = 32

type cacheKey uint64

type entry struct {
	key     cacheKey
	at      uint64 // where the text starts, in bytes ever written
	size    uint32
	env     envKey
	verdict *Verdict
}

// envKey is what a decision depends on besides the text. The catalogue is held weakly: a cached
// decision must not keep an old one alive.
type envKey struct {
	knowledge weak.Pointer[Knowledge]
	rules     *TableRules
	strings   StringSyntax
	encoding  Encoding
}

func newCache(size, entries int) *cache {
	n := 1
	for n*ways < entries {
		n *= 2
	}
	return &cache{seed: maphash.MakeSeed(), ring: make([]byte, size), sets: make([][ways]entry, n)}
}

// envKeyOf is the part of env that decisions depend on.
func envKeyOf(e *Env) envKey {
	k := envKey{rules: e.Rules, strings: e.Strings, encoding: e.Encoding}
	if e.Knowledge != nil {
		k.knowledge = e.Knowledge.self
	}
	return k
}

func (c *cache) key(text []byte) cacheKey {
	if len(text)*maxCachedShare > len(c.ring) {
		return 0
	}
	return cacheKey(maphash.Bytes(c.seed, text))
}

// alive says whether the entry's text is still in the ring.
func (c *cache) alive(e *entry) bool {
	return e.verdict != nil && c.head-e.at <= uint64(len(c.ring))
}

func (c *cache) find(key cacheKey, text []byte, env *Env) *Verdict {
	if len(text)*maxCachedShare > len(c.ring) {
		return nil
	}
	ek := envKeyOf(env)
	set := &c.sets[uint64(key)&uint64(len(c.sets)-1)]
	for i := range set {
		e := &set[i]
		if e.key != key || e.env != ek || int(e.size) != len(text) || !c.alive(e) {
			continue
		}
		at := e.at % uint64(len(c.ring))
		if !bytes.Equal(c.ring[at:at+uint64(e.size)], text) {
			continue
		}
		if c.head-e.at > uint64(len(c.ring))/4*3 {
			e.at = c.write(text) // used, and next to be overwritten
		}
		return e.verdict
	}
	return nil
}

// write copies the text to the ring's head, in one piece.
func (c *cache) write(text []byte) uint64 {
	size := uint64(len(c.ring))
	if left := size - c.head%size; left < uint64(len(text)) {
		c.head += left
	}
	at := c.head
	copy(c.ring[at%size:], text)
	c.head += uint64(len(text))
	return at
}

func (c *cache) add(key cacheKey, text []byte, env *Env, v *Verdict) {
	if len(text)*maxCachedShare > len(c.ring) || len(v.Effects) > maxCachedEffects {
		return
	}
	set := &c.sets[uint64(key)&uint64(len(c.sets)-1)]
	old := &set[0]
	for i := range set {
		e := &set[i]
		if !c.alive(e) {
			old = e
			break
		}
		if e.at < old.at {
			old = e
		}
	}
	*old = entry{key: key, at: c.write(text), size: uint32(len(text)), env: envKeyOf(env), verdict: v}
}

// forget drops the decisions for a text, whatever they depended on.
func (c *cache) forget(text []byte) {
	key := cacheKey(maphash.Bytes(c.seed, text))
	set := &c.sets[uint64(key)&uint64(len(c.sets)-1)]
	for i := range set {
		if set[i].key == key {
			set[i] = entry{}
		}
	}
}
