package router

import "fmt"

// Config are the settings of a Classifier.
type Config struct {
	// CacheBytes bounds the statement texts that the decision cache keeps, in bytes; 0 turns the
	// cache off. The default holds some 10,000 ordinary statements; a miss costs a microsecond.
	CacheBytes int `toml:"cache_bytes"`
	// CacheEntries bounds the number of cached decisions; each costs about 80 bytes besides its
	// text. 0 turns the cache off.
	CacheEntries int `toml:"cache_entries"`
	// Learned bounds how many texts are remembered as writes because a standby refused them.
	Learned int `toml:"learned"`
}

// DefaultConfig is a cache of 4 MiB and 16384 decisions, and 1024 learned writes.
func DefaultConfig() Config {
	return Config{CacheBytes: 4 << 20, CacheEntries: 16384, Learned: 1024}
}

// Validate reports the first setting that cannot be used.
func (c Config) Validate() error {
	switch {
	case c.CacheBytes < 0 || c.CacheBytes > 1<<30:
		return fmt.Errorf("cache_bytes %d: want 0 to 1 GiB", c.CacheBytes)
	case c.CacheEntries < 0 || c.CacheEntries > 1<<24:
		return fmt.Errorf("cache_entries %d: want 0 to 16777216", c.CacheEntries)
	case c.Learned < 0:
		return fmt.Errorf("learned %d: want 0 or more", c.Learned)
	}
	return nil
}

// Classifier turns texts into Verdicts. It belongs to one goroutine, the loop's.
type Classifier struct {
	parser  parser
	cache   *cache // nil when it is off
	plain   map[plainKey]*Verdict
	learned learned
	masked  []byte // reused copy of a text in an encoding that is not ASCII-safe
}

// plainKey identifies a Verdict without effects: those are made once.
type plainKey struct {
	finding
	route Route
}

// maxPlain bounds the shared Verdicts; there are a few dozen kinds, times statements per text.
const maxPlain = 4096

// New returns a Classifier. The Config must have passed Validate.
func New(cfg Config) *Classifier {
	c := &Classifier{plain: map[plainKey]*Verdict{}, learned: learned{limit: cfg.Learned, texts: map[string]struct{}{}}}
	if cfg.CacheBytes > 0 && cfg.CacheEntries > 0 {
		c.cache = newCache(cfg.CacheBytes, cfg.CacheEntries)
	}
	return c
}

// Classify judges the text of one simple Query or one Parse (without the final zero byte). The
// text is not kept. The Verdict is shared and must not be changed.
func (c *Classifier) Classify(text []byte, env Env) *Verdict {
	var key cacheKey
	if c.cache != nil {
		key = c.cache.key(text)
		if v := c.cache.find(key, text, &env); v != nil {
			return v
		}
	}
	v := c.judge(text, env)
	if c.cache != nil {
		c.cache.add(key, text, &env, v)
	}
	return v
}

// judge classifies without the cache.
func (c *Classifier) judge(text []byte, env Env) *Verdict {
	c.parser.begin(c.readable(text, env.Encoding), text, env)
	c.parser.statementsOf()
	f, effects := c.parser.text, c.parser.effects
	c.parser.raw, c.parser.lex.text, c.parser.effects = nil, nil, nil
	if c.learned.has(text) && f.proof < proofWrite {
		f.proof, f.why, f.retry = proofWrite, whyLearned, RetryNever
	}
	if f.statements == 1 {
		effects = asSet(text, effects)
	}
	return c.verdict(f, effects)
}

func (c *Classifier) verdict(f finding, effects []Effect) *Verdict {
	route := Route{Primary, f.why}
	switch f.proof {
	case proofNeutral, proofRead:
		route.Target = Standby
	case proofStart:
		var sure bool
		if route, sure = startRoute([]*Verdict{{Effects: effects}}, defaults{}); !sure && f.hinted {
			route = Route{Standby, WhyHint}
		}
	}
	key := plainKey{f, route}
	if len(effects) == 0 {
		if v := c.plain[key]; v != nil {
			return v
		}
	}
	v := &Verdict{
		Route: route, Statements: f.statements, Effects: effects, Retry: f.retry, Copy: f.copy,
		UnknownName: f.unknown, proof: f.proof, hinted: f.hinted && f.statements > 0, rule: f.rule,
	}
	if len(effects) == 0 && len(c.plain) < maxPlain {
		c.plain[key] = v
	}
	return v
}

// readable returns the text for the lexer: as it is, or, when a character's second byte may look
// like ASCII, a copy in which such bytes do not.
func (c *Classifier) readable(text []byte, e Encoding) []byte {
	if e == ASCIISafe || ascii(text) {
		return text
	}
	c.masked = append(c.masked[:0], text...)
	if !mask(c.masked, e) {
		return []byte{0} // which is no character of SQL
	}
	out := c.masked
	if cap(c.masked) > 1<<20 {
		c.masked = nil // not worth keeping for the next
	}
	return out
}

// Learn remembers a text as a write, because a standby refused it as one (25006). Later verdicts
// for exactly this text go to the primary.
func (c *Classifier) Learn(text []byte) {
	c.learned.add(text)
	if c.cache != nil {
		c.cache.forget(text)
	}
}

// Learned lists the texts that Learn was called with, the oldest first.
func (c *Classifier) Learned() []string { return append([]string(nil), c.learned.order...) }

// learned is a bounded set of texts.
type learned struct {
	limit int
	texts map[string]struct{}
	order []string
}

// maxLearnedText bounds one text; a longer one is refused by a standby again and again.
const maxLearnedText = 16 << 10

func (l *learned) has(text []byte) bool {
	if len(l.texts) == 0 || len(text) > maxLearnedText {
		return false
	}
	_, ok := l.texts[string(text)]
	return ok
}

func (l *learned) add(text []byte) {
	if l.has(text) || len(text) > maxLearnedText || l.limit == 0 {
		return
	}
	if len(l.order) >= l.limit {
		delete(l.texts, l.order[0])
		l.order = append(l.order[:0:0], l.order[1:]...)
	}
	s := string(text)
	l.texts[s] = struct{}{}
	l.order = append(l.order, s)
}
