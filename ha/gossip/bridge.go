package gossip

import (
	"bytes"
	"log"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/time/rate"
)

// bridge gives memberlist the *log.Logger that it wants. Its lines begin with a level; what it calls
// an error is a member that does not answer or a packet that cannot be decrypted, which is not this
// program's error but worth a look. A stranger can cause a line per packet, so lines are rationed.
func bridge(logger *zap.Logger) *log.Logger {
	return log.New(&lines{log: logger, ration: rate.NewLimiter(rate.Every(time.Second), 20)}, "", 0)
}

type lines struct {
	log    *zap.Logger
	ration *rate.Limiter
}

// levels are memberlist's, and what they are here.
var levels = map[string]zapcore.Level{
	"[DEBUG]": zapcore.DebugLevel,
	"[INFO]":  zapcore.DebugLevel, // the callbacks tell the same
	"[WARN]":  zapcore.WarnLevel,
	"[ERR]":   zapcore.WarnLevel,
	"[ERROR]": zapcore.WarnLevel,
}

// Write takes one line, as log.Logger calls it.
func (l *lines) Write(line []byte) (int, error) {
	level := zapcore.WarnLevel
	text := bytes.TrimSpace(line)
	if mark, rest, ok := bytes.Cut(text, []byte(" ")); ok {
		if known, ok := levels[string(mark)]; ok {
			level, text = known, rest
		}
	}
	text = bytes.TrimPrefix(text, []byte("memberlist: "))
	if entry := l.log.Check(level, "memberlist"); entry != nil && l.ration.Allow() {
		entry.Write(zap.String("text", string(text)))
	}
	return len(line), nil
}
