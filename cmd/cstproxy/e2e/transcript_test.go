package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"testing"
)

// transcript is what a driver's user saw, line by line. The same script runs directly against the
// primary and through the proxy; the two must be equal.
type transcript struct{ lines []string }

func (t *transcript) add(format string, args ...any) {
	t.lines = append(t.lines, fmt.Sprintf(format, args...))
}

// digest stands for values that are too long for a line.
func digest(b []byte) string {
	s := sha256.Sum256(b)
	return fmt.Sprintf("%d bytes %s", len(b), hex.EncodeToString(s[:8]))
}

// compare reports the lines in which two transcripts differ.
func compare(t *testing.T, direct, through []string) {
	t.Helper()
	if len(direct) == 0 {
		t.Error("the direct run said nothing")
	}
	different := 0
	for i := range max(len(direct), len(through)) {
		d, p := "(nothing)", "(nothing)"
		if i < len(direct) {
			d = direct[i]
		}
		if i < len(through) {
			p = through[i]
		}
		if d == p {
			continue
		}
		before := ""
		if i > 0 {
			before = direct[min(i, len(direct))-1]
		}
		t.Errorf("line %d, after %s\n  directly:          %s\n  through the proxy: %s", i+1, before, d, p)
		if different++; different == 5 {
			t.Fatalf("… and so on; %d lines directly, %d through the proxy", len(direct), len(through))
		}
	}
}
