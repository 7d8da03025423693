package e2e

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Six rows, of which one of each kind of lie.
func TestAReportTellsLiesApart(t *testing.T) {
	event := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(ms int) time.Time { return event.Add(time.Duration(ms) * time.Millisecond) }
	w := newWorkload(nil, Load{})
	for _, a := range []attempt{
		{ID: 1, Server: "a", Began: at(-20), Done: at(-10)},
		{ID: 2, Server: "a", Began: at(-10), Done: at(5)},
		{ID: 3, Began: at(5), Done: at(900), Err: &pgconn.PgError{Code: "08007"}},
		{ID: 4, Began: at(5), Done: at(901), Err: &pgconn.PgError{Code: "40001"}},
		{ID: 5, Began: at(5), Done: at(902), Err: errors.New("broken pipe")},
		{Began: at(902), Done: at(903), Err: &pgconn.PgError{Code: "57P03"}},
		{ID: 6, Server: "b", Began: at(910), Done: at(1005)},
		{ID: 7, Server: "b", Began: at(1010), Done: at(1020)},
		{ID: 8, Server: "a", Began: at(1010), Done: at(1030)},
	} {
		w.ledger.note(a)
	}
	r := w.report(event, map[int64]int{1: 1, 3: 1, 4: 1, 6: 1, 7: 2, 8: 1})
	if r.Acknowledged != 5 || r.Unknown != 2 || r.Refused != 1 || r.Unconnected != 1 {
		t.Errorf("counted %+v", r)
	}
	if !slices.Equal(r.Lost, []int64{2}) || !slices.Equal(r.Ghosts, []int64{4}) || !slices.Equal(r.Twice, []int64{7}) {
		t.Errorf("lost %v, refused and there %v, twice %v", r.Lost, r.Ghosts, r.Twice)
	}
	if r.Outage != time.Second || r.SinceEvent != 1005*time.Millisecond {
		t.Errorf("an outage of %s, which ended %s after the event", r.Outage, r.SinceEvent)
	}
	x := &trace{fleet: &Fleet{}, run: &trial{Workload: w, watch: &observer{}}, report: r, event: event}
	for promise, kept := range map[*invariant]bool{&onePrimaryAnswers: false, &answersAreTrue: false, &nothingIsLost: false, &epochsRise: true, &epochUnchanged: true} {
		if err := promise.Check(x); (err == nil) != kept {
			t.Errorf("%s: %v", promise.Name, err)
		}
	}
}
