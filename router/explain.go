package router

// StatementWhy is how one statement of a text was judged, for people.
type StatementWhy struct {
	// Text is the statement without blanks around it.
	Text string
	// Route is where it would go alone, in a fresh session.
	Route Route
	// Looked are the names that were looked up ("function now", "relation t"), in order.
	Looked []string
	// Effects is what it does to its session.
	Effects []Effect
	// Hint is what a comment before it asked for.
	Hint RouteChoice
}

// Explain judges each statement of a text and says what was looked at. It is slow and meant for
// people.
func Explain(text string, env Env) []StatementWhy {
	c := New(Config{})
	b := []byte(text)
	p := &c.parser
	p.trace = &trace{text: b, parser: p}
	p.begin(c.readable(b, env.Encoding), b, env)
	p.statementsOf()
	for i := range p.trace.out {
		s := &p.trace.out[i]
		v := c.verdict(p.trace.findings[i], s.Effects)
		s.Route = v.Route
	}
	if p.text.why == whyUnreadable && len(p.trace.out) > 0 && p.cur.kind == tokBad {
		p.trace.out[len(p.trace.out)-1].Route = Route{Primary, whyUnreadable}
	}
	return p.trace.out
}

// trace records what the parser looked at.
type trace struct {
	parser   *parser
	text     []byte
	start    int
	effects  int
	looked   []string
	out      []StatementWhy
	findings []finding
}

func (t *trace) begin(at int) {
	t.start, t.looked, t.effects = at, nil, len(t.parser.effects)
}

func (t *trace) look(kind, name string) { t.looked = append(t.looked, kind+name) }

func (t *trace) end(f *finding, at int, hint RouteChoice) {
	text := t.text[t.start:min(max(at, t.start), len(t.text))]
	for len(text) > 0 && classes[text[len(text)-1]] == classSpace {
		text = text[:len(text)-1]
	}
	t.out = append(t.out, StatementWhy{
		Text: string(text), Looked: t.looked, Hint: hint,
		Effects: append([]Effect(nil), t.parser.effects[t.effects:]...),
	})
	t.findings = append(t.findings, *f)
}
