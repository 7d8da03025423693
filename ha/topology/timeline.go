package topology

import (
	"bufio"
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// Timeline numbers one branch of the write-ahead log; every promotion begins a new one.
type Timeline uint32

// ParseTimeline reads the eight hexadecimal digits with which a WAL file's name begins.
func ParseTimeline(hex string) (Timeline, error) {
	n, err := strconv.ParseUint(hex, 16, 32)
	if err != nil || len(hex) != 8 {
		return 0, fmt.Errorf("parse timeline %q: want eight hexadecimal digits", hex)
	}
	return Timeline(n), nil
}

func (t Timeline) String() string { return strconv.FormatUint(uint64(t), 10) }

// HistoryFile is the name of the file in pg_wal that says where t branched off. Timeline 1 has none.
func (t Timeline) HistoryFile() string { return fmt.Sprintf("%08X.history", uint32(t)) }

// Fork says that a timeline was left at End for the next one.
type Fork struct {
	Timeline Timeline
	End      LSN
}

// History is a timeline with the branch points that lead to it, oldest first. The zero History is
// "not known"; timeline 1 is known and has no forks.
type History struct {
	Timeline Timeline
	Forks    []Fork
}

// maxHistory bounds what ParseHistory takes, in bytes: some 20,000 promotions.
const maxHistory = 1 << 20

// ParseHistory reads the content of a .history file of timeline t (PostgreSQL,
// src/backend/access/transam/timeline.c): per line the parent's number, the position where it was
// left, and a reason; blank lines and lines that begin with # do not count.
func ParseHistory(t Timeline, content []byte) (History, error) {
	h := History{Timeline: t}
	if len(content) > maxHistory {
		return History{}, fmt.Errorf("parse history of timeline %d: %d bytes is more than a history has", t, len(content))
	}
	lines := bufio.NewScanner(bytes.NewReader(content))
	lines.Buffer(nil, maxHistory+1)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		fork, err := parseFork(line)
		if err != nil {
			return History{}, fmt.Errorf("parse history of timeline %d: %w", t, err)
		}
		if n := len(h.Forks); n > 0 && (h.Forks[n-1].Timeline >= fork.Timeline || h.Forks[n-1].End > fork.End) {
			return History{}, fmt.Errorf("parse history of timeline %d: line %q is out of order", t, line)
		}
		h.Forks = append(h.Forks, fork)
	}
	if err := lines.Err(); err != nil {
		return History{}, fmt.Errorf("parse history of timeline %d: %w", t, err)
	}
	if n := len(h.Forks); n > 0 && h.Forks[n-1].Timeline >= t {
		return History{}, fmt.Errorf("parse history of timeline %d: it names timeline %d as a parent", t, h.Forks[n-1].Timeline)
	}
	return h, nil
}

func parseFork(line string) (Fork, error) {
	fields := strings.Fields(line)
	if len(fields) < 2 {
		return Fork{}, fmt.Errorf("line %q: want a timeline and a position", line)
	}
	t, err := strconv.ParseUint(fields[0], 10, 32)
	if err != nil || t == 0 {
		return Fork{}, fmt.Errorf("line %q: %q is no timeline", line, fields[0])
	}
	end, err := ParseLSN(fields[1])
	if err != nil {
		return Fork{}, fmt.Errorf("line %q: %w", line, err)
	}
	return Fork{Timeline: Timeline(t), End: end}, nil
}

// Known says whether the way to the timeline is known: timeline 1, or a history that was read.
func (h History) Known() bool { return h.Timeline == 1 || h.Timeline > 1 && len(h.Forks) > 0 }

// Contains says whether a server that has the log of timeline t up to at is on this history: it is
// on the newest timeline, or on an older one and not past the point where that one was left.
func (h History) Contains(t Timeline, at LSN) bool {
	if t == h.Timeline {
		return true
	}
	for _, f := range h.Forks {
		if f.Timeline == t {
			return at <= f.End
		}
	}
	return false
}

// IsPrefixOf says whether a server with history h that has the log up to at can become, by
// replaying more, a server with history of: all branch points of h are of's, in the same places,
// and at does not lie past the point where of left h's timeline. Equal numbers do not suffice: two
// promotions on both sides of a partition make the same number twice.
func (h History) IsPrefixOf(of History, at LSN) bool {
	if len(h.Forks) > len(of.Forks) {
		return false
	}
	for i, f := range h.Forks {
		if of.Forks[i] != f {
			return false
		}
	}
	if len(h.Forks) == len(of.Forks) {
		return h.Timeline == of.Timeline
	}
	next := of.Forks[len(h.Forks)]
	return next.Timeline == h.Timeline && at <= next.End
}

// Descends says whether h is a later branch of the history of. Where it left of is LeftAt: what of
// wrote after that is not in h.
func (h History) Descends(of History) bool {
	if h.Timeline <= of.Timeline || len(h.Forks) <= len(of.Forks) {
		return false
	}
	for i, f := range of.Forks {
		if h.Forks[i] != f {
			return false
		}
	}
	return h.Forks[len(of.Forks)].Timeline == of.Timeline
}

// Equal says whether both are the same timeline reached in the same way.
func (h History) Equal(g History) bool {
	if h.Timeline != g.Timeline || len(h.Forks) != len(g.Forks) {
		return false
	}
	for i := range h.Forks {
		if h.Forks[i] != g.Forks[i] {
			return false
		}
	}
	return true
}

// LeftAt is where h left timeline t for the next one; false when it never was on t or still is.
func (h History) LeftAt(t Timeline) (LSN, bool) {
	for _, f := range h.Forks {
		if f.Timeline == t {
			return f.End, true
		}
	}
	return 0, false
}
