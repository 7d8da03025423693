package router

import (
	"strings"
	"testing"
)

var kindLetters = map[tokenKind]string{
	tokEnd: "end", tokBad: "bad", tokWord: "w", tokQuoted: "q", tokUnicode: "u", tokString: "s", tokNumber: "n",
	tokParam: "p", tokOperator: "o", tokCast: "::", tokDot: ".", tokComma: ",", tokOpen: "(", tokClose: ")",
	tokBracket: "[", tokUnbracket: "]", tokSemicolon: ";", tokColon: ":",
}

// lex shows the tokens of a text: the kind and, except for punctuation, what it is.
func lex(text string, syntax StringSyntax) string {
	l := lexer{text: []byte(text), strings: syntax}
	var out []string
	for {
		t := l.next()
		s := kindLetters[t.kind]
		if strings.Contains("wqusnpo", s) {
			s += "<" + text[t.start:t.end] + ">"
		}
		out = append(out, s)
		if t.kind == tokEnd || t.kind == tokBad {
			return strings.Join(out, " ")
		}
	}
}

func TestTokensAreThoseOfPostgreSQL(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"a_1$b Ünï", "w<a_1$b> w<Ünï> end"},
		{`"a""b" U&"c" u&d`, `q<"a""b"> u<U&"c"> w<u> o<&> w<d> end`},
		{`'a''b' E'c\'d' e'\\' B'1' x'f' N'g' U&'h'`, `s<'a''b'> s<E'c\'d'> s<e'\\'> s<B'1'> s<x'f'> s<N'g'> s<U&'h'> end`},
		{"E'a'\n 'b\\'c'", "s<E'a'\n 'b\\'c'> end"},
		{"E'a' 'b'", "s<E'a'> s<'b'> end"},
		{"E'a' -- x\n --y\n'\\''", "s<E'a' -- x\n --y\n'\\''> end"},
		{"E'a' /* x */\n'b'", "s<E'a'> s<'b'> end"},
		{"$$a$b$$ $x$ $$ $y$ $x$ $1 $12a", "s<$$a$b$$> s<$x$ $$ $y$ $x$> p<$1> p<$12> w<a> end"},
		{"a$$b$$", "w<a$$b$$> end"},
		{"1$$b$$", "n<1> s<$$b$$> end"},
		{"1 1.5 .5 1. 1e5 1e-5 1.e+5 1e 1.5.5 1..2", "n<1> n<1.5> n<.5> n<1.> n<1e5> n<1e-5> n<1.e+5> n<1> w<e> n<1.5> n<.5> n<1> : n<2> end"},
		{"1a 0x1F 1_0", "n<1> w<a> n<0> w<x1F> n<1> w<_0> end"},
		{"a.b.*", "w<a> . w<b> . o<*> end"},
		{"a::b:c:=d=>e", "w<a> :: w<b> : w<c> : w<d> o<=>> w<e> end"},
		{"a<=b<>c!=d||e->>f@>g", "w<a> o<<=> w<b> o<<>> w<c> o<!=> w<d> o<||> w<e> o<->>> w<f> o<@>> w<g> end"},
		{"a=-1 a@-1 a*-+1 a<-1", "w<a> o<=> o<-> n<1> w<a> o<@-> n<1> w<a> o<*> o<-> o<+> n<1> w<a> o<<> o<-> n<1> end"},
		{"a--b\nc", "w<a> w<c> end"},
		{"a+--b\nc", "w<a> o<+> w<c> end"},
		{"a+/*b*/c", "w<a> o<+> w<c> end"},
		{"a*/*b*/c", "w<a> o<*> w<c> end"},
		{"/*a/*b*/c*/d", "w<d> end"},
		{"a/**/b/***/c/*/**/*/d", "w<a> w<b> w<c> w<d> end"},
		{"([,;])", "( [ , ; ] ) end"},
		{"'a\\'c'", "s<'a\\'> w<c> bad"},
		{"a\vb", "w<a> w<b> end"},
		{"", "end"},
		{"--", "end"},
		{"'a", "bad"}, {`"a`, "bad"}, {`""`, "bad"}, {"$$a$", "bad"}, {"$a", "bad"}, {"/*a", "bad"}, {"/*", "bad"},
		{"/*/", "bad"}, {"E'\\'", "bad"}, {"E'\\", "bad"}, {"{", "bad"}, {"\\", "bad"}, {"a\x00b", "w<a> bad"}, {"$", "bad"}, {"E'a'\n'", "bad"},
	} {
		if got := lex(tc.text, StandardStrings); got != tc.want {
			t.Errorf("%q\n got %s\nwant %s", tc.text, got, tc.want)
		}
	}
	if got := lex(`'a\'b' N'\'' B'\' U&'\'`, EscapeStrings); got != `s<'a\'b'> s<N'\''> s<B'\'> s<U&'\'> end` {
		t.Errorf("with escape strings: %s", got)
	}
}

func TestKeyWordsAreFoundInAnyCase(t *testing.T) {
	words := strings.Fields(reservedWords + " " + functionWords + " " + columnWords + " " + otherWords)
	for i, w := range words {
		for _, text := range []string{w, strings.ToUpper(w), strings.ToUpper(w[:1]) + w[1:]} {
			l := lexer{text: []byte(text)}
			if got := l.next().kw; got != keyword(i+1) {
				t.Errorf("%s is key word %d, want %d", text, got, i+1)
			}
		}
	}
	for text, want := range map[string]keyword{
		"all": kwAll, "with": kwWith, "authorization": kwAuthorization, "verbose": kwVerbose, "between": kwBetween,
		"xmltable": kwXmltable, "abort": kwAbort, "zone": kwZone, "selec": kwNone, "selectt": kwNone, "current_timestamp_x": kwNone,
	} {
		if got := keywordOf([]byte(text)); got != want {
			t.Errorf("%s is %d, want %d", text, got, want)
		}
	}
	if len(words) != int(kwZone) {
		t.Errorf("%d words, but the last constant is %d", len(words), kwZone)
	}
}

func TestReadingATextTakesLinearTime(t *testing.T) {
	c := New(Config{})
	for _, tc := range []struct{ head, again, tail string }{
		{"SELECT ", "(", ""}, {"SELECT ", "((SELECT ", ""}, {"SELECT ", "[", ""}, {"SELECT f", "(f", ""},
		{"WITH a AS (", "WITH a AS (", ""}, {"WITH ", "a AS (SELECT 1), ", ""}, {"SELECT * FROM ", "(", ""},
		{"SELECT * FROM ", "a, ", "b"}, {"SELECT ", "$", ""}, {"SELECT ", "$a$", ""}, {"SELECT ", "/*", ""}, {"", ";", ""},
		{"SELECT ", "'' ", ""}, {"SELECT ", "E''\n", ""}, {"SELECT ", "E'' -- x\n", ""}, {"SELECT ", "U&\"", ""},
		{"SELECT ", "set_config(", ""}, {"SELECT ", "pg_advisory_lock(", ""}, {"SELECT ", "set_config('a', 'b', true), ", "1"},
		{"SELECT ", "pg_advisory_lock(1), ", "1"}, {"SELECT ", "a.", "b"}, {"SELECT ", "::int", ""}, {"CREATE FUNCTION f() BEGIN ATOMIC ", "CASE ", ""},
		{"", "BEGIN;", ""}, {"", "SELECT 1;", ""}, {"COPY ", "(", ""}, {"EXPLAIN ", "(", ""}, {"SET a = ", "b,", "c"},
		{"INSERT INTO t VALUES ", "(pg_advisory_lock(", ""}, {"SELECT ", "current_setting(", ""}, {"SELECT -", "-", ""}, {"SELECT ", "+-", "1"},
	} {
		// The count of lexer steps is what must not explode; a quadratic one would not end.
		text := tc.head + strings.Repeat(tc.again, 1<<18/len(tc.again)) + tc.tail
		v := c.Classify([]byte(text), offline)
		if v.Route.Target == Standby && strings.Count(text, "(") > strings.Count(text, ")") {
			t.Errorf("%.20s…: %v", text, v.Route)
		}
	}
}
