package conf

import (
	"fmt"
	"sort"
	"strings"
)

// Problem is one thing that is wrong with a configuration, with the place where it is written.
type Problem struct {
	// File is the path as it was given, or "environment".
	File string
	// Line counts from 1; 0 when the problem has no line (a missing key, the environment).
	Line int
	Text string
}

func (p Problem) String() string {
	if p.Line == 0 {
		return p.File + ": " + p.Text
	}
	return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Text)
}

// Problems is every problem of one configuration, in the order of the file. It is an error, so
// that Load can return it; callers that want the lines take it out with errors.As.
type Problems []Problem

func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

func (ps Problems) sorted() Problems {
	sort.SliceStable(ps, func(i, j int) bool {
		if ps[i].File != ps[j].File {
			return ps[i].File < ps[j].File
		}
		return ps[i].Line < ps[j].Line
	})
	return ps
}
