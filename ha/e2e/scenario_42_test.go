package e2e

import (
	"context"
	"strings"
	"testing"
	"time"
)

// Somebody promotes a standby by hand while the primary lives: no client's write goes there, and it is left
// as it is until an operator says otherwise.
func TestAPromotionByHandCapturesNoWrites(t *testing.T) {
	_, f := three(t, Layout{})
	f.awaitWhole(t, patience)
	s := enact(t, f, usual(f.way(f.members[0])))
	rebel := s.others()[1]
	s.happens(rebel.Promote)
	s.awaitSaid(patience, `"alarm"`, "primary on timeline")
	s.awaitSaid(patience, "cstproxy did not promote it")
	s.awaitWrites("writes beside the second primary", time.Now())
	if got, err := rebel.Psql(t.Context(), "SELECT pg_is_in_recovery()"); err != nil || got != "f" {
		t.Errorf("%s was not left as it is: %q %v", rebel.Name, got, err)
	}
	f.orders(t, f.members[0], "repair", "-i", fmtID(rebel), "--yes")
	if now := f.awaitWhole(t, 2*patience); now != s.former {
		t.Errorf("%s is the primary", now.Name)
	}
	s.ends(epochUnchanged, nothingIsLost, noClientWasTold, operationsEnd)
}

// What an operator asks for, and must not have.
func TestASwitchoverThatCannotGoWellIsNotMade(t *testing.T) {
	_, f := three(t, Layout{Operation: map[string]string{"on_crash": `"failover"`, "anti_flap": `"0s"`}})
	t.Run("because a transaction is open for long", func(t *testing.T) {
		primary := f.awaitWhole(t, 2*patience)
		s := enact(t, f, usual(f.way(f.members[0])))
		long := s.run.connect(t.Context(), "simple_protocol")
		defer s.run.ends.hangUp(long)
		if _, err := long.Exec(t.Context(), "BEGIN; INSERT INTO workload (id) VALUES (-1)"); err != nil {
			t.Fatal(err)
		}
		said, err := "", error(nil)
		s.happens(func() { said, err = f.members[1].ctl(t.Context(), "switch", "-i", fmtID(s.others()[0]), "--yes") })
		if err == nil || !strings.Contains(said+err.Error(), "still open") {
			t.Errorf("the switchover ended with %v:\n%s", err, said)
		}
		t.Logf("%s\n%v", said, err)
		if _, err := long.Exec(t.Context(), "INSERT INTO workload (id) VALUES (-2); COMMIT"); err != nil {
			t.Errorf("the transaction for which it was undone has failed: %v", err)
		}
		if now := f.awaitWhole(t, patience); now != primary {
			t.Errorf("%s is the primary", now.Name)
		}
		s.awaitWrites("writes after the switchover was undone", time.Now())
		if kept := rows(t, primary); kept[-1] != 1 || kept[-2] != 1 {
			t.Errorf("the rows of the long transaction are there %d and %d times", kept[-1], kept[-2])
		}
		s.ends(epochUnchanged, nothingIsLost, noClientWasTold, operationsEnd)
	})
	t.Run("unless those who run the servers prefer to end such transactions", func(t *testing.T) {
		slow(t)
		f.layout.Operation["switch_open"] = `"stop"`
		began := time.Now()
		for _, m := range f.members {
			if err := m.prepare(); err != nil {
				t.Fatal(err)
			}
			m.signal("reload", "HUP")
		}
		await(t, "the members to take the policy over", func(context.Context) bool {
			n := 0
			for _, l := range f.log(began) {
				if l.Msg == "configuration reloaded" {
					n++
				}
			}
			return n == len(f.members)
		})
		primary := f.awaitWhole(t, 2*patience)
		s := enact(t, f, usual(f.way(f.members[0])))
		long := s.run.connect(t.Context(), "simple_protocol")
		defer s.run.ends.hangUp(long)
		if _, err := long.Exec(t.Context(), "BEGIN; INSERT INTO workload (id) VALUES (-3)"); err != nil {
			t.Fatal(err)
		}
		s.happens(func() { f.orders(t, f.members[1], "switch", "-i", fmtID(s.others()[0]), "--yes") })
		_, err := long.Exec(t.Context(), "COMMIT")
		if err == nil {
			t.Errorf("a transaction that the switchover ended was acknowledged")
		}
		t.Logf("the long transaction's client is told: %v", err)
		if now := f.awaitWhole(t, 2*patience); now == primary {
			t.Errorf("%s is still the primary", now.Name)
		} else if kept := rows(t, now); kept[-3] != 0 {
			t.Errorf("the row of a transaction that was reported as failed is there")
		}
		s.ends(nothingIsLost, oneEpochMore, operationsEnd)
	})
	t.Run("because a failover was faster", func(t *testing.T) {
		primary := f.awaitWhole(t, 2*patience)
		s := enact(t, f, usual(f.way(f.elsewhere(primary))))
		f.orders(t, f.elsewhere(s.former), "switch", "-i", fmtID(s.others()[1]), "--at", "+12s", "--yes")
		s.happens(func() { s.former.Kill() })
		s.awaitSuccessor()
		said, err := f.elsewhere(s.former).ctl(t.Context(), "show_task")
		if err != nil || !strings.Contains(said, "overtaken: epoch") {
			t.Errorf("the switchover of another epoch: %v\n%s", err, said)
		}
		t.Log(said)
		f.awaitWhole(t, 3*patience)
		s.ends(oneEpochMore, operationsEnd)
	})
	t.Run("because the candidate has too low settings", func(t *testing.T) {
		slow(t)
		primary := f.awaitWhole(t, 2*patience)
		f.orders(t, f.members[0], "froze")
		primary.must("raise max_connections of", `psql -XAtqc "ALTER SYSTEM SET max_connections = 150" -h /run/postgresql && pg_ctl -D "$0" -w -s -l `+PGLog+` restart`)
		f.orders(t, f.members[0], "unfroze")
		f.members[0].AwaitReady()
		s := enact(t, f, usual(f.way(f.members[0])))
		awaitFor(t, patience, "a refusal that names the setting", func(ctx context.Context) bool {
			// What is asked for later is judged at once, as far as it can be.
			bounded, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			_, err := f.members[0].ctl(bounded, "switch", "-i", fmtID(s.others()[0]), "--at", "+1h", "--yes")
			if err != nil && strings.Contains(err.Error(), "max_connections") {
				t.Log(err)
				return true
			}
			return false
		})
		if said, err := f.members[0].ctl(t.Context(), "switch", "--cancel"); err != nil { // one may have been planned before the refusal
			t.Logf("%v: %s", err, said)
		}
		primary.must("lower max_connections of", `psql -XAtqc "ALTER SYSTEM RESET max_connections" -h /run/postgresql`)
		s.ends(epochUnchanged, nothingIsLost, operationsEnd)
	})
}
