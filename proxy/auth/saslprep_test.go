package auth

import "testing"

func TestPasswordsArePreparedAsPostgreSQLDoes(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"ASCII is left alone", "pass word\x01", "pass word\x01"},
		{"soft hyphen vanishes", "I\u00adX", "IX"},
		{"NFKC", "\u00aa\u2168", "aIX"},
		{"non-ASCII space", "a\u00a0b\u3000c", "a b c"},
		{"composition", "e\u0301", "\u00e9"},
		{"not UTF-8", "a\xffb\u00aa", "a\xffb\u00aa"},
		{"nothing left", "\u00ad", "\u00ad"},
		{"control character makes it raw", "\u00aa\x07", "\u00aa\x07"},
		{"unassigned in Unicode 3.2 makes it raw", "\u0221\u00aa", "\u0221\u00aa"},
		{"emoji makes it raw", "\U0001F600\u00aa", "\U0001F600\u00aa"},
		{"right to left", "\u0627\u0628", "\u0627\u0628"},
		{"mixed directions are raw", "\u0627a\u00aa\u0628", "\u0627a\u00aa\u0628"},
		{"right to left must end so", "\u0627\u0031\u00ad", "\u0627\u0031\u00ad"},
		{"zero width space is a space", "\u200bx", " x"},
	} {
		if got := Prepare(c.in); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestTheTablesAreSorted(t *testing.T) {
	for _, table := range [][]span{spaces, nothing, prohibited, unassigned, rightToLeft, leftToRight} {
		for i, s := range table {
			if s.first > s.last || i > 0 && table[i-1].last >= s.first {
				t.Fatalf("%x", s)
			}
		}
	}
}
