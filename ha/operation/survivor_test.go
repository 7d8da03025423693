package operation

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cstproxy/cstproxy/ha/decide"
	"github.com/cstproxy/cstproxy/ha/record"
	"github.com/cstproxy/cstproxy/ha/topology"
)

// The primary of epoch 2, and with it timeline 5, is lost, and so is who followed it. The former primary is
// started as a standby and promoted by an operator's word, with log that timeline 5 never had; the others come
// back later, and follow it.
func TestTheLastNodeThatIsLeftIsPromotedOnAnOlderTimeline(t *testing.T) {
	s, a, b, d := failover(t)
	b.Kill()
	d.Kill()
	if err := os.WriteFile(filepath.Join(a.Dir, "standby.signal"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.must(action(decide.Recruit, a, 3, record.Fence))
	promote := action(decide.PromoteIt, a, 3, record.Promote)
	promote.Timeline = 6
	r := s.must(promote)
	if left, ok := r.Fact.History.LeftAt(1); r.Fact.Role != topology.RolePrimary || r.Fact.History.Timeline != 6 || !ok || left == 0 {
		t.Fatalf("after the promotion: %+v", r.Fact)
	}
	s.sql(a, "INSERT INTO t VALUES (4)")

	s.must(from(action(decide.Rewind, b, 3, record.Done), a))
	s.must(mode(from(action(decide.Rebuild, d, 3, record.Done), a), "keep")) // what it would be rewound by is on b's timeline alone
	want := s.sql(a, "SELECT sum(x) FROM t")
	s.reads(b, "SELECT sum(x) FROM t", want)
	s.reads(d, "SELECT sum(x) FROM t", want)
}
