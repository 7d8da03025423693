package e2e

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Who is promoted: the one with the most log; of equals the one that is preferred; the next one when that
// fails.
func TestTheStandbyWithTheMostLogIsPromoted(t *testing.T) {
	_, f := three(t, Layout{
		Operation: map[string]string{"on_crash": `"failover"`, "anti_flap": `"0s"`},
		Keys:      map[string]map[string]string{"m3": {"tags": "{ priority = 10 }"}},
	})
	preferred := f.nodes[2]
	t.Run("though another one is preferred", func(t *testing.T) {
		primary := f.awaitWhole(t, 3*patience)
		s := enact(t, f, usual(f.way(f.memberOn(primary.Host))))
		s.fallsBehind(preferred)
		s.happens(s.former.Kill)
		if now := s.awaitSuccessor(); now == preferred {
			t.Errorf("%s was promoted, which had received less than the other standby", now.Name)
		}
		f.awaitWhole(t, 3*patience)
		s.ends(mostLogWins, oneEpochMore, operationsEnd)
	})
	t.Run("and the preferred one of equals", func(t *testing.T) {
		slow(t)
		f.awaitWhole(t, 3*patience)
		s := enact(t, f, Load{Way: f.way(f.members[0]), Idle: 4})
		s.happens(s.former.Kill)
		awaitFor(t, time.Minute, "another primary", func(context.Context) bool {
			_, ok := s.run.watch.promoted(s.former, s.event)
			return ok
		})
		f.awaitWhole(t, 3*patience)
		s.ends(mostLogWins, oneEpochMore, operationsEnd)
	})
	t.Run("or the next one when its promotion fails", func(t *testing.T) {
		s, first, next := f.candidates(t)
		// Without a place for its history a server cannot begin a timeline: it ends.
		first.must("spoil", `chmod 555 "$0/pg_wal"`)
		s.happens(s.former.Kill)
		now := s.awaitSuccessor()
		first.must("restore", `for dir in "$0"*; do chmod 700 "$dir/pg_wal"; done`) // it may be in repair already
		if now != next {
			t.Errorf("%s was promoted, not %s", now.Name, next.Name)
		}
		f.awaitWhole(t, 3*patience)
		s.ends(mostLogWins, operationsEnd)
	})
	t.Run("or the next one when its host is lost after it was cut off", func(t *testing.T) {
		slow(t)
		s, first, next := f.candidates(t)
		s.happens(s.former.Kill)
		s.awaitSaid(patience, `"action done"`, `"verb":"recruit","node":`+strconv.Itoa(first.ID())+",")
		first.PowerOff()
		now := s.awaitSuccessor()
		if now != next {
			t.Errorf("%s was promoted, not %s", now.Name, next.Name)
		}
		first.PowerOn()
		f.memberOn(first.Host).Start()
		f.awaitWhole(t, 3*patience)
		s.ends(mostLogWins, operationsEnd)
	})
}

// candidates has clients work with a fleet whose leader is on the primary's host, and keeps one standby
// behind the other: first has more log than next.
func (f *Fleet) candidates(t *testing.T) (s *scene, first, next *Node) {
	t.Helper()
	primary := f.awaitWhole(t, 3*patience)
	f.awaitLeader(t, f.memberOn(primary.Host))
	s = enact(t, f, usual(f.way(f.memberOn(primary.Host))))
	first, next = s.others()[0], s.others()[1]
	s.fallsBehind(next)
	return s, first, next
}

// fallsBehind has a standby receive nothing any more, and waits until it lacks rows that were
// acknowledged. The members would lead it back after a while.
func (s *scene) fallsBehind(n *Node) {
	s.t.Helper()
	n.must("unplug", `psql -XAtqc "ALTER SYSTEM SET primary_conninfo = ''" -h /run/postgresql && pg_ctl -D "$0" -s reload`)
	var since time.Time
	await(s.t, n.Name+" to be behind", func(ctx context.Context) bool {
		got, err := n.Psql(ctx, "SELECT count(*) FROM pg_stat_wal_receiver")
		if err == nil && got == "0" && since.IsZero() {
			since = time.Now()
		}
		return !since.IsZero() && s.run.ledger.acknowledged(since) > 20
	})
}

var ranked = regexp.MustCompile(`node (\d+) received ([0-9A-F]+)/([0-9A-F]+)`)

// Of those that were cut off, the promoted one had received most. The decision says what each had.
var mostLogWins = invariant{"the promoted node had the most log of those at hand", func(x *trace) error {
	seen := 0
	for _, l := range x.fleet.log(x.event) {
		if l.Msg != "decision" || !strings.HasPrefix(l.Why, "promote node ") {
			continue
		}
		var promoted int
		var best, own uint64
		if _, err := fmt.Sscanf(l.Why, "promote node %d at", &promoted); err != nil {
			return fmt.Errorf("%q: %w", l.Why, err)
		}
		for _, m := range ranked.FindAllStringSubmatch(l.Why, -1) {
			high, _ := strconv.ParseUint(m[2], 16, 32) // the expression lets nothing else pass
			low, _ := strconv.ParseUint(m[3], 16, 32)
			at := high<<32 | low
			best = max(best, at)
			if m[1] == strconv.Itoa(promoted) {
				own = at
			}
		}
		if own == 0 || own < best {
			return fmt.Errorf("%s", l.Why)
		}
		seen++
	}
	if seen == 0 {
		return fmt.Errorf("nobody has said whom it promotes, and why")
	}
	return nil
}}
