package member

import "testing"

// An agent that nobody rules takes whoever answers as primary for one: between its first probes and the
// first word of the log that could be a former primary.
func TestNobodyIsPrimaryBeforeTheLogHasBeenRead(t *testing.T) {
	_, _, board := lone(t)
	if got := board.View().WhyNoPrimary; got != "the fleet has not agreed on a primary yet" {
		t.Errorf("before anything runs there is no primary because %q", got)
	}
}
