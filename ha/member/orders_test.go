package member

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/cstproxy/cstproxy/ha"
	"github.com/cstproxy/cstproxy/ha/gossip"
)

// The name of a host is what /backend/add takes, and a cluster's is somebody's.
func TestAnOrderAboutAnyHostFitsIntoTheLedger(t *testing.T) {
	o := ha.Order{Cluster: strings.Repeat("c", 64), Address: strings.Repeat("h", 253) + ":65535", Word: ha.Detached}
	change, err := gossip.NewLedger("m1").Set(keyOf(o), []byte(o.Word))
	if err != nil {
		t.Fatal(err)
	}
	other := gossip.NewLedger("m2")
	keys, err := other.Merge(change)
	if err != nil || len(keys) != 1 {
		t.Fatalf("another member learns %q, %v", keys, err)
	}
	value, _ := other.Get(keys[0])
	if got, ours := orderOf(keys[0], value); !ours || got != o {
		t.Errorf("another member reads %+v", got)
	}
}

func TestOrdersAreObeyedAlsoWhenTheWordOfThemWasLost(t *testing.T) {
	ledger := gossip.NewLedger("m1")
	for _, key := range []string{"backend/c/h1:5432", "backend/c/h2:5432"} {
		if _, err := ledger.Set(key, []byte(ha.Detached)); err != nil {
			t.Fatal(err)
		}
	}
	open := map[string]bool{}
	if now := missed(open, 2, 2, ledger); now != 2 || len(open) != 0 {
		t.Errorf("nothing was lost since, and %v is open", open)
	}
	if now := missed(open, 2, 5, ledger); now != 5 || !slices.Equal(slices.Sorted(maps.Keys(open)), slices.Sorted(maps.Keys(ledger.All()))) {
		t.Errorf("events were lost, and %v is open", open)
	}
}
