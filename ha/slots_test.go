package ha

import (
	"errors"
	"testing"

	"github.com/cstproxy/cstproxy/ha/topology"
)

func TestAFreedSlotIsGivenAgainAsLateAsPossible(t *testing.T) {
	var s slots
	for i := range topology.MaxSlots {
		if slot, err := s.take(); err != nil || slot != i {
			t.Fatalf("slot %d, %v", slot, err)
		}
		if i == 3 {
			s.give(2)
			s.give(0)
		}
	}
	for _, want := range []int{2, 0} {
		if slot, err := s.take(); err != nil || slot != want {
			t.Errorf("slot %d, %v; want %d", slot, err, want)
		}
	}
	if _, err := s.take(); !errors.Is(err, ErrRefused) {
		t.Errorf("a slot too many: %v", err)
	}
}
