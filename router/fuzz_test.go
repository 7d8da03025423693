package router

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// seeds adds the statements of testdata to a fuzz target.
func seeds(f *testing.F, add func(sql string)) {
	f.Helper()
	for name, columns := range map[string]int{"statements.txt": 2, "effects.txt": 1} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		for _, text := range strings.Split(string(b), "\n") {
			if parts := strings.SplitN(text, "|", columns+1); len(parts) == columns+1 && text[0] != '#' {
				add(unescaper.Replace(strings.TrimSpace(parts[columns])))
			}
		}
	}
}

// FuzzLexer: tokens come in order, cover the text but for blanks, and end.
func FuzzLexer(f *testing.F) {
	seeds(f, func(sql string) { f.Add([]byte(sql), false) })
	f.Fuzz(func(t *testing.T, text []byte, escape bool) {
		l := lexer{text: text}
		if escape {
			l.strings = EscapeStrings
		}
		at := int32(0)
		for steps := 0; ; steps++ {
			tok := l.next()
			if tok.start < at || tok.end < tok.start || int(tok.end) > len(text) || l.pos > len(text) {
				t.Fatalf("token %+v at %d of %d bytes", tok, at, len(text))
			}
			if tok.kind == tokBad {
				return
			}
			blank := bytes.TrimLeft(text[at:tok.start], " \t\r\n\f\v")
			if len(blank) > 0 && !bytes.HasPrefix(blank, []byte("--")) && !bytes.HasPrefix(blank, []byte("/*")) {
				t.Fatalf("skipped %q before %q", blank, text[tok.start:tok.end])
			}
			if tok.kind == tokEnd {
				return
			}
			if tok.end == tok.start || steps > len(text) {
				t.Fatalf("no progress at %+v", tok)
			}
			at = tok.end
		}
	})
}

// FuzzClassifier: nothing panics, verdicts are consistent, and what is called a read begins with
// no word of a write and survives a write put behind it.
func FuzzClassifier(f *testing.F) {
	seeds(f, func(sql string) { f.Add([]byte(sql), byte(0)) })
	k := NewKnowledge(shop())
	f.Fuzz(func(t *testing.T, text []byte, how byte) {
		env := Env{Strings: StringSyntax(how & 1), Encoding: Encoding(how >> 1 & 7 % 5)}
		if how&16 != 0 {
			env.Knowledge = k
		}
		c := New(Config{})
		v := c.Classify(text, env)
		if v.Route.Why == "" || v.proof == proofUnread {
			t.Fatalf("no reason: %+v", v)
		}
		if again := c.Classify(text, env); again.Route != v.Route || show(again.Effects) != show(v.Effects) {
			t.Fatalf("%+v, then %+v", v, again)
		}
		if v.Route.Target == Primary && v.Retry == RetrySafe {
			t.Fatalf("may run again: %+v", v)
		}
		Explain(string(text), env)
		if v.Route.Target != Standby {
			return
		}
		checkRead(t, text, env)
		behind := c.Classify(append(append([]byte(nil), text...), "\n;DELETE FROM t"...), env)
		if behind.Route.Target == Standby {
			t.Fatalf("%q hides a DELETE behind it", text)
		}
	})
}

// checkRead looks at the first words of each statement of a read.
func checkRead(t *testing.T, text []byte, env Env) {
	t.Helper()
	l := lexer{text: New(Config{}).readable(text, env.Encoding), strings: env.Strings}
	first := true
	for {
		tok := l.next()
		switch tok.kind {
		case tokEnd:
			return
		case tokBad:
			t.Fatalf("%q is called a read but cannot be lexed", text)
		case tokSemicolon:
			first = true
			continue
		}
		if first {
			switch tok.kw {
			case kwInsert, kwUpdate, kwDelete, kwMerge, kwTruncate, kwCreate, kwAlter, kwDrop, kwGrant, kwRevoke, kwDo, kwCall, kwNone:
				if tok.kind != tokOpen {
					t.Fatalf("%q is called a read", text)
				}
			}
		}
		first = false
	}
}

// FuzzSession: whatever turns come, and however they end, a session in a transaction or with pins
// is pinned, and one without is not.
func FuzzSession(f *testing.F) {
	f.Add([]byte("\x01BEGIN\n\x05SET timezone = 'a'; SAVEPOINT s\n\x09SELECT 1/0\n\x01ROLLBACK TO s\n\x00COMMIT"))
	f.Add([]byte("\x00LISTEN a\n\x00UNLISTEN *\n\x00SELECT pg_advisory_lock(1)\n\x03DISCARD ALL"))
	c := New(Config{})
	f.Fuzz(func(t *testing.T, script []byte) {
		s := NewSession(SessionConfig{})
		for _, step := range bytes.Split(script, []byte("\n")) {
			if len(step) == 0 {
				continue
			}
			status := [...]TxStatus{TxIdle, TxOpen, TxFailed, TxIdle}[step[0]&3]
			turn := []*Verdict{c.Classify(step[1:], offline)}
			r := s.Route(turn)
			_, pinned := s.Pinned()
			if held := pinned || s.Status() != TxIdle; (r.Target == Pinned) != held {
				t.Fatalf("%v, pinned %v, status %c", r, pinned, s.Status())
			}
			s.Done(turn, status, Outcome(step[0]>>2&1))
			if s.Status() != status || status == TxIdle && len(s.pending) > 0 {
				t.Fatalf("status %c, %d pending", s.Status(), len(s.pending))
			}
		}
	})
}
