package e2e

import (
	"strings"
	"testing"
)

// two timelines of one number and one history, whose logs differ. PostgreSQL takes them for one. The fleet
// does not: what the first one has is copied over as a whole, not joined to the other.
func TestTwoTimelinesOfOneNumberAreNotTakenForOne(t *testing.T) {
	slow(t)
	_, f := three(t, Layout{Operation: map[string]string{"on_crash": `"failover"`}})
	f.awaitWhole(t, patience)
	s := enact(t, f, Load{Way: f.way(f.members[1]), Idle: 4})
	rebel := s.others()[1]
	s.byHand = rebel
	rebel.Unplug()
	rebel.Promote()
	mustPsql(t, rebel, "CREATE TABLE rebellion (x int)")
	s.happens(s.former.Kill)
	s.awaitSaid(patience, `"step"`, `"after"`)
	now := s.others()[0]
	for _, n := range []*Node{rebel, now} {
		if got := mustPsql(t, n, "SELECT pg_walfile_name(pg_current_wal_lsn())"); !strings.HasPrefix(got, "00000002") {
			t.Fatalf("%s writes %s", n.Name, got)
		}
	}
	rebel.Plug()
	s.awaitSaid(patience, `"alarm"`, "primary on timeline 2", "cstproxy did not promote it")
	f.orders(t, f.elsewhere(rebel), "repair", "-i", fmtID(rebel), "--yes")
	if whole := f.awaitWhole(t, 2*patience); whole != now {
		t.Errorf("%s is the primary, not %s", whole.Name, now.Name)
	}
	if got := mustPsql(t, rebel, "SELECT to_regclass('rebellion')"); got != "" {
		t.Errorf("%s still has its own %s", rebel.Name, got)
	}
	if len(s.said(`"verb":"rebuild"`, `"action done"`)) == 0 {
		t.Error("it was not copied anew")
	}
	s.ends(oneEpochMore, idleClientsStay, operationsEnd)
}

func mustPsql(t *testing.T, n *Node, sql string) string {
	t.Helper()
	got, err := n.Psql(t.Context(), sql)
	if err != nil {
		t.Fatalf("%s on %s: %v", sql, n.Name, err)
	}
	return got
}
