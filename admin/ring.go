package admin

import (
	"context"
	"strings"
	"sync"

	"go.uber.org/zap/zapcore"
)

// Ring keeps the last lines of a log in memory, for `cstproxy ctl log`. It is a zapcore.Core, to be
// joined with the one that writes them elsewhere by zapcore.NewTee.
type Ring struct {
	zapcore.LevelEnabler
	encoder zapcore.Encoder // never changed; With clones it
	lines   *ringLines
}

// ringLines is what a Ring and those made of it by With share.
type ringLines struct {
	mu    sync.Mutex
	kept  []string // a ring once it is full
	next  uint64   // number of the next line, from 0
	fresh chan struct{}
}

// LogLines are lines of a member's log.
type LogLines struct {
	// Next is the from of the next question, Missed how many lines were forgotten before these.
	Next   uint64   `json:"next"`
	Missed uint64   `json:"missed,omitempty"`
	Lines  []string `json:"lines"`
}

// NewRing keeps the last size lines of the level and above, as encoder writes them.
func NewRing(size int, level zapcore.LevelEnabler, encoder zapcore.Encoder) *Ring {
	return &Ring{LevelEnabler: level, encoder: encoder, lines: &ringLines{kept: make([]string, max(size, 1)), fresh: make(chan struct{})}}
}

// With is zapcore.Core's.
func (r *Ring) With(fields []zapcore.Field) zapcore.Core {
	with := &Ring{LevelEnabler: r.LevelEnabler, encoder: r.encoder.Clone(), lines: r.lines}
	for i := range fields {
		fields[i].AddTo(with.encoder)
	}
	return with
}

// Check is zapcore.Core's.
func (r *Ring) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if r.Enabled(e.Level) {
		return ce.AddCore(e, r)
	}
	return ce
}

// Write is zapcore.Core's.
func (r *Ring) Write(e zapcore.Entry, fields []zapcore.Field) error {
	text, err := r.encoder.EncodeEntry(e, fields)
	if err != nil {
		return err
	}
	defer text.Free()
	r.lines.add(strings.TrimRight(text.String(), "\n"))
	return nil
}

// Sync is zapcore.Core's.
func (r *Ring) Sync() error { return nil }

func (l *ringLines) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kept[l.next%uint64(len(l.kept))] = line
	l.next++
	close(l.fresh)
	l.fresh = make(chan struct{})
}

// Read returns the lines from number from on. From 0 on it returns what there is; later it waits for
// new lines until ctx ends.
func (r *Ring) Read(ctx context.Context, from uint64) LogLines {
	for {
		got, fresh := r.lines.since(from)
		if len(got.Lines) > 0 || from == 0 {
			return got
		}
		select {
		case <-fresh:
		case <-ctx.Done():
			return got
		}
	}
}

func (l *ringLines) since(from uint64) (LogLines, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if from > l.next {
		from = 0 // a number of another life
	}
	oldest := l.next - min(l.next, uint64(len(l.kept)))
	got := LogLines{Next: l.next, Lines: []string{}}
	if from < oldest {
		got.Missed = oldest - from
	}
	for n := max(from, oldest); n < l.next; n++ {
		got.Lines = append(got.Lines, l.kept[n%uint64(len(l.kept))])
	}
	return got, l.fresh
}
