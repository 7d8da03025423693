package auth

import (
	"sort"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Prepare brings a password into the form that PostgreSQL hashes: SASLprep (RFC 4013) with its
// exceptions. ASCII is taken as it is, control characters included; what is not UTF-8, or what
// SASLprep prohibits, is taken as it is too. Like pg_saslprep (src/common/saslprep.c) it looks for
// prohibited and unassigned characters before normalisation, not after.
func Prepare(password string) string {
	if isASCII(password) || !utf8.ValidString(password) {
		return password
	}
	mapped := make([]rune, 0, len(password))
	for _, r := range password {
		switch {
		case inTable(spaces, r):
			mapped = append(mapped, ' ')
		case !inTable(nothing, r):
			mapped = append(mapped, r)
		}
	}
	if len(mapped) == 0 || !allowed(mapped) {
		return password
	}
	return norm.NFKC.String(string(mapped))
}

// allowed checks for prohibited and unassigned characters and RFC 3454's section 6 (text that
// runs from right to left may not be mixed).
func allowed(s []rune) bool {
	rtl, ltr := false, false
	for _, r := range s {
		if inTable(prohibited, r) || inTable(unassigned, r) {
			return false
		}
		rtl = rtl || inTable(rightToLeft, r)
		ltr = ltr || inTable(leftToRight, r)
	}
	if !rtl {
		return true
	}
	return !ltr && inTable(rightToLeft, s[0]) && inTable(rightToLeft, s[len(s)-1])
}

func inTable(t []span, r rune) bool {
	i := sort.Search(len(t), func(i int) bool { return t[i].last >= r })
	return i < len(t) && t[i].first <= r
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
