package sim

import (
	"testing"
	"time"
)

// A primary that somebody made a standby is not restarted as a primary by its host, however often it is asked:
// the fleet replaces it, and needs nobody for that.
func TestAPrimaryThatRunsAsAStandbyIsReplaced(t *testing.T) {
	faults := []Fault{{Kind: AsStandby, At: 8 * time.Second, Who: []string{"primary"}}}
	for _, shape := range []func(*plan){plain, strict} {
		failed, total := search(Options{Faults: faults, shape: shape}, 1, 40)
		if failed != nil {
			t.Fatalf("%s", failed)
		}
		if total.Helped > 0 || total.Epochs < 80 {
			t.Errorf("%d epochs, and an operator had to act %d times", total.Epochs, total.Helped)
		}
	}
}
