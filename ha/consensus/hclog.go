package consensus

import (
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// raftLogger writes raft's messages to zap. What raft calls an error is mostly a member that does
// not answer, many times a second: it becomes a warning, and each message is sampled.
type raftLogger struct {
	hclog.Logger // for what raft does not use
	log          *zap.Logger
}

func newRaftLogger(log *zap.Logger) hclog.Logger {
	return &raftLogger{hclog.NewNullLogger(), log.Named("raft").WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		return zapcore.NewSamplerWithOptions(core, 10*time.Second, 3, 0)
	}))}
}

// Log implements hclog.Logger.
func (r *raftLogger) Log(level hclog.Level, msg string, args ...any) {
	switch {
	case level >= hclog.Warn:
		r.log.Warn(msg, fields(args)...)
	case level == hclog.Info:
		r.log.Info(msg, fields(args)...)
	default:
		if r.log.Core().Enabled(zap.DebugLevel) {
			r.log.Debug(msg, fields(args)...)
		}
	}
}

// fields are alternating keys and values as zap wants them.
func fields(args []any) []zap.Field {
	list := make([]zap.Field, 0, len(args)/2+1)
	for len(args) > 1 {
		key, ok := args[0].(string)
		if !ok {
			key = fmt.Sprint(args[0])
		}
		value := args[1]
		if f, ok := value.(hclog.Format); ok && len(f) > 0 {
			value = fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
		}
		list = append(list, zap.Any(key, value))
		args = args[2:]
	}
	if len(args) == 1 {
		list = append(list, zap.Any("more", args[0]))
	}
	return list
}

// Trace implements hclog.Logger.
func (r *raftLogger) Trace(string, ...any) {}

// Debug implements hclog.Logger.
func (r *raftLogger) Debug(msg string, args ...any) { r.Log(hclog.Debug, msg, args...) }

// Info implements hclog.Logger.
func (r *raftLogger) Info(msg string, args ...any) { r.Log(hclog.Info, msg, args...) }

// Warn implements hclog.Logger.
func (r *raftLogger) Warn(msg string, args ...any) { r.Log(hclog.Warn, msg, args...) }

// Error implements hclog.Logger.
func (r *raftLogger) Error(msg string, args ...any) { r.Log(hclog.Error, msg, args...) }

// With implements hclog.Logger.
func (r *raftLogger) With(args ...any) hclog.Logger {
	return &raftLogger{r.Logger, r.log.With(fields(args)...)}
}

// Named implements hclog.Logger.
func (r *raftLogger) Named(name string) hclog.Logger {
	return &raftLogger{r.Logger, r.log.Named(name)}
}
