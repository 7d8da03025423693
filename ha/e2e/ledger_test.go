package e2e

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// attempt is one statement, or one connection that was not to be had (ID 0).
type attempt struct {
	ID          int64
	Server      string // the address of the server that acknowledged it
	Began, Done time.Time
	Err         error // nil: acknowledged
}

// ledger is what the clients were told.
type ledger struct {
	mu       sync.Mutex
	attempts []attempt // in the order of their ends
	reads    []attempt
}

func (l *ledger) note(a attempt) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.attempts = append(l.attempts, a)
}

func (l *ledger) noteRead(a attempt) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reads = append(l.reads, a)
}

func (l *ledger) entries() (writes, reads []attempt) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.attempts), slices.Clone(l.reads)
}

// acknowledged counts the rows that were acknowledged after a time.
func (l *ledger) acknowledged(after time.Time) int {
	writes, _ := l.entries()
	n := 0
	for _, a := range writes {
		if a.ID != 0 && a.Err == nil && a.Done.After(after) {
			n++
		}
	}
	return n
}

// What a client knows of a statement that failed.
type knowledge int

const (
	unknown knowledge = iota // it may have been done
	refused                  // it was certainly not done
)

// judge says what an error lets the client conclude, as a careful application does: only a server's
// word that is no word about the connection's end is certain.
func judge(err error) (knowledge, string) {
	var said *pgconn.PgError
	if errors.As(err, &said) {
		switch {
		case strings.HasPrefix(said.Code, "08"), said.Code == "57P01", said.Code == "57P02":
			return unknown, said.Code
		}
		return refused, said.Code
	}
	// pgx says "conn closed", and that it is safe to try again, of a statement that lost its connection, too.
	if pgconn.SafeToRetry(err) && !errors.Is(err, pgconn.ErrConnClosed) {
		return refused, "not sent"
	}
	return unknown, "connection lost"
}

// Report is what clients have seen of an event.
type Report struct {
	Event time.Time // when the fault was made

	Acknowledged, Refused, Unknown, Unconnected int
	// Codes counts errors by SQLSTATE, or by what happened to the connection.
	Codes map[string]int

	// Outage is the longest time around or after the event without an acknowledged write of any client;
	// SinceEvent is from the event to its end. Slowest is the longest that one statement took.
	Outage, SinceEvent, Slowest, Median time.Duration
	Began, Ended                        time.Time // of the outage

	IdleLost, BusyLost, PinnedLost int // connections

	// Rows, by their numbers: acknowledged and not there; there more than once; there although the
	// client was told that they are not.
	Lost, Twice, Ghosts []int64
	Missed              error // an acknowledged write that its own client did not see
}

// report compares what the clients were told with the rows that there are. It is called when the
// workload has ended.
func (w *Workload) report(event time.Time, rows map[int64]int) Report {
	r := Report{Event: event, Codes: map[string]int{},
		IdleLost: int(w.lost.idle.Load()), BusyLost: int(w.lost.busy.Load()), PinnedLost: int(w.lost.pinned.Load())}
	writes, _ := w.ledger.entries()
	var took []time.Duration
	var acks []time.Time
	for _, a := range writes {
		r.count(a, rows[a.ID])
		if a.ID != 0 {
			took = append(took, a.Done.Sub(a.Began))
		}
		if a.ID != 0 && a.Err == nil {
			acks = append(acks, a.Done)
		}
	}
	if slices.Sort(took); len(took) > 0 {
		r.Median, r.Slowest = took[len(took)/2], took[len(took)-1]
	}
	r.measure(acks)
	return r
}

// count adds an attempt whose row is there so many times.
func (r *Report) count(a attempt, times int) {
	switch {
	case a.Err == nil:
		r.Acknowledged++
		if times == 0 {
			r.Lost = append(r.Lost, a.ID)
		}
	default:
		known, code := judge(a.Err)
		r.Codes[code]++
		switch {
		case a.ID == 0:
			r.Unconnected++
		case known == unknown:
			r.Unknown++
		default:
			r.Refused++
			if times > 0 {
				r.Ghosts = append(r.Ghosts, a.ID)
			}
		}
	}
	if a.ID != 0 && times > 1 {
		r.Twice = append(r.Twice, a.ID)
	}
}

// measure finds the longest silence that ended after the event.
func (r *Report) measure(acks []time.Time) {
	slices.SortFunc(acks, time.Time.Compare)
	for i := 1; i < len(acks); i++ {
		if gap := acks[i].Sub(acks[i-1]); acks[i].After(r.Event) && gap > r.Outage {
			r.Outage, r.Began, r.Ended = gap, acks[i-1], acks[i]
			r.SinceEvent = acks[i].Sub(r.Event)
		}
	}
}

func (r Report) String() string {
	var codes []string
	for code, n := range r.Codes {
		codes = append(codes, fmt.Sprintf("%s × %d", code, n))
	}
	slices.SortFunc(codes, cmp.Compare)
	return fmt.Sprintf("writes stood still for %s (%s after the event); %d acknowledged, %d refused, %d unknown, %d times no connection; "+
		"lost connections: %d idle, %d busy, %d pinned; statements took %s, at most %s; errors: %s; rows lost %d, twice %d, refused but there %d",
		r.Outage.Round(time.Millisecond), r.SinceEvent.Round(time.Millisecond), r.Acknowledged, r.Refused, r.Unknown, r.Unconnected,
		r.IdleLost, r.BusyLost, r.PinnedLost, r.Median.Round(100*time.Microsecond), r.Slowest.Round(time.Millisecond),
		strings.Join(codes, ", "), len(r.Lost), len(r.Twice), len(r.Ghosts))
}

// rows reads the workload's table: how many times each row is there.
func rows(t *testing.T, n *Node) map[int64]int {
	t.Helper()
	text, err := n.Psql(t.Context(), "SELECT id, count(*) FROM workload GROUP BY id")
	if err != nil {
		t.Fatalf("read the rows of %s: %v", n.Name, err)
	}
	found := map[int64]int{}
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		id, times, _ := strings.Cut(lines.Text(), "|")
		number, err1 := strconv.ParseInt(id, 10, 64)
		count, err2 := strconv.Atoi(times)
		if err1 != nil || err2 != nil {
			t.Fatalf("read a row of %s: %q", n.Name, lines.Text())
		}
		found[number] = count
	}
	return found
}
