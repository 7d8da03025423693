package remote

import (
	"bytes"
	"strings"
	"sync"
)

// kept is how much of each stream is kept, in bytes.
const kept = 64 << 10

// maxLine bounds a line that is given to a progress function, in bytes.
const maxLine = 4 << 10

// Output is what a command wrote.
type Output struct {
	// Stdout is the beginning, Stderr the end of the stream, at most 64 KB each.
	Stdout, Stderr []byte
	// Dropped is how many bytes of the two were not kept.
	Dropped int64
}

// sink takes both streams of one command. The streams are read by two goroutines.
type sink struct {
	// mark is the line that precedes the command's own standard output: what a login shell says
	// before it is cut off.
	mark string

	mu       sync.Mutex
	closed   bool
	sent     bool // the command line may have left
	began    bool // mark was seen
	out, err []byte
	dropped  int64
	progress func(line string)
	lines    [2]lineSplitter
}

type stdout struct{ *sink }
type stderr struct{ *sink }

func (s stdout) Write(p []byte) (int, error) { s.takeOut(p); return len(p), nil }
func (s stderr) Write(p []byte) (int, error) { s.takeErr(p); return len(p), nil }

func (s *sink) takeOut(p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.began {
		s.out = append(s.out, p...)
		at := bytes.Index(s.out, []byte(s.mark+"\n"))
		if at < 0 {
			s.dropFront(&s.out)
			return
		}
		p = bytes.Clone(s.out[at+len(s.mark)+1:])
		s.began, s.out = true, s.out[:0]
	}
	room := min(kept-len(s.out), len(p))
	s.out = append(s.out, p[:room]...)
	s.dropped += int64(len(p) - room)
	s.report(0, p)
}

func (s *sink) takeErr(p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = append(s.err, p...)
	s.dropFront(&s.err)
	s.report(1, p)
}

// dropFront keeps the end. It copies only when twice the bound is reached.
func (s *sink) dropFront(b *[]byte) {
	if over := len(*b) - kept; over > kept {
		s.dropped += int64(over)
		*b = append((*b)[:0], (*b)[over:]...)
	}
}

func (s *sink) report(stream int, p []byte) {
	if s.progress == nil || s.closed {
		return
	}
	s.lines[stream].split(p, func(line string) {
		if !strings.HasPrefix(line, s.mark) {
			s.progress(line)
		}
	})
}

// flush reports the lines that have no end, when the command has one.
func (s *sink) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.report(0, []byte("\n"))
	s.report(1, []byte("\n"))
}

// close ends the calls of progress; what still arrives is not the caller's any more.
func (s *sink) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}

// result is the output so far, with the wrapper's own last line apart (empty when there is none).
func (s *sink) result() (o Output, account string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o = Output{Stdout: bytes.Clone(s.out), Stderr: bytes.Clone(s.err), Dropped: s.dropped}
	if !s.began {
		o.Stdout = nil
	}
	if at := bytes.LastIndex(o.Stderr, []byte("\n"+s.mark+" ")); at >= 0 {
		account = strings.TrimSpace(string(o.Stderr[at+len(s.mark)+2:]))
		o.Stderr = o.Stderr[:at]
	}
	if over := len(o.Stderr) - kept; over > 0 {
		o.Stderr = o.Stderr[over:]
		o.Dropped += int64(over)
	}
	return o, account
}

// was reads one of the flags.
func (s *sink) was(flag *bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return *flag
}

// said is what a login shell wrote instead of running the command.
func (s *sink) said() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := strings.TrimSpace(string(s.out) + " " + string(s.err))
	return text[:min(len(text), 200)]
}

// lineSplitter cuts a stream into lines. A carriage return ends one, too: progress bars write them.
type lineSplitter struct{ rest []byte }

func (l *lineSplitter) split(p []byte, each func(string)) {
	for len(p) > 0 {
		at := bytes.IndexAny(p, "\r\n")
		end := at >= 0
		if !end {
			at = len(p)
		}
		room := min(maxLine-len(l.rest), at)
		l.rest = append(l.rest, p[:room]...)
		if !end {
			return
		}
		if len(l.rest) > 0 {
			each(string(l.rest))
		}
		l.rest = l.rest[:0]
		p = p[at+1:]
	}
}
