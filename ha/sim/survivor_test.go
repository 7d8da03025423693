package sim

import (
	"testing"
	"time"
)

// The last node that is left lacks a timeline: it was down, or has log of its own, when the second primary was
// promoted, and that one is gone for longer than anybody waits. An operator has it promoted by its name; when
// the others come back they follow it.
func TestTheLastNodeIsPromotedByItsName(t *testing.T) {
	for _, last := range []string{"n3", "n1"} {
		first := "n1"
		if last == first {
			first = "n3"
		}
		faults := []Fault{
			{Kind: PowerOff, At: 5 * time.Second, For: 10 * time.Second, Who: []string{last}},
			{Kind: PowerOff, At: 6 * time.Second, For: 60 * time.Second, Who: []string{first}},
			{Kind: PowerOff, At: 13 * time.Second, For: 57 * time.Second, Who: []string{"n2"}},
			{Kind: TakeLoss, At: 50 * time.Second, Who: []string{last}},
		}
		if last == "n1" { // it came back as a primary, and was stopped
			faults = append(faults, Fault{Kind: AsStandby, At: 48 * time.Second, Who: []string{last}})
		}
		shape := func(p *plan) { plain(p); p.selfStart = true; p.policy.OnCrash = "restart" }
		failed, total := search(Options{Faults: faults, shape: shape}, 1, 40)
		if failed != nil {
			t.Fatalf("%s is the last: %s", last, failed)
		}
		if total.Epochs < 3*40 {
			t.Errorf("%s was not promoted each time: %d epochs, and an operator had to act %d times in the end", last, total.Epochs, total.Helped)
		}
	}
}
